"""The auditor: reads a log that it does not trust, remembers what it saw, and keeps what proves a lie."""

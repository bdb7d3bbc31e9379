"""EPCIS 2.0 events: what they are, how they are read, checked, hashed, asked for and written. Pure."""

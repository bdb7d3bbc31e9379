"""The ``idtrace`` command line."""

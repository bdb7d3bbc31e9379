"""The ``idtrace`` command line."""

from __future__ import annotations


def main() -> None:
    """Entry point of the installed program."""
    import io
    import sys

    from idtrace.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character (an old locale) gets its escape, never an exception.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()

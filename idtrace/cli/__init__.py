"""The ``idtrace`` command line."""

from __future__ import annotations


def main() -> None:
    """Entry point of the installed program."""
    from idtrace.cli.app import app

    app()

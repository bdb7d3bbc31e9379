"""``python -m idtrace``: the command line, also where no script is installed."""

from idtrace.cli import main

main()

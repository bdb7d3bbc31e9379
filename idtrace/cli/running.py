"""What every command that runs a server does: read its configuration, say that it is ready, end when it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tomllib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from idtrace.cli.files import read_file
from idtrace.errors import InputError, Reason
from idtrace.serving.logs import configure_logs

Start = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file's tables.

    Raises:
        InputError: FIELD_MALFORMED (no such file, not TOML); the field is the file.
    """
    try:
        return tomllib.loads(read_file(path).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(Reason.FIELD_MALFORMED, f"not TOML: {error}", field=str(path)) from None


def log_from(level: str) -> None:
    """Write log lines of this level and above.

    Raises:
        InputError: FIELD_MALFORMED where there is no such level.
    """
    names = logging.getLevelNamesMapping()
    if level not in names:
        raise InputError(Reason.FIELD_MALFORMED, f"log_level is one of {', '.join(names)}", field="log_level")
    configure_logs(level)


def say_ready(address: str) -> None:
    """Tell whoever started us; they wait for this line."""
    sys.stdout.write(f"ready {address}\n")
    sys.stdout.flush()


def run_until_told(start: Start) -> None:
    """Run a server on a loop of its own; it is told to stop by SIGTERM or Ctrl-C."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_told(start))


async def _until_told(start: Start) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await start(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where it is installed (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

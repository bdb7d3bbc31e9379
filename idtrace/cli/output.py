"""What a person or a program reads: rich text, or with ``--json`` one JSON document on stdout and nothing else there.

Text from records, labels and nodes is written by strangers: it passes :func:`plain` before it reaches a terminal, so
that it can neither carry an escape sequence nor swap the order in which it reads.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from idtrace.cli.exits import ExitCode, Failure, local_code
from idtrace.cli.hints import hint_for
from idtrace.errors import IdtraceError

# A pipe has no width; tables for a log file or `less` are as wide as a usual terminal window.
PIPE_COLUMNS: Final = 120
# Longer values are cut on the screen, never in --json.
SHOWN_CHARS_MAX: Final = 400

_TITLES: Final = {
    ExitCode.USAGE: "malformed input",
    ExitCode.BOGUS: "verification failed",
    ExitCode.UNREACHABLE: "no answer",
    ExitCode.REFUSED: "refused",
}


class Output:
    """The two streams of one command. ``as_json`` is set by ``--json`` before the command begins."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.screen = _console(sys.stdout.isatty(), stderr=False)
        self.notes = _console(sys.stderr.isatty(), stderr=True)

    def show(self, *parts: RenderableType) -> None:
        """Print for a person; nothing with ``--json``."""
        if not self.as_json:
            for part in parts:
                self.screen.print(part)

    def document(self, body: Mapping[str, Any] | Sequence[Any]) -> None:
        """Print the one JSON document of a command; nothing without ``--json``."""
        if self.as_json:
            self._write(json.dumps(body, ensure_ascii=False, indent=2))

    def line(self, body: Mapping[str, Any]) -> None:
        """Print one line of JSON lines; nothing without ``--json``."""
        if self.as_json:
            self._write(json.dumps(body, ensure_ascii=False))

    def note(self, text: str, *, to_copy: bool = False) -> None:
        """A remark on stderr; nothing with ``--json``. What a reader may copy has no line breaks of ours."""
        if not self.as_json:
            self.notes.print(Text(text, style="dim"), soft_wrap=to_copy)

    def failure(self, failure: Failure) -> None:
        """Explain why the command ends: on stdout as JSON, or on stderr for a person."""
        error = failure.error
        hint = failure.hint or hint_for(error.reason, error.field)
        if self.as_json:
            body = {"reason": str(error.reason), "field": error.field, "detail": error.detail, "hint": hint}
            self._write(json.dumps({"error": {**body, "exit_code": int(failure.code)}}, ensure_ascii=False, indent=2))
            return
        title = failure.title or _TITLES.get(failure.code, "failed")
        self.notes.print(Text.assemble(("✗ ", "bold red"), (plain(title), "bold red")))
        rows = [("reason", str(error.reason)), ("field", plain(error.field)), ("hint", hint)]
        parts = Group(plain(error.detail), pairs([(name, value) for name, value in rows if value]))
        self.notes.print(Padding(parts, (0, 0, 0, 2)))

    def _write(self, text: str) -> None:
        # Bytes of an argument that are not UTF-8 stand in its text as lone surrogates; JSON has an escape for those.
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def failure_of(error: IdtraceError) -> Failure:
    """An error found on this machine, as the end of a command."""
    return Failure(local_code(error), error)


def pairs(rows: Sequence[tuple[str, RenderableType]]) -> Table:
    """Names in a dim column, what they mean beside them."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value) if isinstance(value, str) else value)
    return table


def listing(*columns: str) -> Table:
    """An empty table with a header and no frame."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def plain(text: str, limit: int = SHOWN_CHARS_MAX) -> str:
    """Strangers' text as it may stand on a terminal: visible characters only, others escaped, cut at ``limit``."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(char if _is_visible(char) else _escaped(char) for char in cut)


def plain_bytes(data: bytes, limit: int = SHOWN_CHARS_MAX) -> str:
    """A value's data: as text where it is visible UTF-8, else as hex."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return plain("0x" + data.hex(), limit)
    return plain(text, limit)


def _is_visible(char: str) -> bool:
    return char == " " or (unicodedata.category(char)[0] not in "CZ")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode() if not char.isascii() or ord(char) < 0x20 else f"\\x{ord(char):02x}"


def _console(is_terminal: bool, *, stderr: bool) -> Console:
    width = None if is_terminal or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)

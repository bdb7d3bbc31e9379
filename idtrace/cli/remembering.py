"""``--remember DIR``: hold every answer against the checkpoints of its log that this machine has seen before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from idtrace.auditing.fetching import LogReader
from idtrace.auditing.memory import MemoryFolder
from idtrace.auditing.remembering import Held, Remembering
from idtrace.bundle import Bundle
from idtrace.chain import Anchor
from idtrace.cli.output import Output

RememberOption = Annotated[
    Path | None,
    typer.Option(
        "--remember",
        metavar="DIR",
        help="Keep the checkpoints that answers bear, and hold later ones against them. [default: forget them]",
    ),
]
RememberedLogOption = Annotated[
    list[str] | None,
    typer.Option(
        "--log", metavar="URL", help="With --remember: where a log can be read, to compare trees of two sizes."
    ),
]


class Memories:
    """What a command remembers; one that was not asked to remember anything holds nothing against anybody."""

    def __init__(self, output: Output, remembering: Remembering | None) -> None:
        self._output = output
        self._remembering = remembering

    def convicts(self, bundle: Bundle, as_of: int) -> Held | None:
        """The proof that the log behind a verified answer has forked; None where there is none.

        Raises:
            BusyError, InputError: the folder is in use, or damaged.
        """
        held = self._remembering.hold(bundle, as_of) if self._remembering is not None else None
        if held is None:
            return None
        if held.evidence is not None:
            self._output.note(f"evidence against the log {held.origin}: {held.evidence}")
            return held
        if held.uncompared:
            self._output.note(
                f"{held.origin}: this answer's checkpoint could not be compared with {held.uncompared} seen before;"
                " they are kept. Name an address of the log with --log, or audit it with --state"
            )
        return None


@contextmanager
def remembering(
    output: Output, folder: Path | None, logs: Sequence[str] | None, anchor: Anchor, timeout_seconds: float
) -> Iterator[Memories]:
    """The memory of one command, with connections to the logs that it may read.

    Raises:
        typer.BadParameter: a log without a folder.
        InputError: an address is malformed.
    """
    if folder is None:
        if logs:
            raise typer.BadParameter("it goes with --remember", param_hint="--log")
        yield Memories(output, None)
        return
    with ExitStack() as held:
        readers = [LogReader(url, timeout_seconds=timeout_seconds) for url in logs or ()]
        for reader in readers:
            held.callback(reader.close)
        yield Memories(output, Remembering(MemoryFolder(folder), anchor, readers))

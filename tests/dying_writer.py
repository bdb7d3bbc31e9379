"""``python -m tests.dying_writer SETTINGS POINT NAME…``: registers and logs names in one batch, and dies on the way.

SETTINGS is the table ``storage`` as JSON. POINT is where it kills itself (-9): ``staged`` before the swap, ``swapped``
before the first row, ``half`` in the midst of the rows, some keys and versions written and no head, ``logged`` when the
log's head is written and no other. A process of its own, because only a process dies with everything that it has in
hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from registry.cassandra_ledger import Ledger
from registry.cassandra_rules import Row
from registry.logbook import LogWriter, Stamp
from registry.storage_cassandra import open_cassandra
from tests.core_fixtures import NOW
from tests.logged_fixtures import entry_of, log_signer
from tests.registry_fixtures import typed_record, write_of


def die(*arguments: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived SIGKILL")


def arm(point: str) -> None:
    """Put the end where it is wanted."""
    match point:
        case "staged":
            Ledger._swap = die  # type: ignore[method-assign,assignment]  # never returns
        case "swapped":
            Ledger.apply = die  # type: ignore[method-assign,assignment]  # never returns
        case "half":
            write, written = Ledger._write, [0]

            async def some(ledger: Ledger, *arguments: Any) -> None:
                await write(ledger, *arguments)
                written[0] += 1
                if written[0] == 3:
                    die()

            Ledger._write = some  # type: ignore[method-assign,assignment]  # counts, and passes on
        case "logged":
            write_row = Ledger._write

            async def but_heads(ledger: Ledger, group: list[Row], seq: int) -> None:
                if group[0].table == "head":
                    die()
                await write_row(ledger, group, seq)

            Ledger._write = but_heads  # type: ignore[method-assign,assignment]  # looks, and passes on
        case _:
            raise ValueError(point)


async def main(settings: str, point: str, *names: str) -> None:
    store = await open_cassandra(json.loads(settings), Path())
    arm(point)
    records = [(name, typed_record(name)) for name in names]
    writes = [replace(write_of(record, f"key-{name}"), entry=entry_of(record)) for name, record in records]
    await store.commit(writes, Stamp(LogWriter(log_signer()), NOW))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""``python -m tests.dying_writer SETTINGS POINT NAME…``: registers names in one batch and kills itself (-9) on the way.

SETTINGS is the table ``storage`` as JSON. POINT is where it dies: ``staged`` before the swap, ``swapped`` before the
first row, ``half`` in the midst of the rows, some keys and versions written and no head. A process of its own, because
only a process dies with everything that it has in hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from registry.cassandra_ledger import Ledger
from registry.storage_cassandra import open_cassandra
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
        case _:
            raise ValueError(point)


async def main(settings: str, point: str, *names: str) -> None:
    store = await open_cassandra(json.loads(settings), Path())
    arm(point)
    await store.commit([write_of(typed_record(name), f"key-{name}") for name in names])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A log of ours under a checker that others wrote: the whole of it is good, and one byte that is not is found."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from idtrace.entry import Entry, EntryKind
from idtrace.identifier import Prefix
from idtrace.note import NoteSigner
from idtrace.signature import Signature
from registry.log_http import LogPages
from registry.log_reading import LogReading
from registry.logbook import LogWriter, Stamp
from registry.storage_sqlite import SqliteStorage
from tests import go_tools
from tests.core_fixtures import ZONE
from tests.log_fixtures import NOW, log_signer
from tests.served_log import on_port

SIZE = 70_000
# No width of a batch is a divisor or a multiple of that of a tile; one goes across two tiles of level 1's row.
BATCHES = (1, 255, 2_000, 3, 1_999)
CHECK_SECONDS = 60.0
# What is found at once is found long before; where the checker hangs, this is what one waits.
FAULT_SECONDS = 15.0

pytestmark = pytest.mark.faults


def write_log(store: SqliteStorage, signer: NoteSigner) -> None:
    """Fill the store's log as commits do; nobody reads what the entries say."""
    stamp = Stamp(LogWriter(signer), NOW)
    signatures = (Signature("0" * 32, "ed25519", b"\1" * 64),)
    size, turn = 0, 0
    while size < SIZE:
        count = min(BATCHES[turn % len(BATCHES)], SIZE - size)
        with store._logging(stamp) as (_, draft):
            assert draft is not None
            for number in range(size, size + count):
                payload = b'{"identifier":"88.118.8/SN-%d"}' % number
                draft.add(Entry(EntryKind.RECORD, Prefix.parse(ZONE), NOW, payload, signatures))
        size, turn = size + count, turn + 1


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "registry.sqlite3"

    async def made() -> None:
        store = SqliteStorage(path)
        await store._on_thread(write_log, store, log_signer())
        await store.close()

    asyncio.run(made())
    return path


@pytest.fixture(scope="module")
def fsck() -> Path:
    return go_tools.fsck()


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[str]:
    store = SqliteStorage(path)
    try:
        async with on_port(LogPages(LogReading(store), store, has_witnesses=False).application()) as url:
            yield url
    finally:
        await store.close()


async def verdict(fsck: Path, path: Path, seconds: float) -> tuple[int, str]:
    """Exit code and last word of the checker over the log in this file."""
    async with served(path) as url:
        checker = await asyncio.create_subprocess_exec(
            *(fsck, "-url", f"{url}/", "-key", str(log_signer().key), "-timeout", f"{seconds}s"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        said, _ = await asyncio.wait_for(checker.communicate(), seconds + 30)
    assert checker.returncode is not None
    return checker.returncode, said.decode().strip()


async def test_a_whole_log_of_ours_is_good(
    fsck: Path, log_file: Path, record_property: Callable[[str, object], None]
) -> None:
    code, said = await verdict(fsck, log_file, CHECK_SECONDS)
    assert (code, said[:2]) == (0, "OK"), said
    record_property(f"tessera fsck of {SIZE:,} entries over HTTP", said)


@pytest.mark.parametrize(
    ("row", "column", "at"),
    [
        ("log_tile WHERE level = 0 AND place = 100", "content", 4_000),
        ("log_tile WHERE level = 0 AND place = 273", "content", 0),
        ("log_tile WHERE level = 1 AND place = 0", "content", 31),
        ("log_tile WHERE level = 2 AND place = 0", "content", 16),
        ("log_entry WHERE idx = 12345", "entry", 150),
        ("log_entry WHERE idx = 69999", "entry", 0),
        ("log_head", "note", len("log.example/88.118\n7")),  # a digit of the size
        ("log_head", "note", len("log.example/88.118\n70000\n") + 5),  # a letter of the root
        ("log_head", "note", -20),  # the signature
    ],
)
async def test_one_byte_that_is_not_what_was_signed_is_found(
    fsck: Path, log_file: Path, tmp_path: Path, *, row: str, column: str, at: int
) -> None:
    spoilt = tmp_path / "spoilt.sqlite3"
    with closing(sqlite3.connect(log_file)) as whole, closing(sqlite3.connect(spoilt)) as copy:
        whole.backup(copy)
        table, _, where = row.partition(" WHERE ")
        (content,) = copy.execute(f"SELECT {column} FROM {table} WHERE {where or '1'}").fetchone()
        changed = bytearray(content)
        changed[at] ^= 1
        assert copy.execute(f"UPDATE {table} SET {column} = ? WHERE {where or '1'}", (bytes(changed),)).rowcount == 1
        copy.commit()
    code, said = await verdict(fsck, spoilt, FAULT_SECONDS)
    assert (code, said[:4]) == (1, "FAIL"), said

"""A log begins with its zones' keys or not at all: nothing in it could be checked without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from idtrace.chain import Link
from idtrace.errors import BusyError, Reason
from registry.adoption import Adoption
from registry.authority import Authority
from registry.logbook import LogWriter
from registry.stamping import Stamper
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import NOW, anchor
from tests.logged_fixtures import HERE, log_signer, logged_chain


async def test_a_clock_that_goes_back_before_the_first_entry_ends_the_start(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "records.db")
    authority = Authority(anchor(), frozenset({HERE}))
    authority.adopt(HERE, tuple(Link.read(signed) for signed in logged_chain()))
    now = NOW
    stamper = Stamper(LogWriter(log_signer()), lambda: now, lambda: 0.0)
    adoption = Adoption(storage, authority, (), lambda: now, stamper=stamper)
    try:
        now = NOW - 1
        with pytest.raises(BusyError) as caught:
            await adoption.begin_log()
        assert caught.value.reason is Reason.CLOCK_BACK
        assert (await storage.log_edge()).head.size == 0
        now = NOW + 1
        await adoption.begin_log()
        assert (await storage.log_edge()).head.size == 1
    finally:
        await storage.close()

"""What a driver that never answers can do to those who wait: each is told in time, and nothing piles up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from registry.cassandra_bridge import IN_FLIGHT_MAX, TRIES, Bridge
from registry.cassandra_errors import NoAnswerError
from registry.cassandra_settings import CassandraSettings

TIMEOUT_SECONDS = 0.2


class SilentSession:
    """Takes every statement; answers those that it is told to."""

    def __init__(self) -> None:
        self.sent = 0
        self.in_flight = 0
        self.most = 0
        self.answers = False

    def execute_async(self, *arguments: Any, **options: Any) -> SilentSession:
        self.sent += 1
        return self

    has_more_pages = False

    def add_callbacks(self, callback: Any, errback: Any) -> None:
        if self.answers:
            callback([("row",)])


def bridge_to(session: SilentSession) -> Bridge:
    table: dict[str, object] = {
        "contact_points": ["10.0.0.1"],
        "ledger": "88.118",
        "request_timeout_seconds": TIMEOUT_SECONDS,
    }
    nothing: Any = None
    connected: Any = session
    return Bridge(nothing, connected, CassandraSettings.parse(table, Path()))


async def test_a_statement_that_finds_no_room_is_told_so_and_not_sent() -> None:
    session = SilentSession()
    bridge = bridge_to(session)
    waiting = [asyncio.create_task(bridge.once("SELECT", profile="plain")) for _ in range(IN_FLIGHT_MAX)]
    await asyncio.sleep(0)
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match="before this one"):
        await bridge.once("SELECT", profile="plain")
    assert session.sent == IN_FLIGHT_MAX
    assert time.monotonic() - started < 10 * TIMEOUT_SECONDS
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in told} == {NoAnswerError}
    session.answers = True  # the room of those who gave up is free again
    assert await bridge.once("SELECT", profile="plain") == [("row",)]


async def test_a_silent_driver_is_asked_so_often_and_no_more() -> None:
    session = SilentSession()
    with pytest.raises(NoAnswerError, match="within the request timeout"):
        await bridge_to(session).run("SELECT")
    assert session.sent == TRIES


async def test_a_caller_that_leaves_frees_its_room() -> None:
    session = SilentSession()
    bridge = bridge_to(session)
    for _ in range(3):
        waiting = [asyncio.create_task(bridge.once("SELECT", profile="plain")) for _ in range(IN_FLIGHT_MAX)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    session.answers = True
    assert await bridge.once("SELECT", profile="plain") == [("row",)]

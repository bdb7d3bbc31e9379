"""What a store keeps of events (registry/storage.py, guarantee 10), held against every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.outbox import done, failed, revived
from registry.storage import DeliveryState, Mention, Outcome, Storage
from tests.core_fixtures import ZONE
from tests.pointing import NOW_MS, event_name, event_write
from tests.storages import STORAGES

DAY_MS = 86_400_000
BOX, DOSE = f"{ZONE}/BOX-1", "86.1.5/DOSE-1"
ROOM = "urn:epc:id:sgln:952005385.011.0"


@pytest.fixture(params=list(STORAGES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


async def keys_of(store: Storage, state: DeliveryState = DeliveryState.WAITING) -> set[tuple[str, str]]:
    return {one.key for one in await store.outbox(state, 1_000)}


async def test_an_empty_store_has_no_events(store: Storage) -> None:
    assert await store.events(0, 10) == []
    assert await store.events_between(0, 2**53, None, 10) == []
    assert await store.pointers(BOX, None, 10) == []
    assert await store.deliveries(2**53, 10) == []
    assert await store.outbox(DeliveryState.DEAD, 10) == []
    assert await store.put_pointers([]) == []
    await store.settle([])
    assert await store.sequence() == 0


async def test_an_event_comes_with_its_pointers_its_place_and_its_deliveries(store: Storage) -> None:
    write = event_write(1, (DOSE, "child"), (DOSE, "epc"), (BOX, "parent"), (ROOM, "read_point"), outbound=(DOSE,))
    assert await store.commit([write]) == [Outcome.COMMITTED]
    name = write.identifier
    assert await store.pointers(BOX, None, 10) == [Mention(BOX, NOW_MS, name, "parent")]
    assert await store.pointers(ROOM, None, 10) == [Mention(ROOM, NOW_MS, name, "read_point")]
    assert await store.pointers(DOSE, None, 10) == [Mention(DOSE, NOW_MS, name, role) for role in ("child", "epc")]
    assert [(one.time_ms, one.event) for one in await store.events(0, 10)] == [(NOW_MS, name)]
    assert await store.events_between(NOW_MS, NOW_MS + 1, None, 10) == await store.events(0, 10)
    assert await store.events_between(0, NOW_MS, None, 10) == []
    (waiting,) = await store.deliveries(0, 10)
    assert (waiting.key, waiting.roles, waiting.attempts) == ((DOSE, name), ("child", "epc"), 0)
    assert waiting.mentions() == tuple(Mention(DOSE, NOW_MS, name, role) for role in ("child", "epc"))
    (told,) = await store.changes(0, 10)
    assert (told.identifiers, told.events) == (((name, 1),), (BOX,))


async def test_an_event_that_loses_leaves_nothing(store: Storage) -> None:
    first = event_write(1, (BOX, "epc"))
    again = event_write(1, (DOSE, "epc"), outbound=(DOSE,), key="another-key")
    other = event_write(2, (DOSE, "epc"), outbound=(DOSE,), key=first.idempotency_key)
    assert await store.commit([first, again, other]) == [Outcome.COMMITTED, Outcome.CONFLICT, Outcome.KEY_USED]
    assert await store.commit([again, other]) == [Outcome.CONFLICT, Outcome.KEY_USED]
    assert await store.pointers(DOSE, None, 10) == []
    assert await store.deliveries(2**53, 10) == []
    assert len(await store.events(0, 10)) == 1


async def test_pointers_are_paged_in_the_order_of_time_across_years(store: Storage) -> None:
    times = [NOW_MS + days * DAY_MS for days in (400, 0, 29, 31, 30, -3, 0, 400)]
    writes = [event_write(n, (BOX, "epc"), (BOX, "parent"), time_ms=at) for n, at in enumerate(times)]
    for write in writes:
        assert await store.commit([write]) == [Outcome.COMMITTED]
    expected = sorted(mention for write in writes for mention in write.mentions)
    assert await store.pointers(BOX, None, 100) == expected
    for most in (1, 3, 16):
        read: list[Mention] = []
        while page := await store.pointers(BOX, read[-1] if read else None, most):
            assert len(page) <= most
            read += page
        assert read == expected


async def test_events_are_read_in_the_order_of_recording_and_of_time(store: Storage) -> None:
    times = [NOW_MS, NOW_MS + 5 * DAY_MS, NOW_MS - DAY_MS, NOW_MS, NOW_MS + 1, NOW_MS]
    writes = [event_write(n, (BOX, "epc"), time_ms=at) for n, at in enumerate(times)]
    assert await store.commit(writes[:3]) == [Outcome.COMMITTED] * 3
    assert await store.put_pointers([Mention(BOX, NOW_MS, event_name("x", "86.1.5"), "epc")])
    assert await store.commit(writes[3:]) == [Outcome.COMMITTED] * 3
    recorded = await store.events(0, 100)
    assert [one.event for one in recorded] == [write.identifier for write in writes]
    assert [one.sequence for one in recorded] == sorted({one.sequence for one in recorded})
    for at, one in enumerate(recorded):
        assert await store.events(one.sequence, 2) == recorded[at + 1 : at + 3]
    by_time = sorted(recorded, key=lambda one: (one.time_ms, one.event))
    assert await store.events_between(NOW_MS - DAY_MS, NOW_MS + 5 * DAY_MS, None, 100) == by_time[:-1]
    for at, one in enumerate(by_time):
        after = (one.time_ms, one.event)
        assert await store.events_between(0, NOW_MS + 9 * DAY_MS, after, 2) == by_time[at + 1 : at + 3]


async def test_pointers_from_elsewhere_are_kept_once_and_told_once(store: Storage) -> None:
    one, other = (Mention(BOX, NOW_MS + n, event_name(n, "86.1.5"), "epc") for n in range(2))
    assert await store.put_pointers([one, one]) == [one]
    assert await store.put_pointers([one, other]) == [other]
    assert await store.put_pointers([other, one]) == []
    assert await store.pointers(BOX, None, 10) == [one, other]
    changes = await store.changes(0, 10)
    assert [change.events for change in changes] == [(BOX,), (BOX,)]
    assert await store.sequence() == changes[-1].sequence
    assert await store.events(0, 10) == []  # their events are elsewhere


async def test_a_delivery_stays_until_it_is_done(store: Storage) -> None:
    writes = [event_write(n, (DOSE, "epc"), outbound=(DOSE,)) for n in range(3)]
    assert await store.commit(writes) == [Outcome.COMMITTED] * 3
    first, second, third = await store.deliveries(0, 10)
    late = failed(second, "nobody answers", now_ms=NOW_MS, chance=1.0)
    dead = failed(third, "malformed", now_ms=NOW_MS, chance=0.0, for_good=True)
    for _ in range(2):  # who does not know whether it has settled does it again
        await store.settle([done(first), late, dead])
    assert await keys_of(store) == {second.key}
    assert await keys_of(store, DeliveryState.DEAD) == {third.key}
    assert await store.deliveries(late.next_at_ms - 1, 10) == []
    assert await store.deliveries(late.next_at_ms, 10) == [late]
    assert await store.outbox(DeliveryState.DEAD, 10) == [dead]
    (kept,) = await store.outbox(DeliveryState.DEAD, 10)
    again = revived(kept, now_ms=NOW_MS + 5)
    await store.settle([again])
    assert {one.key for one in await store.deliveries(2**53, 10)} == {second.key, third.key}
    await store.settle([done(one) for one in await store.deliveries(2**53, 10)])
    assert await store.deliveries(2**53, 10) == []
    assert await keys_of(store, DeliveryState.DEAD) == set()


async def test_deliveries_come_in_pieces_and_all_of_them(store: Storage) -> None:
    doses = [f"86.1.5/DOSE-{n}" for n in range(30)]
    for n in range(3):
        some = doses[n * 10 : n * 10 + 10]
        write = event_write(n, *((dose, "epc") for dose in some), outbound=tuple(some))
        assert await store.commit([write]) == [Outcome.COMMITTED]
    seen: list[str] = []
    while due := await store.deliveries(0, 7):
        assert len(due) <= 7
        seen += [one.subject for one in due]
        await store.settle([done(one) for one in due])
    assert sorted(seen) == sorted(doses)
    await store.reopen()
    assert await store.deliveries(2**53, 100) == []


async def test_what_came_before_events_is_told_as_it_was(store: Storage) -> None:
    plain = replace(event_write(1, (BOX, "epc")), mentions=(), outbound=())
    assert await store.commit([plain]) == [Outcome.COMMITTED]
    (told,) = await store.changes(0, 10)
    assert told.events == ()
    assert await store.events(0, 10) == []

"""Event queries over every store: each event that meets a query once, in its order, however small the pages are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from idtrace.epcis.query import matches, parse
from idtrace.errors import BusyError, InputError, Reason, RefusedError
from registry import event_query, event_sources, event_values
from registry.event_query import Cursor, EventQueries, Found, Page, QueryTooLarge, ValueKind
from registry.event_sources import ByThing, ByTime
from registry.storage import Mention, Storage
from tests.capture_fixtures import bytes_of, observed
from tests.core_fixtures import NOW, ZONE
from tests.pointing import event_name
from tests.recorded_events import at, keep, keep_many
from tests.storages import STORAGES
from tests.unit.epcis.events import BOX, plain

ROOM = {"id": "urn:epc:id:sgln:952005385.011.0"}


@pytest.fixture(params=list(STORAGES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


async def pages(queries: EventQueries, most: int, parameters: dict[str, Any]) -> list[Page]:
    """All pages of a query, each from what the last one said, as a text."""
    query, read = parse(parameters), list[Page]()
    after: Cursor | None = None
    while True:
        read.append(await queries.page(query, after, most))
        following = read[-1].next
        if following is None:
            return read
        assert len(read) < 1_000, "it never ends"
        after = Cursor.parse(following.to_text())
        assert after == following


async def found(store: Storage, most: int = 2_000, **parameters: Any) -> list[Found]:
    read = await pages(EventQueries(store), most, parameters)
    assert all(len(page.events) <= most for page in read)
    return [event for page in read for event in page.events]


async def names(store: Storage, most: int = 2_000, **parameters: Any) -> list[str]:
    return [one.identifier for one in await found(store, most, **parameters)]


async def test_an_empty_store_has_no_events_to_find(store: Storage) -> None:
    orders: list[dict[str, Any]] = [{}, {"orderBy": "eventTime"}, {"orderBy": "recordTime"}, {"MATCH_epc": BOX}]
    for order in orders:
        assert await found(store, **order) == []
        assert await found(store, GE_recordTime="2020-01-01T00:00:00Z", **order) == []
    assert await EventQueries(store).get(event_name(1)) is None


async def test_an_event_is_found_as_it_was_recorded(store: Storage) -> None:
    fields = observed(1, eventTime=at(1))
    (name,) = await keep(store, fields, now=NOW + 7)
    (one,) = await found(store, MATCH_epc="idtrace:88.118.8/SN-1")
    (recorded,) = await store.events(0, 10)
    assert (one.identifier, one.statement, one.sequence) == (name, bytes_of(fields), recorded.sequence)
    assert one.record_time_ms == (NOW + 7) * 1000
    assert await EventQueries(store).get(name) == one


async def test_without_a_log_the_time_of_recording_is_the_partys(store: Storage) -> None:
    names_kept = await keep(store, observed(1), observed(2), now=None)
    assert [one.record_time_ms for one in await found(store)] == [NOW * 1000] * 2
    # Nothing is known of their order, so nothing is left out.
    assert await names(store, GE_recordTime="2000-01-01T00:00:00Z") == names_kept
    assert await names(store, LT_recordTime="2000-01-01T00:00:00Z") == []


async def test_what_is_no_event_of_this_node_is_not_found(store: Storage) -> None:
    queries = EventQueries(store)
    await keep(store, observed(1))
    for text in (event_name(9), f"{ZONE}/SN-1", "", "no identifier", f"{ZONE}/event/x"):
        assert await queries.get(text) is None
    # Another node's event about the same thing: its home has the pointer and not the event.
    foreign = Mention("88.118.8/SN-1", 1, event_name(2, "88.118.9"), "epc")
    assert await store.put_pointers([foreign]) == [foreign]
    assert len(await found(store, MATCH_epc="idtrace:88.118.8/SN-1")) == 1


@pytest.mark.parametrize("most", [1, 3, 7, 100])
async def test_pages_of_any_size_have_each_event_once_and_in_order(
    store: Storage, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sources, "READ_AT_ONCE", 4)
    monkeypatch.setattr(event_query, "LOOKED_MAX", 5)
    kept: list[str] = []
    for first in range(0, 24, 4):  # times that go up and down, and two of each
        numbers = [100 - first, first, 100 - first + 1000, first + 1000]
        kept += await keep(
            store,
            *(
                observed(n, eventTime=at(n % 1000), readPoint=ROOM, bizStep="holding" if n % 8 else "storing")
                for n in numbers
            ),
            now=NOW + first,
        )
    by_time = [
        one.identifier for one in sorted(await found(store), key=lambda one: (one.event.time_ms, one.identifier))
    ]
    assert len(by_time) == len(set(by_time)) == 24
    for where in ({}, {"EQ_readPoint": ROOM["id"]}, {"GE_eventTime": at(0), "LT_eventTime": at(3000)}):
        assert await names(store, most, orderBy="eventTime", orderDirection="ASC", **where) == by_time
        assert await names(store, most, orderBy="eventTime", **where) == by_time[::-1]
        assert await names(store, most, orderBy="recordTime", orderDirection="ASC", **where) == kept
        assert await names(store, most, orderBy="recordTime", **where) == kept[::-1]
        assert sorted(await names(store, most, **where)) == sorted(kept)
        assert await names(store, most, orderBy="recordTime", eventCountLimit=5, **where) == kept[:-6:-1]
    storing = [one.identifier for one in await found(store) if one.event.biz_step == "storing"]
    assert 0 < len(storing) < 24
    assert await names(store, most, EQ_bizStep="storing") == storing


async def test_times_of_recording_bound_what_is_read(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [await keep_many(store, [n * 2, n * 2 + 1]) for n in range(3)]
    later = [await keep(store, observed(100 + n), now=NOW + 60 * (n + 1)) for n in range(4)]
    monkeypatch.setattr(event_query, "LOOKED_MAX", 2)
    from idtrace.epcis.values import time_text

    def second(n: int) -> str:
        return time_text((NOW + n) * 1000)

    page = await EventQueries(store).page(parse({"GE_recordTime": second(120)}), None, 10)
    assert [one.identifier for one in page.events] == [*later[1], *later[2]], "the first look is at the right place"
    assert await names(store, GE_recordTime=second(0), LT_recordTime=second(1)) == [
        name for each in kept for name in each
    ]
    assert await names(store, GE_recordTime=second(1), LT_recordTime=second(180)) == [*later[0], *later[1]]
    assert await names(store, GE_recordTime=second(241)) == []
    assert await names(store, LT_recordTime=second(0)) == []
    assert await names(store, GE_recordTime=second(200), LT_recordTime=second(100)) == []


async def test_a_thing_with_a_long_history_is_paged_without_a_gap(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sources, "READ_AT_ONCE", 14)
    both = {"parentID": BOX, "childEPCs": [f"idtrace:88.118.8/SN-{n}" for n in range(3)]}
    kept = await keep(
        store,
        *(
            plain("AssociationEvent") | both | {"eventTime": at(n // 4), "readPoint": {"id": BOX}}
            for n in (0, 4, 8, 12)
        ),
        *(observed(n % 3, eventTime=at(n // 4), ilmd={}, action="ADD", **{"ext:n": n}) for n in range(40)),
    )
    things = ["idtrace:88.118.8/SN-0", "idtrace:88.118.8/SN-1", BOX]
    expected = [
        one.identifier
        for one in sorted(await found(store), key=lambda one: (one.event.time_ms, one.identifier))
        if matches(parse({"MATCH_anyEPC": things}), one.event, 0)
    ]
    assert len(kept) > len(expected) > 25
    for most in (1, 5, 100):
        assert await names(store, most, MATCH_anyEPC=things) == expected
        assert await names(store, most, MATCH_anyEPC=things, orderBy="eventTime") == expected[::-1]
    source = ByThing(store, tuple(sorted(parse({"MATCH_anyEPC": things}).conditions[0].keys)))
    assert await source.read(5, 5, None) == ([], False)
    assert await ByTime(store).read(5, 5, None) == ([], False)


async def test_more_than_are_wanted_are_none(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep_many(store, range(12))
    assert len(await found(store, maxEventCount=12)) == 12
    assert len(await found(store, 5, maxEventCount=12, orderBy="eventTime")) == 12
    with pytest.raises(QueryTooLarge, match="more than 11 events") as caught:
        await found(store, maxEventCount=11)
    assert (caught.value.reason, caught.value.field) == (Reason.QUERY_TOO_LARGE, "maxEventCount")
    assert isinstance(caught.value, RefusedError)
    monkeypatch.setattr(event_query, "COUNTED_MAX", 6)
    with pytest.raises(QueryTooLarge, match="cannot be told"):
        await found(store, maxEventCount=11)


async def test_a_day_that_has_one_time_is_read_backwards_to_a_bound(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sources, "READ_AT_ONCE", 3)
    kept = await keep(store, *(observed(n, eventTime=at(5)) for n in range(8)))
    assert await names(store, 2, orderBy="eventTime") == sorted(kept)[::-1]
    monkeypatch.setattr(event_sources, "SAME_POSITION_MAX", 7)
    with pytest.raises(QueryTooLarge, match="of one time"):
        await found(store, orderBy="eventTime")
    assert len(await found(store, orderBy="eventTime", orderDirection="ASC")) == 8


async def test_a_page_is_bounded_by_its_bytes(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep_many(store, range(6), **{"ext:note": "x" * 1_000})
    monkeypatch.setattr(event_query, "PAGE_BYTES_MAX", 2_500)
    read = await pages(EventQueries(store), 100, {})
    assert [len(page.events) for page in read] == [2, 2, 2]


async def test_the_asker_may_want_less_than_he_may_have(store: Storage) -> None:
    await keep_many(store, range(5))
    read = await pages(EventQueries(store), 100, {"perPage": 2})
    assert [len(page.events) for page in read] == [2, 2, 1]
    assert [len(page.events) for page in await pages(EventQueries(store), 2, {"eventCountLimit": 4})] == [2, 2]


async def test_a_page_of_another_query_and_what_is_no_page_are_refused(store: Storage) -> None:
    await keep_many(store, range(3))
    queries = EventQueries(store)
    following = (await queries.page(parse({"EQ_bizStep": "inspecting"}), None, 1)).next
    assert following is not None
    with pytest.raises(InputError, match="another query") as caught:
        await queries.page(parse({"EQ_bizStep": "packing"}), following, 1)
    assert caught.value.field == "nextPageToken"
    cut = following.to_text()[:-1]
    huge = Cursor(1 << 63, following.event, 1, following.of).to_text()
    negative = Cursor(1, following.event, -1, following.of).to_text()
    for text in ("", "x", "é", cut + "!", "A" * 10_000, "AAAA", huge, negative, following.to_text() + "=" * 5):
        with pytest.raises(InputError) as caught:
            Cursor.parse(text, field="page_token")
        assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, "page_token")


async def test_queries_are_worked_on_by_turns_and_so_many_wait(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await keep_many(store, range(40))
    monkeypatch.setattr(event_query, "QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(event_query, "QUERIES_WAITING_MAX", 3)
    queries, query = EventQueries(store), parse({})
    answers = await asyncio.gather(*(queries.page(query, None, 100) for _ in range(7)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Page] * 5 + [BusyError] * 2
    gone = asyncio.ensure_future(queries.page(query, None, 100))
    await asyncio.sleep(0)
    gone.cancel()
    assert len((await queries.page(query, None, 100)).events) == 40


async def test_a_page_takes_so_long_and_the_next_one_goes_on(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = await keep_many(store, range(5))
    monkeypatch.setattr(event_query, "LOOKED_SECONDS_MAX", -1.0)
    read = await pages(EventQueries(store), 100, {})
    assert [one.identifier for page in read for one in page.events] == kept
    assert [len(page.events) for page in read] == [1] * 5
    monkeypatch.setattr(event_query, "COUNTED_SECONDS_MAX", -1.0)
    with pytest.raises(QueryTooLarge, match="cannot be told"):
        await found(store, maxEventCount=11)


async def test_the_values_that_events_name_are_listed_once_and_sorted(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = EventQueries(store)
    assert (await queries.distinct(ValueKind.EPCS, "", 10)).values == ()
    await keep(store, *(observed(n % 3, eventTime=at(n), readPoint=ROOM, bizLocation=ROOM) for n in range(9)))
    await keep(store, plain("AggregationEvent") | {"disposition": "in_transit"})
    expected = {
        ValueKind.EVENT_TYPES: ("AggregationEvent", "ObjectEvent"),
        ValueKind.EPCS: (*(f"idtrace:88.118.8/SN-{n}" for n in range(3)), "urn:epc:id:sgtin:4012345.011111.1", BOX),
        ValueKind.BIZ_STEPS: ("inspecting", "packing"),
        ValueKind.BIZ_LOCATIONS: (ROOM["id"],),
        ValueKind.READ_POINTS: (ROOM["id"],),
        ValueKind.DISPOSITIONS: ("in_transit",),
    }
    for kind, values in expected.items():
        told = await queries.distinct(kind, "", 10)
        assert (told.values, told.more, told.complete) == (tuple(sorted(values)), False, True)
    first = await queries.distinct(ValueKind.EPCS, "", 2)
    assert (first.values, first.more) == (tuple(sorted(expected[ValueKind.EPCS]))[:2], True)
    rest = await queries.distinct(ValueKind.EPCS, first.values[-1], 10)
    assert (first.values + rest.values, rest.more) == (tuple(sorted(expected[ValueKind.EPCS])), False)
    monkeypatch.setattr(event_values, "VALUES_MAX", 3)
    few = await EventQueries(store).distinct(ValueKind.EPCS, "", 10)
    assert (len(few.values), few.complete) == (3, False)
    monkeypatch.setattr(event_values, "GATHERED_MAX", 4)
    monkeypatch.setattr(event_values, "READ_AT_ONCE", 4)
    slow = EventQueries(store)
    assert [(await slow.distinct(ValueKind.BIZ_STEPS, "", 9)).complete for _ in range(4)] == [False, False, True, True]


async def test_events_that_were_read_are_kept_within_a_bound(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry import event_reading

    monkeypatch.setattr(event_reading, "KEPT_BYTES_MAX", 1_500)
    monkeypatch.setattr(event_reading, "PARSED_AT_ONCE", 1_500)
    await keep_many(store, range(9))
    queries = EventQueries(store)
    first = await queries.page(parse({}), None, 100)
    assert 0 < len(queries.reading._kept) < 9
    assert queries.reading._kept_bytes == sum(len(one.statement) for one in queries.reading._kept.values())
    assert await queries.page(parse({}), None, 100) == first

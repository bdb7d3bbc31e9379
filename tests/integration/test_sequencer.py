"""The sequencer: batches that grow with load, order inside a call, and what callers learn when the disk says no."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from idtrace import wire
from idtrace.errors import BusyError, IdtraceError, InputError, OutcomeUnknownError, Reason, RefusedError
from idtrace.identifier import Identifier
from idtrace.record import Status
from idtrace.statements import Receipt
from registry import sequencer as sequencer_module
from registry.admission import Proposal
from registry.pointers import outbound
from registry.sequencer import BATCH_MAX, MENTIONS_A_COMMIT_MAX, POOL_MAX, Result, Sequencer
from registry.storage import Storage, Write
from tests.core_fixtures import NOW, signer
from tests.memory_storage import MemoryStorage, once
from tests.pointing import mentions_of
from tests.registry_fixtures import ENDED, authority_for, class_record, proposal, text_field, typed_record
from tests.storages import STORAGES

R = Reason
BASE, VACCINE = (Identifier.parse(f"88.118.8/class.{name}") for name in ("base", "vaccine"))


@asynccontextmanager
async def running(storage: Storage) -> AsyncIterator[Sequencer]:
    sequencer = Sequencer(storage, signer("node of 88.118.8"), lambda: NOW)
    task = asyncio.create_task(sequencer.run())
    try:
        yield sequencer
    finally:
        sequencer.close()
        await asyncio.wait_for(task, 10)
        if isinstance(storage, MemoryStorage):
            assert storage.broken == []


def items(count: int, **changes: Any) -> list[Proposal]:
    return [proposal(typed_record(f"88.118.8/N-{n}", **changes), key=f"key-{n:06}") for n in range(count)]


def committed(result: Result) -> Receipt:
    assert isinstance(result, bytes), result
    return Receipt.parse(wire.signed_from_bytes(result).payload)


def reason(result: Result) -> Reason | None:
    return result.reason if isinstance(result, IdtraceError) else None


@pytest.fixture(params=list(STORAGES))
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


async def test_a_thousand_lone_writers_share_few_commits(storage: Storage) -> None:
    proposals = items(1_000)
    async with running(storage) as sequencer:
        results = await asyncio.gather(*(sequencer.submit([p]) for p in proposals))
        receipts = [committed(result) for (result,) in results]
        assert [r.identifier for r in receipts] == [p.body.identifier for p in proposals]
        assert sequencer.committed == 1_000
        assert sequencer.batches <= 10
        assert len(await storage.heads([str(p.body.identifier) for p in proposals])) == 1_000


async def test_a_lone_writer_waits_for_nobody_and_batches_grow_while_the_disk_is_busy() -> None:
    memory = MemoryStorage()
    memory.before_commit = lambda _: time.sleep(0.02)
    async with running(memory) as sequencer:
        calls = []
        for p in items(50):
            calls.append(asyncio.create_task(sequencer.submit([p])))
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)
        assert memory.batches[0] == 1
        assert len(memory.batches) < 15


async def test_a_batch_is_never_larger_than_its_limit() -> None:
    memory = MemoryStorage()
    async with running(memory) as sequencer:
        half = BATCH_MAX // 2 + 1
        everything = items(2 * half)
        await asyncio.gather(sequencer.submit(everything[:half]), sequencer.submit(everything[half:]))
        assert memory.batches == [BATCH_MAX, 2]


def events(count: int, each: int) -> list[Proposal]:
    """As intake makes them: each mentions so many things."""
    return [
        replace(one, mentions=mentions_of(str(one.body.identifier), [(f"urn:x:{n}", "epc") for n in range(each)]))
        for one in items(count)
    ]


async def test_a_commit_has_no_more_mentions_than_its_limit_and_no_event_waits_for_ever() -> None:
    storage = MemoryStorage()
    async with running(storage) as sequencer:
        proposals = events(5, MENTIONS_A_COMMIT_MAX // 2)
        large = events(6, MENTIONS_A_COMMIT_MAX + 1)[5:]
        results = await sequencer.submit([*proposals, *large])
        assert [reason(result) for result in results] == [None] * 6
    assert storage.batches == [2, 2, 1, 1]
    assert len(await storage.events(0, 10)) == 6


async def test_what_has_to_be_committed_together_is_refused_where_it_mentions_too_much() -> None:
    storage = MemoryStorage()
    async with running(storage) as sequencer:
        with pytest.raises(InputError, match=f"at most {MENTIONS_A_COMMIT_MAX} things") as refused:
            await sequencer.submit_whole(events(3, MENTIONS_A_COMMIT_MAX // 3 + 1))
        assert (refused.value.reason, refused.value.field) == (R.BATCH_TOO_LARGE, "items")
        results = await sequencer.submit_whole(events(3, MENTIONS_A_COMMIT_MAX // 3))
        assert [reason(result) for result in results] == [None] * 3
    assert storage.batches == [3]


async def test_a_subject_with_its_home_elsewhere_is_delivered_and_no_other() -> None:
    storage, away = MemoryStorage(), "86.1.5/DOSE"
    one = items(1)[0]
    about = [(away, "child"), (away, "epc"), ("88.118.8/BOX", "parent"), ("urn:x:1", "read_point")]
    one = replace(one, mentions=mentions_of(str(one.body.identifier), about))
    sequencer = Sequencer(
        storage, signer("node of 88.118.8"), lambda: NOW, away=partial(outbound, authority_for("88.118.8"))
    )
    task = asyncio.create_task(sequencer.run())
    assert [reason(result) for result in await sequencer.submit([one])] == [None]
    sequencer.close()
    await task
    assert [(d.subject, d.roles) for d in await storage.deliveries(0, 10)] == [(away, ("child", "epc"))]


async def test_the_receipt_says_what_was_committed_and_when() -> None:
    async with running(MemoryStorage()) as sequencer:
        (p,) = items(1)
        receipt = committed((await sequencer.submit([p]))[0])
        assert receipt == Receipt(receipt.zone, p.body.identifier, 1, p.record.hash, NOW)
        assert str(receipt.zone) == p.zone


async def test_nothing_to_do_is_done_at_once(storage: Storage) -> None:
    async with running(storage) as sequencer:
        assert await sequencer.submit([]) == []
        assert sequencer.batches == 0


# Order inside one call


async def test_versions_in_one_call_follow_each_other(storage: Storage) -> None:
    first = typed_record("88.118.8/A")
    second = typed_record("88.118.8/A", previous=first)
    end = typed_record("88.118.8/A", previous=second, **ENDED)
    call = [proposal(record, key=f"key-{n:05}") for n, record in enumerate((first, second, end, first))]
    async with running(storage) as sequencer:
        *done, last = await sequencer.submit(call)
        assert [committed(result).version for result in done] == [1, 2, 3]
        assert reason(last) is R.IDENTIFIER_RETIRED


async def test_versions_in_the_wrong_order_are_judged_in_the_order_given(storage: Storage) -> None:
    first = typed_record("88.118.8/A")
    second = typed_record("88.118.8/A", previous=first)
    async with running(storage) as sequencer:
        results = await sequencer.submit([proposal(second, key="key-00002"), proposal(first, key="key-00001")])
        assert [reason(result) for result in results] == [R.IDENTIFIER_UNKNOWN, None]


async def test_the_same_key_twice_in_one_call_gives_one_receipt_or_a_refusal(storage: Storage) -> None:
    (a, b) = items(2)
    other = replace(b, idempotency_key=a.idempotency_key)
    async with running(storage) as sequencer:
        results = await sequencer.submit([a, a, other, b])
        assert isinstance(results[0], bytes)
        assert results[0] == results[1]
        assert reason(results[2]) is R.IDEMPOTENCY_KEY_REUSED
        assert committed(results[3]).identifier == b.body.identifier


async def test_a_class_comes_before_the_items_that_name_it(storage: Storage) -> None:
    base = class_record(str(BASE), text_field("serial", unique=True))
    vaccine = class_record(str(VACCINE), class_id=BASE)
    item = typed_record("88.118.8/A", {"serial": "S"}, class_id=VACCINE)
    call = [proposal(record, key=f"key-{n:05}") for n, record in enumerate((item, base, vaccine, item))]
    async with running(storage) as sequencer:
        results = await sequencer.submit(call)
        assert [reason(result) for result in results] == [R.CLASS_UNKNOWN, None, None, None]


async def test_one_unique_value_has_one_owner_inside_a_batch_and_after_it(storage: Storage) -> None:
    base = class_record(str(BASE), text_field("serial", unique=True))
    same = [typed_record(f"88.118.8/{name}", {"serial": "S"}, class_id=BASE) for name in "ABC"]
    async with running(storage) as sequencer:
        await sequencer.submit([proposal(base, key="key-class")])
        both = await sequencer.submit([proposal(same[0], key="key-A-000"), proposal(same[1], key="key-B-000")])
        (late,) = await sequencer.submit([proposal(same[2], key="key-C-000")])
        assert [reason(result) for result in (*both, late)] == [None] + [R.CLASS_FIELD_NOT_UNIQUE] * 2
        assert isinstance(late, RefusedError)
        assert late.field == "values.serial"
        assert "88.118.8/A" in late.detail


# What a proposal sees does not hang on who stands beside it


async def test_a_class_of_another_zone_is_unknown_whoever_else_is_in_the_batch() -> None:
    theirs = Identifier.parse("88.118.9/class.theirs")
    ours = proposal(typed_record("88.118.8/A", class_id=theirs), key="key-ours")
    neighbour = proposal(typed_record("88.118.9/B", class_id=theirs), key="key-theirs", zone="88.118.9")
    async with running(MemoryStorage()) as sequencer:
        await sequencer.submit([proposal(class_record(str(theirs)), key="key-class", zone="88.118.9")])
        (alone,) = await sequencer.submit([ours])
        beside, together = await sequencer.submit([neighbour, ours])
        assert [reason(alone), reason(beside), reason(together)] == [R.CLASS_UNKNOWN, None, R.CLASS_UNKNOWN]


async def test_a_lineage_is_read_to_its_end_whoever_else_is_in_the_batch() -> None:
    names = [Identifier.parse(f"88.118.8/class.{n}") for n in range(6)]
    above = {1: 0, 3: 2, 4: 3, 5: 4}  # two ladders: 5 → 4 → 3 → 2 and 1 → 0
    async with running(MemoryStorage()) as sequencer:
        for n, name in enumerate(names):
            record = class_record(str(name), class_id=names[above[n]] if n in above else None)
            committed((await sequencer.submit([proposal(record, key=f"key-class-{n}")]))[0])
        joined = class_record(str(names[2]), previous=class_record(str(names[2])), class_id=names[1])
        committed((await sequencer.submit([proposal(joined, key="key-joined")]))[0])
        too_deep = proposal(typed_record("88.118.8/deep", class_id=names[5]), key="key-deep-0")
        fits = proposal(typed_record("88.118.8/fits", class_id=names[3]), key="key-fits-0")
        results = await sequencer.submit([too_deep, fits])
        assert [reason(result) for result in results] == [R.CLASS_UNKNOWN, None]


async def test_a_suspended_class_takes_no_more_items() -> None:
    base = class_record(str(BASE))
    suspended = class_record(str(BASE), previous=base, status=Status.SUSPENDED)
    item = typed_record("88.118.8/A", class_id=BASE)
    async with running(MemoryStorage()) as sequencer:
        call = [proposal(record, key=f"key-{n:05}") for n, record in enumerate((base, suspended, item))]
        assert [reason(result) for result in await sequencer.submit(call)] == [None, None, R.CLASS_NOT_PUBLISHED]


# Callers that leave, and a node that leaves


def wait_for(release: threading.Event) -> None:
    release.wait(5)


async def test_a_caller_that_gives_up_undoes_nothing_and_learns_it_by_the_same_key() -> None:
    memory = MemoryStorage()
    release = threading.Event()
    memory.before_commit = lambda _: wait_for(release)
    async with running(memory) as sequencer:
        gone, stays = items(2)
        calls = [asyncio.create_task(sequencer.submit([p])) for p in (gone, stays)]
        await asyncio.sleep(0.02)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        release.set()
        committed((await calls[1])[0])
        (again,) = await sequencer.submit([gone])
        assert committed(again).identifier == gone.body.identifier
        assert again == (await memory.earlier(gone.zone, [gone.idempotency_key]))[gone.idempotency_key].receipt


async def test_a_full_pool_takes_nothing_of_a_call_and_empties_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer_module, "POOL_MAX", 10)
    assert POOL_MAX == 10 * BATCH_MAX
    memory = MemoryStorage()
    release = threading.Event()
    memory.before_commit = lambda _: wait_for(release)
    async with running(memory) as sequencer:
        everything = items(21)
        first = asyncio.create_task(sequencer.submit(everything[:1]))
        await asyncio.sleep(0.02)  # it is on its way to the disk and no longer in the pool
        full = asyncio.create_task(sequencer.submit(everything[1:11]))
        await asyncio.sleep(0)
        for call in (everything[11:12], everything[11:21]):
            with pytest.raises(BusyError) as caught:
                await sequencer.submit(call)
            assert caught.value.reason is R.OVERLOADED
        release.set()
        assert len([*await first, *await full]) == 11
        assert len(await sequencer.submit(everything[11:])) == 10
        assert sequencer.committed == 21


async def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    memory = MemoryStorage()
    memory.before_commit = lambda _: time.sleep(0.02)
    async with running(memory) as sequencer:
        taken = [asyncio.create_task(sequencer.submit([p])) for p in items(30)]
        await asyncio.sleep(0)
        sequencer.close()
        with pytest.raises(BusyError) as caught:
            await sequencer.submit(items(1))
        assert caught.value.reason is R.SHUTTING_DOWN
        assert len({committed(result).identifier for (result,) in await asyncio.gather(*taken)}) == 30


# The disk says no


def about(name: str) -> Any:
    def hook(change: Any) -> bool:
        return isinstance(change, Sequence) and any(isinstance(w, Write) and w.identifier == name for w in change)

    return hook


@pytest.mark.parametrize("fail", ["fail_and_persist", "fail_and_not_persist"])
async def test_when_commit_raises_that_batch_alone_is_unknown_and_the_key_tells_the_truth(fail: str) -> None:
    memory = MemoryStorage()
    setattr(memory, fail, once(about("88.118.8/N-1")))
    before, one, two, after = items(4)
    async with running(memory) as sequencer:
        committed((await sequencer.submit([before]))[0])
        refused = replace(before, idempotency_key="key-refused")
        results = await sequencer.submit([one, two, refused])
        assert all(isinstance(result, OutcomeUnknownError) for result in results)
        assert {reason(result) for result in results} == {R.OUTCOME_UNKNOWN}
        committed((await sequencer.submit([after]))[0])
        assert memory.reopened == 1
        happened = await memory.record("88.118.8/N-1") is not None
        assert happened == (fail == "fail_and_persist")
        receipts = await memory.earlier(one.zone, [one.idempotency_key, two.idempotency_key])
        again = await sequencer.submit([one, two])
        assert [committed(result).identifier for result in again] == [one.body.identifier, two.body.identifier]
        if happened:
            assert [receipts[p.idempotency_key].receipt for p in (one, two)] == again
        assert await sequencer.submit([one, two]) == again


async def test_a_disk_that_stays_away_for_a_while_costs_answers_and_not_the_sequencer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = MemoryStorage()
    memory.fail_and_not_persist = once()
    reopen, away = memory.reopen, [True]

    async def reopen_later() -> None:
        if away:
            away.clear()
            raise OSError("no such device")
        await reopen()

    monkeypatch.setattr(memory, "reopen", reopen_later)
    one, two = items(2)
    sequencer = Sequencer(memory, signer("node of 88.118.8"), lambda: NOW)
    task = asyncio.create_task(sequencer.run())
    try:
        (unknown,) = await asyncio.wait_for(sequencer.submit([one]), 2)
        assert reason(unknown) is R.OUTCOME_UNKNOWN
        async with asyncio.timeout(2):
            while isinstance((await sequencer.submit([two]))[0], OutcomeUnknownError):
                pass
        committed((await sequencer.submit([one]))[0])
    finally:
        sequencer.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_two_sequencers_on_one_file_are_slow_and_safe(tmp_path: Path) -> None:
    sqlite = STORAGES["sqlite"]
    async with sqlite(tmp_path) as a, sqlite(tmp_path) as b, running(a) as one, running(b) as two:
        calls = [
            s.submit([replace(p, idempotency_key=f"{p.idempotency_key}-{n}")])
            for p in items(60)
            for n, s in enumerate((one, two))
        ]
        results = [result for (result,) in await asyncio.gather(*calls)]
        won = [committed(result).identifier for result in results if isinstance(result, bytes)]
        assert len(won) == len(set(won)) == 60
        assert {reason(result) for result in results} <= {None, R.IDENTIFIER_TAKEN, R.WRITE_CONFLICT}
        same = proposal(typed_record("88.118.8/same"), key="key-same")
        receipts = await asyncio.gather(*(s.submit([same]) for s in (one, two) * 10))
        assert len({result for (result,) in receipts}) == 1

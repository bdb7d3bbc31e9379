"""Each step of a logged commit fails, with the step done and left undone, on every engine.

Stage (read what is stored), sign, commit, reopen, publish, answer. Whatever fails: who was acknowledged stands in the
log, nothing is visible that does not, everything that was asked for again gets one receipt, and what comes next is
committed as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, IdtraceError, Reason
from idtrace.note import NoteSigner
from idtrace.record import RecordBody
from idtrace.seal import seal
from registry.admission import Proposal
from registry.logbook import LogWriter
from registry.sequencer import Result, Sequencer
from registry.stamping import Stamper
from registry.storage import SealedIn, Storage
from tests.contract import places
from tests.contract.places import Engine, Place
from tests.core_fixtures import NOW, ZONE, signer
from tests.integration.test_storage_log import sound
from tests.logged_fixtures import HERE, OWNER, log_signer
from tests.memory_storage import EngineError
from tests.registry_fixtures import proposal, typed_record

ENGINES = ("memory", "sqlite", "cassandra")
NODE = signer(f"node of {ZONE}")
# SQLite: begin, commit, and before or after each change of a batch of three; Cassandra: each statement of a batch.
POINTS = {
    "memory": {False: 1, True: 1},
    "sqlite": {False: 32, True: 1},
    "cassandra": {False: 4, True: 10},
}


@pytest.fixture(autouse=True)
def complaints() -> Iterator[list[Any]]:
    """What is logged of each failure: drawn for a terminal, a traceback takes longer than the commit that it is of."""
    with capture_logs() as caught:
        yield caught


@pytest.fixture(params=ENGINES)
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    name = str(request.param)
    opening: Any = {
        "memory": places.memory,
        "sqlite": lambda: places.sqlite(tmp_path),
        "cassandra": lambda: places.cassandra(tmp_path, monkeypatch),
    }[name]
    async with opening() as opened:
        yield replace(opened, name=name)


@dataclass
class Clock:
    """One second a look, so that two receipts are never the same by chance."""

    wall: int = NOW

    def __call__(self) -> int:
        self.wall += 1
        return self.wall


@dataclass
class Desk:
    """A sequencer on a handle, and what it has told its callers: by key the record, and the receipts it had."""

    place: Place
    store: Storage
    sequencer: Sequencer
    sent: dict[str, Proposal] = field(default_factory=dict)
    told: dict[str, set[bytes]] = field(default_factory=dict)
    unknown: int = 0

    async def ask(self, wanted: Sequence[Proposal], *, sealed: bool = False) -> list[Result]:
        """Submit; note receipts and unknown outcomes, and let nothing else pass."""
        submit = self.sequencer.submit
        if sealed:
            results = await self.sequencer.submit_sealed(wanted, closed=await self._is_closed(wanted))
        else:
            results = await submit(wanted)
        for one, result in zip(wanted, results, strict=True):
            self.sent[one.idempotency_key] = one
            if isinstance(result, IdtraceError):
                assert result.reason is Reason.OUTCOME_UNKNOWN, result
                self.unknown += 1
            else:
                self.told.setdefault(one.idempotency_key, set()).add(result)
        return results

    async def _is_closed(self, wanted: Sequence[Proposal]) -> bool:
        return bool(await self.store.earlier(wanted[0].zone, [one.idempotency_key for one in wanted]))

    async def examine(self) -> None:
        """The log is whole, and records, entries and receipts are one to one."""
        entries = [Entry.from_bytes(entry) for entry in await sound(self.store)]
        payloads = [entry.payload for entry in entries if entry.kind is EntryKind.RECORD]
        assert len(set(payloads)) == len(payloads), "a record stands twice in the log"
        visible = {}
        for key, one in self.sent.items():
            stored = await self.store.stored(str(one.body.identifier), one.body.version)
            known = (await self.store.earlier(one.zone, [key])).get(key)
            assert (stored is None) == (known is None), f"{key}: a record without its key, or the other way round"
            if stored is not None and known is not None:
                assert stored.index is not None
                assert entries[stored.index].payload == one.record.signed.payload, "another entry"
                visible[stored.index] = one.record.signed.payload
                assert self.told.get(key, {known.receipt}) == {known.receipt}, f"{key}: two receipts"
            else:
                assert key not in self.told, f"{key}: acknowledged and lost"
        assert sorted(visible.values()) == sorted(payloads), "visible and not in the log, or the other way round"


@asynccontextmanager
async def desk(
    place: Place, *, by: NoteSigner | None = None, node: Any = NODE, clock: Clock | None = None, **more: Any
) -> AsyncIterator[Desk]:
    store = await place.open()
    times = clock or Clock()
    stamper = Stamper(LogWriter(by or log_signer()), times, lambda: 0.0)
    sequencer = Sequencer(store, node, times, stamper=stamper, **more)
    running = asyncio.create_task(sequencer.run())
    try:
        yield Desk(place, store, sequencer)
    finally:
        sequencer.close()
        await asyncio.wait_for(running, 30)


def wanted(*names: str, values: dict[str, str] | None = None) -> list[Proposal]:
    return [proposal(typed_record(f"{ZONE}/{name}", values or {}), key=f"register-{name}") for name in names]


def sealed_batch(count: int) -> list[Proposal]:
    """As intake makes them of a batch under one seal."""
    records = [typed_record(f"{ZONE}/S-{n}") for n in range(count)]
    hashes = tuple(record.hash for record in records)
    found = []
    for number, place in enumerate(seal(hashes, HERE, signer(OWNER), issued_at=NOW)):
        record = replace(records[number], signed=replace(records[number].signed, signatures=()), sealed=place)
        found.append(replace(proposal(record, key=f"sealed-{number:04}"), sealed=SealedIn(place, hashes)))
    return found


Call = Callable[[Desk], Awaitable[list[Result]]]


async def batch(here: Desk) -> list[Result]:
    return await here.ask(wanted("A", "B", "C"))


async def under_a_seal(here: Desk) -> list[Result]:
    return await here.ask(sealed_batch(3), sealed=True)


async def told_once(here: Desk, call: Call) -> None:
    """A call that fails, twice again, and something else: all of it is acknowledged, once."""
    first = await call(here)
    assert all(isinstance(result, IdtraceError) for result in first), first
    again = await call(here)
    assert not any(isinstance(result, IdtraceError) for result in again), again
    assert await call(here) == again
    await here.ask(wanted("Z"))
    await here.examine()
    assert len(here.told) == len(again) + 1


def fails_once(work: Callable[..., Any], *, done: bool) -> Callable[..., Any]:
    """An asynchronous method that raises the first time, after its work or in place of it."""
    left = [True]

    async def failing(*given: Any, **named: Any) -> Any:
        if not left:
            return await work(*given, **named)
        left.clear()
        if done:
            await work(*given, **named)
        raise EngineError("the engine said no")

    return failing


def refuses_once() -> Callable[[Callable[..., bytes]], Callable[..., bytes]]:
    """A key that is out of reach the first time."""
    left = [True]

    def wrapped(sign: Callable[..., bytes]) -> Callable[..., bytes]:
        def failing(*given: Any) -> bytes:
            if left:
                left.clear()
                raise EngineError("the key is out of reach")
            return sign(*given)

        return failing

    return wrapped


@pytest.mark.parametrize("call", [batch, under_a_seal])
@pytest.mark.parametrize("persisted", [False, True])
async def test_a_commit_that_fails_at_any_point_is_told_once(engine: Engine, call: Call, persisted: bool) -> None:
    struck = 0
    for number in range(POINTS[engine.name][persisted]):
        place = engine.place()
        async with desk(place) as here:
            await here.ask(wanted("FIRST"))
            handle: Any = here.store
            fired = place.fail_next(handle, number, persisted=persisted)
            first = await call(here)
            was_struck = fired()
            assert all(isinstance(result, IdtraceError) for result in first) == was_struck
            struck += was_struck
            if was_struck and not persisted:
                assert (await here.store.log_edge()).head.size == 1
            again = await call(here)
            assert not any(isinstance(result, IdtraceError) for result in again), again
            assert await call(here) == again
            await here.ask(wanted("Z"))
            await here.examine()
            assert len(here.told) == 5
        await place.end()
    assert struck >= POINTS[engine.name][persisted] * 2 // 3


@pytest.mark.parametrize("call", [batch, under_a_seal])
@pytest.mark.parametrize("read", ["heads", "earlier"])
async def test_where_the_store_cannot_be_read_nothing_is_committed(engine: Engine, call: Call, read: str) -> None:
    place = engine.place()
    async with desk(place) as here:
        await here.ask(wanted("FIRST"))
        usual = getattr(here.store, read)
        failing = fails_once(usual, done=True)
        setattr(here.sequencer._storage, read, failing)
        if call is under_a_seal and read == "earlier":
            with pytest.raises(EngineError):
                await failing("", [])  # the desk's own look, which is not this test's
            setattr(here.store, read, fails_once(usual, done=True))
            here._is_closed = never_closed  # type: ignore[method-assign,assignment]  # nothing of it was committed before
        await told_once_after_nothing(here, call)
    await place.end()


async def never_closed(_: Sequence[Proposal]) -> bool:
    return False


async def told_once_after_nothing(here: Desk, call: Call) -> None:
    before = (await here.store.log_edge()).head.size
    first = await call(here)
    assert all(isinstance(result, IdtraceError) for result in first), first
    assert (await here.store.log_edge()).head.size == before
    again = await call(here)
    assert not any(isinstance(result, IdtraceError) for result in again), again
    await here.examine()


# The log is signed inside the store's transaction, and the store in memory has none that could be taken back.
@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
@pytest.mark.parametrize("call", [batch, under_a_seal])
async def test_where_the_log_cannot_be_signed_nothing_is_committed(engine: Engine, call: Call) -> None:
    place, key = engine.place(), log_signer()
    broken = NoteSigner(key.key, refuses_once()(key._sign))
    async with desk(place, by=broken) as here:
        await told_once_after_nothing(here, call)
        await told_once_more(here)
    await place.end()


async def told_once_more(here: Desk) -> None:
    await here.ask(wanted("Z"))
    await here.examine()


async def test_where_a_receipt_cannot_be_signed_nothing_is_committed(engine: Engine) -> None:
    class Away:
        public_key = NODE.public_key
        sign = staticmethod(refuses_once()(NODE.sign))

    place = engine.place()
    async with desk(place, node=Away()) as here:
        await told_once_after_nothing(here, batch)
        await told_once_more(here)
    await place.end()


@pytest.mark.parametrize("call", [batch, under_a_seal])
@pytest.mark.parametrize("persisted", [False, True])
@pytest.mark.parametrize("done", [False, True])
async def test_a_reopening_that_fails_as_well_is_tried_again(
    engine: Engine, call: Call, persisted: bool, done: bool
) -> None:
    place = engine.place()
    async with desk(place) as here:
        await here.ask(wanted("FIRST"))
        handle: Any = here.store
        fired = place.fail_next(handle, 1, persisted=persisted)
        assert all(isinstance(result, IdtraceError) for result in await call(here))
        assert fired()
        here.store.reopen = fails_once(here.store.reopen, done=done)  # type: ignore[method-assign]  # it fails once
        first = await here.ask(wanted("Y"))
        assert isinstance(first[0], IdtraceError), "a commit after a failed one, without reopen"
        assert not any(isinstance(result, IdtraceError) for result in await call(here))
        await here.ask(wanted("Y", "Z"))
        await here.examine()
        assert len(here.told) == 6
    await place.end()


@pytest.mark.parametrize("call", [batch, under_a_seal])
async def test_what_is_committed_and_cannot_be_published_or_answered_is_told_later(engine: Engine, call: Call) -> None:
    for step in ("publish", "answer"):
        place, left = engine.place(), [step]

        def grow(left: list[str] = left) -> None:
            if left == ["publish"]:
                left.clear()
                raise EngineError("nobody can be told")

        async with desk(place, on_commit=grow) as here:
            if step == "answer":
                here.sequencer._answers = fails_once(here.sequencer._answers, done=True)  # type: ignore[method-assign]
            await told_once(here, call)
        await place.end()


async def test_a_caller_that_leaves_in_the_midst_of_a_commit_is_told_when_it_asks_again(engine: Engine) -> None:
    place = engine.place()
    async with desk(place) as here:
        store, reached, going = here.store, asyncio.Event(), asyncio.Event()
        usual = store.commit

        async def slowly(*given: Any) -> Any:
            reached.set()
            await going.wait()
            return await usual(*given)

        store.commit = slowly  # type: ignore[method-assign,assignment]  # as slow as it has to be
        leaving = asyncio.create_task(batch(here))
        await reached.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        going.set()
        assert not any(isinstance(result, IdtraceError) for result in await batch(here))
        await here.examine()
        assert (await store.log_edge()).head.size == 3
    await place.end()


async def test_two_sequencers_on_one_store_never_commit_one_size_twice(engine: Engine) -> None:
    """Both want the same identifiers: each has one owner, and whoever loses hears why."""
    place, clock = engine.place(), Clock()
    async with desk(place, clock=clock) as one, desk(place, clock=clock) as other:

        async def work(here: Desk, who: str) -> list[Result]:
            told: list[Result] = []
            for n in range(12):
                mine = [
                    proposal(typed_record(f"{ZONE}/{name}-{n}", {"by": who}), key=f"{name}-{who}-{n:04}")
                    for name in ("R", who)
                ]
                told += await here.sequencer.submit(mine)
            return told

        told = await asyncio.gather(work(one, "one"), work(other, "two"))
        reasons = [result.reason for results in told for result in results if isinstance(result, IdtraceError)]
        assert set(reasons) <= {Reason.WRITE_CONFLICT, Reason.IDENTIFIER_TAKEN, Reason.CLOCK_BACK}
        entries = await sound(one.store)
        assert entries == await sound(other.store)
        assert len(entries) == sum(isinstance(result, bytes) for results in told for result in results)
        names = [str(body_of_entry(entry)) for entry in entries]
        assert len(set(names)) == len(names), "two owners of one identifier"
        times = [Entry.from_bytes(entry).committed_at for entry in entries]
        assert times == sorted(times)
    await place.end()


def body_of_entry(entry: bytes) -> Any:
    return RecordBody.parse(Entry.from_bytes(entry).payload).identifier


@pytest.mark.parametrize("seconds", [-1, -3_600])
async def test_a_clock_that_goes_back_commits_nothing_and_loses_nothing(engine: Engine, seconds: int) -> None:
    place, clock = engine.place(), Clock()
    async with desk(place, clock=clock) as here:
        await here.ask(wanted("FIRST"))
        clock.wall += seconds - 1
        (refused,) = await here.sequencer.submit(wanted("A"))
        assert isinstance(refused, BusyError)
        assert refused.reason is Reason.CLOCK_BACK
        assert await here.store.record(f"{ZONE}/A") is None
        assert (await here.store.log_edge()).head.size == 1
        clock.wall -= seconds - 3
        await batch(here)
        await here.examine()
    late = Clock(NOW - 10)
    async with desk(place, clock=late) as behind:  # another process, whose clock is behind the log's last commit
        (refused,) = await behind.sequencer.submit(wanted("B-2"))
        assert isinstance(refused, BusyError)
        assert refused.reason is Reason.CLOCK_BACK
        late.wall = clock.wall
        await behind.ask(wanted("B-2"))
        assert (await behind.store.log_edge()).head.size == 5
    await place.end()

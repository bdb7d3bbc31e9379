"""The store in memory does what every engine does, in any order, and polices its caller on top."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from idtrace import wire
from idtrace.record import Record, Status
from registry.storage import Claim, Grant, Head, Outcome, Storage, Write
from tests.core_fixtures import NOW, delegate, delegation, links
from tests.memory_storage import EngineError, MemoryStorage, once
from tests.registry_fixtures import head_of, typed_record, write_of
from tests.storages import STORAGES

T = TypeVar("T")

ZONES = ("88.118.8", "88.118.9")
NAMES = tuple(f"{zone}{below}/{suffix}" for zone in ZONES for below in ("", ".1") for suffix in "AB")
KEYS = tuple(f"key-0000{n}" for n in range(8))
CLAIMS = tuple(Claim("88.118/c", field, bytes([n]) * 32) for field in ("a", "b") for n in range(2))
PREFIXES = ("88", "88.118", *ZONES, "88.118.80", "88.118.8.1")

# Every step compares some 70 reads; over a network that takes 30 ms and more.
EXAMPLES = {"cassandra": 5}

one_write = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "above": st.booleans(),
        "key": st.sampled_from(KEYS),
        "claims": st.sets(st.sampled_from(CLAIMS), max_size=2),
        "off": st.sampled_from((0, 0, 0, 0, -1, 1)),
    }
)


class SameAnswers(RuleBasedStateMachine):
    """Drives both stores on one loop; the expected truth of versions is read back from the one in memory."""

    engine: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.folder = tempfile.TemporaryDirectory()
        self.opened = AsyncExitStack()
        self.memory = MemoryStorage()
        self.held: dict[str, Grant] = {}
        try:
            self.stores: tuple[Storage, Storage] = (self.memory, self.run(self.open(self.engine)))
        except BaseException:
            self.teardown()  # of a machine that was never built nobody else takes care
            raise

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(steps)

    async def open(self, engine: str) -> Storage:
        return await self.opened.enter_async_context(STORAGES[engine](Path(self.folder.name)))

    def teardown(self) -> None:
        try:
            self.run(self.opened.aclose())
        finally:
            self.runner.close()
            self.folder.cleanup()
        assert self.memory.broken == []

    async def both(self, call: str, *arguments: Any) -> Any:
        first, second = [await getattr(store, call)(*arguments) for store in self.stores]
        assert first == second
        return first

    def write(self, heads: dict[str, Head], wanted: dict[str, Any]) -> Write:
        """A write on top of the version that stands (or off by one), as a sequencer makes it."""
        head = heads.get(wanted["name"])
        version = max((head.version if head else 0) + 1 + wanted["off"], 1)
        fields: dict[str, Any] = {"version": version}
        if version > 1:
            fields |= {"status": Status.RECALLED, "previous_hash": head.record_hash if head else bytes(32)}
        record = typed_record(wanted["name"], {"key": wanted["key"]}, by="anyone", **fields)
        zone = "88.118" if wanted["above"] else wanted["name"][:8]
        return write_of(record, wanted["key"], zone=zone, claims=tuple(sorted(wanted["claims"])))

    @rule(wanted=st.lists(one_write, max_size=6))
    def commit(self, wanted: list[dict[str, Any]]) -> None:
        heads, writes = self.run(self.memory.heads(NAMES)), []
        seen: set[str] = set()
        off: set[str] = set()
        for item in wanted:
            name = item["name"]
            if name in off:  # what would follow hangs on which of the two is committed
                continue
            write = self.write(heads, item if name not in seen else {**item, "off": 0})
            writes.append(write)
            heads[name] = write.head
            (off if item["off"] and name not in seen else seen).add(name)
        self.run(self.both("commit", writes))

    @rule(
        prefix=st.sampled_from(ZONES),
        key=st.sampled_from(KEYS),
        status=st.sampled_from(("applied", "enabled")),
        time=st.integers(0, 2),
    )
    def put_grant(self, prefix: str, key: str, status: str, time: int) -> None:
        held = self.held.get(prefix)
        version = held.version + 1 if held else 0
        body = delegation(prefix, version=max(version, 1), previous=bytes(32) if version > 1 else b"")
        signed = wire.signed_to_bytes(delegate(body)) if version else b""
        grant = Grant(prefix, status, bool(time), "", NOW + time, version, signed, b"a", (key.encode(),))
        outcome = self.run(self.both("put_grant", grant, held, ("88.118", key), bytes(32)))
        if outcome is Outcome.COMMITTED:
            self.held[prefix] = grant

    @precondition(lambda self: self.held)
    @rule(key=st.sampled_from(KEYS))
    def put_grant_on_a_stale_view(self, key: str) -> None:
        for prefix, held in self.held.items():
            moved = replace(held, comment="stale")
            for expected in (replace(held, changed_at=0), None):
                outcome = self.run(self.both("put_grant", moved, expected, ("88.118", key), bytes(32)))
                assert outcome is not Outcome.COMMITTED
            assert prefix == moved.prefix

    @rule(zone=st.sampled_from(("88", "88.118")))
    def put_chain(self, zone: str) -> None:
        self.run(self.both("put_chain", zone, [wire.signed_to_bytes(signed) for signed in links(zone)]))

    @rule()
    def reopen(self) -> None:
        self.run(self.both("reopen"))

    @invariant()
    def every_answer_is_the_same(self) -> None:
        self.run(self.compare())

    async def compare(self) -> None:
        heads = await self.both("heads", NAMES)
        for name in NAMES:
            for version in range(3 + (heads[name].version if name in heads else 0)):
                await self.both("record", name, version)
        for zone in (*ZONES, "88.118"):
            await self.both("earlier", zone, KEYS)
        await self.both("claimants", CLAIMS)
        await self.both("chains")
        for prefix in PREFIXES:
            await self.both("any_within", prefix)
        first, second = [sorted(await store.grants(), key=lambda grant: grant.prefix) for store in self.stores]
        assert first == second == [self.held[prefix] for prefix in sorted(self.held)]


@pytest.mark.parametrize("engine", [name for name in STORAGES if name != "memory"])
def test_an_engine_gives_the_answers_of_the_store_in_memory(engine: str) -> None:
    run_state_machine_as_test(
        type(engine, (SameAnswers,), {"engine": engine}),
        settings=settings(
            max_examples=EXAMPLES.get(engine, 30),
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# The store in memory as an instrument of tests

FIRST = typed_record("88.118.8/A", {"lot": "L1"})
FORK = typed_record("88.118.8/A", {"lot": "L2"}, previous=FIRST)
OTHER = typed_record("88.118.8/B")


@pytest.mark.parametrize("fail", ["fail_and_persist", "fail_and_not_persist"])
async def test_a_commit_that_raised_has_happened_or_not_and_never_in_part(fail: str) -> None:
    memory = MemoryStorage()
    setattr(memory, fail, once())
    write = write_of(FIRST, "key-1", claims=CLAIMS[:1])
    with pytest.raises(EngineError):
        await memory.commit([write])
    with pytest.raises(AssertionError, match="without reopen"):
        await memory.commit([write])
    await memory.reopen()
    happened = fail == "fail_and_persist"
    there = (
        await memory.record("88.118.8/A"),
        await memory.earlier(ZONES[0], ["key-1"]),
        await memory.claimants(CLAIMS[:1]),
    )
    assert [bool(part) for part in there] == [happened] * 3
    assert await memory.commit([write]) == [Outcome.KEY_USED if happened else Outcome.COMMITTED]


def broken(write: Write, **changes: Any) -> Write:
    return replace(write, **changes)


@pytest.mark.parametrize(
    ("rule", "write"),
    [
        ("another identifier", broken(write_of(FIRST), identifier="88.118.8/X")),
        ("not the record's", broken(write_of(FIRST), head=head_of(FORK), expected=1)),
        ("does not follow", broken(write_of(FIRST), expected=1)),
        ("about another", broken(write_of(FIRST), receipt=write_of(OTHER).receipt)),
        ("about another", broken(write_of(FIRST), zone="88.118")),
        ("all of its values", broken(write_of(FIRST), record=wire.record_to_bytes(Record(FIRST.signed, ())))),
        ("hash that is none", broken(write_of(FIRST), request_hash=b"short")),
    ],
)
async def test_the_store_in_memory_polices_its_caller(rule: str, write: Write) -> None:
    memory = MemoryStorage()
    with pytest.raises(AssertionError, match=rule):
        await memory.commit([write])
    assert len(memory.broken) == 1

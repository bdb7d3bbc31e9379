"""The store in memory does what SQLite does, in any order, and polices its caller on top."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from idtrace import wire
from idtrace.record import Record, Status
from registry.storage import Claim, Grant, Head, Outcome, Storage, Write
from registry.storage_sqlite import SqliteStorage
from tests.core_fixtures import NOW, delegate, delegation, links
from tests.memory_storage import EngineError, MemoryStorage, once
from tests.registry_fixtures import head_of, typed_record, write_of

ZONES = ("88.118.8", "88.118.9")
NAMES = tuple(f"{zone}{below}/{suffix}" for zone in ZONES for below in ("", ".1") for suffix in "AB")
KEYS = tuple(f"key-0000{n}" for n in range(8))
CLAIMS = tuple(Claim("88.118/c", field, bytes([n]) * 32) for field in ("a", "b") for n in range(2))
PREFIXES = ("88", "88.118", *ZONES, "88.118.80", "88.118.8.1")

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
    """Drives both stores; the expected truth of versions is read back from the one in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = MemoryStorage()
        self.sqlite = SqliteStorage(Path(self.folder.name) / "registry.sqlite3")
        self.stores: tuple[Storage, Storage] = (self.memory, self.sqlite)
        self.held: dict[str, Grant] = {}

    def teardown(self) -> None:
        self.sqlite.close()
        self.folder.cleanup()
        assert self.memory.broken == []

    def both(self, call: str, *arguments: Any) -> Any:
        first, second = (getattr(store, call)(*arguments) for store in self.stores)
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
        heads, writes = self.memory.heads(NAMES), []
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
        self.both("commit", writes)

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
        if self.both("put_grant", grant, held, ("88.118", key), bytes(32)) is Outcome.COMMITTED:
            self.held[prefix] = grant

    @precondition(lambda self: self.held)
    @rule(key=st.sampled_from(KEYS))
    def put_grant_on_a_stale_view(self, key: str) -> None:
        for prefix, held in self.held.items():
            moved = replace(held, comment="stale")
            assert (
                self.both("put_grant", moved, replace(held, changed_at=0), ("88.118", key), bytes(32))
                is not Outcome.COMMITTED
            )
            assert self.both("put_grant", moved, None, ("88.118", key), bytes(32)) is not Outcome.COMMITTED
            assert prefix == moved.prefix

    @rule(zone=st.sampled_from(("88", "88.118")))
    def put_chain(self, zone: str) -> None:
        for store in self.stores:
            store.put_chain(zone, [wire.signed_to_bytes(signed) for signed in links(zone)])

    @rule()
    def reopen(self) -> None:
        for store in self.stores:
            store.reopen()

    @invariant()
    def every_answer_is_the_same(self) -> None:
        heads = self.both("heads", NAMES)
        for name in NAMES:
            for version in range(3 + (heads[name].version if name in heads else 0)):
                self.both("record", name, version)
        for zone in (*ZONES, "88.118"):
            self.both("earlier", zone, KEYS)
        self.both("claimants", CLAIMS)
        self.both("chains")
        for prefix in PREFIXES:
            self.both("any_within", prefix)
        first, second = (sorted(store.grants(), key=lambda grant: grant.prefix) for store in self.stores)
        assert first == second == [self.held[prefix] for prefix in sorted(self.held)]


TestSameAnswers = SameAnswers.TestCase
TestSameAnswers.settings = settings(
    max_examples=30, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)


# The store in memory as an instrument of tests

FIRST = typed_record("88.118.8/A", {"lot": "L1"})
FORK = typed_record("88.118.8/A", {"lot": "L2"}, previous=FIRST)
OTHER = typed_record("88.118.8/B")


@pytest.mark.parametrize("fail", ["fail_and_persist", "fail_and_not_persist"])
def test_a_commit_that_raised_has_happened_or_not_and_never_in_part(fail: str) -> None:
    memory = MemoryStorage()
    setattr(memory, fail, once())
    write = write_of(FIRST, "key-1", claims=CLAIMS[:1])
    with pytest.raises(EngineError):
        memory.commit([write])
    with pytest.raises(AssertionError, match="without reopen"):
        memory.commit([write])
    memory.reopen()
    happened = fail == "fail_and_persist"
    there = (memory.record("88.118.8/A"), memory.earlier(ZONES[0], ["key-1"]), memory.claimants(CLAIMS[:1]))
    assert [bool(part) for part in there] == [happened] * 3
    assert memory.commit([write]) == [Outcome.KEY_USED if happened else Outcome.COMMITTED]


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
def test_the_store_in_memory_polices_its_caller(rule: str, write: Write) -> None:
    memory = MemoryStorage()
    with pytest.raises(AssertionError, match=rule):
        memory.commit([write])
    assert len(memory.broken) == 1

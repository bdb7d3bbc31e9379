"""The contract of registry/storage.py, held against every adapter (tests/storages.py).

As a program (``python -m tests.integration.test_storage_contract FILE NAME ROUNDS``) it is the second process that
writes to the same file.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idtrace import wire
from idtrace.errors import InputError, Reason
from idtrace.record import Status
from registry.config import RegistryConfig
from registry.server import open_storage
from registry.sqlite_rows import VARIABLES_MAX
from registry.storage import Claim, Earlier, Grant, Outcome, Storage, Write
from registry.storage_sqlite import INLINE_KEYS_MAX, SqliteStorage
from tests.core_fixtures import NOW, ZONE, delegate, delegation, links, revocation
from tests.registry_fixtures import ENDED, head_of, typed_record, write_of
from tests.storages import STORAGES

FIRST = typed_record("88.118.8/A", {"lot": "L1"})
SECOND = typed_record("88.118.8/A", {"lot": "L1"}, previous=FIRST, status=Status.RECALLED)
FORK = typed_record("88.118.8/A", {"lot": "L2"}, previous=FIRST)
OTHER = typed_record("88.118.8/B")
SERIAL = Claim("88.118.8/class.c", "serial", hashlib.sha256(b"S-1").digest())


@pytest.fixture(params=list(STORAGES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](tmp_path) as storage:
        yield storage


def grant_of(prefix: str = ZONE, **changes: Any) -> Grant:
    return replace(Grant(prefix, "applied", False, "", NOW, application=b"a", enrolments=(b"e1", b"e2")), **changes)


async def test_an_empty_store_knows_nothing(store: Storage) -> None:
    known = [
        await store.heads(["88.118.8/A"]),
        await store.earlier(ZONE, ["key-00001"]),
        await store.claimants([SERIAL]),
    ]
    nothing = [await store.heads([]), await store.earlier(ZONE, []), await store.claimants([]), await store.chains()]
    assert not any([*known, *nothing, await store.grants(), await store.commit([])])
    assert await store.record("88.118.8/A") is None
    assert await store.record("88.118.8/A", 1) is None
    assert not await store.any_within("88")


async def test_a_write_is_there_with_all_its_parts(store: Storage) -> None:
    first, second = write_of(FIRST, "key-1", claims=(SERIAL,)), write_of(SECOND, "key-2")
    assert await store.commit([first]) == [Outcome.COMMITTED]
    assert await store.commit([second]) == [Outcome.COMMITTED]
    assert await store.heads(["88.118.8/A", "88.118.8/B"]) == {"88.118.8/A": head_of(SECOND)}
    assert [await store.record("88.118.8/A", n) for n in range(4)] == [second.record, first.record, second.record, None]
    assert await store.earlier(ZONE, ["key-1", "key-2", "key-3"]) == {
        "key-1": Earlier(first.request_hash, first.receipt),
        "key-2": Earlier(second.request_hash, second.receipt),
    }
    assert await store.earlier("88.118", ["key-1"]) == {}
    assert await store.claimants([SERIAL, replace(SERIAL, field="lot")]) == {SERIAL: "88.118.8/A"}


def losing_writes() -> list[tuple[Write, Outcome]]:
    """Each loses against FIRST with key-1 and the serial's claim."""
    return [
        (write_of(FIRST, "key-1"), Outcome.KEY_USED),
        (write_of(OTHER, "key-1"), Outcome.KEY_USED),
        (write_of(FIRST, "key-2"), Outcome.CONFLICT),
        (write_of(typed_record("88.118.8/A", previous=SECOND), "key-2"), Outcome.CONFLICT),
        (write_of(OTHER, "key-2", claims=(SERIAL,)), Outcome.CLAIMED),
        (write_of(OTHER, "key-2", claims=(replace(SERIAL, field="lot"), SERIAL)), Outcome.CLAIMED),
    ]


@pytest.mark.parametrize("together", [True, False])
async def test_a_write_that_loses_is_reported_and_leaves_nothing_and_the_others_alone(
    store: Storage, together: bool
) -> None:
    winner = write_of(FIRST, "key-1", claims=(SERIAL,))
    last = write_of(typed_record("88.118.8/C"), "key-9")
    losers = losing_writes()
    batches = [[winner, *(w for w, _ in losers), last]] if together else [[winner], *([w] for w, _ in losers), [last]]
    outcomes = [outcome for batch in batches for outcome in await store.commit(batch)]
    assert outcomes == [Outcome.COMMITTED, *(outcome for _, outcome in losers), Outcome.COMMITTED]
    assert await store.heads(["88.118.8/A", "88.118.8/B", "88.118.8/C"]) == {
        "88.118.8/A": winner.head,
        "88.118.8/C": last.head,
    }
    assert await store.earlier(ZONE, ["key-1", "key-2"]) == {"key-1": Earlier(winner.request_hash, winner.receipt)}
    assert await store.claimants([SERIAL, replace(SERIAL, field="lot")]) == {SERIAL: "88.118.8/A"}
    assert await store.record("88.118.8/A", 1) == winner.record


async def test_versions_that_follow_each_other_fit_into_one_batch(store: Storage) -> None:
    end = typed_record("88.118.8/A", previous=SECOND, **ENDED)
    writes = [write_of(record, f"key-{n}") for n, record in enumerate((FIRST, SECOND, FORK, end))]
    assert await store.commit(writes) == [Outcome.COMMITTED, Outcome.COMMITTED, Outcome.CONFLICT, Outcome.COMMITTED]
    assert await store.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(end)}


async def test_a_claim_stays_with_its_identifier_and_never_moves(store: Storage) -> None:
    await store.commit([write_of(FIRST, "key-1", claims=(SERIAL,))])
    assert await store.commit([write_of(SECOND, "key-2", claims=(SERIAL,))]) == [Outcome.COMMITTED]
    end = typed_record("88.118.8/A", previous=SECOND, **ENDED)
    assert await store.commit([write_of(end, "key-3")]) == [Outcome.COMMITTED]
    assert await store.commit([write_of(OTHER, "key-4", claims=(SERIAL,))]) == [Outcome.CLAIMED]
    for free in (
        replace(SERIAL, class_id="88.118.8/class.d"),
        replace(SERIAL, field="lot"),
        replace(SERIAL, digest=bytes(32)),
    ):
        name = f"88.118.8/{free.field}-{free.class_id[-1]}-{free.digest[0]}"
        assert await store.commit([write_of(typed_record(name), f"key-{name}", claims=(free,))]) == [Outcome.COMMITTED]


async def test_keys_of_two_zones_are_two_keys(store: Storage) -> None:
    other = typed_record("88.118.9/A")
    assert (
        await store.commit([write_of(FIRST, "key-1"), write_of(other, "key-1", zone="88.118.9")])
        == [Outcome.COMMITTED] * 2
    )


@pytest.mark.parametrize(
    ("prefix", "holds"),
    [
        ("88.118.8", True),
        ("88.118", True),
        ("88", True),
        ("8", False),
        ("88.11", False),
        ("88.118.80", False),
        ("88.118.8.1", False),
        ("88.118.8-a", False),
        ("88.1180", False),
        ("99.1", True),
        ("9", False),
    ],
)
async def test_any_within_goes_by_labels(store: Storage, prefix: str, holds: bool) -> None:
    await store.commit(
        [
            write_of(FIRST, "key-1"),
            write_of(typed_record("99.1-x/A"), "key-2", zone="99"),
            write_of(typed_record("99.1.0/A"), "key-3", zone="99"),
        ]
    )
    assert await store.any_within(prefix) is holds


async def test_a_batch_is_larger_than_one_statement_holds(store: Storage) -> None:
    records = [typed_record(f"88.118.8/N-{n}") for n in range(2 * VARIABLES_MAX + 1)]
    writes = [write_of(record, f"key-{n}") for n, record in enumerate(records)]
    assert Counter(await store.commit(writes)) == {Outcome.COMMITTED: len(writes)}
    names, keys = [w.identifier for w in writes], [w.idempotency_key for w in writes]
    assert await store.heads(names) == {w.identifier: w.head for w in writes}
    assert set(await store.earlier(ZONE, keys)) == set(keys)
    assert Counter(await store.commit(writes)) == {Outcome.KEY_USED: len(writes)}


async def test_grants_are_replaced_only_where_they_still_are_the_expected_ones(store: Storage) -> None:
    applied = grant_of()
    assert await store.put_grant(applied, None, (ZONE, "key-1"), bytes(32)) is Outcome.COMMITTED
    assert await store.grants() == [applied]
    moved = replace(applied, status="in_review", comment="seen", changed_at=NOW + 1, enrolments=(b"e3",))
    assert await store.put_grant(moved, None, (ZONE, "key-2"), bytes(32)) is Outcome.CONFLICT
    assert (
        await store.put_grant(moved, replace(applied, status="enabled"), (ZONE, "key-2"), bytes(32)) is Outcome.CONFLICT
    )
    assert await store.put_grant(moved, applied, (ZONE, "key-1"), bytes(32)) is Outcome.KEY_USED
    assert await store.put_grant(moved, applied, (ZONE, "key-2"), b"\1" * 32) is Outcome.COMMITTED
    assert (
        await store.put_grant(grant_of("88.118.9"), grant_of("88.118.9"), (ZONE, "key-3"), bytes(32))
        is Outcome.CONFLICT
    )
    assert await store.grants() == [moved]
    assert await store.earlier(ZONE, ["key-1", "key-2", "key-3"]) == {
        "key-1": Earlier(bytes(32), b""),
        "key-2": Earlier(b"\1" * 32, b""),
    }
    assert await store.commit([write_of(FIRST, "key-2")]) == [Outcome.KEY_USED]


@pytest.mark.parametrize("change", [{"application": b"x"}, {"comment": "x"}, {"enrolments": ()}, {"hosted": True}])
async def test_a_grant_that_differs_in_anything_is_not_the_expected_one(store: Storage, change: dict[str, Any]) -> None:
    await store.put_grant(grant_of(), None, (ZONE, "key-1"), bytes(32))
    moved = grant_of(status="in_review")
    assert await store.put_grant(moved, grant_of(**change), (ZONE, "key-2"), bytes(32)) is Outcome.CONFLICT


async def test_a_delegation_and_its_revocation_are_kept_as_signed(store: Storage) -> None:
    signed = [wire.signed_to_bytes(delegate(body)) for body in (delegation(ZONE), revocation(ZONE))]
    first = grant_of(status="enabled", version=1, delegation=signed[0])
    second = replace(first, version=2, delegation=signed[1], hosted=True)
    assert await store.put_grant(first, None, (ZONE, "key-1"), bytes(32)) is Outcome.COMMITTED
    assert await store.put_grant(second, first, (ZONE, "key-2"), bytes(32)) is Outcome.COMMITTED
    assert await store.grants() == [second]


async def test_a_delegation_and_identifiers_below_it_never_both_come_to_be(store: Storage) -> None:
    handed = grant_of(status="enabled", version=1, delegation=wire.signed_to_bytes(delegate(delegation(ZONE))))
    below = typed_record("88.118.8.1/A")
    assert await store.commit([write_of(below, "key-1", zone="88.118")]) == [Outcome.COMMITTED]
    assert await store.put_grant(handed, None, (ZONE, "key-2"), bytes(32)) is Outcome.CONFLICT
    other = delegation("88.118.9")
    free = grant_of("88.118.9", version=1, delegation=wire.signed_to_bytes(delegate(other)))
    assert await store.put_grant(free, None, ("88.118", "key-3"), bytes(32)) is Outcome.COMMITTED
    records = [typed_record(f"88.118.{name}/A") for name in ("9", "9.1", "90")]
    writes = [write_of(record, f"key-{n}-above", zone="88.118") for n, record in enumerate(records)]
    assert await store.commit(writes) == [Outcome.CONFLICT, Outcome.CONFLICT, Outcome.COMMITTED]
    hosted = [write_of(record, f"key-{n}-hosted", zone="88.118.9") for n, record in enumerate(records[:2])]
    assert await store.commit(hosted) == [Outcome.COMMITTED] * 2
    disabled = replace(free, status="disabled", hosted=True)
    assert await store.put_grant(disabled, free, ("88.118", "key-4"), bytes(32)) is Outcome.COMMITTED


async def test_chains_are_kept_whole_and_in_order(store: Storage) -> None:
    long, short = ([wire.signed_to_bytes(x) for x in links(zone)] for zone in (ZONE, "88"))
    await store.put_chain(ZONE, long)
    await store.put_chain("88", short)
    await store.put_chain(ZONE, long)
    assert await store.chains() == {ZONE: tuple(long), "88": tuple(short)}


async def test_everything_is_there_after_reopen(store: Storage) -> None:
    async def everything() -> list[object]:
        return [
            await store.heads(["88.118.8/A"]),
            [await store.record("88.118.8/A", n) for n in range(3)],
            await store.earlier(ZONE, ["key-1", "key-2", "key-3"]),
            await store.claimants([SERIAL]),
            await store.grants(),
            await store.chains(),
        ]

    await store.commit([write_of(FIRST, "key-1", claims=(SERIAL,))])
    await store.commit([write_of(SECOND, "key-2")])
    await store.put_grant(grant_of(), None, (ZONE, "key-3"), bytes(32))
    await store.put_chain("88", [wire.signed_to_bytes(x) for x in links("88")])
    before = await everything()
    await store.reopen()
    assert await everything() == before
    await store.close()
    await store.reopen()
    assert await everything() == before
    assert await store.commit([write_of(typed_record("88.118.8/A", previous=SECOND), "key-4")]) == [Outcome.COMMITTED]


# SQLite: one file, several writers and readers


async def race(path: Path, name: str, rounds: int) -> list[str]:
    """Commit a batch a round that another writer wants too: one identifier, one claim, one key. Tells the outcomes."""
    store = SqliteStorage(path)
    told = []
    for n in range(rounds):
        claim = replace(SERIAL, digest=hashlib.sha256(b"%d" % n).digest())
        wanted = [
            write_of(typed_record(f"88.118.8/R-{n}", {"by": name}), f"key-{name}-{n}"),
            write_of(typed_record(f"88.118.8/{name}-C-{n}"), f"claim-{name}-{n}", claims=(claim,)),
            write_of(typed_record(f"88.118.8/{name}-K-{n}"), f"key-shared-{n}"),
        ]
        told += [f"{kind}-{n}:{outcome.name}" for kind, outcome in zip("RCK", await store.commit(wanted), strict=True)]
    await store.close()
    return told


async def check_race(path: Path, told: dict[str, list[str]], rounds: int) -> None:
    """One winner a prize, and what is stored is the winner's."""
    won: dict[str, list[str]] = {}
    for name, lines in told.items():
        assert len(lines) == 3 * rounds
        for prize, _, outcome in (line.partition(":") for line in lines):
            won.setdefault(prize, [])
            if outcome == "COMMITTED":
                won[prize].append(name)
    assert all(len(winners) == 1 for winners in won.values())
    store = SqliteStorage(path)
    for n in range(rounds):
        stored = wire.record_from_bytes(await store.record(f"88.118.8/R-{n}") or b"")
        assert [value.data.decode() for value in stored.values] == won[f"R-{n}"]
        claim = replace(SERIAL, digest=hashlib.sha256(b"%d" % n).digest())
        assert await store.claimants([claim]) == {claim: f"88.118.8/{won[f'C-{n}'][0]}-C-{n}"}
        assert [name for name in told if await store.record(f"88.118.8/{name}-K-{n}")] == won[f"K-{n}"]
    await store.close()


def test_two_threads_on_one_file_have_one_winner_each_time(tmp_path: Path) -> None:
    path, rounds = tmp_path / "registry.sqlite3", 60
    with ThreadPoolExecutor(2) as pool:
        told = dict(zip("ab", pool.map(lambda name: asyncio.run(race(path, name, rounds)), "ab"), strict=True))
    asyncio.run(check_race(path, told, rounds))


@pytest.mark.slow
def test_two_processes_on_one_file_have_one_winner_each_time(tmp_path: Path) -> None:
    path, rounds = tmp_path / "registry.sqlite3", 60
    programs = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.integration.test_storage_contract", str(path), name, str(rounds)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    }
    try:
        told = {name: program.communicate(timeout=60)[0].split() for name, program in programs.items()}
    finally:
        for program in programs.values():
            program.kill()
            program.wait()
    assert [program.returncode for program in programs.values()] == [0, 0]
    asyncio.run(check_race(path, told, rounds))


async def alongside(work: Coroutine[Any, Any, None], watch: Callable[[], Awaitable[None]]) -> None:
    """Call ``watch`` over and over until ``work`` is done; what either raises is raised."""
    working = asyncio.create_task(work)
    try:
        while not working.done():
            await watch()
            await asyncio.sleep(0)
    finally:
        await working


async def test_a_reader_sees_whole_commits_only(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    names = [f"88.118.8/W-{n}" for n in range(200)]
    few = names[:: len(names) // INLINE_KEYS_MAX][:INLINE_KEYS_MAX]  # read beside the commit, on the loop
    versions = [[typed_record(name) for name in names]]
    for _ in range(3):
        versions.append([typed_record(n, previous=r) for n, r in zip(names, versions[-1], strict=True)])
    seen: Counter[tuple[int, int]] = Counter()

    async def work() -> None:
        for version, records in enumerate(versions):
            writes = [write_of(record, f"key-{version}-{n}") for n, record in enumerate(records)]
            assert Counter(await store.commit(writes)) == {Outcome.COMMITTED: len(names)}

    async def watch() -> None:
        for asked in (few, names):
            heads = await store.heads(asked)
            seen[len(heads), len({head.version for head in heads.values()})] += 1

    await alongside(work(), watch)
    assert set(seen) <= {(0, 0), (len(few), 1), (len(names), 1)}
    assert (await store.heads(names[:1]))[names[0]].version == len(versions)
    await store.close()


async def test_reads_and_grants_go_on_while_the_sequencer_reopens(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    await store.commit([write_of(FIRST, "key-1")])
    put = [0]

    async def work() -> None:
        for _ in range(60):
            await store.reopen()

    async def watch() -> None:
        put[0] += 1
        assert await store.record("88.118.8/A") is not None
        outcome = await store.put_grant(grant_of(f"88.118.{put[0]}"), None, (ZONE, f"key-g-{put[0]}"), bytes(32))
        assert outcome is Outcome.COMMITTED

    await alongside(work(), watch)
    assert len(await store.grants()) == put[0]
    await store.close()


async def test_a_caller_that_leaves_takes_nothing_of_its_batch_with_it(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    for delay_seconds in (0, 0.0005, 0.002):
        records = [typed_record(f"88.118.8/{delay_seconds}-{n}") for n in range(200)]
        writes = [write_of(record, f"key-{delay_seconds}-{n}") for n, record in enumerate(records)]
        call = asyncio.create_task(store.commit(writes))
        await asyncio.sleep(delay_seconds)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert Counter(await store.commit(writes)) == {Outcome.KEY_USED: len(writes)}
    await store.close()


async def test_a_store_that_closes_does_first_what_it_was_asked_and_takes_no_more(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "registry.sqlite3")
    last = asyncio.create_task(store.commit([write_of(FIRST, "key-1")]))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    assert await last == [Outcome.COMMITTED]
    with pytest.raises(RuntimeError):
        await store.commit([write_of(SECOND, "key-2")])
    with pytest.raises(sqlite3.ProgrammingError):
        await store.record("88.118.8/A")
    await store.reopen()
    assert await store.heads(["88.118.8/A"]) == {"88.118.8/A": head_of(FIRST)}
    await store.close()


# What a configuration opens


def config_of(folder: Path, storage: dict[str, object]) -> RegistryConfig:
    given = {"listen": "127.0.0.1:0", "data": "data", "root_key": "root", "node_key": "node", "zones": [""]}
    return RegistryConfig.parse(given | {"storage": storage}, folder)


@pytest.mark.parametrize("storage", [{}, {"engine": "sqlite"}])
async def test_sqlite_is_opened_in_the_data_of_the_node(tmp_path: Path, storage: dict[str, object]) -> None:
    store = await open_storage(config_of(tmp_path, storage))
    assert await store.commit([write_of(FIRST, "key-1")]) == [Outcome.COMMITTED]
    await store.close()
    assert (tmp_path / "data" / "registry.sqlite3").exists()


@pytest.mark.parametrize(
    ("field", "storage"),
    [("storage.engine", {"engine": "paper"}), ("storage.hosts", {"engine": "sqlite", "hosts": ["a"]})],
)
async def test_an_engine_or_a_setting_that_there_is_not_is_named(
    tmp_path: Path, field: str, storage: dict[str, object]
) -> None:
    with pytest.raises(InputError) as caught:
        await open_storage(config_of(tmp_path, storage))
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, field)
    assert not (tmp_path / "data").exists()


def main() -> None:
    path, name, rounds = sys.argv[1:]
    sys.stdout.write(" ".join(asyncio.run(race(Path(path), name, int(rounds)))))


if __name__ == "__main__":
    main()

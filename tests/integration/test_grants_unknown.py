"""Grants when the disk says no, when a caller leaves, and when a registration is on its way at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from idtrace.delegation import Role
from idtrace.errors import IdtraceError, OutcomeUnknownError, Reason
from idtrace.identifier import Prefix
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Application, Command, PrefixStatus, enrol
from registry.admission import Intent
from registry.delegating import Step
from registry.grants import Grants
from registry.intake import take
from registry.sequencer import Sequencer
from registry.storage import Grant
from tests.core_fixtures import NOW, ZONE, delegate, delegation, public, signer
from tests.memory_storage import MemoryStorage, once
from tests.registry_fixtures import authority_for, typed_record, until

S = PrefixStatus
PREFIX = Prefix.parse(ZONE)
PROOFS = [enrol(signer(f"{role} of {ZONE}"), PREFIX, role) for role in Role]
FIRST = delegate(delegation(ZONE))


@pytest.fixture
def memory() -> Iterator[MemoryStorage]:
    storage = MemoryStorage()
    yield storage
    assert storage.broken == []


async def loaded(memory: MemoryStorage) -> Grants:
    grants = Grants(memory, authority_for("88.118"), public("node of 88.118").key_id, lambda: NOW)
    await grants.load()
    return grants


def filed() -> Signed:
    body = Application(PREFIX, hosted=False, endpoints=(), contact="Ann", issued_at=NOW)
    return sign(Kind.APPLICATION, body.payload(), signer(f"zone of {ZONE}"))


def command(status: S) -> Signed:
    return sign(Kind.COMMAND, Command(PREFIX, status, "", NOW).payload(), signer("zone of 88.118"))


async def step(grants: Grants, name: str) -> object:
    """One of the moves of a life that leads to a delegation, always with the same key."""
    match name:
        case "apply":
            return await grants.apply("key-apply", filed(), PROOFS)
        case "review":
            return await grants.move("key-review", command(S.IN_REVIEW))
        case "enable":
            return await grants.move("key-enable", command(S.ENABLED))
        case _:
            return await grants.delegate(Step.DELEGATE, "key-delegate", FIRST, PROOFS)


LIFE = ("apply", "review", "enable", "delegate")
AFTER = {"apply": S.APPLIED, "review": S.IN_REVIEW, "enable": S.ENABLED, "delegate": S.ENABLED}


def state(grants: Grants) -> tuple[PrefixStatus | None, int, bool]:
    held = grants.grant(PREFIX)
    return grants.status(PREFIX), held.version if held else 0, PREFIX in grants._authority.children


@pytest.mark.parametrize("fail", ["fail_and_persist", "fail_and_not_persist"])
@pytest.mark.parametrize("failing", LIFE)
async def test_after_an_unknown_outcome_the_same_key_tells_the_truth_and_life_goes_on(
    memory: MemoryStorage, failing: str, fail: str
) -> None:
    grants = await loaded(memory)
    for name in LIFE:
        if name == failing:
            setattr(memory, fail, once())
            with pytest.raises(OutcomeUnknownError) as caught:
                await step(grants, name)
            assert caught.value.reason is Reason.OUTCOME_UNKNOWN
        answer = await step(grants, name)
        if isinstance(answer, Grant):
            assert answer.status == AFTER[name]
        assert grants.status(PREFIX) is AFTER[name]
        assert await step(grants, name) == answer
    assert state(grants) == state(await loaded(memory)) == (S.ENABLED, 1, True)


@pytest.mark.parametrize("leaving", LIFE)
async def test_a_caller_that_leaves_does_not_tear_memory_from_disk(memory: MemoryStorage, leaving: str) -> None:
    grants = await loaded(memory)
    for name in LIFE:
        if name == leaving:
            release = threading.Event()
            memory.fail_and_not_persist = lambda _, release=release: release.wait(5) and False  # type: ignore[misc]  # this round's event
            call = asyncio.create_task(step(grants, name))
            await asyncio.sleep(0.02)
            call.cancel()
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0.02)
        await step(grants, name)
        assert grants.status(PREFIX) is AFTER[name]
    assert state(grants) == state(await loaded(memory)) == (S.ENABLED, 1, True)


@pytest.mark.parametrize("queued", [False, True])
async def test_a_registration_on_its_way_and_a_delegation_over_it_never_both_go_through(
    memory: MemoryStorage, queued: bool
) -> None:
    grants = await loaded(memory)
    authority = grants._authority
    sequencer = Sequencer(memory, signer("node of 88.118"), lambda: NOW)
    running = asyncio.create_task(sequencer.run())
    started, release = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        started.set()
        release.wait(5)

    memory.before_commit = hold

    def taken(name: str) -> Any:
        record = typed_record(name, by="record of 88.118")
        return take(Intent.REGISTER, f"key-{name}", record, hashed=bytes(32), authority=authority, now=NOW)

    submitted = [asyncio.create_task(sequencer.submit([taken("88.118/first")]))] if queued else []
    await asyncio.sleep(0)
    submitted.append(asyncio.create_task(sequencer.submit([taken(f"{ZONE}/A")])))
    await until(started.is_set)
    handed = asyncio.create_task(grants.delegate(Step.DELEGATE, "key-delegate", FIRST, PROOFS))
    await asyncio.sleep(0.05)
    release.set()
    *_, (registered,) = await asyncio.gather(*submitted)
    outcome = (await asyncio.gather(handed, return_exceptions=True))[0]
    sequencer.close()
    await running
    assert isinstance(registered, bytes) == (await memory.record(f"{ZONE}/A") is not None)
    assert isinstance(outcome, bytes) == (PREFIX in authority.children)
    assert isinstance(registered, IdtraceError) or isinstance(outcome, IdtraceError)

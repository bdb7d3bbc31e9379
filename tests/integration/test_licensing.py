"""Licences that a node learns from a parent that lies, forgets, or is silent: believed only from the root key down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.party import PARTY_TYPE, PartyRole, format_party, license_identifier
from idtrace.record import Record, Status
from registry import licensing
from registry.admission import Intent, Proposal
from registry.licensing import Licences
from registry.reporters import POINTERS_MAX, Reporters
from registry.storage import Mention
from tests.capture_fixtures import a_party, a_place, bytes_of, event_of, event_record, observed
from tests.core_fixtures import NOW, denial, links
from tests.memory_storage import MemoryStorage
from tests.registry_fixtures import authority_for, body_of, mangled, typed_record

PARTY, PARENT = Prefix.parse("88.118.8"), Prefix.parse("88.118")
NAME = license_identifier(PARENT, PARTY)
PLACE = a_place("urn:epc:id:sgln:4012345.00002.0")


class Parent:
    """A parent's node, which answers whatever a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Callable[[], NodeAnswer] = self.silent
        self.asked = 0
        self.now = NOW
        monkeypatch.setattr(licensing, "_ask", self._ask)
        self.storage = MemoryStorage()
        self.authority = authority_for(str(PARTY))
        self.licences = Licences(self.storage, self.authority, ["parent.example:1", "parent.example:2"], self.clock)

    def clock(self) -> int:
        return self.now

    async def _ask(self, endpoint: str, identifier: Identifier) -> NodeAnswer:
        del endpoint, identifier
        self.asked += 1
        return self.answer()

    def silent(self) -> NodeAnswer:
        raise InputError(Reason.ANSWER_MALFORMED, "nothing that could be read")

    def says(self, outcome: Any, zone: str = str(PARENT)) -> None:
        self.answer = lambda: NodeAnswer(links(zone), outcome)

    async def reason(self) -> Reason | None:
        try:
            await self.licences.of(PARTY)
        except IdtraceError as error:
            return error.reason
        return None


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Parent:
    return Parent(monkeypatch)


def licence(party: Any = None, **changes: Any) -> Record:
    given = party or a_party(locations=(PLACE,))
    return typed_record(str(NAME), {PARTY_TYPE: format_party(given).decode()}, **changes)


async def test_a_genuine_licence_is_believed_and_asked_for_again_when_it_is_no_longer_fresh(parent: Parent) -> None:
    parent.says(licence())
    found = await parent.licences.of(PARTY)
    assert found is not None
    assert found.active
    assert list(parent.licences.owners.values()) == ["88.118.8"]
    await parent.licences.of(PARTY)
    assert parent.asked == 1
    first = licence()
    parent.says(licence(previous=first, status=Status.SUSPENDED, party=a_party()))
    parent.now += licensing.FRESH_SECONDS
    found = await parent.licences.of(PARTY)
    assert (found and found.active, parent.asked, parent.licences.owners) == (False, 2, {})


async def test_a_licence_that_goes_back_to_an_earlier_version_is_not_believed(parent: Parent) -> None:
    first = licence()
    parent.says(licence(previous=first, status=Status.SUSPENDED))
    await parent.licences.of(PARTY)
    parent.now += licensing.FRESH_SECONDS
    parent.says(first)
    assert await parent.reason() is Reason.LICENCE_UNREACHABLE


@pytest.mark.parametrize("zone", ["88", "88.118.8"])
async def test_nobody_but_the_parent_licenses_a_party(parent: Parent, zone: str) -> None:
    parent.says(licence(by=f"record of {zone}"), zone)
    assert await parent.reason() is Reason.LICENCE_UNREACHABLE


async def test_forged_licences_denials_and_referrals_are_nothing_to_go_by(parent: Parent) -> None:
    genuine = licence()
    for lie in (
        replace(genuine, signed=mangled(genuine.signed)),
        licence(by="record of 88.118.8"),
        Denied(mangled(denial(NAME, "node of 88.118", "88.118"))),
        Denied(denial(license_identifier(PARENT, Prefix.parse("88.118.9")), "node of 88.118", "88.118")),
        Referred(PARENT),
    ):
        parent.says(lie)
        assert await parent.reason() is Reason.LICENCE_UNREACHABLE
    assert parent.asked == 10, "both of its nodes are asked, each time"
    parent.answer = parent.silent
    assert await parent.reason() is Reason.LICENCE_UNREACHABLE


async def test_a_signed_denial_says_that_there_is_none_and_is_soon_asked_for_again(parent: Parent) -> None:
    parent.says(Denied(denial(NAME, "node of 88.118", "88.118")))
    assert await parent.licences.of(PARTY) is None
    parent.now += licensing.FRESH_SECONDS_ABSENT
    parent.says(licence())
    assert await parent.licences.of(PARTY) is not None


async def test_a_record_that_licenses_somebody_else_licenses_nobody(parent: Parent) -> None:
    parent.says(licence(a_party("88.118.9")))
    assert await parent.licences.of(PARTY) is None


async def test_who_has_no_parent_here_has_no_licence(parent: Parent) -> None:
    assert await parent.licences.of(Prefix.parse("99.1")) is None
    root = Licences(parent.storage, authority_for("88"), [], parent.clock)
    assert await root.of(Prefix.parse("88")) is None
    lonely = Licences(parent.storage, parent.authority, [], parent.clock)
    with pytest.raises(BusyError):
        await lonely.of(PARTY)


async def test_only_so_many_licences_are_kept(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licensing, "KEPT_MAX", 2)
    parent.says(licence())
    await parent.licences.of(PARTY)
    assert len(parent.licences.owners) == 1
    for last in ("1", "2"):
        await parent.licences.of(Prefix.parse(f"99.{last}"))
    assert parent.licences.owners == {}


def proposal(zone: str = "88.118.8", **fields: Any) -> Proposal:
    data = bytes_of(observed(1, **fields))
    record = event_record("88.118.8", data)
    return Proposal(Intent.REGISTER, zone, "key", b"", record, body_of(record), event=event_of(observed(1, **fields)))


async def test_a_prefix_that_is_no_zone_of_its_own_is_no_party(parent: Parent) -> None:
    parent.says(licence())
    reporters = Reporters(parent.storage, parent.licences)
    await reporters.check(proposal())
    with pytest.raises(IdtraceError) as refused:
        await reporters.check(proposal("88.118"))
    assert refused.value.reason is Reason.PARTY_UNLICENSED
    await Reporters(parent.storage, None).check(proposal("88.118"))  # where nobody is asked for a licence


async def test_a_thing_of_more_events_than_are_read_is_in_nobodys_hands(parent: Parent) -> None:
    parent.says(licence(a_party("88.118.8", PartyRole.DISTRIBUTOR)))
    reporters = Reporters(parent.storage, parent.licences)
    pointers = [Mention("88.118.8/SN-1", n, f"88.118.9/event/{n:064x}", "epc") for n in range(POINTERS_MAX)]
    await parent.storage.put_pointers(pointers)
    await reporters.check(proposal(bizStep="storing"))

"""Nothing is signed on top of what a node only says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.chain import Anchor
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.trust import ReceiptCheck, current_delegation, current_record, trusted_chain
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, Value
from idtrace.seal import seal
from idtrace.signature import Signed
from idtrace.v1 import delegation_pb2, registry_pb2
from idtrace.wire import answer_to_pb, signed_to_pb
from tests.core_fixtures import (
    ITEM,
    NOW,
    ZONE,
    anchor,
    delegate,
    delegation,
    denial,
    links,
    public,
    reason_of,
    receipt,
    record,
    signer,
    with_signature,
)

OWN = public(f"record of {ZONE}")


class FakeNode:
    """A node that answers one thing."""

    address = "fake:1"
    channel = None

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask(self, _: Any, __: Any) -> Any:
        return self.answer


@pytest.fixture(autouse=True)
def _no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def __init__(self, _: Any) -> None:
            self.Get = None

    monkeypatch.setattr("idtrace.v1.registry_pb2_grpc.RegistryServiceStub", Stub)
    monkeypatch.setattr("idtrace.v1.delegation_pb2_grpc.DelegationServiceStub", Stub)


def current(
    outcome: Any, delegations: tuple[Signed, ...] = links(), pinned: Anchor | None = None
) -> Callable[[], object]:
    answer = registry_pb2.RegistryServiceGetResponse(answer=answer_to_pb(NodeAnswer(delegations, outcome)))
    return lambda: current_record(cast(Any, FakeNode(answer)), ITEM, OWN, pinned, NOW)


@pytest.mark.parametrize("pinned", [None, anchor()], ids=["own key", "root key"])
def test_a_genuine_record_is_taken(pinned: Anchor | None) -> None:
    assert reason_of(current(record(), pinned=pinned)) is None


def lied() -> list[tuple[str, Record, Reason]]:
    sound = record()
    other = record(Identifier.parse(f"{ZONE}/SN-2"))
    first = sound.values[0]
    return [
        ("another identifier", other, Reason.RECORD_WRONG_IDENTIFIER),
        ("a changed value", Record(sound.signed, (Value(1, first.salt, b"z"),)), Reason.VALUE_CHANGED),
        ("an added value", Record(sound.signed, (*sound.values, Value(9, first.salt, b"z"))), Reason.VALUE_UNSIGNED),
        ("a broken signature", Record(with_signature(sound.signed, bytes(64)), ()), Reason.SIGNATURE_INVALID),
        (
            "another body",
            Record(replace(sound.signed, payload=other.signed.payload), ()),
            Reason.SIGNATURE_INVALID,
        ),
    ]


@pytest.mark.parametrize("pinned", [None, anchor()], ids=["own key", "root key"])
@pytest.mark.parametrize(("what", "lie", "reason"), lied(), ids=[what for what, _, _ in lied()])
def test_no_lie_is_built_upon(pinned: Anchor | None, what: str, lie: Record, reason: Reason) -> None:
    assert reason_of(current(lie, pinned=pinned)) is reason, what


def test_another_keys_record_needs_the_root_key() -> None:
    with pytest.raises(Failure) as caught:
        current(record(by="a thief"))()
    assert (caught.value.code, caught.value.error.reason) == (ExitCode.BOGUS, Reason.SIGNER_UNKNOWN)
    assert reason_of(current(record(by="a thief"), pinned=anchor())) is Reason.SIGNER_UNKNOWN


def test_a_record_without_a_chain_proves_nothing_under_a_pinned_key() -> None:
    assert reason_of(current(record(), (), anchor())) is Reason.CHAIN_EMPTY


@pytest.mark.parametrize(
    ("outcome", "delegations", "hint"),
    [
        (Denied(denial()), links(), ""),
        (Referred(Prefix.parse(ZONE)), links(), "ask --node node.example:7001"),
        (Referred(Prefix.parse(ZONE)), (), ""),
        (Referred(Prefix.parse(ZONE)), (replace(links()[0], payload=b"{}"),), ""),
    ],
    ids=["denied", "referred", "referred nowhere", "referred by nonsense"],
)
def test_a_node_without_the_record_says_who_has_it_if_it_can(outcome: Any, delegations: Any, hint: str) -> None:
    with pytest.raises(Failure) as caught:
        current(outcome, delegations)()
    assert (caught.value.code, caught.value.hint) == (ExitCode.REFUSED, hint)


def test_the_current_delegation_is_the_childs_or_none() -> None:
    parent = public("zone of 88.118")
    assert current_delegation(links(), Prefix.parse(ZONE), [parent], None, NOW) == delegation(ZONE)
    assert current_delegation(links(), Prefix.parse(ZONE), [public("new")], anchor(), NOW) == delegation(ZONE)
    assert current_delegation(links("88.118"), Prefix.parse(ZONE), [parent], None, NOW) is None
    assert current_delegation((), Prefix.parse(ZONE), [parent], None, NOW) is None


def test_a_forged_delegation_is_not_the_current_one() -> None:
    forged = (*links("88.118"), delegate(delegation(ZONE, version=9, previous=bytes(32)), "a thief"))
    with pytest.raises(Failure):
        current_delegation(forged, Prefix.parse(ZONE), [public("zone of 88.118")], None, NOW)
    assert (
        reason_of(lambda: current_delegation(forged, Prefix.parse(ZONE), [public("a thief")], anchor(), NOW))
        is Reason.SIGNER_UNKNOWN
    )
    assert reason_of(lambda: trusted_chain((), anchor(), NOW)) is Reason.CHAIN_EMPTY


def checked(said: Signed, about: Record, pinned: Anchor | None) -> Callable[[], object]:
    chain = delegation_pb2.DelegationServiceGetResponse(chain=[signed_to_pb(link) for link in links()])
    check = ReceiptCheck(cast(Any, FakeNode(chain)), pinned)
    return lambda: check(said, about, ITEM, 1, NOW)


def test_a_receipt_is_about_this_record_and_under_a_pinned_key_the_zones_own_word() -> None:
    sound = record()
    for pinned in (None, anchor()):
        assert reason_of(checked(receipt(sound), sound, pinned)) is None
        assert reason_of(checked(receipt(record(data=["z"])), sound, pinned)) is Reason.RECEIPT_WRONG_RECORD
        assert reason_of(checked(receipt(sound, version=2), sound, pinned)) is Reason.RECEIPT_WRONG_RECORD
    assert reason_of(checked(receipt(sound, by="a thief"), sound, anchor())) is Reason.SIGNER_UNKNOWN


def under_seal(by: str = f"record of {ZONE}", zone: str = ZONE, *others: Record) -> Record:
    mine = record()
    bare = replace(mine, signed=replace(mine.signed, signatures=()))
    return replace(
        bare, sealed=seal([mine.hash, *(o.hash for o in others)], Prefix.parse(zone), signer(by), issued_at=NOW)[0]
    )


def test_a_record_under_a_seal_of_ones_own_is_taken_without_a_root_key() -> None:
    assert reason_of(current(under_seal())) is None
    assert reason_of(current(under_seal(), pinned=anchor())) is None


def test_no_seal_but_ones_own_over_this_very_record_counts() -> None:
    with pytest.raises(Failure) as caught:
        current(under_seal("a thief"))()
    assert (caught.value.error.reason, "--root" in caught.value.hint) == (Reason.SIGNER_UNKNOWN, True)
    assert reason_of(current(under_seal(zone="88.119"))) is Reason.SEAL_WRONG_ZONE
    whole = under_seal(f"record of {ZONE}", ZONE, record(Identifier.parse(f"{ZONE}/SN-2")))
    assert whole.sealed is not None
    moved = replace(whole, sealed=replace(whole.sealed, position=1))
    assert reason_of(current(moved)) is Reason.SEAL_PATH

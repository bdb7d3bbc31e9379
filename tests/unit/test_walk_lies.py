"""The lie matrix of the walk: each way to lie has its own reason, none is believed, and one honest sibling is enough.

Every zone of this tree has two nodes. In the first test both lie; in the second only the first one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from idtrace.bundle import Denied, NodeAnswer, Referred, Verdict
from idtrace.delegation import Role, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record
from idtrace.signature import Kind, MemorySigner, Signed, sign
from resolver.effects import Ask
from tests import simulator as sim
from tests.simulator import Client, Tree

ITEM = Identifier.parse("88.118.8/SN-1")
OTHER = Identifier.parse("88.118.8/SN-2")
ABSENT = Identifier.parse("88.118.8/absent")
SIBLING = Identifier.parse("88.118.6/SN-1")
ATTACKER = sim.signer("attacker")
Lie = Callable[[Tree, Ask, NodeAnswer], NodeAnswer]


def tree() -> Tree:
    built = Tree()
    built.zone("88", node=("top-a", "top-b"))
    built.zone("88.118", node=("second-a", "second-b"))
    built.zone("88.118.8", node=("ent-a", "ent-b"))
    built.zone("88.118.6", node=("six-a", "six-b"))
    for identifier in (ITEM, OTHER, SIBLING):
        built.register(identifier, {"name": "vial", "lot": "L1"}, restricted={"price": "12"})
    return built


def zone(built: Tree, prefix: str = "88.118.8") -> sim.Zone:
    return built.zones[Prefix.parse(prefix)]


def record_of(answer: NodeAnswer) -> Record:
    assert isinstance(answer.outcome, Record)
    return answer.outcome


def denial_of(answer: NodeAnswer) -> Denied:
    assert isinstance(answer.outcome, Denied)
    return answer.outcome


def outcome(change: Callable[[Tree, NodeAnswer], Record | Denied | Referred]) -> Lie:
    return lambda built, ask, answer: replace(answer, outcome=change(built, answer))


def link(change: Callable[[Tree, Signed], Signed]) -> Lie:
    return lambda built, ask, answer: replace(
        answer, delegations=(*answer.delegations[:-1], change(built, answer.delegations[-1]))
    )


def record_by(key: Callable[[Tree], MemorySigner], **changes: object) -> Lie:
    return outcome(lambda built, answer: sim.resigned_record(record_of(answer), key(built), **changes))


def denial_by(key: Callable[[Tree], MemorySigner], **changes: object) -> Lie:
    return outcome(lambda built, answer: sim.resigned_denial(denial_of(answer), key(built), **changes))


def own(role: Role, prefix: str = "88.118.8") -> Callable[[Tree], MemorySigner]:
    return lambda built: zone(built, prefix).key(role)


def values(change: Callable[[Record], Record]) -> Lie:
    return outcome(lambda built, answer: change(record_of(answer)))


def swap_data(record: Record) -> Record:
    first, second, *rest = record.values
    return replace(record, values=(replace(first, data=second.data), second, *rest))


def nine_signatures(built: Tree, answer: NodeAnswer) -> Record:
    signed = record_of(answer).signed
    return replace(record_of(answer), signed=replace(signed, signatures=signed.signatures * 9))


def with_payload(change: Callable[[bytes], bytes]) -> Lie:
    """The owner's own key signs a body that breaks the rules (a signer may lie too)."""

    def run(built: Tree, answer: NodeAnswer) -> Record:
        payload = change(record_of(answer).signed.payload)
        return Record(sign(Kind.RECORD, payload, own(Role.RECORD)(built)), record_of(answer).values)

    return outcome(run)


# name → (question, nodes that lie, what they say, the reason)
LIES: dict[str, tuple[Identifier, str, Lie, Reason]] = {
    # Records
    "record by a stranger": (ITEM, "ent", record_by(lambda t: ATTACKER), Reason.SIGNER_UNKNOWN),
    "record by a sibling's key": (ITEM, "ent", record_by(own(Role.RECORD, "88.118.6")), Reason.SIGNER_UNKNOWN),
    "record by the parent's key": (ITEM, "ent", record_by(own(Role.RECORD, "88.118")), Reason.SIGNER_UNKNOWN),
    "record by the node's key": (ITEM, "ent", record_by(own(Role.NODE)), Reason.SIGNER_UNKNOWN),
    "record by the zone's key": (ITEM, "ent", record_by(own(Role.ZONE)), Reason.SIGNER_UNKNOWN),
    "record with a bit of its signature flipped": (
        ITEM,
        "ent",
        values(lambda r: replace(r, signed=sim.mangled(r.signed))),
        Reason.SIGNATURE_INVALID,
    ),
    "record with a word of its body changed": (
        ITEM,
        "ent",
        values(lambda r: replace(r, signed=replace(r.signed, payload=r.signed.payload.replace(b"active", b"actife")))),
        Reason.SIGNATURE_INVALID,
    ),
    "record without a signature": (
        ITEM,
        "ent",
        values(lambda r: replace(r, signed=replace(r.signed, signatures=()))),
        Reason.SIGNATURE_MISSING,
    ),
    "record with nine signatures": (ITEM, "ent", outcome(nine_signatures), Reason.TOO_MANY_SIGNATURES),
    "record under another payload type": (
        ITEM,
        "ent",
        values(lambda r: replace(r, signed=replace(r.signed, payload_type=Kind.DENIAL.payload_type))),
        Reason.PAYLOAD_TYPE_UNKNOWN,
    ),
    "another item's genuine record": (
        ITEM,
        "ent",
        outcome(lambda t, a: zone(t).records[OTHER][-1]),
        Reason.RECORD_WRONG_IDENTIFIER,
    ),
    "record dated in the future": (
        ITEM,
        "ent",
        record_by(own(Role.RECORD), issued_at=sim.NOW + 60),
        Reason.RECORD_FROM_FUTURE,
    ),
    "record that is not canonical": (
        ITEM,
        "ent",
        with_payload(lambda p: p.replace(b'","', b'", "', 1)),
        Reason.BODY_NOT_CANONICAL,
    ),
    "record that is not JSON": (ITEM, "ent", with_payload(lambda p: p[:-1]), Reason.FIELD_MALFORMED),
    "record with a field too few": (
        ITEM,
        "ent",
        with_payload(lambda p: p.replace(b'"ttl_seconds":300,', b"")),
        Reason.FIELD_MISSING,
    ),
    "value changed": (ITEM, "ent", values(swap_data), Reason.VALUE_CHANGED),
    "value added": (
        ITEM,
        "ent",
        values(lambda r: replace(r, values=(*r.values, replace(r.values[0], index=9)))),
        Reason.VALUE_UNSIGNED,
    ),
    "value twice": (
        ITEM,
        "ent",
        values(lambda r: replace(r, values=(r.values[0], *r.values))),
        Reason.VALUE_DUPLICATE,
    ),
    # Denials
    "denial by a stranger": (ABSENT, "ent", denial_by(lambda t: ATTACKER), Reason.SIGNER_UNKNOWN),
    "denial by a record key": (ABSENT, "ent", denial_by(own(Role.RECORD)), Reason.SIGNER_UNKNOWN),
    "denial of another name": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), identifier=OTHER),
        Reason.DENIAL_WRONG_IDENTIFIER,
    ),
    "denial in the name of the parent": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), zone=Prefix.parse("88.118")),
        Reason.DENIAL_WRONG_ZONE,
    ),
    "denial that has expired": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), issued_at=sim.NOW - 60, expires=sim.NOW - 1),
        Reason.DENIAL_EXPIRED,
    ),
    "denial that lasts too long": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), expires=sim.NOW + 61),
        Reason.DENIAL_TOO_LONG,
    ),
    "denial that ends before it begins": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), issued_at=sim.NOW + 20, expires=sim.NOW + 10),
        Reason.DENIAL_TOO_LONG,
    ),
    "denial dated in the future": (
        ABSENT,
        "ent",
        denial_by(own(Role.NODE), issued_at=sim.NOW + 60, expires=sim.NOW + 90),
        Reason.DENIAL_NOT_YET_VALID,
    ),
    "genuine denial of something else, replayed": (
        ITEM,
        "ent",
        outcome(lambda t, a: t.deny(ABSENT)),
        Reason.DENIAL_WRONG_IDENTIFIER,
    ),
    # Delegations
    "delegation by a stranger": (
        ITEM,
        "second",
        link(lambda t, s: sim.resigned_delegation(t, zone(t), ATTACKER)),
        Reason.SIGNER_UNKNOWN,
    ),
    "delegation by the child itself": (
        ITEM,
        "second",
        link(lambda t, s: sim.resigned_delegation(t, zone(t), zone(t).key(Role.ZONE))),
        Reason.SIGNER_UNKNOWN,
    ),
    "delegation by the parent's record key": (
        ITEM,
        "second",
        link(lambda t, s: sim.resigned_delegation(t, zone(t), own(Role.RECORD, "88.118")(t))),
        Reason.SIGNER_UNKNOWN,
    ),
    "delegation with its keys swapped": (
        ITEM,
        "second",
        link(lambda t, s: replace(s, payload=sim.resigned_delegation(t, zone(t, "88.118.6"), ATTACKER).payload)),
        Reason.SIGNATURE_INVALID,
    ),
    "delegation with a bit flipped": (ITEM, "second", link(lambda t, s: sim.mangled(s)), Reason.SIGNATURE_INVALID),
    "delegation without a signature": (
        ITEM,
        "second",
        link(lambda t, s: replace(s, signatures=())),
        Reason.SIGNATURE_MISSING,
    ),
    "record in the place of a delegation": (
        ITEM,
        "second",
        link(lambda t, s: zone(t).records[ITEM][-1].signed),
        Reason.PAYLOAD_TYPE_UNKNOWN,
    ),
    "delegation that has expired": (
        ITEM,
        "second",
        link(lambda t, s: sim.resigned_delegation(t, zone(t), own(Role.ZONE, "88.118")(t), expires=sim.NOW)),
        Reason.DELEGATION_EXPIRED,
    ),
    "delegation that is not yet valid": (
        ITEM,
        "second",
        link(lambda t, s: sim.resigned_delegation(t, zone(t), own(Role.ZONE, "88.118")(t), not_before=sim.NOW + 1)),
        Reason.DELEGATION_NOT_YET_VALID,
    ),
    "delegation by fewer keys than the parent demands": (
        SIBLING,
        "second",
        lambda t, ask, a: replace(a, delegations=two_of_two(t)),
        Reason.THRESHOLD_NOT_MET,
    ),
    "sibling's genuine delegation": (
        ITEM,
        "second",
        lambda t, ask, a: NodeAnswer((zone(t, "88.118.6").delegations[-1],), Referred(Prefix.parse("88.118.6"))),
        Reason.REFERRAL_SIDEWAYS,
    ),
    # Referrals
    "referral without a delegation": (
        ITEM,
        "second",
        lambda t, ask, a: replace(a, delegations=()),
        Reason.REFERRAL_UNSIGNED,
    ),
    "referral to another zone than the delegated one": (
        ITEM,
        "second",
        outcome(lambda t, a: Referred(Prefix.parse("88.118.6"))),
        Reason.REFERRAL_SIDEWAYS,
    ),
    "referral to a zone above": (
        ITEM,
        "second",
        outcome(lambda t, a: Referred(Prefix.parse("88"))),
        Reason.REFERRAL_UPWARD,
    ),
    "nothing signed at the root": (ITEM, "root", lambda t, ask, a: replace(a, delegations=()), Reason.CHAIN_EMPTY),
    "a root of the attacker's": (
        ITEM,
        "root",
        lambda t, ask, a: replace(
            a, delegations=(sim.resigned_delegation(t, zone(t, ""), ATTACKER), *a.delegations[1:])
        ),
        Reason.ROOT_MISMATCH,
    ),
    "the chain begins below the root": (
        ITEM,
        "root",
        lambda t, ask, a: replace(a, delegations=a.delegations[1:]),
        Reason.ROOT_MISMATCH,
    ),
}


def two_of_two(built: Tree) -> tuple[Signed, Signed]:
    """88.118.6 has come to need two signatures for a delegation, and hands out a child with one."""
    six = zone(built, "88.118.6")
    keys = (*six.bodies[-1].keys, ZoneKey(sim.signer("second zone key").public_key, frozenset({Role.ZONE})))
    strict = replace(built.delegation(six), keys=keys, zone_threshold=2)
    below = replace(six.bodies[-1], child=Prefix.parse("88.118.6.0"), parent=six.prefix)
    return built.sign_delegation(six, strict), sign(Kind.DELEGATION, below.payload(), six.key(Role.ZONE))


def nodes(name: str) -> tuple[str, ...]:
    return ("root",) if name == "root" else (f"{name}-a", f"{name}-b")


@pytest.mark.parametrize("name", LIES)
def test_lie_has_its_reason_and_is_not_believed(name: str) -> None:
    question, liars, lie, reason = LIES[name]
    built = tree()
    for node in nodes(liars):
        built.fault(node, sim.tampering(lie))
    client = Client(built)
    resolution = client.resolve(question)
    assert (resolution.verdict, resolution.reason) == (Verdict.BOGUS, reason), resolution.detail
    assert resolution.bundle is None
    assert client.trust.record(question) is None


@pytest.mark.parametrize("name", [name for name in LIES if LIES[name][1] != "root"])
def test_one_honest_sibling_is_enough(name: str) -> None:
    question, liars, lie, _ = LIES[name]
    built = tree()
    built.fault(f"{liars}-a", sim.tampering(lie))
    honest = Verdict.ABSENT if question == ABSENT else Verdict.FOUND
    resolution = Client(built).resolve(question)
    assert resolution.verdict is honest, resolution.detail
    assert resolution.visited[-1] == ("six-a:7000" if question == SIBLING else f"{_last(liars)}:7000")


def _last(liars: str) -> str:
    return "ent-b" if liars == "ent" else "ent-a"


@pytest.mark.parametrize("name", LIES)
def test_lie_under_a_warm_chain_is_not_believed_either(name: str) -> None:
    question, liars, lie, _ = LIES[name]
    built = tree()
    client = Client(built)
    client.resolve("88.118/warm")
    for node in nodes(liars):
        built.fault(node, sim.tampering(lie))
    resolution = client.resolve(question)
    assert resolution.verdict in {Verdict.BOGUS, Verdict.FOUND, Verdict.ABSENT}
    if liars != "root":  # the root was not asked again
        assert resolution.verdict is Verdict.BOGUS


# Lies that only a memory can tell


def seen_twice() -> tuple[Tree, Client]:
    built = tree()
    client = Client(built)
    built.register(ITEM, {"name": "vial", "lot": "L2"})
    assert client.resolve(ITEM).verdict is Verdict.FOUND
    built.pass_time(seconds=300)
    return built, client


@pytest.mark.parametrize(
    ("name", "lie", "reason"),
    [
        ("older version", outcome(lambda t, a: zone(t).records[ITEM][0]), Reason.RECORD_ROLLED_BACK),
        ("same version, other content", record_by(own(Role.RECORD), ttl_seconds=1), Reason.RECORD_FORKED),
        ("never existed", outcome(lambda t, a: t.deny(ITEM)), Reason.RECORD_ROLLED_BACK),
    ],
)
def test_what_was_seen_cannot_be_taken_back(name: str, lie: Lie, reason: Reason) -> None:
    built, client = seen_twice()
    for node in nodes("ent"):
        built.fault(node, sim.tampering(lie))
    resolution = client.resolve(ITEM)
    assert (resolution.verdict, resolution.reason) == (Verdict.BOGUS, reason), name


def test_disabled_prefix_is_no_rollback_of_its_records() -> None:
    built, client = seen_twice()
    built.disable("88.118.8")
    resolution = client.resolve(ITEM)
    assert (resolution.verdict, resolution.reason) == (Verdict.ABSENT, Reason.PREFIX_DISABLED)


def test_tombstone_is_not_undone() -> None:
    built, client = seen_twice()
    built.retire(ITEM)
    assert client.resolve(ITEM).verdict is Verdict.GONE
    built.pass_time(seconds=300)
    for node in nodes("ent"):
        built.fault(node, sim.tampering(outcome(lambda t, a: zone(t).records[ITEM][1])))
    assert client.resolve(ITEM).reason is Reason.RECORD_ROLLED_BACK


def test_lie_matrix_names_every_reason_of_its_own() -> None:
    reasons = {reason for _, _, _, reason in LIES.values()}
    assert len(LIES) >= 40
    assert len(reasons) >= 25

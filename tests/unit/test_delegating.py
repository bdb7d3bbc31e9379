"""Handing out zones: rules 1 to 5 each broken once, stolen proofs, and what may follow a revocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from idtrace.chain import Context, Link
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.errors import IdtraceError, InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Prefix
from idtrace.signature import Signed
from idtrace.statements import PrefixStatus, enrol
from registry.authority import Authority
from registry.delegating import ENROLMENTS_MAX, Step, check_delegation, delegation_hash
from tests.core_fixtures import (
    NOW,
    USUAL,
    ZONE,
    delegate,
    delegation,
    links,
    public,
    revocation,
    signer,
    zone_keys,
)
from tests.logged_fixtures import ending
from tests.registry_fixtures import authority_for, hand_out, hosted, mangled

R = Reason
P = Prefix.parse


def proofs(zone: str, of: str = "", roles: Sequence[Role] = USUAL) -> list[Signed]:
    """The three keys of zone ``of`` ask for their roles in ``zone``."""
    return [enrol(signer(f"{role} of {of or zone}"), P(zone), role) for role in roles]


def check(
    body: Delegation,
    enrolments: Sequence[Signed] | None = None,
    *,
    step: Step = Step.DELEGATE,
    authority: Authority | None = None,
    signed: Signed | None = None,
    status: PrefixStatus | None = None,
    occupied: bool = False,
    node_key: str = "",
    now: int = NOW,
) -> Delegation:
    return check_delegation(
        signed or delegate(body),
        proofs(str(body.child)) if enrolments is None else enrolments,
        step=step,
        authority=authority or authority_for("88.118"),
        status=status,
        occupied=occupied,
        node_key_id=public(node_key or f"node of {body.child}").key_id,
        context=Context.at(now),
    )


def refusal(action: Callable[[], object]) -> tuple[type[IdtraceError], Reason, str]:
    with pytest.raises(IdtraceError) as caught:
        action()
    return type(caught.value), caught.value.reason, caught.value.field


def with_current(current: Delegation, *own: str) -> Authority:
    authority = authority_for(*(own or ("88.118",)))
    hand_out(authority, current)
    return authority


def next_of(current: Delegation, **changes: Any) -> Delegation:
    return replace(current, version=current.version + 1, previous=current.hash, **changes)


FIRST = delegation(ZONE)
ROTATED = next_of(FIRST, endpoints=("moved.example:1",))


def test_a_sound_first_version_a_rotation_and_a_revocation_pass() -> None:
    assert check(FIRST) == FIRST
    assert check(FIRST, status=PrefixStatus.ENABLED) == FIRST
    assert check(ROTATED, [], step=Step.ROTATE, authority=with_current(FIRST), occupied=True) == ROTATED
    ended = revocation(ZONE)
    for status in (None, *PrefixStatus):
        assert check(ended, [], step=Step.REVOKE, authority=with_current(FIRST), status=status, occupied=True) == ended
    assert delegation_hash(delegate(FIRST)) == FIRST.hash


@pytest.mark.parametrize(
    ("family", "reason", "field", "body", "given"),
    [
        # 1. a valid next link of one of our chains
        (InputError, R.FIELD_MALFORMED, "delegation.expires", delegation(ZONE, expires=NOW - 100), {}),
        (InputError, R.REFERRAL_SIDEWAYS, "delegation.child", delegation(ZONE, parent=P("88.117")), {}),
        (RefusedError, R.NOT_AUTHORITATIVE, "delegation.parent", delegation("77.1"), {}),
        (RefusedError, R.NOT_AUTHORITATIVE, "delegation.parent", delegation("88.118"), {}),
        (RefusedError, R.NOT_AUTHORITATIVE, "delegation.child", delegation(""), {}),
        (VerificationError, R.SIGNER_UNKNOWN, "delegation[3]", FIRST, {"signed": delegate(FIRST, "zone of 88")}),
        (VerificationError, R.SIGNER_UNKNOWN, "delegation[3]", FIRST, {"signed": delegate(FIRST, "node of 88.118")}),
        (VerificationError, R.SIGNATURE_INVALID, "delegation[3]", FIRST, {"signed": mangled(delegate(FIRST))}),
        (VerificationError, R.DELEGATION_EXPIRED, "delegation[3]", replace(FIRST, expires=NOW), {}),
        (VerificationError, R.DELEGATION_NOT_YET_VALID, "delegation[3]", replace(FIRST, not_before=NOW + 1), {}),
        (RefusedError, R.ZONE_DELEGATED, "delegation.child", FIRST, {"authority": authority_for("88.118", ZONE)}),
        # 2. follows the current version
        (RefusedError, R.VERSION_GAP, "delegation.version", FIRST, {"authority": with_current(FIRST)}),
        (RefusedError, R.VERSION_GAP, "delegation.version", ROTATED, {"step": Step.ROTATE}),
        (
            RefusedError,
            R.VERSION_GAP,
            "delegation.version",
            next_of(ROTATED),
            {"step": Step.ROTATE, "authority": with_current(FIRST)},
        ),
        (
            RefusedError,
            R.PREVIOUS_HASH_MISMATCH,
            "delegation.previous",
            replace(ROTATED, previous=bytes(32)),
            {"step": Step.ROTATE, "authority": with_current(FIRST)},
        ),
        # 3. the call fits
        (InputError, R.FIELD_MALFORMED, "delegation.state", FIRST, {"step": Step.ROTATE}),
        (InputError, R.FIELD_MALFORMED, "delegation.state", FIRST, {"step": Step.REVOKE}),
        (InputError, R.FIELD_MALFORMED, "delegation.state", ROTATED, {"authority": with_current(FIRST)}),
        (
            InputError,
            R.FIELD_MALFORMED,
            "delegation.state",
            ROTATED,
            {"authority": with_current(FIRST), "step": Step.REVOKE},
        ),
        (
            InputError,
            R.FIELD_MALFORMED,
            "delegation.state",
            revocation(ZONE),
            {"authority": with_current(FIRST), "step": Step.ROTATE},
        ),
        (InputError, R.FIELD_MALFORMED, "delegation.state", revocation(ZONE), {"authority": with_current(FIRST)}),
        # 4. proof of possession
        (VerificationError, R.PROOF_OF_POSSESSION, "enrolments", FIRST, {"enrolments": []}),
        (InputError, R.FIELD_TOO_LARGE, "enrolments", FIRST, {"enrolments": proofs(ZONE) * 27}),
        (
            VerificationError,
            R.PROOF_OF_POSSESSION,
            "enrolments[1]",
            FIRST,
            {"enrolments": [proofs(ZONE)[0], mangled(proofs(ZONE)[1])]},
        ),
        # 5. the prefix may be handed out
        *(
            (RefusedError, R.PREFIX_NOT_ENABLED, "delegation.child", FIRST, {"status": status})
            for status in PrefixStatus
            if status is not PrefixStatus.ENABLED
        ),
        (RefusedError, R.ZONE_DELEGATED, "delegation.child", FIRST, {"occupied": True}),
    ],
)
def test_each_broken_rule_has_its_reason_and_field(
    family: type[IdtraceError], reason: Reason, field: str, body: Delegation, given: dict[str, Any]
) -> None:
    assert refusal(lambda: check(body, **given)) == (family, reason, field)


def test_the_limit_on_proofs_is_the_limit() -> None:
    given = proofs(ZONE, roles=list(Role)) * 16
    assert len(given) == ENROLMENTS_MAX
    assert check(FIRST, given) == FIRST


@pytest.mark.parametrize("missing", Role)
def test_every_key_proves_every_role_it_gets(missing: Role) -> None:
    logged = delegation(ZONE, keys=zone_keys(ZONE, Role), log=f"log.example/{ZONE}")
    given = proofs(ZONE, roles=[role for role in Role if role is not missing])
    assert refusal(lambda: check(logged, given))[1] is R.PROOF_OF_POSSESSION
    other_role = next(role for role in Role if role is not missing)
    wrong_role = [*given, enrol(signer(f"{missing} of {ZONE}"), P(ZONE), other_role)]
    assert refusal(lambda: check(logged, wrong_role))[1] is R.PROOF_OF_POSSESSION
    assert check(logged, proofs(ZONE, roles=list(Role))) == logged


@pytest.mark.parametrize("stolen_from", ["88.118.9", "88.118", "88.118.8.1", ""])
def test_a_proof_made_for_another_zone_opens_nothing(stolen_from: str) -> None:
    assert refusal(lambda: check(FIRST, proofs(stolen_from, of=ZONE)))[1] is R.PROOF_OF_POSSESSION


def test_one_cannot_enrol_a_key_that_another_holds() -> None:
    victim, thief = proofs(ZONE), proofs(ZONE, of="thief")
    resigned = [replace(v, signatures=t.signatures) for v, t in zip(victim, thief, strict=True)]
    assert refusal(lambda: check(FIRST, resigned))[1:] == (R.PROOF_OF_POSSESSION, "enrolments[0]")


def test_keys_that_stay_need_no_new_proof_and_new_keys_or_roles_do() -> None:
    authority = with_current(FIRST)
    new_key = ZoneKey(public("second record key"), frozenset({Role.RECORD}))
    added = next_of(FIRST, keys=(*FIRST.keys, new_key))
    rotate: Any = {"step": Step.ROTATE, "authority": authority}
    assert refusal(lambda: check(added, [], **rotate))[1] is R.PROOF_OF_POSSESSION
    assert check(added, [enrol(signer("second record key"), P(ZONE), Role.RECORD)], **rotate) == added
    widened = next_of(FIRST, keys=(replace(FIRST.keys[0], roles=frozenset(USUAL)), *FIRST.keys[1:]))
    assert refusal(lambda: check(widened, [], **rotate))[1] is R.PROOF_OF_POSSESSION


def test_after_a_revocation_a_zone_comes_back_as_a_rotation_with_every_proof_made_anew() -> None:
    ended = revocation(ZONE)
    authority = with_current(ended)
    back = next_of(ended, state=FIRST.state, keys=zone_keys(ZONE), endpoints=FIRST.endpoints)
    assert refusal(lambda: check(FIRST, authority=authority))[1] is R.VERSION_GAP
    assert refusal(lambda: check(back, authority=authority))[1] is R.FIELD_MALFORMED
    assert refusal(lambda: check(back, [], step=Step.ROTATE, authority=authority))[1] is R.PROOF_OF_POSSESSION
    assert check(back, step=Step.ROTATE, authority=authority) == back
    again = next_of(ended)
    assert check(again, [], step=Step.REVOKE, authority=authority) == again


def test_a_hosted_zone_names_its_hosts_node_key_until_it_is_taken_back() -> None:
    first = hosted(ZONE)
    wanted = (RefusedError, R.SIGNER_UNKNOWN, "delegation.keys")
    for other in ("node of 88.118", f"record of {ZONE}", f"zone of {ZONE}"):
        assert refusal(lambda other=other: check(first, node_key=other)) == wanted  # type: ignore[misc]  # the loop's own other
        assert check(FIRST, node_key=other) == FIRST
    ended = revocation(ZONE, hosted=True, previous=first.hash)
    given: Any = {"step": Step.REVOKE, "authority": with_current(first), "node_key": "node of 88.118"}
    assert check(ended, [], **given) == ended


# The shape of the tree


def test_a_hosted_zone_hands_out_zones_below_it_and_a_delegated_or_revoked_one_does_not() -> None:
    below = delegation("88.118.9.1", hosted=True)
    authority = with_current(hosted("88.118.9"))
    assert check(below, authority=authority) == below
    for current in (delegation("88.118.9"), revocation("88.118.9")):
        assert refusal(lambda current=current: check(below, authority=with_current(current))) == (  # type: ignore[misc]  # the loop's own current
            RefusedError,
            R.NOT_AUTHORITATIVE,
            "delegation.parent",
        )


@pytest.mark.parametrize("current", [delegation("88.118.9"), hosted("88.118.9"), revocation("88.118.9")])
def test_a_parent_hands_out_nothing_below_a_zone_that_is_anothers(current: Delegation) -> None:
    skipping = delegation("88.118.9.1", parent=P("88.118"))
    assert refusal(lambda: check(skipping, authority=with_current(current)))[:2] == (RefusedError, R.ZONE_DELEGATED)


def test_a_parent_hands_out_nothing_above_a_zone_that_is_anothers() -> None:
    authority = with_current(delegation("88.118.9.1", parent=P("88.118")))
    assert refusal(lambda: check(delegation("88.118.9"), authority=authority)) == (
        RefusedError,
        R.ZONE_DELEGATED,
        "delegation.child",
    )


def test_a_disabled_hosted_zone_hands_out_nothing() -> None:
    authority = authority_for("88.118")
    hand_out(authority, hosted("88.118.9"), PrefixStatus.DISABLED)
    below = delegation("88.118.9.1", hosted=True)
    assert refusal(lambda: check(below, authority=authority))[:2] == (RefusedError, R.PREFIX_NOT_ENABLED)


def test_a_label_may_be_skipped_where_nobody_stands_between() -> None:
    far = delegation("88.118.5.1", parent=P("88.118"))
    assert check(far) == far


# The root's own key set


def test_the_roots_key_set_comes_signed_by_the_pinned_key_and_to_the_roots_node_alone() -> None:
    empty = authority_for()
    empty.wanted = frozenset({P("")})
    first = delegation("")
    assert check(first, authority=empty) == first
    thief = delegate(first, "zone of ")
    assert refusal(lambda: check(first, authority=empty, signed=thief))[1] is R.ROOT_MISMATCH
    held = authority_for("")
    second = next_of(first, endpoints=("moved.example:1",))
    assert check(second, [], step=Step.ROTATE, authority=held) == second
    assert refusal(lambda: check(first, authority=held))[1] is R.VERSION_GAP
    forked = replace(second, previous=bytes(32))
    assert refusal(lambda: check(forked, [], step=Step.ROTATE, authority=held))[1] is R.PREVIOUS_HASH_MISMATCH
    assert refusal(lambda: check(revocation(""), [], step=Step.REVOKE, authority=held))[1] is R.ROOT_MISMATCH


def test_no_zone_is_handed_out_in_the_name_of_a_chain_that_has_ended() -> None:
    after = NOW + 86_400
    late = replace(FIRST, not_before=after, expires=after + 60)
    assert refusal(lambda: check(late, now=after))[1] is R.DELEGATION_EXPIRED


# Several signers, and keys that have ended


def wanting_two() -> tuple[Authority, Delegation]:
    """A node for 88.118, whose zone keys are three and sign two at a time."""
    others = tuple(key for key in zone_keys("88.118") if Role.ZONE not in key.roles)
    three = tuple(ZoneKey(public(name), frozenset({Role.ZONE})) for name in ("one", "two", "three"))
    body = delegation("88.118", keys=(*others, *three), zone_threshold=2)
    authority = authority_for("88.118")
    authority.adopt(P("88.118"), (*(Link.read(link) for link in links("88")), Link.read(delegate(body))))
    return authority, body


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (["one"], R.THRESHOLD_NOT_MET),
        (["one", "one"], R.SIGNER_UNKNOWN),
        (["one", "two", "stranger"], R.SIGNER_UNKNOWN),
        (["one", "zone of 88"], R.SIGNER_UNKNOWN),
        (["one", "record of 88.118"], R.SIGNER_UNKNOWN),
    ],
)
def test_too_few_signers_one_of_them_twice_and_strangers_are_refused(by: list[str], reason: Reason) -> None:
    authority, _ = wanting_two()
    family, found, _ = refusal(lambda: check(FIRST, authority=authority, signed=delegate(FIRST, *by)))
    assert (family, found) == (VerificationError, reason)


@pytest.mark.parametrize("by", [["one", "two"], ["three", "one"], ["three", "two", "one"]])
def test_any_two_of_three_are_enough(by: list[str]) -> None:
    authority, _ = wanting_two()
    assert check(FIRST, authority=authority, signed=delegate(FIRST, *by)) == FIRST


@pytest.mark.parametrize(("until", "stays"), [(7, True), (3, True), (8, False), (None, False)])
def test_a_key_that_has_ended_does_not_come_back(until: int | None, stays: bool) -> None:
    current = ending(7)
    keys = tuple(replace(key, until=until) if key.until == 7 else key for key in current.keys)
    body = next_of(current, keys=keys)
    enrolments = [enrol(signer(f"record of {ZONE}"), P(ZONE), Role.RECORD)]

    def decide() -> Delegation:
        return check(body, enrolments, step=Step.ROTATE, authority=with_current(current))

    if stays:
        assert decide() == body
    else:
        assert refusal(decide) == (InputError, R.FIELD_MALFORMED, "delegation.keys")


def test_a_key_that_has_ended_may_be_left_out() -> None:
    current = ending(7)
    body = next_of(current, keys=tuple(key for key in current.keys if key.until is None))
    assert check(body, [], step=Step.ROTATE, authority=with_current(current)) == body

"""May this delegation be handed out?

Pure, in this order:

1. the parent zone is one of ours, and the exact bytes pass the checks of a chain's next link (signed by enough of the
   parent's zone keys, well-formed, strictly below, in force);
2. version = current + 1, and ``previous`` is the hash of the current version;
3. the call fits: Delegate a first version, Rotate an active next one, Revoke a revocation;
4. every key and role that the current version does not hold brings a proof of possession for this very zone, and a key
   that has ended at an index of the log stays ended, at that index or an earlier one;
5. the prefix has passed its review, its parent is enabled, no other zone stands between the two, and the parent has
   neither identifiers nor other zones below it;
6. a hosted zone names its host's node key, or nobody could believe what the host says.

The root's own key set comes the same way, signed by the pinned root key.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from idtrace.chain import Context, TrustedChain
from idtrace.delegation import Delegation, Role, State
from idtrace.errors import InputError, Reason, RefusedError, VerificationError
from idtrace.identifier import Prefix
from idtrace.signature import CheckBudget, Kind, Signed, signed_hash
from idtrace.statements import PrefixStatus, check_enrolment
from registry.authority import Authority

# Each of the 16 keys of a zone may have five roles; more proofs than that prove nothing.
ENROLMENTS_MAX: Final = 80


class Step(StrEnum):
    """The call that brought the delegation."""

    DELEGATE = "delegate"
    ROTATE = "rotate"
    REVOKE = "revoke"


def check_delegation(
    signed: Signed,
    enrolments: Sequence[Signed],
    *,
    step: Step,
    authority: Authority,
    status: PrefixStatus | None,
    occupied: bool,
    node_key_id: str,
    context: Context,
) -> Delegation:
    """Decide.

    ``status`` is the prefix's review, ``occupied`` whether identifiers are registered below it here, and
    ``node_key_id`` this node's own key.

    Raises:
        VerificationError, RefusedError, InputError: with the reason of the first rule that is broken.
    """
    # 1. a valid next link of one of our chains
    delegation, current = _verified(signed, authority, context)
    # 2. follows the current version
    version = current.version if current else 0
    if delegation.version != version + 1:
        detail = f"version {delegation.version} does not follow version {version}"
        raise RefusedError(Reason.VERSION_GAP, detail, field="delegation.version")
    if current is not None and delegation.previous != current.hash:
        detail = f"previous is not the hash of version {version}"
        raise RefusedError(Reason.PREVIOUS_HASH_MISMATCH, detail, field="delegation.previous")
    # 3. the call fits
    revokes = delegation.state is State.REVOKED
    if revokes != (step is Step.REVOKE) or (step is Step.DELEGATE) != (version == 0):
        rule = "Delegate brings version 1, Rotate a later active one, Revoke a revocation"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="delegation.state")
    # 4. proof of possession, and no return of what has ended
    _check_possession(delegation, current, enrolments)
    _check_ends(delegation, current)
    # 5. the prefix may be handed out
    if status not in (None, PrefixStatus.ENABLED) and not revokes:
        raise RefusedError(
            Reason.PREFIX_NOT_ENABLED, f"prefix {delegation.child} is {status}", field="delegation.child"
        )
    if not delegation.child.is_root and not revokes:
        _check_place(delegation, authority, first=version == 0, occupied=occupied)
        if current is not None and current.hosted and not delegation.hosted and occupied:
            detail = f"the records of {delegation.child} are kept here; another node could register them again"
            raise RefusedError(Reason.ZONE_DELEGATED, detail, field="delegation.hosted")
    # 6. a host can speak for what it hosts
    if delegation.hosted and not revokes and node_key_id not in delegation.keys_for(Role.NODE):
        detail = f"a hosted zone names its host's node key, {node_key_id}"
        raise RefusedError(Reason.SIGNER_UNKNOWN, detail, field="delegation.keys")
    return delegation


def _verified(signed: Signed, authority: Authority, context: Context) -> tuple[Delegation, Delegation | None]:
    """The checked body and the version in force, if any.

    The parent stands inside the payload, so it is read once to find the chain; nothing is decided by it before the
    chain has checked the signature.
    """
    claimed = Delegation.parse(signed.payload)
    if claimed.child.is_root:
        if claimed.child not in authority.wanted:
            raise RefusedError(Reason.NOT_AUTHORITATIVE, "this node is not the root", field="delegation.child")
        chain = TrustedChain.begin(authority.anchor, signed, context)
        links = authority.own.get(claimed.child)
        return chain.delegation, links[0].delegation if links else None
    if not authority.serves(claimed.parent):
        detail = f"this node does not answer for zone '{claimed.parent}'"
        raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="delegation.parent")
    chain = authority.trusted(claimed.parent, context).extend(signed, context)
    child = authority.children.get(claimed.child)
    if claimed.child in authority.own:
        raise RefusedError(Reason.ZONE_DELEGATED, f"{claimed.child} is this node's own zone", field="delegation.child")
    return chain.delegation, child.delegation if child else None


def _check_place(delegation: Delegation, authority: Authority, *, first: bool, occupied: bool) -> None:
    child = delegation.child
    parent = authority.children.get(delegation.parent)
    if parent is not None and parent.status is not PrefixStatus.ENABLED:
        detail = f"prefix {delegation.parent} is {parent.status}"
        raise RefusedError(Reason.PREFIX_NOT_ENABLED, detail, field="delegation.parent")
    nearest = authority.zone_of(Prefix(child.labels[:-1]))
    if nearest != delegation.parent:
        detail = f"{child} lies in zone {nearest}, which answers for it"
        raise RefusedError(Reason.ZONE_DELEGATED, detail, field="delegation.child")
    if first and (occupied or any(zone.strictly_within(child) for zone in authority.children)):
        detail = f"identifiers are registered or zones handed out below {child} already, under its parent"
        raise RefusedError(Reason.ZONE_DELEGATED, detail, field="delegation.child")


def _check_possession(delegation: Delegation, current: Delegation | None, enrolments: Sequence[Signed]) -> None:
    if len(enrolments) > ENROLMENTS_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"more than {ENROLMENTS_MAX} enrolments", field="enrolments")
    held = {(k.key.key_id, role) for k in current.keys for role in k.roles} if current else set()
    budget = CheckBudget(ENROLMENTS_MAX)
    for position, signed in enumerate(enrolments):
        enrolment = check_enrolment(signed, budget=budget, field=f"enrolments[{position}]")
        if enrolment.zone == delegation.child:
            held.add((enrolment.key.key_id, enrolment.role))
    for zone_key in delegation.keys:
        for role in sorted(zone_key.roles):
            if (zone_key.key.key_id, role) not in held:
                raise VerificationError(
                    Reason.PROOF_OF_POSSESSION,
                    f"no proof that key {zone_key.key.key_id} asks for role {role} in {delegation.child}",
                    field="enrolments",
                )


def _check_ends(delegation: Delegation, current: Delegation | None) -> None:
    """What a thief signed after the end would count again if the key came back, and nobody would notice."""
    ends = {k.key.key_id: k.until for k in current.keys if k.until is not None} if current else {}
    for key in delegation.keys:
        end = ends.get(key.key.key_id)
        if end is not None and (key.until is None or key.until > end):
            detail = (
                f"key {key.key.key_id} has ended at index {end} of the log; it ends there or earlier, or is left out"
            )
            raise InputError(Reason.FIELD_MALFORMED, detail, field="delegation.keys")


def delegation_hash(signed: Signed) -> bytes:
    """SHA-256, 32 bytes, of a delegation as signed."""
    return signed_hash(Kind.DELEGATION, signed.payload)

"""The next version of a delegation from the current one and what is to change: pure, told the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import InputError, Reason, VerificationError, quoted
from idtrace.identifier import Prefix
from idtrace.signature import CheckBudget, Signed
from idtrace.statements import Enrolment, check_enrolment

DAY_SECONDS = 86_400
# not_before lies a little back, so that a node whose clock is behind by less than that can use it at once.
BACKDATE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Terms:
    """What a next version says; None and () keep what the current one says."""

    endpoints: tuple[str, ...] = ()
    hosted: bool | None = None
    days: int = 365
    threshold: int | None = None
    drop_keys: tuple[str, ...] = ()
    revoke: bool = False


def next_delegation(
    child: Prefix,
    parent: Prefix,
    current: Delegation | None,
    enrolments: Sequence[Enrolment],
    terms: Terms,
    now: int,
) -> Delegation:
    """Version 1, or the version after ``current``: its keys and the enrolled ones, without the dropped.

    Raises:
        InputError: with the rule that the delegation would break.
    """
    old = current if current and current.state is State.ACTIVE else None
    blank = Delegation(
        child=child,
        parent=parent,
        version=current.version + 1 if current else 1,
        previous=current.hash if current else b"",
        state=State.REVOKED,
        hosted=old.hosted if old else False,
        keys=(),
        zone_threshold=old.zone_threshold if old else 1,
        endpoints=(),
        issued_at=now,
        not_before=now - BACKDATE_SECONDS,
        expires=now - BACKDATE_SECONDS + terms.days * DAY_SECONDS,
    )
    if terms.revoke:
        if old is None:
            raise InputError(Reason.FIELD_MALFORMED, f"{quoted(str(child))} is not delegated", field="--revoke")
        return _checked(blank)
    active = replace(
        blank,
        state=State.ACTIVE,
        hosted=blank.hosted if terms.hosted is None else terms.hosted,
        keys=_keys(old.keys if old else (), enrolments, terms.drop_keys),
        zone_threshold=terms.threshold or blank.zone_threshold,
        endpoints=terms.endpoints or (old.endpoints if old else ()),
    )
    return _checked(active)


def checked_enrolments(signed: Sequence[Signed], child: Prefix) -> tuple[Enrolment, ...]:
    """Enrolments whose keys prove that their holder asks for a role in this very zone.

    Raises:
        InputError: malformed.
        VerificationError: PROOF_OF_POSSESSION.
    """
    budget = CheckBudget(len(signed))
    checked = tuple(check_enrolment(one, budget=budget, field="--enrol") for one in signed)
    for enrolment in checked:
        if enrolment.zone != child:
            wrong = f"key {enrolment.key.key_id} asks for zone {quoted(str(enrolment.zone))}, not {quoted(str(child))}"
            raise VerificationError(Reason.PROOF_OF_POSSESSION, wrong, field="--enrol")
    return checked


def _keys(old: Sequence[ZoneKey], enrolments: Iterable[Enrolment], drop: Sequence[str]) -> tuple[ZoneKey, ...]:
    keys = {key.key.key_id: key for key in old}
    for key_id in drop:
        if keys.pop(key_id, None) is None:
            detail = f"key {quoted(key_id)} is not in the current version"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="--drop-key")
    for enrolment in enrolments:
        key_id = enrolment.key.key_id
        held: frozenset[Role] = keys[key_id].roles if key_id in keys else frozenset()
        keys[key_id] = ZoneKey(enrolment.key, held | {enrolment.role})
    return tuple(keys.values())


def _checked(delegation: Delegation) -> Delegation:
    return Delegation.parse(delegation.payload())

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
class End:
    """A key's role that ends.

    A record key of a zone with a log ends at an index of it: what it signed below ``until`` goes on counting. With
    ``until`` None the role is taken from the key, as if it had never had it.
    """

    key_id: str
    role: Role
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a next version says; None and () keep what the current one says."""

    endpoints: tuple[str, ...] = ()
    hosted: bool | None = None
    days: int | None = 365
    threshold: int | None = None
    drop_keys: tuple[str, ...] = ()
    revoke: bool = False
    log: str = ""
    ends: tuple[End, ...] = ()


def next_delegation(
    child: Prefix,
    parent: Prefix,
    current: Delegation | None,
    enrolments: Sequence[Enrolment],
    terms: Terms,
    now: int,
) -> Delegation:
    """Version 1, or the version after ``current``: its keys and the enrolled ones, without the dropped and ended.

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
        expires=_expires(old, terms.days, now),
    )
    if terms.revoke:
        if old is None:
            raise InputError(Reason.FIELD_MALFORMED, f"{quoted(str(child))} is not delegated", field="--revoke")
        return _checked(blank)
    active = replace(
        blank,
        state=State.ACTIVE,
        hosted=blank.hosted if terms.hosted is None else terms.hosted,
        keys=_ended(_keys(old.keys if old else (), enrolments, terms.drop_keys), terms.ends),
        zone_threshold=terms.threshold or blank.zone_threshold,
        endpoints=terms.endpoints or (old.endpoints if old else ()),
        log=terms.log or (old.log if old else ""),
    )
    return _checked(active)


def _expires(old: Delegation | None, days: int | None, now: int) -> int:
    """Days from now; where none are named, as long as the current version has left."""
    if days is None and old is not None:
        return old.expires
    return now - BACKDATE_SECONDS + (days or 365) * DAY_SECONDS


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
        if key_id in keys and keys[key_id].until is not None:
            detail = f"key {key_id} has ended, and is never used again; make a new one: idtrace key new"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="--enrol")
        held: frozenset[Role] = keys[key_id].roles if key_id in keys else frozenset()
        keys[key_id] = ZoneKey(enrolment.key, held | {enrolment.role})
    return tuple(keys.values())


def _ended(keys: Sequence[ZoneKey], ends: Sequence[End]) -> tuple[ZoneKey, ...]:
    held = {key.key.key_id: key for key in keys}
    for end in ends:
        key = held.get(end.key_id)
        if key is None or end.role not in key.roles:
            detail = f"key {quoted(end.key_id)} does not have the role {end.role} in the current version"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="--old")
        rest = key.roles - {end.role}
        if end.until is None and rest:
            held[end.key_id] = replace(key, roles=rest)
        elif end.until is None:
            del held[end.key_id]
        else:
            held[end.key_id] = _ended_at(key, end.until, rest)
    return tuple(held.values())


def _ended_at(key: ZoneKey, until: int, rest: frozenset[Role]) -> ZoneKey:
    if rest:
        others = ", ".join(sorted(rest))
        detail = f"key {key.key.key_id} also has the roles {others}, which have no index to end at; end those first"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--old")
    if key.until is not None and until > key.until:
        detail = f"key {key.key.key_id} has ended at index {key.until}, and what has ended is not prolonged"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--until")
    return replace(key, until=until)


def _checked(delegation: Delegation) -> Delegation:
    return Delegation.parse(delegation.payload())

"""What a step in a key's life means for everybody else: pure, told the sizes; the words that the command line prints.

A role passes from one key to the next in two steps: the new key is added beside the old one, everybody who signs turns
to the new one, and then the old one ends. Revoking is both at once, or the end alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from idtrace.chain import zone_name
from idtrace.cli.delegating import End
from idtrace.delegation import Delegation, Role, State
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.statements import Enrolment

# What a key of each role has signed, and what becomes of it once the role is taken from the key.
LEFT_OUT: Final = {
    Role.ZONE: "zones that it has handed out are Bogus until their delegations are signed by another zone key"
    " (idtrace delegate, with --former of this key)",
    Role.NODE: "receipts that it has signed verify with a chain saved before; denials live for a minute anyway",
    Role.CURRENCY: "its statements live for a minute; saved proofs carry the chain that they were made under",
    Role.LOG: "proofs that end in a checkpoint of its count only with a chain saved before; nodes give out new ones",
    Role.RECORD: "records that it has signed are Bogus until their owner signs each one anew",
}
# What has to be done with the new key before the old one ends.
TURN_TO: Final = {
    Role.ZONE: "sign every delegation of a child zone anew with the new key (idtrace delegate)",
    Role.NODE: "start the zone's nodes with the new key (node_key)",
    Role.CURRENCY: "start the zone's nodes with the new key (log.currency_key)",
    Role.LOG: "start the zone's nodes with the new key (log.key), and register or update something at each:"
    " until then, and a second longer, it shows a checkpoint that the old key signed",
    Role.RECORD: "sign records with the new key from now on; end the old one when the checkpoint that --log names"
    " covers all that it has signed (a published one lags behind while witnesses are asked)",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What is done to one key: whose role it is, and where a record key ends (None: the role is taken from it)."""

    role: Role
    old: str
    until: int | None = None

    @property
    def end(self) -> End:
        """As :class:`idtrace.cli.delegating.Terms` takes it."""
        return End(self.old, self.role, self.until)


def check_current(current: Delegation | None, turn: Turn) -> Delegation:
    """Require an active zone in which the old key holds the role and has not ended at an earlier index.

    Raises:
        InputError: the zone is not delegated, or the key does not hold the role.
    """
    if current is None or current.state is State.REVOKED:
        raise InputError(Reason.FIELD_MALFORMED, "the zone is not delegated", field="--zone")
    if not any(key.key.key_id == turn.old and turn.role in key.roles for key in current.keys):
        detail = f"key {turn.old} does not have the role {turn.role} in version {current.version}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--old")
    return current


def check_newcomers(enrolments: Iterable[Enrolment], role: Role) -> None:
    """Require that new keys ask for this role and no other: one thing changes at a time.

    Raises:
        InputError: another role.
    """
    for enrolment in enrolments:
        if enrolment.role is not role:
            detail = f"key {enrolment.key.key_id} asks for the role {enrolment.role}; this is about the role {role}"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="--enrol")


def check_successor(current: Delegation, turn: Turn) -> None:
    """Require that another key holds the role already, so that ending one leaves no gap.

    Raises:
        InputError: there is none.
    """
    if not current.keys_for(turn.role).keys() - {turn.old}:
        detail = f"no other key has the role {turn.role}: add the new one first (the same command without --end)"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--end")


def check_index(current: Delegation, turn: Turn, *, forced: bool) -> None:
    """Require an index where there can be one, and that somebody has said yes to what is lost where there cannot.

    Raises:
        InputError: FIELD_MISSING (no index) or FIELD_MALFORMED (an index for what has none).
        RefusedError: NOT_LOGGED where records would be lost and nobody has said --force.
    """
    if turn.role is not Role.RECORD or not current.log:
        if turn.until is not None:
            what = f"a {turn.role} key" if turn.role is not Role.RECORD else "a zone without a log"
            raise InputError(Reason.FIELD_MALFORMED, f"{what} has no index to end at", field="--until")
        if turn.role is Role.RECORD and not forced:
            detail = (
                f"zone {zone_name(current.child)} keeps no log, so nobody can tell what the key signed before from what"
                " it signs after: every record that it has signed has to be signed anew. --force does it all the same"
            )
            raise RefusedError(Reason.NOT_LOGGED, detail, field="--force")
        return
    if turn.until is None:
        detail = f"say where the key ends: --log URL asks the log {current.log} for its size, or name an index"
        raise InputError(Reason.FIELD_MISSING, detail, field="--until")


def added_words(role: Role, body: Delegation, enrolments: Iterable[Enrolment]) -> list[tuple[str, str]]:
    """What holds after the first step: rows for the screen."""
    new = ", ".join(sorted({e.key.key_id for e in enrolments}))
    return [
        ("from now on", f"both keys count for the role {role} in zone {zone_name(body.child)}; new: {new}"),
        ("do next", TURN_TO[role]),
        ("and then", "end the old key: the same command with --end in place of --enrol"),
    ]


def ended_words(turn: Turn, body: Delegation, size: int | None) -> list[tuple[str, str]]:
    """What holds after the end: rows for the screen. ``size`` is the log's, where it was asked for it."""
    if turn.until is None:
        return [
            ("ended", f"key {turn.old} has no longer the role {turn.role} in zone {zone_name(body.child)}"),
            ("so", LEFT_OUT[turn.role]),
            ("proofs saved before", "verify as before: each carries the chain that it was made under"),
        ]
    rows = [
        ("ended", f"key {turn.old} ends at index {turn.until} of the log {body.log}"),
        ("below it", f"records that the log holds at an index under {turn.until} count as before, by their proof"),
        ("from it on", "records by this key are refused, whatever time stands in them"),
        ("proofs saved before", "verify as before; one without a log proof needs the chain that it was made under"),
    ]
    if size is not None and turn.until < size:
        lost = size - turn.until
        rows.append(("dated back", f"of {size} entries the last {lost} are refused where this key signed them"))
    if size is not None and turn.until > size:
        rows.append(
            ("not yet", f"the log has {size} entries: the key goes on counting for the next {turn.until - size}")
        )
    return rows


def left_out_words(current: Delegation | None, body: Delegation) -> list[str]:
    """What is lost where a version names keys no longer that had ended at an index of the log: a sentence for each."""
    kept = {key.key.key_id for key in body.keys}
    return [
        f"Left out: key {key.key.key_id}, which had ended at index {key.until}. Records that it signed below that index"
        " are Bogus from now on, until their owner signs a next version of each; only proofs saved before still verify."
        for key in (current.keys if current else ())
        if key.until is not None and key.key.key_id not in kept
    ]

"""``idtrace key rotate`` and ``idtrace key revoke``: a zone's key gives way to the next, in steps that leave no gap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import RenderableType
from rich.text import Text

from idtrace.checkpoint import Checkpoint
from idtrace.cli.countersign import Draft, key_changes
from idtrace.cli.delegate import Way, deliver, known_version
from idtrace.cli.delegating import Terms, checked_enrolments, next_delegation
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file, read_signed
from idtrace.cli.options import TIMEOUT_SECONDS, now, output_of
from idtrace.cli.output import Output, pairs
from idtrace.cli.rotating import (
    Turn,
    added_words,
    check_current,
    check_index,
    check_newcomers,
    check_successor,
    ended_words,
)
from idtrace.cli.show import utc
from idtrace.cli.signing_options import DelegationSigning, grouped
from idtrace.delegation import Delegation, Role
from idtrace.errors import BusyError, InputError, Reason
from idtrace.identifier import Prefix
from idtrace.logproof import CHECKPOINT_BYTES_MAX
from idtrace.note import Note, NoteKey, open_note
from idtrace.serving.keyfile import load_public_keys
from idtrace.signature import Kind, Signed
from idtrace.tiles import CHECKPOINT_PATH

ZoneOption = Annotated[str, typer.Option("--zone", metavar="PREFIX", help='Zone whose key it is; "" is the root.')]
RoleOption = Annotated[Role, typer.Option("--role", help="Role that passes on.")]
OldOption = Annotated[Path, typer.Option("--old", metavar="OLD.pub", help="Public half of the key that gives way.")]
EnrolOption = Annotated[
    list[Path] | None, typer.Option("--enrol", metavar="NEW.enrol.json", help="The new key, from idtrace key enrol.")
]
LogOption = Annotated[
    str,
    typer.Option("--log", metavar="URL|FILE", help="Where the zone's log is read, or a checkpoint of it in a file."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Also where records have to be signed anew.")]
DaysOption = Annotated[
    int | None, typer.Option("--days", min=1, max=400, help="How long it lasts. [default: as long as before]")
]


@dataclass(frozen=True, slots=True)
class KeyTurn:
    """What both commands ask: whose key it is, which one, what follows it, and what it has signed so far."""

    zone: ZoneOption
    role: RoleOption
    old: OldOption
    enrol: EnrolOption = None
    log: LogOption = ""
    force: ForceOption = False
    days: DaysOption = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a key is added, or one ends (at ``until``, where it has an index to end at), or both at once."""

    ends: bool
    until: int | None
    overlapping: bool


@grouped
def rotate(
    ctx: typer.Context,
    asked: KeyTurn,
    by: DelegationSigning,
    end: Annotated[bool, typer.Option("--end", help="Second step: the old key ends.")] = False,
    until: Annotated[
        int | None, typer.Option("--until", min=0, help="Index of the log that a record key ends at.")
    ] = None,
) -> None:
    """Pass a role from one key of a zone to the next, in two steps, so that at no time neither counts.

    First:  idtrace key rotate --zone 88.118.8 --role record --old old.key.pub --enrol new.json --key parent.key

    Then:   idtrace key rotate --zone 88.118.8 --role record --old old.key.pub --end --log URL --key parent.key

    A record key of a zone with a log ends at an index: what it signed before goes on counting. With --log that is the
    size of the checkpoint that is published there, so end it when that covers all that the key has signed. Every other
    key is left out. Give --node of the parent, or --out or --draft to sign off line.
    """
    if end == bool(asked.enrol):
        raise typer.BadParameter("one step at a time: --enrol adds the new key, --end ends the old", param_hint="--end")
    _carry_out(output_of(ctx), asked, Step(end, until if end else None, overlapping=True), by)


@grouped
def revoke(
    ctx: typer.Context,
    asked: KeyTurn,
    by: DelegationSigning,
    since: Annotated[
        int | None,
        typer.Option("--since", min=0, metavar="INDEX", help="Index of the log from which nothing by the key counts."),
    ] = None,
) -> None:
    """End a key at once, such as a stolen one; with --enrol another takes its place in the same step.

    Example: idtrace key revoke --zone 88.118.8 --role record --old stolen.key.pub --since 1042 --enrol new.json

    --since dates a theft back: records by the key at that index of the log or after it are refused, whenever they say
    that they were signed. With --log alone all that the log holds by now goes on counting.
    """
    _carry_out(output_of(ctx), asked, Step(ends=True, until=since, overlapping=False), by)


def _carry_out(output: Output, asked: KeyTurn, step: Step, by: DelegationSigning) -> None:
    zone, signers, pins = Prefix.parse(asked.zone, field="--zone"), by.signers(), by.pins()
    turn, size = Turn(asked.role, _key_id(asked.old), step.until), None
    way = Way.of(by)
    way.check(applied=False, signers=signers)
    proofs = tuple(signed for file in asked.enrol or () for signed in read_signed(file, Kind.ENROLMENT))
    enrolments = checked_enrolments(proofs, zone)
    check_newcomers(enrolments, turn.role)
    with way.open() as peer:
        chain, known = known_version(peer, by.current, zone, signers, pins)
        current = check_current(known, turn)
        if step.ends:
            size = _log_size(asked.log, current) if asked.log else None
            turn = Turn(turn.role, turn.old, size if turn.until is None else turn.until)
            if step.overlapping:
                check_successor(current, turn)
            check_index(current, turn, forced=asked.force)
        terms = Terms(days=asked.days, ends=(turn.end,) if step.ends else ())
        body = next_delegation(zone, current.parent, current, enrolments, terms, now())
        made = Draft(Signed(Kind.DELEGATION.payload_type, body.payload(), ()), proofs, chain)
        signed = deliver(output, made, signers, pins, way, peer)
    words = ended_words(turn, body, size) if step.ends else added_words(turn.role, body, enrolments)
    _show(output, current, body, words, way, is_draft=signed is None)


def _show(
    output: Output, current: Delegation, body: Delegation, words: list[tuple[str, str]], way: Way, *, is_draft: bool
) -> None:
    """What changes, and what holds from when. A draft has shown the first half, and one JSON document, itself."""
    rows: list[tuple[str, RenderableType]] = []
    if not is_draft:
        ends = [{"key_id": k.key.key_id, "until": k.until} for k in body.keys if k.until is not None]
        output.document(
            {
                "zone": str(body.child),
                "version": body.version,
                "keys": {k.key.key_id: sorted(k.roles) for k in body.keys},
                "ended": ends,
                "expires": body.expires,
                "submitted_to": way.node or "",
                "file": str(way.out or ""),
                "holds": dict(words),
            }
        )
        rows = [("zone", str(body.child) or "the root"), ("version", f"{body.version}, until {utc(body.expires)}")]
        rows += key_changes(current.keys, body.keys)
        rows.append(("in force at", way.node or Text("no node yet: bring it to the parent's", style="yellow")))
    output.show(pairs([*rows, *words]))


def _log_size(log: str, current: Delegation) -> int:
    """Size of the zone's log by its own signed checkpoint: from a file, or from where it is served.

    Raises:
        InputError: the zone has no log, or the checkpoint is malformed.
        VerificationError: it is another log's, or not signed by a log key of the zone.
        Failure: nobody answers there.
    """
    if not current.log:
        raise InputError(Reason.LOG_UNKNOWN, "the zone keeps no log", field="--log")
    is_url = log.startswith(("http://", "https://"))
    data = _fetched(log.rstrip("/") + "/" + CHECKPOINT_PATH) if is_url else read_file(Path(log), CHECKPOINT_BYTES_MAX)
    note = Note.parse(data, field="--log")
    keys = [NoteKey.of(current.log, key.raw) for key in current.keys_for(Role.LOG).values()]
    open_note(note, keys, field="--log")
    checkpoint = Checkpoint.parse(note.text, field="--log")
    if checkpoint.origin != current.log:
        detail = f"the checkpoint is the log {checkpoint.origin}'s, and the zone's is {current.log}"
        raise InputError(Reason.LOG_UNKNOWN, detail, field="--log")
    return checkpoint.size


def _fetched(url: str) -> bytes:
    try:
        # What answers is checked by its signature; a proxy for web pages between us and it is never what is meant.
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()
            data = b""
            for part in answer.iter_bytes():
                data += part
                if len(data) > CHECKPOINT_BYTES_MAX:
                    rule = f"a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes"
                    raise InputError(Reason.FIELD_TOO_LARGE, rule, field="--log")
            return data
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        silent = BusyError(Reason.NO_ANSWER, f"{url}: {error or type(error).__name__}", field="--log")
        raise Failure(ExitCode.UNREACHABLE, silent, title="the log does not answer") from None


def _key_id(file: Path) -> str:
    keys = load_public_keys(file)
    if len(keys) != 1:
        raise InputError(Reason.KEY_MALFORMED, "name a file with one public key", field=str(file))
    return keys[0].key_id

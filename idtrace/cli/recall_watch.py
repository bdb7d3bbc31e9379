"""``idtrace recall list`` and ``idtrace recall watch``: what a zone recalls, now and as it comes.

A watch is told by the zone's node that something has changed, which is a hint and no more: the recalls themselves are
fetched and verified from the pinned root key each time. What is printed is the difference to what was printed before,
so a broken stream, a restarted node or a run that was stopped (``--state``) neither loses a recall nor tells one twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, assert_never

import grpc
import typer
from rich.text import Text

from idtrace.bundle import Verdict
from idtrace.chain import Anchor
from idtrace.cli import resolve
from idtrace.cli.client import Node, connect, failure_of_call
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file, replace_file
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    NodeOption,
    ResolverOption,
    RootOption,
    RootUpdateOption,
    TimeoutOption,
    now,
    output_of,
    roots_of,
)
from idtrace.cli.output import Output, listing, plain
from idtrace.cli.publish import current_or_none
from idtrace.cli.recall_draft import recalls_of
from idtrace.cli.show import utc
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.recall import Recall, Scope, ScopeKind, recalls_identifier
from idtrace.record import Record, RecordBody
from idtrace.v1 import registry_pb2, registry_pb2_grpc

# 256 recalls with their names.
STATE_BYTES_MAX: Final = 65_536
# A node that is started again is back in a second or two; one that is gone is asked twice a minute.
PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0
# A stream is begun anew so often: one that was lost without a word is noticed at most so late.
STREAM_SECONDS: Final = 120.0

Told = dict[str, int]


def scope_text(scope: Scope) -> str:
    """What a recall names, in one line."""
    match scope.kind:
        case ScopeKind.PRODUCT:
            return f"every item of {scope.product}"
        case ScopeKind.LOT:
            return f"lot {scope.lot} of {scope.product}"
        case ScopeKind.RANGE:
            return f"{scope.first} to {scope.last}"
        case ScopeKind.PACKAGE:
            since = f" from {utc(scope.since_s)}" if scope.since_s else ""
            until = f" to {utc(scope.until_s)}" if scope.until_s else ""
            return f"what was inside {scope.package}{since}{until}"
        case ScopeKind.ITEMS:
            more = f" and {len(scope.items) - 3} more" if len(scope.items) > 3 else ""
            return ", ".join(scope.items[:3]) + more
        case _:
            assert_never(scope.kind)


def recall_json(recall: Recall) -> dict[str, Any]:
    """A recall for a program; times in s since the epoch, ``ended_at`` 0 while it stands."""
    scope = recall.scope
    fields = {name: getattr(scope, name) for name in ("product", "lot", "first", "last", "package", "items")}
    shown = {name: value for name, value in fields.items() if value}
    if scope.kind is ScopeKind.PACKAGE:
        shown |= {"since": scope.since_s, "until": scope.until_s}
    return {
        "recall": recall.name,
        "zone": recall.zone,
        "level": recall.level,
        "scope": {"kind": scope.kind, **shown},
        "reason": {"en": recall.reason_en, "zh": recall.reason_zh},
        "issued_at": recall.issued_at,
        "ended_at": recall.ended_at,
        "contact": recall.contact,
        "version": recall.version,
    }


def list_(
    ctx: typer.Context,
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="The zone that recalls.")],
    resolver: ResolverOption,
    root: RootOption,
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    root_update: RootUpdateOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show what a zone recalls, proven from the pinned root key.

    Example: idtrace recall list 88.118.8 --resolver localhost:7400 --root root.key.pub
    """
    del as_json
    output = output_of(ctx)
    prefix = Prefix.parse(zone, field="ZONE")
    anchor = roots_of(root, root_update).anchor
    with connect(resolver, timeout) as node:
        recalls = _resolved(node, prefix, anchor)
    shown = [one for one in recalls if all_ or one.stands(now())]
    output.document({"zone": str(prefix), "recalls": [recall_json(one) for one in shown]})
    if not shown:
        output.show(f"{prefix} recalls nothing" + ("" if all_ or not recalls else "; --all shows what has ended"))
        return
    table = listing("recall", "level", "reaches", "because", "since")
    for one in shown:
        since = utc(one.issued_at)[:10] + (f" to {utc(one.ended_at)[:10]}" if one.ended_at else "")
        because = f"{plain(one.reason_en)} {plain(one.reason_zh)}"
        table.add_row(plain(one.name), str(one.level), plain(scope_text(one.scope)), because, since)
    output.show(table)


def _resolved(node: Node, zone: Prefix, anchor: Anchor) -> tuple[Recall, ...]:
    identifier = str(recalls_identifier(zone))
    found = resolve.judge(identifier, resolve.ask(node, [identifier], fresh=False)[0], anchor, now())
    if found.verdict is Verdict.ABSENT:
        return ()
    record = found.bundle.outcome if found.bundle is not None else None
    if found.verdict is not Verdict.FOUND or not isinstance(record, Record):
        error = VerificationError(Reason(found.reason or Reason.NO_ANSWER), found.detail, field="recalls")
        code = ExitCode.BOGUS if found.verdict is Verdict.BOGUS else ExitCode.UNREACHABLE
        raise Failure(code, error, title=f"what {zone} recalls is not known", hint="Take nothing of it for safe.")
    return recalls_of(record, RecordBody.parse(record.signed.payload))


def watch(
    ctx: typer.Context,
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="The zone that recalls.")],
    node: NodeOption,
    root: RootOption,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FILE", help="Remember what was told, and go on there next time.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=0, help="End after so many; 0: when interrupted.")
    ] = 0,
    root_update: RootUpdateOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Tell a zone's recalls as they are declared and as they end, beginning with those that stand.

    With --json each is one line. A lost node is asked again until it is back.

    Example: idtrace recall watch 88.118.8 --node localhost:7201 --root root.key.pub --state seen.json
    """
    del as_json
    output = output_of(ctx)
    prefix = Prefix.parse(zone, field="ZONE")
    anchor = roots_of(root, root_update).anchor
    told = read_state(state)
    left = count
    with connect(node, timeout) as peer:
        for recall, word in _news(output, peer, prefix, anchor, told):
            told[recall.name] = recall.ended_at
            _tell(output, recall, word)
            if state is not None:
                replace_file(state, json.dumps({"zone": str(prefix), "told": told}).encode())
            left -= 1
            if left == 0:
                return


def read_state(file: Path | None) -> Told:
    """What was told before, by name: when it ended, 0 for not yet.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    if file is None or not file.exists():
        return {}
    try:
        told = json.loads(read_file(file, STATE_BYTES_MAX))["told"]
        return {str(name): int(ended_at) for name, ended_at in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(Reason.FIELD_MALFORMED, "this is no state of a watch", field=str(file)) from None


def news(recalls: Iterable[Recall], told: Told, at: int) -> Iterator[tuple[Recall, str]]:
    """What is to be told: recalls that were not told of, or stood when they were and have ended."""
    for recall in recalls:
        if recall.name not in told:
            if recall.stands(at):
                yield recall, "recalled"
        elif told[recall.name] == 0 and recall.ended_at:
            yield recall, "ended"


def _news(output: Output, peer: Node, zone: Prefix, anchor: Anchor, told: Told) -> Iterator[tuple[Recall, str]]:
    """For ever: after each sign that something has changed, and after each break."""
    pause = PAUSE_SECONDS
    while True:
        try:
            for _ in _signs(peer, zone):
                yield from list(news(_current(peer, zone, anchor), told, now()))
                pause = PAUSE_SECONDS
        except Failure as failure:
            if failure.code is not ExitCode.UNREACHABLE and failure.error.reason is not Reason.CHANGES_GONE:
                raise
            output.note(f"{failure.error.detail}; asking again in {pause:.1f} s")
            time.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)


def _signs(peer: Node, zone: Prefix) -> Iterator[None]:
    """One at the beginning, and one whenever the recalls may be others."""
    stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
    identifier = str(recalls_identifier(zone))
    try:
        stream = stub.Watch(registry_pb2.WatchRequest(zone=str(zone)), timeout=STREAM_SECONDS)
        begun = False
        for message in stream:
            if not begun or any(change.identifier == identifier for change in message.changes):
                begun = True
                yield
    except grpc.RpcError as error:
        call: Any = error
        if call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise failure_of_call(error, peer.address) from None


def _current(peer: Node, zone: Prefix, anchor: Anchor) -> tuple[Recall, ...]:
    current = current_or_none(peer, recalls_identifier(zone), None, anchor)
    return () if current is None else recalls_of(*current)


def _tell(output: Output, recall: Recall, word: str) -> None:
    output.line({"told": word, **recall_json(recall)})
    style = "bold white on red" if word == "recalled" else "bold"
    when = utc(recall.ended_at or recall.issued_at)
    head = Text.assemble(
        (f" {word.upper()} ", style), f" {plain(recall.name)} of {recall.zone}, level {recall.level}  "
    )
    output.show(Text.assemble(head, (when, "dim")))
    output.show(Text(f"  {plain(scope_text(recall.scope))}: {plain(recall.reason_en)} {plain(recall.reason_zh)}"))

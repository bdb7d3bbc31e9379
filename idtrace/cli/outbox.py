"""``idtrace outbox``: what a node could not yet tell the homes of the things that its events are about."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from idtrace.cli.client import Node, connect
from idtrace.cli.options import TIMEOUT_SECONDS, JsonOption, NodeOption, TimeoutOption, output_of
from idtrace.cli.output import Output, listing, plain
from idtrace.cli.show import utc
from idtrace.errors import InputError, Reason
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc

SHOWN_DEFAULT: Final = 100
SHOWN_MAX: Final = 1_000
# The year 9999; what is later is no time, and a calendar would fail on it.
TIME_MS_MAX: Final = 253_402_300_799_999


def outbox(
    ctx: typer.Context,
    node: NodeOption,
    dead: Annotated[bool, typer.Option("--dead", help="Show what was given up, in the place of what waits.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was given up, at most 10,000 of it.")] = False,
    most: Annotated[
        int, typer.Option("--most", metavar="COUNT", min=1, max=SHOWN_MAX, help="Show at most so many.")
    ] = SHOWN_DEFAULT,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show what a node has not delivered to other nodes yet, and why.

    Each line is a thing that an event recorded at this node is about, and whose own node has to hear of the event. A
    node tries again by itself, at least once an hour, and gives up after a week; nothing is lost, --dead shows it and
    --retry takes it up again.

    Example: idtrace outbox --node localhost:7201 --dead
    """
    del as_json
    output = output_of(ctx)
    if dead and retry:
        rule = "what is given up is shown with --dead, and tried again with --retry: one of them"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="--retry")
    with connect(node, timeout) as peer:
        if retry:
            _retry(output, peer)
        else:
            _show(output, peer, dead=dead, most=most)


def _retry(output: Output, peer: Node) -> None:
    stub = pointer_pb2_grpc.PointerServiceStub(peer.channel)
    retried = peer.ask(stub.RetryDead, pointer_pb2.RetryDeadRequest()).retried
    output.document({"retried": retried})
    output.show(f"{retried} deliveries are tried again" if retried else "nothing was given up")


def _show(output: Output, peer: Node, *, dead: bool, most: int) -> None:
    stub = pointer_pb2_grpc.PointerServiceStub(peer.channel)
    answer = peer.ask(stub.ListOutbox, pointer_pb2.ListOutboxRequest(dead=dead, most=most))
    output.document({"dead": dead, "more": answer.more, "items": [_json(item) for item in answer.items]})
    if not answer.items:
        output.show("nothing was given up" if dead else "nothing waits: all is delivered")
        return
    table = listing("subject", "event", "tries", "since", *(() if dead else ("next try",)), "why")
    for item in answer.items:
        table.add_row(
            plain(item.subject),
            plain(_short(item.event)),
            str(item.attempts),
            _time(item.since_ms),
            *(() if dead else (_time(item.next_at_ms),)),
            plain(item.error),
        )
    output.show(table)
    if answer.more:
        output.note(f"there are more than these {len(answer.items)}")


def _short(event: str) -> str:
    """The party and the first digits: enough to tell events apart, and --json has all of it."""
    return f"{event[:-52]}…" if len(event) > 64 else event


def _time(at_ms: int) -> str:
    return utc(at_ms // 1000) if 0 < at_ms <= TIME_MS_MAX else "-"


def _json(item: pointer_pb2.OutboxItem) -> dict[str, Any]:
    return {
        "subject": item.subject,
        "event": item.event,
        "time_ms": item.time_ms,
        "roles": list(item.roles),
        "attempts": item.attempts,
        "since_ms": item.since_ms,
        "next_at_ms": item.next_at_ms,
        "error": item.error,
    }

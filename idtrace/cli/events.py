"""``idtrace events``: which events a node has recorded, and, with ``--follow``, which it records from now on.

The query is read here first, so what is wrong with it is said before a node is asked. Each event is held to its
identifier, which says all of its bytes; who signed it and where it is logged says ``idtrace resolve IDENTIFIER``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final

import grpc
import typer

from idtrace.cli.client import connect, failure_of_call
from idtrace.cli.events_view import event_json, event_line, events_table
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.options import TIMEOUT_SECONDS, JsonOption, NodeOption, TimeoutOption, output_of
from idtrace.cli.output import Output
from idtrace.epcis.query import parse
from idtrace.epcis.statement import require_event_identifier
from idtrace.errors import BusyError, InputError, Reason, VerificationError
from idtrace.identifier import Identifier
from idtrace.v1 import capture_pb2, capture_pb2_grpc

SHOWN_DEFAULT: Final = 100
SHOWN_MAX: Final = 1_000_000
# A node that is started anew is back within seconds; who follows it is told when it stays away for so many tries.
TRIES_MAX: Final = 10
PAUSE_SECONDS: Final = 1.0
# Signs of life come every 10 s (registry/event_stream.py); who hears none for so long has lost the node.
SILENCE_SECONDS: Final = 60.0

Told = capture_pb2.RecordedEvent


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(Reason.FIELD_MALFORMED, "write NAME=VALUE", field=option)
    return name, value


def parameters_of(given: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The parameters of EPCIS that options stand for: by option the texts that were given with it.

    ``--match epc=URI`` is ``MATCH_epc``, ``--ge eventTime=…`` is ``GE_eventTime``, ``--param`` has a name in full, and
    a name that is given again adds to its values.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    parameters: dict[str, list[str]] = {}
    for option, texts in given.items():
        for text in texts:
            if option == "--exists":
                parameters[f"EXISTS_{text}"] = []
                continue
            name, value = _pair(text, option)
            start = "" if option == "--param" else option.removeprefix("--").upper() + "_"
            parameters.setdefault(start + name, []).append(value)
    return parameters


def query_of(parameters: Mapping[str, list[str]], namespaces: Mapping[str, str]) -> capture_pb2.EventQuery:
    """The query as a node is asked it.

    Raises:
        InputError: the field is the name of the parameter.
    """
    if parse(parameters, namespaces=namespaces, split=False).next_page_token:
        raise InputError(Reason.FIELD_MALFORMED, "pages are read one after another here", field="nextPageToken")
    listed = [capture_pb2.QueryParameter(name=name, values=values) for name, values in parameters.items()]
    return capture_pb2.EventQuery(parameters=listed, namespaces=namespaces)


def _checked(events: Iterable[Told]) -> Iterator[Told]:
    for one in events:
        try:
            require_event_identifier(Identifier.parse_canonical(one.identifier), one.statement, field="identifier")
        except InputError as error:
            raise VerificationError(Reason.ANSWER_MALFORMED, error.detail, field="events.identifier") from None
        yield one


def _listed(output: Output, node: str, timeout: float, query: capture_pb2.EventQuery, most: int) -> None:
    found: list[Told] = []
    # One more, to know whether there are more.
    request = capture_pb2.QueryRequest(query=query, most=most + 1)
    with connect(node, timeout) as peer:
        stub = capture_pb2_grpc.EventServiceStub(peer.channel)
        try:
            for page in stub.Query(request, timeout=max(timeout, SILENCE_SECONDS)):
                for one in _checked(page.events):
                    if len(found) < most:
                        output.line(event_json(one))
                    found.append(one)
        except grpc.RpcError as error:
            raise failure_of_call(error, node) from None
    more = len(found) > most
    output.line({"events": min(len(found), most), "more": more})
    if not found:
        output.show("no event of this node meets the query")
        return
    output.show(events_table(found[:most]))
    if more:
        output.note(f"there are more than these {most}; --most shows them, --ge and --lt narrow them down")


def _heard(call: Any) -> Iterator[capture_pb2.SubscribeResponse]:
    """The messages of a stream, which is given up where it falls silent."""
    while True:
        silence = threading.Timer(SILENCE_SECONDS, call.cancel)
        silence.daemon = True
        silence.start()
        try:
            told = next(call, None)
        finally:
            silence.cancel()
        if told is None:
            return
        yield told


def followed(
    node: str,
    timeout: float,
    request: capture_pb2.SubscribeRequest,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[capture_pb2.SubscribeResponse]:
    """What a node tells a subscriber, for ever: a stream that breaks is resumed where it ended.

    Raises:
        Failure: the node refuses, or stays away for :data:`TRIES_MAX` tries.
    """
    failures = 0
    while True:
        failure = Failure(ExitCode.UNREACHABLE, BusyError(Reason.SHUTTING_DOWN, f"{node} has ended the stream"))
        try:
            with connect(node, timeout) as peer:
                for told in _heard(capture_pb2_grpc.EventServiceStub(peer.channel).Subscribe(request)):
                    failures = 0
                    yield told
                    request.after = told.sequence  # only now: what was not shown to its end is told again
        except grpc.RpcError as error:
            failure = failure_of_call(error, node)
        failures += 1
        if failure.code is not ExitCode.UNREACHABLE or failures >= TRIES_MAX:
            raise failure
        pause(PAUSE_SECONDS)


def _follow(
    output: Output, node: str, timeout: float, query: capture_pb2.EventQuery, after: int | None, most: int | None
) -> None:
    request = capture_pb2.SubscribeRequest(query=query)
    if after is not None:
        request.after = after
    shown = 0
    try:
        for told in followed(node, timeout, request):
            for one in _checked(told.events):
                output.line(event_json(one))
                output.show(event_line(one))
                shown += 1
                if shown == most:
                    return
    except KeyboardInterrupt:
        # Ctrl-C is how a person ends it, and no failure.
        output.note(f"go on from here with --follow --after {request.after}")


# Options that stand for parameters of EPCIS.
Match = Annotated[
    list[str] | None, typer.Option("--match", metavar="NAME=URI", help="MATCH_: epc, parentID, anyEPC, epcClass, …")
]
Eq = Annotated[list[str] | None, typer.Option("--eq", metavar="NAME=VALUE", help="EQ_: bizStep, action, …")]
Ge = Annotated[list[str] | None, typer.Option("--ge", metavar="NAME=VALUE", help="GE_: eventTime, value_CEL, …")]
Gt = Annotated[list[str] | None, typer.Option("--gt", metavar="NAME=VALUE", help="GT_, of numbers.")]
Lt = Annotated[list[str] | None, typer.Option("--lt", metavar="NAME=VALUE", help="LT_: eventTime, recordTime, …")]
Le = Annotated[list[str] | None, typer.Option("--le", metavar="NAME=VALUE", help="LE_, of numbers.")]
Wd = Annotated[list[str] | None, typer.Option("--wd", metavar="NAME=URI", help="WD_: readPoint, bizLocation.")]
Exists = Annotated[list[str] | None, typer.Option("--exists", metavar="NAME", help="EXISTS_: errorDeclaration, …")]
Param = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Any parameter of EPCIS 2.0 by its name: eventType, orderBy, …"),
]
Namespace = Annotated[
    list[str] | None,
    typer.Option("--namespace", metavar="PREFIX=URI", help="What the prefix of an extension field stands for."),
]


def events(
    ctx: typer.Context,
    node: NodeOption,
    match: Match = None,
    eq: Eq = None,
    ge: Ge = None,
    gt: Gt = None,
    lt: Lt = None,
    le: Le = None,
    wd: Wd = None,
    exists: Exists = None,
    param: Param = None,
    namespace: Namespace = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--most", metavar="COUNT", min=1, max=SHOWN_MAX, help="So many at most; 100 unless told, followed: all."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for events that are still to come, until Ctrl-C.")
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="PLACE", min=0, help="With --follow: begin behind this place; 0 is the beginning."
        ),
    ] = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show the events that a node has recorded and that meet a query of EPCIS 2.0.

    Parameters hold all at once; what is given twice are alternatives. Events of other nodes are not shown, for which
    there is idtrace trace: the whole history of a thing.

    Example: idtrace events --node localhost:7201 --match epc=idtrace:88.118.8/SN-1 --ge eventTime=2026-07-01T00:00:00Z
    """
    del as_json
    output = output_of(ctx)
    given = {
        "--match": match,
        "--eq": eq,
        "--ge": ge,
        "--gt": gt,
        "--lt": lt,
        "--le": le,
        "--wd": wd,
        "--exists": exists,
        "--param": param,
    }
    namespaces = dict(_pair(text, "--namespace") for text in namespace or ())
    query = query_of(parameters_of({option: texts or () for option, texts in given.items()}), namespaces)
    if follow:
        _follow(output, node, timeout, query, after, most)
        return
    if after is not None:
        raise InputError(Reason.FIELD_MALFORMED, "a place is where following begins: --follow", field="--after")
    _listed(output, node, timeout, query, most or SHOWN_DEFAULT)

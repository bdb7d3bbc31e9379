"""Calls to a node: always with a deadline, and every way in which one can fail said in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import grpc

from idtrace.cli.exits import ExitCode, Failure, node_code
from idtrace.errors import BusyError, OutcomeUnknownError, Reason, RefusedError
from idtrace.serving.errors import error_from_rpc

Answer = TypeVar("Answer")

# 256 bundles with long values; gRPC's own 4 MiB would cut such a batch.
MESSAGE_BYTES_MAX: Final = 33_554_432
# A write is repeated with the same bytes and key, so the node recognises it: after 0.2 s, 0.4 s, 0.8 s.
ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.2

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Nodes stand inside the network; a proxy for web pages between us and them is never what is meant.
    ("grpc.enable_http_proxy", 0),
)
_SILENT: Final = {
    grpc.StatusCode.UNAVAILABLE: "nobody answers there; is the node running, and is the address right?",
    grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time; try a longer --timeout",
}


class Method(Protocol):
    """A unary method of a generated stub."""

    def __call__(self, request: Any, *, timeout: float | None = None) -> Any:
        """Call it and wait."""
        ...


class Node:
    """One node and the longest wait for one answer of it, in seconds."""

    def __init__(self, channel: grpc.Channel, address: str, timeout_seconds: float) -> None:
        self.channel = channel
        self.address = address
        self.timeout_seconds = timeout_seconds

    def ask(self, method: Method, request: Any) -> Any:
        """One call.

        Raises:
            Failure: UNREACHABLE or REFUSED.
        """
        try:
            return method(request, timeout=self.timeout_seconds)
        except grpc.RpcError as error:
            raise failure_of_call(error, self.address) from None

    def write(self, method: Method, request: Any) -> Any:
        """One call that carries an idempotency key: repeated while its outcome is unknown.

        Raises:
            Failure: as :meth:`ask`, after the last attempt.
        """
        return again(lambda: self.ask(method, request))


def again(attempt: Callable[[], Answer], pause: Callable[[float], None] = time.sleep) -> Answer:
    """Repeat while the node does not answer, with growing pauses.

    Raises:
        Failure: of the last attempt, or at once where a repetition cannot help.
    """
    for turn in range(ATTEMPTS - 1):
        try:
            return attempt()
        except Failure as failure:
            if failure.code is not ExitCode.UNREACHABLE:
                raise
            pause(FIRST_PAUSE_SECONDS * 2**turn)
    return attempt()


@contextmanager
def connect(address: str, timeout_seconds: float) -> Iterator[Node]:
    """A channel to a node, closed at the end; nothing is sent before the first call."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        yield Node(channel, address, timeout_seconds)


def failure_of_call(error: grpc.RpcError, address: str) -> Failure:
    """What a failed call means to the person who made it."""
    known = error_from_rpc(error)
    if known is not None:
        code = node_code(known)
        title = f"refused by {address}" if code is ExitCode.REFUSED else f"no answer from {address}"
        return Failure(code, known, title=title)
    # grpc raises one object that is both the error and the call; its type only says the former.
    call: Any = error
    status = call.code()
    if status in _SILENT:
        return Failure(
            ExitCode.UNREACHABLE,
            BusyError(Reason.NO_ANSWER, f"{address}: {_SILENT[status]}"),
            title=f"{address} is unreachable",
        )
    if status is grpc.StatusCode.UNIMPLEMENTED:
        detail = f"the program at {address} does not offer this call; is it the other kind of node?"
        return Failure(ExitCode.REFUSED, RefusedError(Reason.NOT_AUTHORITATIVE, detail), title=f"refused by {address}")
    detail = f"{address} failed with {status.name}: {call.details() or 'no details'}"
    return Failure(ExitCode.UNREACHABLE, OutcomeUnknownError(Reason.INTERNAL, detail), title=f"{address} failed")

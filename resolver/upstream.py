"""Asks registries over gRPC. Every way to fail becomes a reply of the walk; nothing but cancellation is raised.

============================================ ==========================================================================
what happens                                 reply
============================================ ==========================================================================
an answer that parses                        ``Answered``
an answer that does not, or is too large     ``Malformed``: the node spoke, and what it said is no answer
our deadline passes                          ``Failed(TIMEOUT)``
RESOURCE_EXHAUSTED from the node             ``Failed(BUSY)``
another typed error of ours from the node    ``Failed(REFUSED)``: it is not signed, so it proves nothing
anything else                                ``Failed(UNAVAILABLE)``
============================================ ==========================================================================
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from idtrace import wire
from idtrace.errors import IdtraceError, InputError, Reason, quoted
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import registry_pb2
from resolver.effects import Answered, Ask, Failed, FailureKind, Malformed, Reply

# A record with 60 values of 2 KiB and nine delegations come to 150 KiB; more is an attack on our memory.
ANSWER_BYTES_MAX: Final = 262_144
# A resolver of a region meets a few hundred nodes in its hot set; an idle channel holds 100 KiB and a socket.
CHANNELS_MAX: Final = 256
# A node that comes back is found within seconds (gRPC's own back-off grows to two minutes).
_RECONNECT_MS_MAX: Final = 5_000
# What calls under way on an evicted channel get: as long as the longest call that a configuration may allow.
_CLOSE_SECONDS: Final = 30.0

_METHOD: Final = "/idtrace.v1.RegistryService/Get"
# How gRPC's core says that it has dropped a message at our limit; a test sends one.
_TOO_LARGE: Final = "larger than max"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS_MAX),
    ("grpc.enable_retries", 0),  # the walk decides who is asked again
    ("grpc.enable_http_proxy", 0),  # a variable of the environment must not redirect us
    ("grpc.service_config_disable_resolution", 1),  # nor may a TXT record of somebody's zone configure us
    ("grpc.use_local_subchannel_pool", 1),  # a channel that is closed closes its socket
)


class GrpcUpstream:
    """``RegistryService.Get`` over one channel an endpoint, the least recently used one closed first."""

    def __init__(self, *, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Number of open channels."""
        return len(self._channels)

    async def ask(self, ask: Ask) -> Reply:
        """Ask one node; see the module's table."""
        request = registry_pb2.RegistryServiceGetRequest(identifier=str(ask.identifier))
        if ask.zone_known is not None:
            request.known_zone = str(ask.zone_known)
        # Parsed by us: for bytes that do not parse, grpc.aio logs a traceback and hands out None.
        get: grpc.aio.UnaryUnaryMultiCallable[registry_pb2.RegistryServiceGetRequest, bytes]
        get = self._channel(ask.endpoint).unary_unary(_METHOD, request_serializer=_serialize)
        try:
            data = await get(request, timeout=ask.timeout_ms / 1000)
        except grpc.aio.AioRpcError as error:
            return _failure(error, ask)
        except (grpc.aio.UsageError, asyncio.CancelledError):
            # A channel that is closed under a call cancels it: that is a failure of the call, not a wish of the asker.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._channels.pop(ask.endpoint, None)
            return Failed(FailureKind.UNAVAILABLE, f"the channel to {ask.endpoint} was closed")
        try:
            response = registry_pb2.RegistryServiceGetResponse.FromString(data)
            return Answered(wire.answer_from_pb(response.answer))
        except DecodeError:
            return Malformed(Reason.ANSWER_MALFORMED, "these are not the bytes of an answer")
        except InputError as error:
            return Malformed(error.reason, error.detail)

    async def close(self) -> None:
        """Close every channel; calls under way may end first."""
        while self._channels:
            self._retire(self._channels.popitem()[1])
        await asyncio.gather(*self._closing)

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            # "dns:///" so that no host name can be read as another of gRPC's address schemes ("unix:", "xds:").
            channel = grpc.aio.insecure_channel(f"dns:///{endpoint}", options=_OPTIONS)
            self._channels[endpoint] = channel
            if len(self._channels) > self._channels_max:
                self._retire(self._channels.popitem(last=False)[1])
        self._channels.move_to_end(endpoint)
        return channel

    def _retire(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(channel.close(_CLOSE_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _serialize(request: registry_pb2.RegistryServiceGetRequest) -> bytes:
    return request.SerializeToString()


def _failure(error: grpc.aio.AioRpcError, ask: Ask) -> Reply:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failed(FailureKind.TIMEOUT, f"no answer within {ask.timeout_ms} ms")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return Malformed(Reason.ANSWER_MALFORMED, f"the answer has more than {ANSWER_BYTES_MAX} bytes")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Failed(FailureKind.BUSY, "the node is at one of its limits")
    said = _said(error)
    if said is not None:
        return Failed(FailureKind.REFUSED, f"{said.reason}: {quoted(said.detail, 200)}")
    return Failed(FailureKind.UNAVAILABLE, f"{code.name}: {quoted(details, 200)}")


def _said(error: grpc.aio.AioRpcError) -> IdtraceError | None:
    try:
        return error_from_rpc(error)
    except (DecodeError, ValueError):
        return None  # details that are none

"""Asks registries for pointers over gRPC, page by page."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio

from idtrace.errors import BusyError, IdtraceError, OutcomeUnknownError, Reason, quoted
from idtrace.provenance.gather import Pointer, Question
from idtrace.serving.errors import error_from_rpc
from idtrace.v1 import pointer_pb2, pointer_pb2_grpc

# The homes of what is traced at once: some parties each, of a region's few hundred.
CHANNELS_MAX: Final = 128
# A page of 1,000 pointers with the longest subjects and events that there may be has 1.5 MiB.
PAGE_BYTES_MAX: Final = 2_097_152
# As resolver/upstream.py: what calls under way on an evicted channel get.
_CLOSE_SECONDS: Final = 30.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", PAGE_BYTES_MAX),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcPointers:
    """``PointerService.List`` over one channel an endpoint, the least recently used one closed first."""

    def __init__(self, *, channels_max: int = CHANNELS_MAX) -> None:
        self._channels_max = channels_max
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(self, endpoints: Sequence[str], question: Question, timeout_ms: int) -> tuple[list[Pointer], bool]:
        """Pointers of a subject in the question's time, and whether there are more than it asks for.

        Raises:
            IdtraceError: what the last endpoint said, or NO_ANSWER where none answered.
        """
        failure: IdtraceError = BusyError(Reason.NO_ENDPOINT, "there is no endpoint to ask")
        for endpoint in endpoints:
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    return await self._read(endpoint, question, timeout_ms)
            except grpc.aio.AioRpcError as error:
                detail = f"{endpoint} is {error.code().name}: {quoted(error.details() or '', 200)}"
                failure = error_from_rpc(error) or BusyError(Reason.NO_ANSWER, detail)
            except TimeoutError:
                failure = BusyError(Reason.NO_ANSWER, f"{endpoint} has not answered within {timeout_ms} ms")
            except grpc.aio.UsageError:  # the channel was evicted under the call
                failure = OutcomeUnknownError(Reason.NO_ANSWER, f"the channel to {endpoint} was closed")
        raise failure

    async def close(self) -> None:
        """Close every channel; calls under way may end first."""
        while self._channels:
            self._retire(self._channels.popitem()[1])
        await asyncio.gather(*self._closing)

    async def _read(self, endpoint: str, question: Question, timeout_ms: int) -> tuple[list[Pointer], bool]:
        stub = pointer_pb2_grpc.PointerServiceStub(self._channel(endpoint))
        found: list[Pointer] = []
        request = pointer_pb2.PointerServiceListRequest(subject=question.subject)
        if question.start_ms > 0:
            # Nothing of this very millisecond comes before: no event has an empty identifier.
            request.after.CopyFrom(pointer_pb2.Pointer(time_ms=question.start_ms))
        while True:
            page = await stub.List(request, timeout=timeout_ms / 1000)
            for one in page.pointers:
                if one.time_ms > question.end_ms:
                    return found, False
                if len(found) >= question.most:
                    return found, True
                found.append(Pointer(question.subject, one.time_ms, one.event, one.role))
            # A page that does not go on would be asked for ever.
            if not page.more or not page.pointers or page.pointers[-1] == request.after:
                return found, False
            request.after.CopyFrom(page.pointers[-1])

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
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

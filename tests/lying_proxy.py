"""A node that was broken into: it forwards to an honest registry and rewrites what that answers.

Its thief has what lies on the node: the node's keys, the key that says "latest" and "absent", and the log's key. He has
neither the record keys of the zone's owner, nor the keys of its parent or of the root, nor those of the witnesses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio

from idtrace import wire
from idtrace.bundle import NodeAnswer
from idtrace.v1 import registry_pb2

GET = "/idtrace.v1.RegistryService/Get"
WATCH = "/idtrace.v1.RegistryService/Watch"
TIMEOUT = 10.0

Rewrite = Callable[[NodeAnswer], NodeAnswer]


def honest(answer: NodeAnswer) -> NodeAnswer:
    return answer


class LyingProxy(grpc.GenericRpcHandler):
    """In front of one node. ``rewrite``: what becomes of each answer about an identifier."""

    def __init__(self, node: str) -> None:
        self.rewrite: Rewrite = honest
        self.rewritten = 0
        self.address = ""
        self._node = node
        self._channel: grpc.aio.Channel | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen on host:port."""
        self._channel = grpc.aio.insecure_channel(self._node)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        assert self._server.add_insecure_port(address), "the port is taken"
        self.address = address
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        assert self._channel is not None
        await self._server.stop(0)
        await self._channel.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        assert self._channel is not None
        if method == WATCH:
            stream: Any = self._channel.unary_stream(method)

            async def follow(request: bytes, context: Any) -> AsyncIterator[bytes]:
                async for message in stream(request):
                    yield message

            return grpc.unary_stream_rpc_method_handler(follow)
        unary: Any = self._channel.unary_unary(method)

        async def forward(request: bytes, context: Any) -> bytes:
            data = b""
            try:
                data = await unary(request, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", error.trailing_metadata() or ())
            return self._told(data) if method == GET else data

        return grpc.unary_unary_rpc_method_handler(forward)

    def _told(self, data: bytes) -> bytes:
        response = registry_pb2.RegistryServiceGetResponse.FromString(data)
        true = wire.answer_from_pb(response.answer)
        told = self.rewrite(true)
        self.rewritten += told != true
        response.answer.CopyFrom(wire.answer_to_pb(told))
        return response.SerializeToString()

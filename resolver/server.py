"""Builds a resolver node and runs it; nothing else. The only file that knows how other nodes are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import grpc.aio

from idtrace.chain import Anchor
from idtrace.serving.edge import serve
from idtrace.serving.keyfile import load_public_keys
from idtrace.v1 import resolver_pb2_grpc
from resolver.cache import AnswerCache
from resolver.config import ResolverConfig
from resolver.driver import Resolver
from resolver.service import ResolverService
from resolver.upstream import GrpcUpstream

SERVICES: Final = ("idtrace.v1.ResolverService",)


async def run(config: ResolverConfig, *, on_ready: Callable[[str], None] | None = None, stop: asyncio.Event) -> None:
    """Run a node until ``stop`` is set.

    Raises:
        InputError: the root key's file or the address cannot be used; the field says which.
    """
    resolver = Resolver(
        anchor=Anchor.of(*load_public_keys(config.root_key)),
        root_endpoints=config.root_endpoints,
        upstream=GrpcUpstream(),
        limits=config.limits,
        cache=AnswerCache(config.cache),
    )

    def add_services(server: grpc.aio.Server) -> None:
        resolver_pb2_grpc.add_ResolverServiceServicer_to_server(ResolverService(resolver), server)

    try:
        await serve(config.edge, add_services, SERVICES, on_ready=on_ready, stop=stop)
    finally:
        await resolver.close()

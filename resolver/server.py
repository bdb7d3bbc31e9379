"""Builds a resolver node and runs it; nothing else. The only file that knows how others are asked, nodes and Redis."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Final

import grpc.aio

from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier
from idtrace.serving.edge import serve
from idtrace.serving.keyfile import load_secret, load_signer
from idtrace.serving.rootfile import load_root_keys
from idtrace.v1 import drugcode_pb2_grpc, resolver_pb2_grpc
from idtrace.verdict.policy import Policy, parse_policy
from resolver.announced import Announced, kept_ms
from resolver.cache import AnswerCache
from resolver.cache_redis import RedisCache
from resolver.config import RedisConfig, ResolverConfig, VerdictConfig
from resolver.driver import Clock, Resolver
from resolver.drugcode_service import DrugCodeService
from resolver.drugcodes import DrugCodes
from resolver.following import Following
from resolver.hearing import Hearing
from resolver.holders import Holders
from resolver.judging import Judging
from resolver.pointing import GrpcPointers
from resolver.redis_link import RedisPlace
from resolver.service import ResolverService
from resolver.shared_cache import SHARED_KEY_BYTES_MIN, Keys, Seal
from resolver.sharing import Sharing
from resolver.tracing import Tracer
from resolver.trust import TrustStore
from resolver.upstream import GrpcUpstream
from resolver.watching import Watching

SERVICES: Final = ("idtrace.v1.ResolverService", "idtrace.v1.DrugCodeService")


async def run(config: ResolverConfig, *, on_ready: Callable[[str], None] | None = None, stop: asyncio.Event) -> None:
    """Run a node until ``stop`` is set.

    Raises:
        InputError: the root key's file, the shared key's, a verdict's key or policy, or the address cannot be used; the
            field says which.
    """

    def on_events(identifier: Identifier) -> None:
        judging.on_events(identifier)  # nothing is heard before start(), and by then it is there

    resolver = build(config, os.environ, on_events)
    pointers = GrpcPointers()
    tracer = Tracer(resolver, pointers)
    judging = build_judging(config.verdict, resolver, tracer)

    def add_services(server: grpc.aio.Server) -> None:
        holders = Holders(resolver, pointers)
        service = ResolverService(resolver, tracer=tracer, judging=judging, holders=holders)
        resolver_pb2_grpc.add_ResolverServiceServicer_to_server(service, server)
        codes = DrugCodeService(DrugCodes(resolver, pointers), judging)
        drugcode_pb2_grpc.add_DrugCodeServiceServicer_to_server(codes, server)

    try:
        resolver.start()
        await serve(config.edge, add_services, SERVICES, on_ready=on_ready, stop=stop)
    finally:
        await judging.close()
        await tracer.close()
        await resolver.close()


def build_judging(config: VerdictConfig, resolver: Resolver, tracer: Tracer) -> Judging:
    """What judges, by the operator's policy and key where there are such.

    Raises:
        InputError: the key or the policy cannot be used.
    """
    try:
        policy = parse_policy(config.policy.read_text("utf-8"), field=str(config.policy)) if config.policy else Policy()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Reason.POLICY_MALFORMED, f"it cannot be read: {error}", field=str(config.policy)) from None
    signer = load_signer(config.key) if config.key is not None else None
    return Judging(resolver, tracer, policy=policy, signer=signer, limits=config.limits)


def build(
    config: ResolverConfig, environment: Mapping[str, str], on_events: Callable[[Identifier], None] | None = None
) -> Resolver:
    """A resolver with its upstream and, where the configuration names one, its shared cache.

    ``on_events`` is called with each identifier of which a registry tells that there are more events.

    Raises:
        InputError: a key's file cannot be used, or the password's variable is not set.
    """
    anchor = load_root_keys(config.root_key).anchor
    cache = AnswerCache(config.cache)
    following = Following(
        root_endpoints=config.root_endpoints,
        short_ms=config.limits.unfollowed_seconds * 1000,
        most=config.watch.most if config.watch.enabled else 0,
        announced=Announced(keep_ms=kept_ms(config.limits)),
    )
    trust = TrustStore(chain_seconds=config.limits.chain_seconds, following=following)
    clock = Clock()
    sharing: Sharing | None = None
    if config.redis is not None:
        sharing = Sharing(
            RedisCache(redis_place(config.redis, environment)),
            Seal(load_secret(config.redis.shared_key, least=SHARED_KEY_BYTES_MIN), anchor),
            cache=cache,
            trust=trust,
            clock=clock,
            limits=config.limits,
            keys=Keys(config.redis.prefix.encode()),
            following=following,
        )
    hearing = Hearing(following=following, cache=cache, trust=trust, clock=clock, sharing=sharing)
    if on_events is not None:
        hearing.on_events = on_events
    return Resolver(
        anchor=anchor,
        root_endpoints=config.root_endpoints,
        upstream=GrpcUpstream(),
        limits=config.limits,
        cache=cache,
        trust=trust,
        clock=clock,
        sharing=sharing,
        following=following,
        watcher=Watching(following, hearing, now_ms=clock.now_ms),
    )


def redis_place(config: RedisConfig, environment: Mapping[str, str]) -> RedisPlace:
    """Where Redis is, with the password from the environment.

    Raises:
        InputError: the password's variable is not set.
    """
    password = environment.get(config.password_env, "") if config.password_env else ""
    if config.password_env and not password:
        rule = f"the environment has no {config.password_env}"
        raise InputError(Reason.FIELD_MISSING, rule, field="redis.password_env")
    files = {"ssl_ca_certs": config.tls_ca, "ssl_certfile": config.tls_cert, "ssl_keyfile": config.tls_key}
    return RedisPlace(
        url=config.url,
        prefix=config.prefix.encode(),
        username=config.username,
        password=password,
        sentinels=tuple((host, int(port)) for host, _, port in (at.rpartition(":") for at in config.sentinels)),
        master_name=config.master_name,
        cluster=config.cluster,
        op_timeout_ms=config.op_timeout_ms,
        tls=tuple((name, str(path)) for name, path in files.items() if path is not None),
    )

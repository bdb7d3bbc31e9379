"""Builds a registry node and runs it; nothing else. The only file that knows which store is in use."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc.aio

from idtrace.errors import InputError, Reason
from idtrace.note import NoteSigner
from idtrace.serving.edge import serve
from idtrace.serving.keyfile import load_signer
from idtrace.serving.lockfile import lock_file
from idtrace.serving.rootfile import load_root_keys
from idtrace.serving.settings import Settings
from idtrace.signature import Signer
from idtrace.v1 import capture_pb2_grpc, delegation_pb2_grpc, pointer_pb2_grpc, registry_pb2_grpc
from registry.adoption import Adoption
from registry.authority import Authority
from registry.capture_service import CaptureService
from registry.capturing import Capturing
from registry.changes import Changes
from registry.config import RegistryConfig
from registry.delivering import Delivering
from registry.event_http import EventInterface
from registry.event_query import EventQueries
from registry.event_service import EventService
from registry.event_stream import EventStreams
from registry.grants import Grants
from registry.homes import Homes
from registry.job_store import JobStore
from registry.licensing import Licences
from registry.logbook import LogWriter
from registry.pointer_service import PointerService
from registry.pointers import outbound
from registry.publishing import Publishing
from registry.query_store import QueryStore
from registry.receipts import Receipts
from registry.reporters import Reporters
from registry.sealing import Sealing
from registry.sequencer import Sequencer
from registry.service import DelegationService, RegistryService
from registry.stamping import Stamper
from registry.standing import Standing
from registry.storage import Storage
from registry.storage_sqlite import SqliteStorage

SERVICES: Final = (
    "idtrace.v1.RegistryService",
    "idtrace.v1.DelegationService",
    "idtrace.v1.PointerService",
    "idtrace.v1.CaptureService",
    "idtrace.v1.EventService",
)


def wall_clock() -> int:
    """Seconds since the Unix epoch."""
    return int(time.time())


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


async def open_storage(config: RegistryConfig) -> Storage:
    """The store that a node's configuration asks for, ready to use.

    Raises:
        InputError: an engine that there is not, or a setting that it does not know; the field says which.
    """
    match config.storage.engine:
        case "sqlite":
            Settings(config.storage.settings, config.data, table="storage").end()
            config.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # restricted values lie in it
            return SqliteStorage(config.data / "registry.sqlite3")
        case "cassandra":
            from registry.storage_cassandra import (  # noqa: PLC0415 - its driver would cost every other node 150 ms
                open_cassandra,
            )

            return await open_cassandra(config.storage.settings, config.storage.base)
        case engine:
            detail = f"there is no engine {engine!r}; the engines are: sqlite, cassandra"
            raise InputError(Reason.FIELD_MALFORMED, detail, field="storage.engine")


def _log_signers(config: RegistryConfig, passphrase: bytes | None, node: Signer) -> tuple[NoteSigner | None, Signer]:
    """The key of the node's log, if it keeps one, and the key that says "latest" and "absent"."""
    if config.log is None:
        return None, node
    key = load_signer(config.log.key, passphrase)
    if key.public_key == node.public_key:
        rule = "the log has a key of its own: the node's can be replaced, and the log's stands in every checkpoint"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="log.key")
    currency = load_signer(config.log.currency_key, passphrase)
    return NoteSigner.of(config.log.origin, key), currency


def _standing(
    storage: Storage, authority: Authority, log_signer: NoteSigner | None, node: Signer, currency: Signer
) -> Standing | None:
    if log_signer is None:
        return None
    key, monotonic = log_signer.key, time.monotonic
    return Standing(storage, authority, key, node=node, currency=currency, clock=wall_clock, monotonic=monotonic)


def _receipts(config: RegistryConfig, standing: Standing | None, publishing: Publishing | None) -> Receipts:
    """At most half of all calls may wait for witnesses, so that those who do not are never kept out by their loss."""
    seconds = config.log.witness_wait_seconds if config.log else 0.0
    witnesses = publishing.witnesses if publishing else None
    return Receipts(standing, witnesses, wait_seconds=seconds, waiting_max=(config.edge.in_flight_max + 1) // 2)


def _reporters(config: RegistryConfig, storage: Storage, authority: Authority) -> Reporters:
    licences = Licences(storage, authority, config.parents, wall_clock) if config.capture.licences_required else None
    return Reporters(storage, licences)


def _signer_for_others(config: RegistryConfig, passphrase: bytes | None) -> Signer | None:
    return load_signer(config.capture.key, passphrase) if config.capture.key else None


def _interface(
    config: RegistryConfig,
    capturing: Capturing,
    queries: EventQueries,
    streams: EventStreams,
    stored: QueryStore | None,
) -> EventInterface | None:
    if config.events is None or stored is None:
        return None
    return EventInterface(
        config.events,
        capturing=capturing,
        party=config.capture.party,
        queries=queries,
        streams=streams,
        stored=stored,
        data=config.data,
        now_ms=wall_clock_ms,
    )


def _job_name() -> str:
    """So long that nobody guesses the job of another."""
    return secrets.token_hex(16)


def _all(*hear: Callable[[], object]) -> Callable[[], None]:
    def told() -> None:
        for one in hear:
            one()

    return told


@dataclass(frozen=True, slots=True)
class _Node:
    """The parts of a node that have a task, and the services that it answers with."""

    sequencer: Sequencer
    adoption: Adoption
    changes: Changes
    publishing: Publishing | None
    registry: RegistryService
    delegations: DelegationService
    pointers: PointerService
    delivering: Delivering
    capture: CaptureService
    events: EventService
    streams: EventStreams
    interface: EventInterface | None


async def _built(config: RegistryConfig, storage: Storage, jobs: JobStore, stored: QueryStore | None) -> _Node:
    """A node on an open store, with what it needs to know read from there.

    Raises:
        InputError: a key file or the policy cannot be used; the field says which.
    """
    passphrase = os.environ.get(config.passphrase_env, "").encode() or None
    signer = load_signer(config.node_key, passphrase)
    authority = Authority(load_root_keys(config.root_key).anchor, config.zones)
    log_signer, currency_signer = _log_signers(config, passphrase, signer)
    stamper = Stamper(LogWriter(log_signer), wall_clock, time.monotonic) if log_signer else None
    publishing = Publishing(config.log, storage, config.data, wall_clock) if config.log else None
    news, to_deliver = asyncio.Event(), asyncio.Event()
    queries = EventQueries(storage)
    streams = EventStreams(storage, queries)
    committed = _all(news.set, to_deliver.set, streams.news, *([publishing.grow] if publishing else []))
    grants = Grants(storage, authority, signer.public_key.key_id, wall_clock, committed, stamper=stamper)
    changes = Changes(storage, authority, grants, news)
    await changes.begin()
    await grants.load()
    key_id = signer.public_key.key_id
    adoption = Adoption(storage, authority, config.parents, wall_clock, key_id, stamper=stamper, on_commit=committed)
    await adoption.begin_log()
    away = partial(outbound, authority)
    sequencer = Sequencer(storage, signer, wall_clock, committed, stamper=stamper, away=away)
    homes = Homes(authority, config.parents, wall_clock)
    delivering = Delivering(storage, homes, to_deliver, now_ms=wall_clock_ms, on_commit=news.set)
    pointed = _all(news.set, to_deliver.set)
    pointers = PointerService(storage, authority, now_ms=wall_clock_ms, monotonic=time.monotonic, on_commit=pointed)
    standing = _standing(storage, authority, log_signer, signer, currency_signer)
    receipts = _receipts(config, standing, publishing)
    reporters = _reporters(config, storage, authority)
    sealing = Sealing(storage, authority, sequencer, wall_clock, standing, receipts=receipts, reporters=reporters)
    for_others = _signer_for_others(config, passphrase)
    capturing = Capturing(storage, authority, sequencer, reporters, jobs, clock=wall_clock, signer=for_others)
    registry = RegistryService(
        storage=storage,
        authority=authority,
        sequencer=sequencer,
        grants=grants,
        changes=changes,
        signer=signer,
        clock=wall_clock,
        receipts=receipts,
        deadline_seconds_max=config.edge.deadline_seconds_max,
        sealing=sealing,
        reporters=reporters,
        standing=standing,
    )
    return _Node(
        sequencer,
        adoption,
        changes,
        publishing,
        registry,
        DelegationService(authority, grants),
        pointers,
        delivering,
        CaptureService(storage, capturing, sealing, receipts, deadline_seconds_max=config.edge.deadline_seconds_max),
        EventService(queries, streams),
        streams,
        _interface(config, capturing, queries, streams, stored),
    )


def _stored_queries(config: RegistryConfig) -> AbstractContextManager[QueryStore | None]:
    """A file of its own, where there is an interface that stores any."""
    if config.events is None:
        return nullcontext()
    return closing(QueryStore(config.data / "stored-queries.sqlite3", wall_clock_ms))


async def run(config: RegistryConfig, *, on_ready: Callable[[str], None] | None = None, stop: asyncio.Event) -> None:
    """Run a node until ``stop`` is set.

    Raises:
        InputError: a key file, the address or the store's settings cannot be used; the field says which.
    """
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # restricted values lie in it
    # A node keeps its grants in memory: a second one on the folder would serve what the first has disabled or revoked.
    with lock_file(config.data / "lock", owner="another node runs on this folder", field=str(config.data)):
        storage = await open_storage(config)
        try:
            with (
                closing(JobStore(config.data / "capture-jobs.sqlite3", wall_clock_ms, _job_name)) as jobs,
                _stored_queries(config) as stored,
            ):
                await _run(config, await _built(config, storage, jobs, stored), on_ready, stop)
        finally:
            await storage.close()


async def _run(
    config: RegistryConfig, node: _Node, on_ready: Callable[[str], None] | None, stop: asyncio.Event
) -> None:
    def add_services(server: grpc.aio.Server) -> None:
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(node.registry, server)
        delegation_pb2_grpc.add_DelegationServiceServicer_to_server(node.delegations, server)
        pointer_pb2_grpc.add_PointerServiceServicer_to_server(node.pointers, server)
        capture_pb2_grpc.add_CaptureServiceServicer_to_server(node.capture, server)
        capture_pb2_grpc.add_EventServiceServicer_to_server(node.events, server)

    committing = asyncio.create_task(node.sequencer.run(), name="sequencer")
    adopting = asyncio.create_task(node.adoption.run(config.refresh_seconds), name="adoption")
    telling = asyncio.create_task(node.changes.run(), name="changes")
    delivering = asyncio.create_task(node.delivering.run(), name="delivering")
    streaming = asyncio.create_task(node.streams.run(), name="streams")
    published = asyncio.create_task(node.publishing.run(stop), name="publishing") if node.publishing else None
    spoken = asyncio.create_task(node.interface.run(stop), name="epcis") if node.interface else None
    # Without a sequencer nothing can be committed, and without the others nothing is told: the node ends, and its
    # supervisor starts it anew.
    for vital in (committing, telling, delivering, streaming, published, spoken):
        if vital is not None:
            vital.add_done_callback(lambda _: stop.set())
    try:
        await serve(config.edge, add_services, SERVICES, on_ready=on_ready, stop=stop)
    finally:
        stop.set()  # whatever has ended the serving, what goes on for ever ends with it
        if spoken is not None:
            await asyncio.wait({spoken})  # its captures end while there is a sequencer
        for endless in (adopting, telling, delivering, streaming):
            endless.cancel()
            with suppress(asyncio.CancelledError):
                await endless
        node.sequencer.close()
        await committing
        for ending in (published, spoken):
            if ending is not None:
                await ending

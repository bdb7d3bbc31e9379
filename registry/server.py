"""Builds a registry node and runs it; nothing else. The only file that knows which store is in use."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import grpc.aio

from idtrace.errors import InputError, Reason
from idtrace.note import NoteSigner
from idtrace.serving.edge import serve
from idtrace.serving.keyfile import load_signer
from idtrace.serving.rootfile import load_root_keys
from idtrace.serving.settings import Settings
from idtrace.signature import Signer
from idtrace.v1 import delegation_pb2_grpc, registry_pb2_grpc
from registry.adoption import Adoption
from registry.authority import Authority
from registry.changes import Changes
from registry.config import RegistryConfig
from registry.grants import Grants
from registry.logbook import LogWriter
from registry.publishing import Publishing
from registry.sequencer import Sequencer
from registry.service import DelegationService, RegistryService
from registry.stamping import Stamper
from registry.standing import Standing
from registry.storage import Storage
from registry.storage_sqlite import SqliteStorage

SERVICES: Final = ("idtrace.v1.RegistryService", "idtrace.v1.DelegationService")


def wall_clock() -> int:
    """Seconds since the Unix epoch."""
    return int(time.time())


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


def _locked(path: Path) -> BinaryIO:
    """A node keeps its grants in memory: a second one on the folder would serve what the first has disabled or revoked.

    Raises:
        InputError: FIELD_MALFORMED where another node has the folder.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system however the process ends
    except BlockingIOError:
        file.close()
        rule = "another node runs on this folder"
        raise InputError(Reason.FIELD_MALFORMED, rule, field=str(path.parent)) from None
    return file


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


def _all(*hear: Callable[[], object]) -> Callable[[], None]:
    def told() -> None:
        for one in hear:
            one()

    return told


async def run(config: RegistryConfig, *, on_ready: Callable[[str], None] | None = None, stop: asyncio.Event) -> None:
    """Run a node until ``stop`` is set.

    Raises:
        InputError: a key file, the address or the store's settings cannot be used; the field says which.
    """
    passphrase = os.environ.get(config.passphrase_env, "").encode() or None
    signer = load_signer(config.node_key, passphrase)
    anchor = load_root_keys(config.root_key).anchor
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # restricted values lie in it
    with _locked(config.data / "lock"):
        storage = await open_storage(config)
        authority = Authority(anchor, config.zones)
        news = asyncio.Event()
        publishing = Publishing(config.log, storage, config.data, wall_clock) if config.log else None
        committed = _all(news.set, publishing.grow) if publishing else news.set
        log_signer, currency_signer = _log_signers(config, passphrase, signer)
        stamper = Stamper(LogWriter(log_signer), wall_clock, time.monotonic) if log_signer else None
        grants = Grants(storage, authority, signer.public_key.key_id, wall_clock, committed, stamper=stamper)
        changes = Changes(storage, authority, grants, news)
        await changes.begin()
        await grants.load()
        adoption = Adoption(storage, authority, config.parents, wall_clock, signer.public_key.key_id, stamper=stamper)
        await adoption.begin_log()
        sequencer = Sequencer(storage, signer, wall_clock, committed, stamper=stamper)
        standing = _standing(storage, authority, log_signer, signer, currency_signer)
        registry = RegistryService(
            storage=storage,
            authority=authority,
            sequencer=sequencer,
            grants=grants,
            changes=changes,
            signer=signer,
            clock=wall_clock,
            standing=standing,
        )

        def add_services(server: grpc.aio.Server) -> None:
            registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
            delegation_pb2_grpc.add_DelegationServiceServicer_to_server(DelegationService(authority, grants), server)

        committing = asyncio.create_task(sequencer.run(), name="sequencer")
        adopting = asyncio.create_task(adoption.run(config.refresh_seconds), name="adoption")
        telling = asyncio.create_task(changes.run(), name="changes")
        vitals = [committing, telling]
        if publishing is not None:
            vitals.append(asyncio.create_task(publishing.run(stop), name="publishing"))
        # Without a sequencer nothing can be committed, and without the others nothing is told: the node ends, and its
        # supervisor starts it anew.
        for vital in vitals:
            vital.add_done_callback(lambda _: stop.set())
        try:
            await serve(config.edge, add_services, SERVICES, on_ready=on_ready, stop=stop)
        finally:
            for endless in (adopting, telling):
                endless.cancel()
                with suppress(asyncio.CancelledError):
                    await endless
            sequencer.close()
            await committing
            stop.set()  # whatever has ended the serving, publishing ends with it
            for published in vitals[2:]:
                await published
            await storage.close()

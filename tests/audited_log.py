"""A log for auditors: honest, or lying in exactly one way; served without a network, or by threads on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx

from idtrace import wire
from idtrace.auditing.auditor import Asked, LogAudit, Saved
from idtrace.auditing.evidence import Chained, Evidence, check_evidence
from idtrace.auditing.fetching import LogReader
from idtrace.auditing.findings import LogReport
from idtrace.auditing.memory import MemoryFolder
from idtrace.auditing.witnesses import WitnessRound
from idtrace.checkpoint import Checkpoint
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logpolicy import LogPolicy
from idtrace.merkle import CompactRange, Node, hash_leaf
from idtrace.note import Note, NoteSigner
from idtrace.record import Record, Status
from idtrace.seal import seal
from idtrace.signature import Signed
from idtrace.tiles import TILE_WIDTH, Tile, bundle_content, parse_path, tile_content
from idtrace.v1 import delegation_pb2
from tests.core_fixtures import (
    ITEM,
    NOW,
    ZONE,
    anchor,
    delegate,
    delegation,
    links,
    public,
    record,
    signer,
    zone_keys,
)
from tests.logged_fixtures import HERE, LOG, log_signer, logged, logged_chain

CHILD = f"{ZONE}.1"
CHILD_ITEM = Identifier.parse(f"{CHILD}/X")
FIRST = record(ITEM)
NEXT = record(ITEM, version=2, previous=FIRST.hash, status=Status.RECALLED)
BATCH = 590
# Keys, seal, batch, two versions of ITEM, the child zone: two full bundles and a partial one.
SIZE = 1 + 1 + BATCH + 2 + 3
# Where the recall of ITEM stands.
RECALLED_AT = 2 + BATCH + 1

Answer = tuple[int, bytes, dict[str, str]]
Lie = Callable[[], Answer | Iterable[bytes]]


def child_delegation() -> Delegation:
    """The child zone keeps its changes in its parent's log."""
    shared = ZoneKey(public(f"log of {ZONE}"), frozenset({Role.LOG}))
    return delegation(CHILD, keys=(*zone_keys(CHILD, set(Role) - {Role.LOG}), shared), log=LOG)


def child_chain() -> tuple[Signed, ...]:
    return (*logged_chain(), delegate(child_delegation()))


def _entry(kind: EntryKind, signed: Signed, zone: str = ZONE) -> bytes:
    return Entry(kind, Prefix.parse(zone), NOW, signed.payload, signed.signatures).to_bytes()


def written(one: Record, zone: str = ZONE) -> bytes:
    return _entry(EntryKind.RECORD, one.signed, zone)


@cache
def honest_entries() -> tuple[bytes, ...]:
    records = [record(Identifier.parse(f"{ZONE}/B-{n}")) for n in range(BATCH)]
    places = seal([one.hash for one in records], HERE, signer(f"record of {ZONE}"), issued_at=NOW)
    child = delegate(child_delegation())
    return (
        _entry(EntryKind.KEYS, delegate(logged())),
        Entry(EntryKind.SEAL, HERE, NOW, places[0].seal.payload, places[0].seal.signatures).to_bytes(),
        *(
            Entry(EntryKind.RECORD, HERE, NOW, one.signed.payload, UnderSeal(place.hash, n)).to_bytes()
            for n, (one, place) in enumerate(zip(records, places, strict=True))
        ),
        written(FIRST),
        written(NEXT),
        _entry(EntryKind.DELEGATION, child),
        _entry(EntryKind.KEYS, child, CHILD),
        written(record(CHILD_ITEM), CHILD),
    )


class ServedLog:
    """A log's pages. ``size``: of the checkpoint that is shown; ``lies``: what is served instead, by path."""

    def __init__(self, entries: Iterable[bytes] | None = None, by: NoteSigner | None = None) -> None:
        self.entries = list(honest_entries() if entries is None else entries)
        self.by = by or log_signer()
        self.size = len(self.entries)
        self.cosigners: tuple[NoteSigner, ...] = ()
        self.lies: dict[str, Lie] = {}
        self.asked: list[str] = []
        self._nodes: dict[Node, bytes] = {}
        self._hashed = -1

    def note(self, size: int | None = None, **changes: Any) -> Note:
        """The signed checkpoint of a size, with some fields replaced."""
        size = self.size if size is None else size
        root = CompactRange().extend([hash_leaf(one) for one in self.entries[:size]]).root()
        text = replace(Checkpoint(self.by.key.name, size, root), **changes).text
        return Note(text, tuple(one.sign(text, NOW) for one in (self.by, *self.cosigners)))

    def forked(self, at: int, more: int) -> ServedLog:
        """The same operator's other log: the same up to an index, then entries of another batch, one by one."""
        other = [written(record(Identifier.parse(f"{ZONE}/F-{n}"))) for n in range(more)]
        return ServedLog([*self.entries[:at], *other], self.by)

    def instead(self, path: str, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> ServedLog:
        """Serve this body at a path."""
        self.lies[path] = lambda: (status, body, headers or {})
        return self

    def changed(self, path: str, at: int = -1) -> ServedLog:
        """Serve the true content with one bit of one byte changed."""
        content = bytearray(self.content(path))
        content[at] ^= 1
        return self.instead(path, bytes(content))

    def content(self, path: str) -> bytes:
        """What is true at a path.

        Raises:
            InputError: there is nothing.
        """
        if path == "checkpoint":
            return self.note().encode()
        resource = parse_path(path)
        if isinstance(resource, Tile):
            if self._hashed != len(self.entries):
                runs = CompactRange().grow([hash_leaf(one) for one in self.entries])[1]
                self._nodes = {Node(run.level, run.first + n): one for run in runs for n, one in enumerate(run.hashes)}
                self._hashed = len(self.entries)
            return tile_content(resource, self._nodes.__getitem__)
        first = resource.index * TILE_WIDTH
        return bundle_content(self.entries[first : first + resource.width])

    def answer(self, path: str) -> Answer | Iterable[bytes]:
        self.asked.append(path)
        if path in self.lies:
            return self.lies[path]()
        try:
            return 200, self.content(path), {}
        except (InputError, KeyError):
            return 404, b"", {}

    @property
    def transport(self) -> httpx.MockTransport:
        """The log without a network."""

        def handle(request: httpx.Request) -> httpx.Response:
            told = self.answer(request.url.path.removeprefix("/"))
            if isinstance(told, tuple):
                status, body, headers = told
                return httpx.Response(status, stream=httpx.ByteStream(body), headers=headers)
            return httpx.Response(200, content=told)

        return httpx.MockTransport(handle)


def chained(*chains: tuple[Signed, ...]) -> tuple[Chained, ...]:
    return tuple(Chained(NOW, chain) for chain in chains or (logged_chain(),))


def opened(
    log: ServedLog,
    folder: MemoryFolder | None = None,
    *,
    saved: tuple[Saved, ...] = (),
    policy: LogPolicy | None = None,
    chains: tuple[Chained, ...] = (),
    timeout_seconds: float = 5.0,
    witnesses: httpx.BaseTransport | None = None,
) -> LogAudit:
    """An audit of a log without a network."""
    reader = LogReader("http://log.example/", timeout_seconds=timeout_seconds, transport=log.transport)
    asked = Asked(anchor(), chains or chained(), policy, saved)
    return LogAudit(reader, asked, folder, WitnessRound(witnesses) if witnesses else None)


def audited(log: ServedLog, folder: MemoryFolder | None = None, *, sample: int = 0, **given: Any) -> LogReport:
    """One audit of a log as of now."""
    audit = opened(log, folder, **given)
    try:
        return audit.run(NOW, sample=sample)
    finally:
        audit.reader.close()


def found(report: LogReport) -> list[tuple[str, Reason]]:
    """Where and which rule, of every finding."""
    return [(notice.place, notice.reason) for notice in report.notices]


def holds(evidence: Evidence) -> bool:
    """Whether a third party is shown a lie."""
    checks = check_evidence(evidence, anchor())
    return checks[-1].name == "contradiction" and all(check.passed for check in checks)


def shown(report: LogReport) -> Evidence:
    """The evidence of the one finding that has any; it holds, and still does when read back from its file."""
    (evidence,) = [notice.evidence for notice in report.notices if notice.evidence is not None]
    assert holds(Evidence.parse(evidence.encode()))
    return evidence


@contextmanager
def on_loopback(log: ServedLog) -> Iterator[str]:
    """Serve a log by threads; yields its address."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = log.answer(self.path.removeprefix("/"))
            status, body, headers = told if isinstance(told, tuple) else (200, None, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if body is not None:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                for piece in (body,) if body is not None else told:
                    self.wfile.write(piece)  # type: ignore[arg-type] # bytes, by what an answer is
            except OSError:
                pass  # the auditor has had enough

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def telling(*chains: tuple[Signed, ...]) -> Iterator[str]:
    """A node that tells these chains; yields host:port."""
    known = {chain[-1].payload: chain for chain in chains}
    by_zone = {str(Delegation.parse(payload).child): chain for payload, chain in known.items()}

    def get(request: Any, _: Any) -> Any:
        chain = by_zone.get(request.prefix, links("88.118"))
        return delegation_pb2.DelegationServiceGetResponse(chain=[wire.signed_to_pb(one) for one in chain])

    server = grpc.server(futures.ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(
        get,
        request_deserializer=delegation_pb2.DelegationServiceGetRequest.FromString,
        response_serializer=delegation_pb2.DelegationServiceGetResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler("idtrace.v1.DelegationService", {"Get": method})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()

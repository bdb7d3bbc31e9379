"""From the driver's threads to the event loop, in one place: every statement of the store goes through here.

The driver answers on a thread of its own (libev). Answers that arrive together wake the loop once. So many statements
are in flight and no more; each has an own timeout beside the driver's, which does not fire where a heartbeat has
closed every connection (PYTHON-1044). The driver's default policy sends lightweight transactions again behind its
caller's back (CASSANDRA-9086): here nothing is ever sent again but by :meth:`Bridge.run`, and a swap by its ledger.
Source: docs.datastax.com/en/developer/python-driver, "Execution Profiles", and the driver's policies.py.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    RequestValidationException,
    UnresolvableContactPoints,
    UnsupportedOperation,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, ResponseFuture, Session
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    NoSpeculativeExecutionPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, named_tuple_factory

from registry.cassandra_settings import CassandraSettings

# More in flight makes no statement faster on two cores and every statement later (facts: 8 to 10k inserts/s at 128).
IN_FLIGHT_MAX: Final = 128
# Three answers missed in a row are no accident; each try waits up to the request timeout.
TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.05
# A second replica is asked when the first has not answered a read or plain write for this long: some 10 times the p99.
SPECULATIVE_SECONDS: Final = 0.3
# A node that stands still is noticed after at most twice this; the driver's own 30 s would hold every batch as long.
HEARTBEAT_SECONDS: Final = 2.0
# Rows of one page: receipts and heads of a stem fit into one; grants of 20 KB each stay below 2 MB.
PAGE_ROWS: Final = 100
# What a start without a ring raises.
NO_CONNECTION: Final = (NoHostAvailable, UnresolvableContactPoints, AuthenticationFailed)
# What no repetition mends.
PERMANENT: Final = (RequestValidationException, AuthenticationFailed, UnsupportedOperation)


class NoAnswerError(Exception):
    """The driver has told nothing within its time and ours."""


class Bridge:
    """A session whose statements are awaited. Owned by one event loop."""

    def __init__(self, cluster: Cluster, session: Session, settings: CassandraSettings) -> None:
        self.session = session
        self._cluster = cluster
        self._timeout = settings.request_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._answers: deque[tuple[asyncio.Future[list[Any]], list[Any] | None, Exception | None]] = deque()
        self._lock = threading.Lock()
        self._woken = False

    @classmethod
    async def connect(cls, settings: CassandraSettings) -> Bridge:
        """Connect to the ring; the driver's blocking start runs on a thread."""
        cluster = Cluster(
            list(settings.contact_points),
            port=settings.port,
            protocol_version=5,
            execution_profiles=_profiles(settings),
            auth_provider=_credentials(settings),
            ssl_context=_tls(settings),
            idle_heartbeat_interval=HEARTBEAT_SECONDS,
            idle_heartbeat_timeout=HEARTBEAT_SECONDS,
            connect_timeout=settings.request_timeout_seconds,
        )
        try:
            session = await asyncio.to_thread(cluster.connect)
        except BaseException:
            await asyncio.to_thread(cluster.shutdown)
            raise
        session.default_fetch_size = PAGE_ROWS
        return cls(cluster, session, settings)

    async def use(self, keyspace: str) -> None:
        """Let names of tables that stand alone mean those of a keyspace."""
        await asyncio.to_thread(self.session.set_keyspace, keyspace)

    async def prepare(self, texts: dict[str, str]) -> dict[str, Any]:
        """Prepared statements by name.

        Speculation asks which may be sent twice: those without a condition, and a swap that is sent again anyway.
        """
        prepared = {name: await asyncio.to_thread(self.session.prepare, text) for name, text in texts.items()}
        for name, statement in prepared.items():
            statement.is_idempotent = " IF " not in texts[name] or name == "swap again"
        return prepared

    async def run(self, statement: Any, values: Sequence[object] = (), *, profile: str = "plain") -> list[Any]:
        """Rows of a statement that may be sent twice, sent up to :data:`TRIES` times.

        Raises:
            Exception: the driver's, or NoAnswerError; after a write nobody knows whether it is there.
        """
        for left in reversed(range(TRIES)):
            try:
                return await self.once(statement, values, profile=profile)
            except PERMANENT:
                raise
            except Exception:
                if not left:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS * (TRIES - left))
        raise AssertionError("the last try returns or raises")

    async def once(self, statement: Any, values: Sequence[object] = (), *, profile: str) -> list[Any]:
        """Rows of a statement that is sent exactly once."""
        async with self._in_flight:
            answer: asyncio.Future[list[Any]] = self._loop.create_future()
            future = self.session.execute_async(statement, values or None, execution_profile=profile)
            rows: list[Any] = []
            future.add_callbacks(
                partial(self._page, answer, future, rows),
                lambda error: self._answered(answer, None, error),
            )
            try:
                return await asyncio.wait_for(answer, self._timeout + 0.5)
            except TimeoutError:
                raise NoAnswerError("no answer within the request timeout") from None

    def _page(
        self, answer: asyncio.Future[list[Any]], future: ResponseFuture, rows: list[Any], page: list[Any] | None
    ) -> None:
        """On the driver's thread."""
        rows.extend(page or ())
        if future.has_more_pages:
            future.start_fetching_next_page()
        else:
            self._answered(answer, rows, None)

    def _answered(self, answer: asyncio.Future[list[Any]], rows: list[Any] | None, error: Exception | None) -> None:
        """On the driver's thread: hand over, and wake the loop unless somebody has just done so."""
        self._answers.append((answer, rows, error))
        with self._lock:
            if self._woken:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._hand_out)
        except RuntimeError:  # the loop has ended: nobody waits any more
            self._answers.clear()

    def _hand_out(self) -> None:
        with self._lock:
            self._woken = False
        while self._answers:
            answer, rows, error = self._answers.popleft()
            if answer.done():  # its caller has given up
                continue
            if error is None:
                answer.set_result(rows or [])
            else:
                answer.set_exception(error)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.to_thread(self._cluster.shutdown)


def one_partition(statements: Iterable[tuple[Any, Sequence[object]]]) -> BatchStatement:
    """Several rows of one partition as one mutation: whole or not at all, and logged by nobody."""
    batch = BatchStatement(BatchType.UNLOGGED)
    for statement, values in statements:
        batch.add(statement, values)
    batch.is_idempotent = True
    return batch


async def each(work: Iterable[Coroutine[Any, Any, Any]], workers: int = IN_FLIGHT_MAX) -> list[Any]:
    """Await them all, so many at a time; results in order. The first that raises ends the rest."""
    items = list(work)
    results: list[Any] = [None] * len(items)
    waiting = enumerate(items)

    async def worker() -> None:
        for number, item in waiting:
            results[number] = await item

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(items))):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        for _, item in waiting:
            item.close()
    return results


def _profiles(settings: CassandraSettings) -> dict[object, ExecutionProfile]:
    """What is sent, to whom first, and what counts as done.

    ``plain`` for rows; ``swap`` for a lightweight transaction, sent once; ``swap again`` for one whose first answer was
    lost, through another node if the first stands still, since it names the same batch; ``serial`` to ask for the head.
    """
    consistency = ConsistencyLevel.name_to_value[settings.consistency]
    serial = ConsistencyLevel.name_to_value[settings.serial_consistency]

    def profile(level: int, *, speculative: bool) -> ExecutionProfile:
        return ExecutionProfile(
            # Replicas are not shuffled: two writers of a ledger queue at one coordinator instead of at two.
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(settings.datacenter)),
            retry_policy=FallthroughRetryPolicy(),
            consistency_level=level,
            serial_consistency_level=serial,
            request_timeout=settings.request_timeout_seconds,
            row_factory=named_tuple_factory,
            speculative_execution_policy=ConstantSpeculativeExecutionPolicy(SPECULATIVE_SECONDS, 1)
            if speculative
            else NoSpeculativeExecutionPolicy(),
        )

    plain = profile(consistency, speculative=True)
    return {
        EXEC_PROFILE_DEFAULT: plain,
        "plain": plain,
        "swap": profile(consistency, speculative=False),
        "swap again": profile(consistency, speculative=True),
        "serial": profile(serial, speculative=True),
    }


def _credentials(settings: CassandraSettings) -> PlainTextAuthProvider | None:
    if not settings.username:
        return None
    return PlainTextAuthProvider(settings.username, os.environ.get(settings.password_env, ""))


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if settings.tls_ca is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.tls_ca)
    context.check_hostname = False  # the ring announces addresses; what is signed by the ring's own authority is ours
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context

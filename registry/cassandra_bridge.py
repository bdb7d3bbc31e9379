"""From the driver's threads to the event loop, in one place: every statement of the store goes through here.

The driver answers on a thread of its own (libev). Answers that arrive together wake the loop once. So many statements
are in flight and no more; each has an own timeout beside the driver's, which does not fire where a heartbeat has
closed every connection (PYTHON-1044). The driver's default policy sends lightweight transactions again behind its
caller's back (CASSANDRA-9086): here nothing is ever sent again but by :meth:`Bridge.run`, and a swap by its ledger.
Source: docs.datastax.com/en/developer/python-driver, "Execution Profiles", and the driver's policies.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from cassandra import ConsistencyLevel
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, ResponseFuture, Session
from cassandra.policies import (
    ConstantSpeculativeExecutionPolicy,
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    NoSpeculativeExecutionPolicy,
    TokenAwarePolicy,
)
from cassandra.query import BatchStatement, BatchType, named_tuple_factory

from idtrace.errors import BusyError, InputError, Reason
from registry.cassandra_errors import DRIVER, PERMANENT, NoAnswerError, not_answered, not_connected
from registry.cassandra_settings import CassandraSettings

T = TypeVar("T")

# The driver writes tracebacks to its own log, and with nobody there to take them they reach the terminal. Whatever
# matters of them is in the errors that it raises.
logging.getLogger("cassandra").addHandler(logging.NullHandler())
# More in flight makes no statement faster on two cores and every statement later (facts: 8 to 10k inserts/s at 128).
IN_FLIGHT_MAX: Final = 128
# Three answers missed in a row are no accident; each try waits up to the request timeout.
TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.05
# A second replica is asked when the first has not answered a read or plain write for this long: some 10 times the p99.
SPECULATIVE_SECONDS: Final = 0.3
# A node that stands still is asked after two of these at most, and left alone once it has not answered for the time
# that stands below; until then every batch that needs it waits. The driver's own 30 s would hold each for as long.
HEARTBEAT_SECONDS: Final = 1.0
# Longer than a node's pause to collect garbage, which must not close its connections.
HEARTBEAT_TIMEOUT_SECONDS: Final = 1.5
# Rows of one page: receipts and heads of a stem fit into one; grants of 20 KB each stay below 2 MB.
PAGE_ROWS: Final = 100
# A connection is greeted, encrypted and let in by a password (slow on purpose: bcrypt) before its first statement, and
# no batch waits for it. At the start each contact point that stays silent costs as much.
CONNECT_SECONDS: Final = 5.0
# A node that has come back is tried again after this at most; the driver's own policy waits up to ten minutes, and
# after 64 tries for ever.
RECONNECT_SECONDS: Final = 5.0
# A password is a line; what is longer is another file.
PASSWORD_BYTES_MAX: Final = 1_024
# What a start without a ring raises: see :func:`registry.cassandra_errors.not_connected`.
NO_CONNECTION: Final = (BusyError, InputError)


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
        """Connect to the ring; the driver's blocking start runs on a thread.

        Raises:
            InputError: a setting is wrong; the field says which.
            BusyError: NO_ANSWER where nobody answers.
        """
        cluster = await asyncio.to_thread(_cluster, settings)
        try:
            session = await asyncio.to_thread(cluster.connect)
        except DRIVER as error:
            found = {host.datacenter for host in cluster.metadata.all_hosts() if host.datacenter}
            await asyncio.to_thread(cluster.shutdown)
            raise not_connected(error, settings, found) from None
        except BaseException:
            await asyncio.to_thread(cluster.shutdown)
            raise
        session.default_fetch_size = PAGE_ROWS
        return cls(cluster, session, settings)

    def nodes(self) -> Counter[str]:
        """How many nodes each data centre of the ring has, up or down."""
        return Counter(host.datacenter for host in self._cluster.metadata.all_hosts())

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
        await self._turn()
        try:
            answer: asyncio.Future[list[Any]] = self._loop.create_future()
            future = self.session.execute_async(statement, values or None, execution_profile=profile)
            rows: list[Any] = []
            future.add_callbacks(
                partial(self._page, answer, future, rows),
                lambda error: self._answered(answer, None, error),
            )
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the answer, and whoever
            # closes a store would wait for ever for a task that goes on.
            async with asyncio.timeout(self._timeout + 0.5):
                return await answer
        except TimeoutError:
            raise NoAnswerError("no answer within the request timeout") from None
        finally:
            self._in_flight.release()

    async def _turn(self) -> None:
        """Become one of those in flight; waited for no longer than an answer is."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._in_flight.acquire()
        except TimeoutError:
            raise NoAnswerError(f"{IN_FLIGHT_MAX} statements before this one have no answer yet") from None

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


async def told(work: Awaitable[T]) -> T:
    """What a read tells, or a write that decides nothing.

    Raises:
        BusyError: NO_ANSWER.
        Exception: the driver's, where no repetition mends it.
    """
    try:
        return await work
    except PERMANENT:
        raise
    except DRIVER as error:
        raise not_answered(error) from error


def _cluster(settings: CassandraSettings) -> Cluster:
    """The driver's cluster, not yet connected; reads files and resolves names.

    Raises:
        InputError: the password, or a file for TLS, is not there or cannot be used.
        BusyError: none of the contact points' names has an address.
    """
    try:
        return Cluster(
            list(settings.contact_points),
            port=settings.port,
            protocol_version=5,
            execution_profiles=_profiles(settings),
            auth_provider=_credentials(settings),
            ssl_context=_tls(settings),
            ssl_options={"server_hostname": settings.tls_server_name} if settings.tls_server_name else None,
            reconnection_policy=ExponentialReconnectionPolicy(_PAUSE_SECONDS, RECONNECT_SECONDS, max_attempts=None),
            idle_heartbeat_interval=HEARTBEAT_SECONDS,
            idle_heartbeat_timeout=HEARTBEAT_TIMEOUT_SECONDS,
            connect_timeout=CONNECT_SECONDS,
            control_connection_timeout=CONNECT_SECONDS,
        )
    except DRIVER as error:
        raise not_connected(error, settings) from None


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
    return PlainTextAuthProvider(settings.username, _password(settings)) if settings.username else None


def _password(settings: CassandraSettings) -> str:
    """From the environment, or the first line of a file; no message holds any of it."""
    if settings.password_file is None:
        password = os.environ.get(settings.password_env, "")
        if not password:
            raise _unusable("password_env", f"names {settings.password_env}, which the environment does not hold")
        return password
    try:
        with settings.password_file.open("rb") as file:
            data = file.read(PASSWORD_BYTES_MAX + 1)
    except OSError as error:
        raise _unusable("password_file", f"cannot be read: {error.strerror}") from None
    lines = data.splitlines()
    if len(data) > PASSWORD_BYTES_MAX or len(lines) != 1 or not lines[0]:
        rule = f"is not a file of one line of at most {PASSWORD_BYTES_MAX} bytes"
        raise _unusable("password_file", rule)
    try:
        return lines[0].decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable("password_file", "is not UTF-8") from None


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    """Trust in one authority; the name in a node's certificate is compared (see ``tls_server_name``)."""
    if settings.tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.tls_ca)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable("tls_ca", f"is not a readable file of certificates in PEM: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_cert is not None:
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_passphrase)
        except OSError as error:
            rule = f"and tls_key are not a certificate and its key, readable, in PEM and unencrypted: {error.strerror}"
            raise _unusable("tls_cert", rule) from None
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask at the terminal, and a node has none."""
    return ""


def _unusable(name: str, rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"setting storage.{name} {rule}", field=f"storage.{name}")

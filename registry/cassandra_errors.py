"""What an error of the driver means: a setting to mend, a ring to wait for, or a bug of ours that stays as it is.

The driver tells most of it in words alone: a certificate that does not verify arrives as PermissionError, a wrong
password as one of several errors inside NoHostAvailable. They are read here and nowhere else. No text of ours or of the
driver's holds the password: it travels in one message of the protocol and is never quoted back.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterator
from typing import Final

from cassandra import (
    AuthenticationFailed,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    RequestValidationException,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
    UnsupportedOperation,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.protocol import ConfigurationException, ErrorMessage

from idtrace.errors import BusyError, IdtraceError, InputError, Reason, quoted
from registry.cassandra_settings import CassandraSettings

# Long enough for what a server says of a role or a data centre, short enough for one line of a terminal.
_SAID_MAX: Final = 160


class NoAnswerError(Exception):
    """The driver has told nothing within its time and ours."""


# All that a statement can end with beside its rows.
DRIVER: Final = (DriverException, NoHostAvailable, ConnectionException, ErrorMessage, NoAnswerError, OSError)
# What no repetition mends.
PERMANENT: Final = (RequestValidationException, AuthenticationFailed, UnsupportedOperation)


def not_connected(error: Exception, settings: CassandraSettings, datacenters: Collection[str] = ()) -> IdtraceError:
    """Why a start has not reached the ring; ``datacenters`` are those that its nodes have told of, if any did.

    InputError names the setting that is at fault; BusyError (NO_ANSWER) says that nobody answers, whoever is at fault.
    """
    if datacenters and settings.datacenter not in datacenters:
        known = ", ".join(sorted(datacenters))
        return _setting("datacenter", f"{quoted(settings.datacenter)} is none of the ring's data centres: {known}")
    causes = list(_causes(error))
    found = next((found for cause in causes if (found := _misfit(cause, settings)) is not None), None)
    if found is not None:
        return found
    points = ", ".join(settings.contact_points)
    if isinstance(error, UnresolvableContactPoints):
        return _busy(f"none of these names has an address: {points}", "contact_points")
    told = {_said(cause) for cause in causes if not isinstance(cause, NoHostAvailable)}
    detail = f"no Cassandra answers at {points}, port {settings.port}: {'; '.join(sorted(told)) or 'all are down'}"
    return _busy(detail, "contact_points")


def not_done(error: Exception, settings: CassandraSettings) -> IdtraceError:
    """Why a statement outside of any batch was not carried out: at the start of a node, or by ``idtrace store``."""
    match error:
        case Unauthorized():
            who = quoted(settings.username) if settings.username else "without a username"
            grant = f"GRANT SELECT, MODIFY ON KEYSPACE {settings.keyspace} TO the role of a node; CREATE, ALTER besides"
            return _setting("username", f"the role {who} may not do this: {_said(error)}. {grant} to migrate")
        case ConfigurationException():
            rule = (
                f"is not what the ring can do; data centres are named as `nodetool status` shows them: {_said(error)}"
            )
            return _setting("replication", rule)
        case Unavailable():
            copies = f"{error.required_replicas} copies have to answer and {error.alive_replicas} are alive"
            reason = "nodes are down, or storage.replication asks for more copies than there are nodes"
            return _busy(f"{copies}: {reason}", "replication")
        case InvalidRequest():
            return _setting("keyspace", f"cannot be used: {_said(error)}")
        case _:
            return not_answered(error)


def not_answered(error: Exception) -> BusyError:
    """A read that has told nothing, or a change of which nothing was sent: it may be asked for again."""
    return BusyError(Reason.NO_ANSWER, f"the store does not answer ({type(error).__name__}); try again")


def _causes(error: Exception) -> Iterator[Exception]:
    """What happened at each node, before what the driver makes of it."""
    errors = getattr(error, "errors", None)
    if isinstance(errors, dict):
        yield from (cause for cause in errors.values() if isinstance(cause, Exception))
    yield error


def _misfit(error: Exception, settings: CassandraSettings) -> InputError | None:
    """The setting that a node's refusal speaks of; None where it is nobody's fault but the network's."""
    if isinstance(error, AuthenticationFailed):
        return _account(error, settings)
    if settings.tls_ca is None:
        if isinstance(error, ConnectionResetError):
            return _setting("tls_ca", "is missing, or no Cassandra listens there: the connection was closed at once")
        return None
    return _tls(error, settings)


def _account(error: Exception, settings: CassandraSettings) -> InputError:
    secret = "password_file" if settings.password_file else "password_env"
    if not settings.username:
        return _setting("username", f"is missing: the ring asks for a name and a password (storage.{secret})")
    rule = f"or storage.username ({quoted(settings.username)}) is wrong: {_said(error)}"
    return _setting(secret, rule)


def _tls(error: Exception, settings: CassandraSettings) -> InputError | None:
    """OpenSSL's words: what we say of the node's certificate (VERIFY), and what the node says of ours (ALERT)."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text and "mismatch" in text:
        wanted = quoted(settings.tls_server_name) if settings.tls_server_name else "the address that the ring announces"
        return _setting(
            "tls_server_name", f"does not fit: the node's certificate does not bear {wanted} ({_said(error)})"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _setting("tls_ca", f"is not the authority of the node's certificate ({_said(error)})")
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return _setting("tls_ca", f"asks for TLS, and what listens at port {settings.port} speaks none")
    # Of TLS 1.3 a client is through before the node has looked at its certificate: often all it sees is the end.
    ended = isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError | ConnectionShutdown)
    if "ALERT" in text or ended:
        missing = settings.tls_cert is None
        rule = "is missing: the ring asks for one, with its tls_key" if missing else "is refused by the ring"
        return _setting("tls_cert", f"{rule} ({_said(error)})")
    return None


def _said(error: Exception) -> str:
    """What a driver's or a server's error says, on one line and not for ever."""
    if isinstance(error, OperationTimedOut):
        return "no answer in time"  # the driver prints empty fields
    text = " ".join(str(error).split()).partition("Last error: ")
    said = text[2] or text[0] or type(error).__name__
    if 'message="' in said:
        said = said.partition('message="')[2].rstrip('"')
    return said if len(said) <= _SAID_MAX else said[: _SAID_MAX - 1] + "…"


def _setting(name: str, rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"setting storage.{name} {rule}", field=f"storage.{name}")


def _busy(detail: str, name: str) -> BusyError:
    return BusyError(Reason.NO_ANSWER, detail, field=f"storage.{name}")

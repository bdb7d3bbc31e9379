"""The driver's errors, as they arrive, and the sentence that each becomes: which setting, which family, no secret."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    InvalidRequest,
    OperationTimedOut,
    Unauthorized,
    Unavailable,
    UnresolvableContactPoints,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown
from cassandra.protocol import ConfigurationException

from idtrace.errors import BusyError, IdtraceError, InputError, Reason
from registry.cassandra_errors import DRIVER, PERMANENT, NoAnswerError, not_answered, not_connected, not_done
from registry.cassandra_settings import CassandraSettings

PLAIN: dict[str, Any] = {"contact_points": ["10.0.0.1", "10.0.0.2"], "ledger": "88.118"}
ACCOUNT: dict[str, Any] = PLAIN | {"username": "node", "password_env": "SECRET"}
TLS: dict[str, Any] = ACCOUNT | {"tls_ca": "ca.pem"}
MUTUAL: dict[str, Any] = TLS | {"tls_cert": "node.pem", "tls_key": "node.key"}
UNVERIFIED = "Tried connecting to [('10.0.0.1', 9042)]. Last error: [SSL: CERTIFICATE_VERIFY_FAILED] certificate"


def settings(table: dict[str, Any]) -> CassandraSettings:
    return CassandraSettings.parse(table, Path("/etc/idtrace"))


def at_a_node(error: Exception) -> NoHostAvailable:
    return NoHostAvailable("Unable to connect to any servers", {"10.0.0.1:9042": error})


@pytest.mark.parametrize(
    ("table", "error", "field", "said"),
    [
        (PLAIN, AuthenticationFailed("Remote end requires authentication"), "username", "is missing"),
        (ACCOUNT, AuthenticationFailed('[Bad credentials] message="wrong"'), "password_env", "'node') is wrong: wrong"),
        (PLAIN, ConnectionResetError(104, "reset"), "tls_ca", "is missing"),
        (TLS, PermissionError(1, f"{UNVERIFIED}: self-signed"), "tls_ca", "is not the authority"),
        (TLS, PermissionError(1, f"{UNVERIFIED}: IP address mismatch"), "tls_server_name", "the ring announces"),
        (
            TLS | {"tls_server_name": "ring"},
            PermissionError(1, f"{UNVERIFIED}: Hostname mismatch"),
            "tls_server_name",
            "'ring'",
        ),
        (TLS, ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "tls_ca", "port 9042 speaks none"),
        (TLS, ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), "tls_cert", "is missing"),
        (TLS, ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "tls_cert", "is missing"),
        (MUTUAL, ConnectionShutdown("Connection to 10.0.0.1 was closed"), "tls_cert", "is refused"),
        (MUTUAL, ssl.SSLError(1, "[SSL: SSLV3_ALERT_BAD_CERTIFICATE]"), "tls_cert", "is refused"),
    ],
)
def test_a_start_names_the_setting_that_a_node_refuses(
    table: dict[str, Any], error: Exception, field: str, said: str
) -> None:
    found = not_connected(at_a_node(error), settings(table))
    assert (type(found), found.reason, found.field) == (InputError, Reason.FIELD_MALFORMED, f"storage.{field}")
    assert said in found.detail
    assert "\n" not in found.detail


def test_one_node_that_says_why_is_heard_among_others_that_are_silent() -> None:
    errors = {
        "10.0.0.1:9042": OperationTimedOut(),
        "10.0.0.2:9042": AuthenticationFailed("Remote end requires authentication"),
    }
    assert not_connected(NoHostAvailable("none", errors), settings(PLAIN)).field == "storage.username"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (at_a_node(ConnectionRefusedError(111, "Tried connecting to []. Last error: Connection refused")), "refused"),
        (at_a_node(OperationTimedOut()), "port 9042: no answer in time"),
        (NoHostAvailable("Unable to connect", ["10.0.0.1"]), "all are down"),
        (UnresolvableContactPoints({}), "none of these names has an address: 10.0.0.1, 10.0.0.2"),
    ],
)
def test_a_ring_that_is_silent_is_nobodys_mistake(error: Exception, said: str) -> None:
    found = not_connected(error, settings(TLS))
    assert (type(found), found.reason, found.field) == (BusyError, Reason.NO_ANSWER, "storage.contact_points")
    assert said in found.detail


def test_a_data_centre_that_the_ring_has_not_is_named_beside_those_that_it_has() -> None:
    silent = NoHostAvailable("Unable to connect", ["10.0.0.1"])
    found = not_connected(silent, settings(PLAIN | {"datacenter": "dc1"}), {"east", "west"})
    assert (type(found), found.field) == (InputError, "storage.datacenter")
    assert found.detail.endswith("'dc1' is none of the ring's data centres: east, west")
    assert isinstance(not_connected(silent, settings(PLAIN | {"datacenter": "east"}), {"east", "west"}), BusyError)


@pytest.mark.parametrize(
    ("error", "family", "field", "said"),
    [
        (Unauthorized("User node has no SELECT permission"), InputError, "username", "GRANT SELECT, MODIFY"),
        (ConfigurationException(0, "Unrecognized strategy option {x}", None), InputError, "replication", "option {x}"),
        (InvalidRequest("Keyspace 'x' does not exist"), InputError, "keyspace", "does not exist"),
        (
            Unavailable("no", consistency=ConsistencyLevel.QUORUM, required_replicas=2, alive_replicas=1),
            BusyError,
            "replication",
            "2 copies have to answer and 1 are alive",
        ),
    ],
)
def test_a_statement_at_the_start_names_what_is_in_its_way(
    error: Exception, family: type[IdtraceError], field: str, said: str
) -> None:
    found = not_done(error, settings(ACCOUNT))
    assert (type(found), found.field) == (family, f"storage.{field}")
    assert said in found.detail


@pytest.mark.parametrize("error", [OperationTimedOut(), NoAnswerError("late"), NoHostAvailable("none", {})])
def test_whatever_else_a_statement_ends_with_may_be_asked_for_again(error: Exception) -> None:
    assert isinstance(error, DRIVER)
    assert not isinstance(error, PERMANENT)
    for found in (not_answered(error), not_done(error, settings(PLAIN))):
        assert (type(found), found.reason) == (BusyError, Reason.NO_ANSWER)
        assert type(error).__name__ in found.detail


def test_what_a_server_says_is_cut_where_a_terminal_would_wrap_for_ever() -> None:
    found = not_done(InvalidRequest("x\n" * 1_000), settings(PLAIN))
    assert len(found.detail) < 250
    assert "\n" not in found.detail


def test_an_error_of_ours_is_none_of_the_drivers() -> None:
    assert not isinstance(BusyError(Reason.NO_ANSWER, ""), DRIVER)
    assert not isinstance(TypeError(), DRIVER)

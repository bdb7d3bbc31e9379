"""Configuration of a registry node: defaults, bounds, and the one rule between keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from idtrace.errors import InputError, Reason
from idtrace.identifier import ROOT, Prefix
from registry.config import (
    IN_FLIGHT_MAX,
    MESSAGE_BYTES_MAX,
    ZONES_MAX,
    EventsConfig,
    LogConfig,
    RegistryConfig,
    StorageConfig,
)

BASE = Path("/etc/idtrace")
LEAST: dict[str, object] = {
    "listen": "127.0.0.1:7001",
    "data": "var",
    "root_key": "root.pub",
    "node_key": "/keys/node.key",
    "zones": ["88.118"],
    "parents": ["parent.example:7001"],
}


def parse(**changes: Any) -> RegistryConfig:
    given = {key: value for key, value in {**LEAST, **changes}.items() if value is not None}
    return RegistryConfig.parse(given, BASE)


def test_the_least_configuration_gets_safe_defaults() -> None:
    config = parse()
    assert (config.data, config.root_key, config.node_key) == (BASE / "var", BASE / "root.pub", Path("/keys/node.key"))
    assert config.zones == {Prefix.parse("88.118")}
    assert config.parents == ("parent.example:7001",)
    assert (config.edge.listen, config.edge.reflection) == ("127.0.0.1:7001", False)
    assert (config.edge.message_bytes_max, config.edge.in_flight_max) == (MESSAGE_BYTES_MAX, IN_FLIGHT_MAX)
    assert (config.edge.deadline_seconds_max, config.edge.drain_seconds) == (30.0, 5.0)
    assert (config.refresh_seconds, config.log_level, config.passphrase_env) == (30.0, "INFO", "")
    assert config.storage == StorageConfig("sqlite", {})


def test_every_key_is_read() -> None:
    config = parse(
        role="registry",
        message_bytes_max=65_536,
        in_flight_max=1,
        deadline_seconds_max=0.1,
        drain_seconds=0,
        reflection=True,
        passphrase_env="PASS",
        refresh_seconds=0.05,
        log_level="DEBUG",
    )
    assert (config.edge.message_bytes_max, config.edge.in_flight_max, config.edge.reflection) == (65_536, 1, True)
    assert (config.edge.deadline_seconds_max, config.edge.drain_seconds) == (0.1, 0.0)
    assert (config.refresh_seconds, config.log_level, config.passphrase_env) == (0.05, "DEBUG", "PASS")


def test_the_engine_is_named_and_what_else_its_table_holds_is_left_to_its_adapter() -> None:
    assert parse(storage={"engine": "other", "hosts": ["a"]}).storage == StorageConfig("other", {"hosts": ["a"]})
    assert parse(storage={}).storage == StorageConfig("sqlite", {})


def test_a_node_keeps_a_log_where_it_is_asked_to_and_says_what_is_latest_with_its_own_key() -> None:
    assert parse().log is None
    least = {"origin": "log.example/88.118", "key": "log.key"}
    assert parse(log=least).log == LogConfig("log.example/88.118", BASE / "log.key", Path("/keys/node.key"))
    every = least | {"currency_key": "currency.key"}
    assert parse(log=every).log == LogConfig("log.example/88.118", BASE / "log.key", BASE / "currency.key")


def test_the_wait_for_witnesses_is_bounded() -> None:
    least = {"origin": "log.example/88.118", "key": "log.key"}
    for seconds in (0, 2.5, 25):
        config = parse(log=least | {"witness_wait_seconds": seconds}).log
        assert config is not None
        assert config.witness_wait_seconds == seconds
    for wrong in (-0.1, 25.1, True, "5"):
        with pytest.raises(InputError) as caught:
            parse(log=least | {"witness_wait_seconds": wrong})
        assert caught.value.field == "log.witness_wait_seconds"


def test_the_root_alone_needs_no_parents() -> None:
    assert parse(zones=[""], parents=None).zones == {ROOT}
    with pytest.raises(InputError) as caught:
        parse(zones=["", "88"], parents=None)
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MISSING, "parents")


@pytest.mark.parametrize(
    ("reason", "field", "changes"),
    [
        *((Reason.FIELD_MALFORMED, key, {key: None}) for key in ("listen", "data", "root_key", "node_key", "zones")),
        (Reason.FIELD_MISSING, "parents", {"parents": None}),
        (Reason.FIELD_MALFORMED, "zones", {"zones": []}),
        (Reason.FIELD_MALFORMED, "zones", {"zones": [f"88.{n}" for n in range(ZONES_MAX + 1)]}),
        (Reason.IDENTIFIER_NOT_CANONICAL, "zones[1]", {"zones": ["88", "88.A"]}),
        (Reason.IDENTIFIER_MALFORMED, "zones[0]", {"zones": ["88..1"]}),
        (Reason.FIELD_MALFORMED, "parents", {"parents": ["nowhere"]}),
        (Reason.FIELD_MALFORMED, "parents", {"parents": ["h:1"] * 5}),
        (Reason.FIELD_MALFORMED, "message_bytes_max", {"message_bytes_max": 65_535}),
        (Reason.FIELD_MALFORMED, "in_flight_max", {"in_flight_max": 0}),
        (Reason.FIELD_MALFORMED, "deadline_seconds_max", {"deadline_seconds_max": 0}),
        (Reason.FIELD_MALFORMED, "drain_seconds", {"drain_seconds": 301}),
        (Reason.FIELD_MALFORMED, "refresh_seconds", {"refresh_seconds": 0}),
        (Reason.FIELD_MALFORMED, "reflection", {"reflection": "no"}),
        (Reason.FIELD_MALFORMED, "misspelt", {"misspelt": 1}),
        (Reason.FIELD_MALFORMED, "storage", {"storage": "sqlite"}),
        (Reason.FIELD_MALFORMED, "storage.engine", {"storage": {"engine": 1}}),
        (Reason.FIELD_MALFORMED, "log", {"log": "log.example/88"}),
        (Reason.FIELD_MALFORMED, "log.key", {"log": {"origin": "log.example/88"}}),
        (Reason.FIELD_MALFORMED, "log.origin", {"log": {"key": "k"}}),
        (Reason.FIELD_MALFORMED, "log.origin", {"log": {"origin": "Log", "key": "k"}}),
        (Reason.FIELD_MALFORMED, "log.misspelt", {"log": {"origin": "l", "key": "k", "misspelt": 1}}),
    ],
)
def test_what_is_wrong_is_named(reason: Reason, field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        parse(**changes)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_the_file_of_another_role_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        parse(role="resolver")
    assert caught.value.field == "role"


def test_the_epcis_interface_listens_where_it_is_told_and_nowhere_else() -> None:
    assert parse().events is None
    assert parse(events={"listen": "", "tokens": "", "reading": "token"}).events is None
    open_to_all = EventsConfig("127.0.0.1:0", None, reading_open=True)
    assert parse(events={"listen": "127.0.0.1:0", "reading": "open"}).events == open_to_all
    with_tokens = EventsConfig("127.0.0.1:0", BASE / "tokens", reading_open=False)
    assert parse(events={"listen": "127.0.0.1:0", "tokens": "tokens"}).events == with_tokens


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("x", "events"),
        ({"listen": "127.0.0.1:0"}, "events.tokens"),
        ({"tokens": "tokens"}, "events.listen"),
        ({"reading": "open"}, "events.listen"),
        ({"listen": "127.0.0.1:0", "tokens": "t", "reading": "all"}, "events.reading"),
        ({"listen": "127.0.0.1:0", "tokens": "t", "port": 1}, "events.port"),
        ({"listen": 1}, "events.listen"),
    ],
)
def test_a_wrong_epcis_interface_is_refused_by_its_key(table: object, field: str) -> None:
    with pytest.raises(InputError) as error:
        parse(events=table)
    assert error.value.field == field

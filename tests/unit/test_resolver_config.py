"""Every wrong key of a resolver's configuration is named; nothing is repaired or ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from idtrace.errors import InputError
from resolver.cache import CacheLimits
from resolver.config import IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, OP_TIMEOUT_MS, ResolverConfig, WatchConfig
from resolver.effects import Limits

BASE = Path("/etc/idtrace")
LEAST: dict[str, object] = {"listen": "127.0.0.1:7001", "root_key": "root.pub", "root_endpoints": ["root.example:7000"]}


def test_least_configuration_has_our_limits() -> None:
    config = ResolverConfig.parse(LEAST, BASE)
    assert config.root_key == BASE / "root.pub"
    assert config.root_endpoints == ("root.example:7000",)
    assert config.limits == Limits()
    assert config.cache == CacheLimits()
    assert config.watch == WatchConfig(enabled=True, most=256)
    assert (config.edge.listen, config.edge.reflection) == ("127.0.0.1:7001", False)
    assert (config.edge.message_bytes_max, config.edge.in_flight_max) == (MESSAGE_BYTES_MAX, IN_FLIGHT_MAX)


def test_everything_can_be_set() -> None:
    config = ResolverConfig.parse(
        LEAST
        | {
            "role": "resolver",
            "root_key": "/keys/root.pub",
            "root_endpoints": ["a:1", "b:2", "[::1]:3", "10.0.0.1:4"],
            "reflection": True,
            "log_level": "DEBUG",
            "in_flight_max": 7,
            "limits": {
                "depth": 4,
                "question_ms": 2_000,
                "answer_seconds": 60,
                "chain_seconds": 0,
                "unfollowed_seconds": 0,
            },
            "watch": {"enabled": False, "most": 9},
            "cache": {"answers": 5, "answer_bytes": 2_000_000, "denials": 6, "failures": 7},
        },
        BASE,
    )
    assert config.root_key == Path("/keys/root.pub")
    assert (config.limits.depth, config.limits.question_ms, config.limits.chain_seconds) == (4, 2_000, 0)
    assert config.limits.upstream_calls == Limits().upstream_calls
    assert (config.limits.unfollowed_seconds, config.watch) == (0, WatchConfig(enabled=False, most=9))
    assert (config.cache.answers, config.cache.denials, config.cache.failures) == (5, 6, 7)
    assert (config.edge.reflection, config.edge.in_flight_max, config.log_level) == (True, 7, "DEBUG")


def test_redis_is_there_once_a_server_or_a_sentinel_is_named() -> None:
    assert ResolverConfig.parse(LEAST | {"redis": {"url": "", "shared_key": "k"}}, BASE).redis is None
    one = ResolverConfig.parse(LEAST | {"redis": {"url": "redis://127.0.0.1:6379/0", "shared_key": "k"}}, BASE).redis
    assert one is not None
    assert (one.shared_key, one.op_timeout_ms, one.prefix) == (BASE / "k", OP_TIMEOUT_MS, "idt:")
    table = {
        "sentinels": ["a:26379", "b:26379"],
        "master_name": "idtrace",
        "url": "rediss://any/3",
        "shared_key": "/keys/shared",
        "username": "resolver",
        "password_env": "REDIS_PASSWORD",
        "op_timeout_ms": 20,
        "prefix": "other:",
        "tls_ca": "ca.pem",
        "tls_cert": "us.pem",
        "tls_key": "us.key",
    }
    two = ResolverConfig.parse(LEAST | {"redis": table}, BASE).redis
    assert two is not None
    assert (two.sentinels, two.master_name, two.tls_key) == (("a:26379", "b:26379"), "idtrace", BASE / "us.key")


REDIS = {"url": "redis://h:1", "shared_key": "k"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shared_key": ""}, "shared_key"),
        ({"url": "http://h:1"}, "url"),
        ({"url": "redis://:pass@h:1"}, "url"),
        ({"sentinels": ["a:1"]}, "master_name"),
        ({"master_name": "m"}, "master_name"),
        ({"sentinels": ["a:1"], "master_name": "m", "cluster": True}, "cluster"),
        ({"sentinels": ["nowhere"], "master_name": "m"}, "sentinels"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "a b"}, "prefix"),
        ({"op_timeout_ms": 0}, "op_timeout_ms"),
        ({"tls_cert": "c"}, "tls_cert"),
        ({"tls_ca": "c"}, "tls_ca"),
        ({"ulr": "x"}, "ulr"),
    ],
)
def test_wrong_key_of_redis_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        ResolverConfig.parse(LEAST | {"redis": REDIS | change}, BASE)
    assert caught.value.field in {f"redis.{field}", field}


@pytest.mark.parametrize("missing", LEAST)
def test_missing_key_is_named(missing: str) -> None:
    with pytest.raises(InputError) as caught:
        ResolverConfig.parse({key: value for key, value in LEAST.items() if key != missing}, BASE)
    assert caught.value.field == missing


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"lisen": "x"}, "lisen"),
        ({"limits": {"dept": 3}}, "limits.dept"),
        ({"limits": {"depth": 9}}, "limits.depth"),
        ({"limits": {"depth": 0}}, "limits.depth"),
        ({"limits": {"upstream_calls": True}}, "limits.upstream_calls"),
        ({"limits": {"question_ms": "3000"}}, "limits.question_ms"),
        ({"limits": {"signature_checks": 1_000}}, "limits.signature_checks"),
        ({"limits": 3}, "limits"),
        ({"cache": {"answers": 0}}, "cache.answers"),
        ({"cache": []}, "cache"),
        ({"cache": {"entries": 3}}, "cache.entries"),
        ({"limits": {"unfollowed_seconds": -1}}, "limits.unfollowed_seconds"),
        ({"watch": {"most": 0}}, "watch.most"),
        ({"watch": {"enabled": "no"}}, "watch.enabled"),
        ({"watch": {"zones": 3}}, "watch.zones"),
        ({"root_endpoints": []}, "root_endpoints"),
        ({"root_endpoints": ["a:1"] * 5}, "root_endpoints"),
        ({"root_endpoints": ["nowhere"]}, "root_endpoints"),
        ({"root_endpoints": "a:1"}, "root_endpoints"),
        ({"root_key": 3}, "root_key"),
        ({"in_flight_max": 0}, "in_flight_max"),
        ({"message_bytes_max": 1}, "message_bytes_max"),
        ({"reflection": "yes"}, "reflection"),
    ],
)
def test_wrong_key_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        ResolverConfig.parse(LEAST | change, BASE)
    assert caught.value.field == field

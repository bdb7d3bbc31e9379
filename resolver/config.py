"""Configuration of a resolver node: one frozen value, from a TOML table, every number a limit with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idtrace.bundle import BUNDLE_BYTES_MAX
from idtrace.chain import CHECKS_MAX
from idtrace.delegation import ENDPOINTS_MAX
from idtrace.errors import InputError, Reason
from idtrace.identifier import LABELS_MAX
from idtrace.record import TTL_SECONDS_MAX
from idtrace.serving.edge import Edge
from idtrace.serving.settings import Settings
from resolver.cache import CacheLimits
from resolver.effects import Limits
from resolver.following import WATCHES_MAX
from resolver.judge_limits import JudgeLimits

# The largest bundle to verify, with room for its frame; a batch of 256 texts of 2 KiB has a quarter of that.
MESSAGE_BYTES_MAX: Final = BUNDLE_BYTES_MAX + 65_536
# An asker in flight holds some 20 KiB; a resolver that is this far behind had better say so.
IN_FLIGHT_MAX: Final = 1_024
# A Redis in the same building answers in 1 ms; beyond 50 ms the authority is as quick. A question waits twice that.
OP_TIMEOUT_MS: Final = 50
# More than anybody runs; each is asked in turn.
SENTINELS_MAX: Final = 8

_URL: Final = re.compile(r"(rediss?://[A-Za-z0-9.\[\]:-]+(/[0-9]*)?|unix:///[^?@]+)")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,32}")


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """The shared cache. Paths are absolute or relative to the configuration file; None where there is none.

    Attributes:
        url: ``redis://``, ``rediss://`` or ``unix://`` with a path; no password in it.
        shared_key: file of at least 32 secret bytes that only its owner can read, the same for all resolvers.
        username: of an ACL; "" for the default user.
        password_env: the environment's variable that holds the password; "" for none.
        sentinels: host:port of each; the master is looked up by ``master_name``.
        cluster: whether ``url`` names a node of a Redis cluster.
        op_timeout_ms: what one trip to Redis may take; a question waits for twice that at most.
        prefix: what all keys begin with.
        tls_ca: authorities to trust instead of the system's; for ``rediss://``.
        tls_cert: our certificate, where Redis wants one.
        tls_key: its key.
    """

    url: str
    shared_key: Path
    username: str
    password_env: str
    sentinels: tuple[str, ...]
    master_name: str
    cluster: bool
    op_timeout_ms: int
    prefix: str
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """How registries tell this resolver of changes.

    Attributes:
        enabled: whether it asks them to. Without, every answer is used for ``limits.unfollowed_seconds`` at most.
        most: zones that are followed at once; the one that nobody has asked about for longest gives way.
    """

    enabled: bool = True
    most: int = WATCHES_MAX


@dataclass(frozen=True, slots=True)
class VerdictConfig:
    """How this resolver judges. Paths are absolute or relative to the configuration file.

    Attributes:
        key: private key that signs verdicts; None: none is signed, and its proofs speak alone.
        policy: a stricter policy than the published one (``idtrace/verdict/policy.py``); None: the published one.
        limits: what verdicts may cost and how long one is kept.
    """

    key: Path | None = None
    policy: Path | None = None
    limits: JudgeLimits = field(default_factory=JudgeLimits)


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """What an operator decides. Paths are absolute or relative to the configuration file."""

    edge: Edge
    root_key: Path
    root_endpoints: tuple[str, ...]
    limits: Limits
    cache: CacheLimits
    log_level: str
    redis: RedisConfig | None = None
    watch: WatchConfig = WatchConfig()
    verdict: VerdictConfig = field(default_factory=VerdictConfig)

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> ResolverConfig:
        """Read a table; its tables ``limits`` and ``cache`` hold the limits that differ from ours, ``redis`` the rest.

        ``[limits] unfollowed_seconds`` is how long an answer is used while nobody would tell that it has changed, and
        ``[watch]`` is ``enabled`` (true) and ``most`` (:class:`WatchConfig`).

        Raises:
            InputError: naming the key and the rule.
        """
        tables = {name: _table(mapping, name, base) for name in ("limits", "cache", "redis", "watch", "verdict")}
        settings = Settings({name: value for name, value in mapping.items() if name not in tables}, base)
        settings.role("resolver")
        config = cls(
            edge=Edge(
                listen=settings.text("listen"),
                message_bytes_max=settings.integer(
                    "message_bytes_max", MESSAGE_BYTES_MAX, least=65_536, most=8_388_608
                ),
                in_flight_max=settings.integer("in_flight_max", IN_FLIGHT_MAX, least=1, most=65_536),
                deadline_seconds_max=settings.seconds("deadline_seconds_max", 30.0, least=0.1, most=300.0),
                drain_seconds=settings.seconds("drain_seconds", 5.0, least=0.0, most=300.0),
                reflection=settings.boolean("reflection", default=False),
            ),
            root_key=settings.path("root_key"),
            root_endpoints=settings.endpoints("root_endpoints", least=1, most=ENDPOINTS_MAX),
            limits=_limits(tables["limits"]),
            cache=_cache_limits(tables["cache"]),
            log_level=settings.text("log_level", "INFO"),
            redis=_redis(tables["redis"], base),
            watch=_watch(tables["watch"]),
            verdict=_verdict(tables["verdict"], base),
        )
        settings.end()
        return config


def _table(mapping: Mapping[str, object], name: str, base: Path) -> Settings:
    table = mapping.get(name, {})
    if not isinstance(table, Mapping):
        raise InputError(Reason.FIELD_MALFORMED, f"setting {name} is not a table", field=name)
    return Settings(table, base, table=name)


def _limits(table: Settings) -> Limits:
    ours = Limits()
    limits = Limits(
        depth=table.integer("depth", ours.depth, least=1, most=LABELS_MAX),
        upstream_calls=table.integer("upstream_calls", ours.upstream_calls, least=1, most=64),
        question_ms=table.integer("question_ms", ours.question_ms, least=50, most=30_000),
        call_ms=table.integer("call_ms", ours.call_ms, least=10, most=30_000),
        signature_checks=table.integer("signature_checks", ours.signature_checks, least=2, most=2 * CHECKS_MAX),
        endpoints_tried=table.integer("endpoints_tried", ours.endpoints_tried, least=1, most=ENDPOINTS_MAX),
        answer_seconds=table.integer("answer_seconds", ours.answer_seconds, least=0, most=TTL_SECONDS_MAX),
        chain_seconds=table.integer("chain_seconds", ours.chain_seconds, least=0, most=TTL_SECONDS_MAX),
        unfollowed_seconds=table.integer("unfollowed_seconds", ours.unfollowed_seconds, least=0, most=TTL_SECONDS_MAX),
    )
    table.end()
    return limits


def _cache_limits(table: Settings) -> CacheLimits:
    ours = CacheLimits()
    limits = CacheLimits(
        answers=table.integer("answers", ours.answers, least=1, most=10_000_000),
        answer_bytes=table.integer("answer_bytes", ours.answer_bytes, least=1_048_576, most=2**40),
        denials=table.integer("denials", ours.denials, least=1, most=10_000_000),
        failures=table.integer("failures", ours.failures, least=1, most=10_000_000),
    )
    table.end()
    return limits


def _watch(table: Settings) -> WatchConfig:
    watch = WatchConfig(
        enabled=table.boolean("enabled", default=True),
        most=table.integer("most", WATCHES_MAX, least=1, most=4_096),
    )
    table.end()
    return watch


def _verdict(table: Settings, base: Path) -> VerdictConfig:
    ours = JudgeLimits()
    verdict = VerdictConfig(
        key=_path(table.text("key", ""), base),
        policy=_path(table.text("policy", ""), base),
        limits=JudgeLimits(
            kept=table.integer("kept", ours.kept, least=1, most=1_000_000),
            kept_seconds=table.integer("kept_seconds", ours.kept_seconds, least=0, most=TTL_SECONDS_MAX),
            at_once=table.integer("at_once", ours.at_once, least=1, most=256),
        ),
    )
    table.end()
    return verdict


def _path(text: str, base: Path) -> Path | None:
    return base / text if text else None


def _redis(table: Settings, base: Path) -> RedisConfig | None:
    """None where neither a server nor a sentinel is named: there is no shared cache."""
    shared_key = _path(table.text("shared_key", ""), base)
    config = RedisConfig(
        url=table.text("url", ""),
        shared_key=shared_key or base,
        username=table.text("username", ""),
        password_env=table.text("password_env", ""),
        sentinels=table.endpoints("sentinels", most=SENTINELS_MAX),
        master_name=table.text("master_name", ""),
        cluster=table.boolean("cluster", default=False),
        op_timeout_ms=table.integer("op_timeout_ms", OP_TIMEOUT_MS, least=5, most=1_000),
        prefix=table.text("prefix", "idt:"),
        tls_ca=_path(table.text("tls_ca", ""), base),
        tls_cert=_path(table.text("tls_cert", ""), base),
        tls_key=_path(table.text("tls_key", ""), base),
    )
    table.end()
    if not config.url and not config.sentinels:
        return None
    rules = (
        (bool(shared_key), "shared_key", "is missing: without it nothing from Redis could be believed"),
        (
            not config.url or _URL.fullmatch(config.url),
            "url",
            "is not redis://, rediss:// or unix:// without a password",
        ),
        (bool(config.sentinels) == bool(config.master_name), "master_name", "belongs to sentinels, and they to it"),
        (not (config.cluster and config.sentinels), "cluster", "does not go with sentinels"),
        (_PREFIX.fullmatch(config.prefix), "prefix", "is not 1 to 32 letters, digits, '-', '_', '.', ':'"),
        (bool(config.tls_cert) == bool(config.tls_key), "tls_cert", "belongs to tls_key, and it to the certificate"),
        (not config.tls_ca or config.url.startswith("rediss:"), "tls_ca", "is only for rediss://"),
    )
    for holds, name, rule in rules:
        if not holds:
            raise InputError(Reason.FIELD_MALFORMED, f"setting redis.{name} {rule}", field=f"redis.{name}")
    return config

"""Configuration of a resolver node: one frozen value, from a TOML table, every number a limit with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

# The largest bundle to verify, with room for its frame; a batch of 256 texts of 2 KiB has a quarter of that.
MESSAGE_BYTES_MAX: Final = BUNDLE_BYTES_MAX + 65_536
# An asker in flight holds some 20 KiB; a resolver that is this far behind had better say so.
IN_FLIGHT_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """What an operator decides. Paths are absolute or relative to the configuration file."""

    edge: Edge
    root_key: Path
    root_endpoints: tuple[str, ...]
    limits: Limits
    cache: CacheLimits
    log_level: str

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> ResolverConfig:
        """Read a table; its tables ``limits`` and ``cache`` hold the limits that differ from ours.

        Raises:
            InputError: naming the key and the rule.
        """
        tables = {name: _table(mapping, name, base) for name in ("limits", "cache")}
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

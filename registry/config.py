"""Configuration of a registry node: one frozen value, from a TOML table, every number a limit with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.serving.edge import Edge
from idtrace.serving.settings import Settings

# A batch of 2,000 records with three short values each has about 2.4 MB; the limit holds twice that.
MESSAGE_BYTES_MAX = 8_388_608
# Ten batches on their way fill the pool; beyond this callers wait for nothing.
IN_FLIGHT_MAX = 512
# A node that has thousands of own zones is a hosting node: hosted zones need no entry here.
ZONES_MAX = 64


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What an operator decides. Paths are absolute or relative to the configuration file."""

    edge: Edge
    data: Path
    root_key: Path
    node_key: Path
    passphrase_env: str
    zones: frozenset[Prefix]
    parents: tuple[str, ...]
    refresh_seconds: float
    log_level: str

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> RegistryConfig:
        """Read a table.

        Raises:
            InputError: naming the key and the rule.
        """
        settings = Settings(mapping, base)
        settings.role("registry")
        config = cls(
            edge=Edge(
                listen=settings.text("listen"),
                message_bytes_max=settings.integer(
                    "message_bytes_max", MESSAGE_BYTES_MAX, least=65_536, most=67_108_864
                ),
                in_flight_max=settings.integer("in_flight_max", IN_FLIGHT_MAX, least=1, most=65_536),
                deadline_seconds_max=settings.seconds("deadline_seconds_max", 30.0, least=0.1, most=300.0),
                drain_seconds=settings.seconds("drain_seconds", 5.0, least=0.0, most=300.0),
                reflection=settings.boolean("reflection", default=False),
            ),
            data=settings.path("data"),
            root_key=settings.path("root_key"),
            node_key=settings.path("node_key"),
            passphrase_env=settings.text("passphrase_env", ""),
            zones=frozenset(
                Prefix.parse_canonical(zone, field=f"zones[{n}]")
                for n, zone in enumerate(settings.texts("zones", least=1, most=ZONES_MAX))
            ),
            parents=settings.endpoints("parents", most=4),
            refresh_seconds=settings.seconds("refresh_seconds", 30.0, least=0.05, most=86_400.0),
            log_level=settings.text("log_level", "INFO"),
        )
        settings.end()
        if not config.parents and config.zones != {Prefix(())}:
            raise InputError(Reason.FIELD_MISSING, "every zone but the root has parents to ask", field="parents")
        return config

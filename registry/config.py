"""Configuration of a registry node: one frozen value, from a TOML table, every number a limit with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from idtrace.delegation import is_log_name
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
# Witnesses answer within a round trip or two, also across the world; who has to wait longer asks again with its key.
WITNESS_WAIT_SECONDS = 5.0
# The longest of the deadlines that callers may have (30 s) less what registering itself may take.
WITNESS_WAIT_SECONDS_MAX = 25.0
_TABLES = frozenset({"storage", "log", "capture", "events"})  # each has a class of its own


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Which engine keeps the records, and what that engine alone asks for (its adapter knows the keys).

    Paths among the settings are relative to ``base``, the folder of the configuration file.
    """

    engine: str
    settings: Mapping[str, object]
    base: Path = field(default=Path(), compare=False)

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> StorageConfig:
        """Read the table ``storage`` of a node's configuration; SQLite in ``data`` where there is none.

        Raises:
            InputError: naming the key and the rule.
        """
        table = mapping.get("storage", {})
        if not isinstance(table, Mapping):
            raise InputError(Reason.FIELD_MALFORMED, "setting storage is not a table", field="storage")
        engine = Settings(table, base, table="storage").text("engine", "sqlite")
        return cls(engine, MappingProxyType({key: value for key, value in table.items() if key != "engine"}), base)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The node's log: its name (``origin``), the file of its key, and of the key that says "latest" and "absent".

    ``listen`` is where it is served as files over HTTP ("": nowhere); ``policy`` names its witnesses (tlog-policy), and
    who asks for a witnessed receipt waits ``witness_wait_seconds`` for them at most.
    """

    origin: str
    key: Path
    currency_key: Path
    listen: str = ""
    policy: Path | None = None
    witness_wait_seconds: float = WITNESS_WAIT_SECONDS

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path, node_key: Path) -> LogConfig | None:
        """Read the table ``log`` of a node's configuration; None where all of it is empty: the node keeps no log.

        Raises:
            InputError: naming the key and the rule.
        """
        table = mapping.get("log", {})
        if not isinstance(table, Mapping):
            raise InputError(Reason.FIELD_MALFORMED, "setting log is not a table", field="log")
        settings = Settings(table, base, table="log")
        origin = settings.text("origin", "")
        key, currency_key = settings.text("key", ""), settings.text("currency_key", "")
        listen, policy = settings.text("listen", ""), settings.text("policy", "")
        wait = settings.seconds("witness_wait_seconds", WITNESS_WAIT_SECONDS, least=0.0, most=WITNESS_WAIT_SECONDS_MAX)
        settings.end()
        if not any((origin, key, currency_key, listen, policy)):
            return None
        if not key:
            raise InputError(Reason.FIELD_MALFORMED, "setting log.key is missing", field="log.key")
        config = cls(
            origin,
            base / key,
            base / currency_key if currency_key else node_key,
            listen,
            base / policy if policy else None,
            wait,
        )
        if not is_log_name(config.origin):
            rule = "is a lower-case path of letters, digits, dots, hyphens and slashes"
            raise InputError(Reason.FIELD_MALFORMED, f"origin {rule}", field="log.origin")
        return config


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """Whether who reports events needs a licence of its parent, and the key by which the node signs for others.

    ``key`` is a record key of the zone ``party`` ("" and None: the node signs nobody's events). Licences are not
    required by default: a tree that gives none works, and a verdict asks for them in any case.
    """

    licences_required: bool = False
    key: Path | None = None
    party: Prefix | None = None

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> CaptureConfig:
        """Read the table ``capture`` of a node's configuration.

        Raises:
            InputError: naming the key and the rule.
        """
        table = mapping.get("capture", {})
        if not isinstance(table, Mapping):
            raise InputError(Reason.FIELD_MALFORMED, "setting capture is not a table", field="capture")
        settings = Settings(table, base, table="capture")
        licences, key, party = settings.text("licences", "off"), settings.text("key", ""), settings.text("party", "")
        settings.end()
        if licences not in {"required", "off"}:
            rule = "setting capture.licences is neither required nor off"
            raise InputError(Reason.FIELD_MALFORMED, rule, field="capture.licences")
        if bool(key) != bool(party):
            rule = "a key signs for one party: capture.key and capture.party go together"
            raise InputError(Reason.FIELD_MALFORMED, rule, field="capture.key")
        zone = Prefix.parse_canonical(party, field="capture.party") if party else None
        return cls(licences == "required", base / key if key else None, zone)


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """The EPCIS interface over HTTP: where it listens, the file of the tokens of those who write, and who may read."""

    listen: str
    tokens: Path | None
    reading_open: bool

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> EventsConfig | None:
        """Read the table ``events`` of a node's configuration; None where it listens nowhere.

        Raises:
            InputError: naming the key and the rule.
        """
        table = mapping.get("events", {})
        if not isinstance(table, Mapping):
            raise InputError(Reason.FIELD_MALFORMED, "setting events is not a table", field="events")
        settings = Settings(table, base, table="events")
        listen, tokens, reading = (
            settings.text("listen", ""),
            settings.text("tokens", ""),
            settings.text("reading", "token"),
        )
        settings.end()
        if reading not in {"open", "token"}:
            rule = "setting events.reading is neither open nor token"
            raise InputError(Reason.FIELD_MALFORMED, rule, field="events.reading")
        if not listen and not tokens and reading == "token":
            return None
        if not listen:
            raise InputError(Reason.FIELD_MALFORMED, "setting events.listen is missing", field="events.listen")
        if not tokens and reading != "open":
            rule = "without events.tokens nobody can use the interface, unless events.reading is open"
            raise InputError(Reason.FIELD_MALFORMED, rule, field="events.tokens")
        return cls(listen, base / tokens if tokens else None, reading == "open")


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What an operator decides. Paths are absolute or relative to the configuration file."""

    edge: Edge
    data: Path
    storage: StorageConfig
    root_key: Path
    node_key: Path
    passphrase_env: str
    zones: frozenset[Prefix]
    parents: tuple[str, ...]
    refresh_seconds: float
    log_level: str
    log: LogConfig | None
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    events: EventsConfig | None = None

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> RegistryConfig:
        """Read a table.

        Raises:
            InputError: naming the key and the rule.
        """
        settings = Settings({key: value for key, value in mapping.items() if key not in _TABLES}, base)
        settings.role("registry")
        node_key = settings.path("node_key")
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
            storage=StorageConfig.parse(mapping, base),
            root_key=settings.path("root_key"),
            node_key=node_key,
            passphrase_env=settings.text("passphrase_env", ""),
            zones=frozenset(
                Prefix.parse_canonical(zone, field=f"zones[{n}]")
                for n, zone in enumerate(settings.texts("zones", least=1, most=ZONES_MAX))
            ),
            parents=settings.endpoints("parents", most=4),
            refresh_seconds=settings.seconds("refresh_seconds", 30.0, least=0.05, most=86_400.0),
            log_level=settings.text("log_level", "INFO"),
            log=LogConfig.parse(mapping, base, node_key),
            capture=CaptureConfig.parse(mapping, base),
            events=EventsConfig.parse(mapping, base),
        )
        settings.end()
        if not config.parents and config.zones != {Prefix(())}:
            raise InputError(Reason.FIELD_MISSING, "every zone but the root has parents to ask", field="parents")
        return config

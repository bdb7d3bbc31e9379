"""How a registry reaches its Cassandra: the table ``[storage]`` of its configuration, with ``engine = "cassandra"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idtrace.errors import InputError, Reason
from idtrace.serving.settings import Settings

# A lightweight transaction answers in 1 to 3 ms; a coordinator that stands still must not hold a batch for longer.
REQUEST_TIMEOUT_SECONDS: Final = 2.0
# How long a lost answer is asked after. A node that dies is noticed within two heartbeats; after that nobody answers.
SETTLE_SECONDS: Final = 15.0
# They are tried one after the other, each for five seconds: a start where two or three are silent ends within 15.
CONTACT_POINTS_MAX: Final = 5
# Keyspaces and data centres as Cassandra takes them unquoted; they are put into statements that take no parameters.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
_DATACENTER: Final = re.compile(r"[A-Za-z0-9_.-]{1,48}")
# What a quorum of reads and writes has to match: the quorum that lightweight transactions are decided by.
CONSISTENCIES: Final = {"SERIAL": "QUORUM", "LOCAL_SERIAL": "LOCAL_QUORUM"}


@dataclass(frozen=True, slots=True)
class CassandraSettings:
    """What an operator decides.

    Attributes:
        contact_points: addresses that are asked for the ring; two or three, so that one may be down at the start.
        port: of the native protocol, the same on every node.
        keyspace: made by ``idtrace store migrate``; many registries can share one.
        ledger: this registry's name in it. Two nodes with the same ledger are one registry: safe, and slow if both
            write. Nodes with different ledgers know nothing of each other.
        datacenter: the one that is asked first, and the only one where ``serial_consistency`` is LOCAL_SERIAL.
        replication: copies by data centre, for the keyspace's creation.
        serial_consistency: SERIAL, or LOCAL_SERIAL where all nodes of the ledger, and all that ever take over from
            them, are in ``datacenter``. Never change it while nodes run: a mixture breaks what the swap promises.
        consistency: QUORUM with SERIAL, LOCAL_QUORUM with LOCAL_SERIAL, nothing else. With SERIAL and LOCAL_QUORUM a
            writer elsewhere would see the head move and not the rows that the move stands for.
        username, password_env, password_file: of a role that may read and modify the keyspace; the password is in a
            variable of the environment or in a file, never here.
        tls_ca, tls_cert, tls_key: paths of PEM files; the authority turns TLS on, the others name this node.
        tls_server_name: a name that the certificates of all nodes bear. Without it each has to bear the address that
            the ring announces for its node.
        request_timeout_seconds: for one request; a lost answer is asked after for ``settle_seconds``.
    """

    contact_points: tuple[str, ...]
    port: int
    keyspace: str
    ledger: str
    datacenter: str
    replication: Mapping[str, int]
    consistency: str
    serial_consistency: str
    username: str
    password_env: str
    password_file: Path | None
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_server_name: str
    request_timeout_seconds: float
    settle_seconds: float

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> CassandraSettings:
        """Read the table ``storage`` (without ``engine``).

        Raises:
            InputError: naming the key and the rule.
        """
        replication = _replication(mapping.get("replication", {"datacenter1": 3}))
        settings = Settings({k: v for k, v in mapping.items() if k != "replication"}, base, table="storage")
        names = ("tls_ca", "tls_cert", "tls_key", "password_file")
        files = [base / text if (text := settings.text(name, "")) else None for name in names]
        serial = settings.text("serial_consistency", "SERIAL")
        parsed = cls(
            contact_points=settings.texts("contact_points", least=1, most=CONTACT_POINTS_MAX),
            port=settings.integer("port", 9042, least=1, most=65_535),
            keyspace=settings.text("keyspace", "idtrace").lower(),
            ledger=settings.text("ledger"),
            datacenter=settings.text("datacenter", "datacenter1"),
            replication=replication,
            consistency=settings.text("consistency", CONSISTENCIES.get(serial, "QUORUM")),
            serial_consistency=serial,
            username=settings.text("username", ""),
            password_env=settings.text("password_env", ""),
            password_file=files[3],
            tls_ca=files[0],
            tls_cert=files[1],
            tls_key=files[2],
            tls_server_name=settings.text("tls_server_name", ""),
            request_timeout_seconds=settings.seconds(
                "request_timeout_seconds", REQUEST_TIMEOUT_SECONDS, least=0.05, most=10.0
            ),
            settle_seconds=settings.seconds("settle_seconds", SETTLE_SECONDS, least=0.1, most=300.0),
        )
        settings.end()
        _check(parsed)
        return parsed


def _check(settings: CassandraSettings) -> None:
    """The rules between keys, and those of names that stand in statements."""
    if not _NAME.fullmatch(settings.keyspace):
        raise _malformed("keyspace", "is not a letter and up to 47 letters, digits or underscores")
    if not 1 <= len(settings.ledger.encode()) <= 64:
        raise _malformed("ledger", "is not 1 to 64 bytes long")
    if settings.serial_consistency not in CONSISTENCIES:
        raise _malformed("serial_consistency", f"is none of {', '.join(CONSISTENCIES)}")
    if settings.consistency != CONSISTENCIES[settings.serial_consistency]:
        rule = f"is not {CONSISTENCIES[settings.serial_consistency]}, which {settings.serial_consistency} asks for"
        raise _malformed("consistency", rule)
    if bool(settings.tls_cert) != bool(settings.tls_key) or (settings.tls_cert and not settings.tls_ca):
        raise _malformed("tls_cert", "stands with tls_key and tls_ca or not at all")
    if settings.tls_server_name and not settings.tls_ca:
        raise _malformed("tls_server_name", "stands with tls_ca or not at all")
    if bool(settings.username) != bool(settings.password_env or settings.password_file):
        raise _malformed("password_env", "or password_file stands with username or not at all")
    if settings.password_env and settings.password_file:
        raise _malformed("password_file", "stands instead of password_env, not beside it")


def _replication(value: object) -> Mapping[str, int]:
    if not isinstance(value, Mapping) or not value:
        raise _malformed("replication", "is not a table such as { datacenter1 = 3 }")
    for name, copies in value.items():
        if not _DATACENTER.fullmatch(str(name)) or type(copies) is not int or not 1 <= copies <= 15:
            raise _malformed("replication", "does not give a data centre 1 to 15 copies")
    return dict(value)


def _malformed(name: str, rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"setting storage.{name} {rule}", field=f"storage.{name}")

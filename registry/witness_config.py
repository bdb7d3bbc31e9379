"""Configuration of a witness: what it listens on, which logs it watches, which keys it cosigns with.

A witness is a node of its own, run by somebody else than the logs that it watches. It lives in this room because it
keeps state in an engine, as a registry does; it shares no code with the registry above the pure core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idtrace.errors import InputError, Reason
from idtrace.logpolicy import POLICY_BYTES_MAX, LogPolicy
from idtrace.note import NoteKey, NoteSigner
from idtrace.serving.keyfile import load_secret
from idtrace.serving.settings import Settings

# An Ed25519 and an ML-DSA-44 key, and the two that follow them; every one signs every answer.
KEYS_MAX: Final = 4
# One transaction with its fsync takes a few ms, so what is beyond this would wait longer than a log does.
IN_FLIGHT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """What an operator decides. Paths are absolute or relative to the configuration file."""

    listen: str
    state: Path
    logs: Path
    keys: tuple[Path, ...]
    in_flight_max: int
    log_level: str

    @classmethod
    def parse(cls, mapping: Mapping[str, object], base: Path) -> WitnessConfig:
        """Read a table.

        Raises:
            InputError: naming the key and the rule.
        """
        settings = Settings(mapping, base)
        settings.role("witness")
        config = cls(
            listen=settings.text("listen"),
            state=settings.path("state"),
            logs=settings.path("logs"),
            keys=tuple(base / name for name in settings.texts("keys", least=1, most=KEYS_MAX)),
            in_flight_max=settings.integer("in_flight_max", IN_FLIGHT_MAX, least=1, most=1_024),
            log_level=settings.text("log_level", "INFO"),
        )
        settings.end()
        return config


def load_cosigner(path: Path) -> NoteSigner:
    """The key in a file that nobody else can read: one line, as ``idtrace witness key`` writes it.

    Raises:
        InputError: KEY_MALFORMED or ALGORITHM_UNKNOWN; the field is the file.
    """
    text = load_secret(path, least=1).decode("ascii", "replace").removesuffix("\n")
    signer = NoteSigner.parse(text, field=str(path))
    if not signer.key.type.is_cosignature:
        raise InputError(Reason.KEY_MALFORMED, "this key is a log's, and a witness cosigns", field=str(path))
    return signer


def load_logs(path: Path) -> dict[str, tuple[NoteKey, ...]]:
    """The keys of the logs to watch, by origin: the ``log`` lines of a policy file (C2SP tlog-policy).

    Raises:
        InputError: POLICY_MALFORMED, or FIELD_MALFORMED where the file cannot be read; the field says where.
    """
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        detail = f"the file cannot be read: {error.strerror}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field=str(path)) from None
    found: dict[str, tuple[NoteKey, ...]] = {}
    for known in LogPolicy.parse(data, field=str(path)).logs:
        found[known.key.name] = (*found.get(known.key.name, ()), known.key)
    if not found:
        raise InputError(Reason.POLICY_MALFORMED, "no log is named, so there is nothing to witness", field=str(path))
    return found

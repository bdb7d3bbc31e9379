"""Delegations: a parent's signed statement that a child zone exists, by which keys, where, and until when.

The root's own key set is a delegation too: child "" and parent "", signed by the pinned root key, so that the root key
can stay off line while the root's node key answers. Body fields: ``child``, ``parent``, ``version``, ``previous``,
``state``, ``hosted``, ``keys`` (``key``, ``roles``), ``zone_threshold``, ``endpoints``, ``issued_at``, ``not_before``,
``expires`` (s), and ``log`` where the zone's changes are logged (the log's origin). Sources: RFC 4034 §5 (DS: the
parent signs the child's keys), TUF §5 (version, expiry, threshold), HS_NAMESPACE of the Handle System (what a prefix
may be).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace import canonical
from idtrace.canonical import Json
from idtrace.errors import InputError, Reason, quoted
from idtrace.identifier import Prefix
from idtrace.record import TIME_MAX
from idtrace.signature import SIGNATURES_MAX, Kind, PublicKey, signed_hash

# A zone has an owner, a standby owner and a few node keys; a wide key set only widens what can be stolen.
KEYS_MAX: Final = 16
# Keys that have ended stand beside those: they sign nothing any more, but what they signed rests on them. A key a
# quarter for eight years, or a stolen one a year for a lifetime; each is 110 bytes in every answer of the zone.
ENDED_KEYS_MAX: Final = 32
# NXNSAttack: a wide referral multiplies calls. Two nodes in two places, each on two addresses.
ENDPOINTS_MAX: Final = 4
ENDPOINT_BYTES_MAX: Final = 255
# An origin is a path below a prefix; it stands in every checkpoint and cosignature.
LOG_NAME_MAX: Final = 128
# A year and a month: nobody notices the expiry of what lasts longer, and nobody can end it by waiting.
LIFETIME_SECONDS_MAX: Final = 400 * 86_400

# RFC 1123 §2.1 names in lower case, and as their last label nothing that reads as part of an IPv4 address.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}\Z")
# A name in a signed note has no space and no plus (C2SP signed-note); ours are lower-case paths.
_LOG = re.compile(r"[a-z0-9](?:[a-z0-9./-]{0,126}[a-z0-9])?\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


class Role(StrEnum):
    """What a key of a zone may sign."""

    ZONE = "zone"  # delegations of child zones, and commands to the zone's node
    RECORD = "record"  # records
    NODE = "node"  # receipts, and denials where no key has the role currency: the key that lies on line
    CURRENCY = "currency"  # short-lived statements that something is the latest, or is absent
    LOG = "log"  # checkpoints of the log that the zone's changes stand in


class State(StrEnum):
    """Whether the child zone stands."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ZoneKey:
    """One key of a zone with its roles.

    ``until`` ends a key from an index of the zone's log on: what it signed counts only where a proof shows it below
    that index (None: the key has not ended). So a stolen or outworn key can be taken away and what it had signed
    before stays true, whatever time its holder writes into a body. That lasts as long as the key stands here: a later
    version that leaves it out voids what the key signed below the index as well (:func:`check_room` says when one has
    to, and what to do first).
    """

    key: PublicKey
    roles: frozenset[Role]
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Delegation:
    """A parsed or newly made delegation body."""

    child: Prefix
    parent: Prefix
    version: int
    previous: bytes
    state: State
    hosted: bool
    keys: tuple[ZoneKey, ...]
    zone_threshold: int
    endpoints: tuple[str, ...]
    issued_at: int
    not_before: int
    expires: int
    log: str = ""

    def keys_for(self, role: Role) -> dict[str, PublicKey]:
        """Keys with a role that have not ended, by key id."""
        return {k.key.key_id: k.key for k in self.keys if role in k.roles and k.until is None}

    def ended_keys(self, role: Role) -> dict[str, ZoneKey]:
        """Keys with a role that have ended at an index of the log, by key id."""
        return {k.key.key_id: k for k in self.keys if role in k.roles and k.until is not None}

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        keys = [_key_body(key) for key in self.keys]
        logged: dict[str, Json] = {"log": self.log} if self.log else {}
        return canonical.encode(
            logged
            | {
                "child": str(self.child),
                "parent": str(self.parent),
                "version": self.version,
                "previous": self.previous.hex(),
                "state": self.state,
                "hosted": self.hosted,
                "keys": keys,
                "zone_threshold": self.zone_threshold,
                "endpoints": list(self.endpoints),
                "issued_at": self.issued_at,
                "not_before": self.not_before,
                "expires": self.expires,
            }
        )

    @property
    def hash(self) -> bytes:
        """SHA-256 over the framed body, 32 bytes: what the next version names as ``previous``."""
        return signed_hash(Kind.DELEGATION, self.payload())

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "delegation") -> Delegation:
        """Read a body; check its signature first.

        Raises:
            InputError: naming field and rule.
        """
        fields = canonical.decode(payload, field=field)
        body = cls(
            child=fields.prefix("child"),
            parent=fields.prefix("parent"),
            version=fields.integer("version", least=1),
            previous=fields.digest("previous", optional=True),
            state=fields.choice("state", State),
            hosted=fields.boolean("hosted"),
            keys=_zone_keys(fields),
            zone_threshold=fields.integer("zone_threshold", least=1, most=SIGNATURES_MAX),
            endpoints=_endpoints(fields),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
            not_before=fields.integer("not_before", most=TIME_MAX),
            expires=fields.integer("expires", most=TIME_MAX),
            log=fields.optional_text("log", most=LOG_NAME_MAX),
        )
        fields.end()
        body.check_rules(field)
        return body

    def check_rules(self, field: str = "delegation") -> None:
        """Rules between fields.

        Raises:
            InputError: naming the field and the rule.
        """
        if (self.version == 1) != (self.previous == b""):
            raise _wrong(field, "previous", "version 1 has no previous hash, and every later version has one")
        if not 0 < self.expires - self.not_before <= LIFETIME_SECONDS_MAX:
            raise _wrong(field, "expires", f"comes after not_before, by at most {LIFETIME_SECONDS_MAX} s")
        if not (self.child.is_root and self.parent.is_root) and not self.child.strictly_within(self.parent):
            up = self.parent.within(self.child)
            raise InputError(
                Reason.REFERRAL_UPWARD if up else Reason.REFERRAL_SIDEWAYS,
                f"{quoted(str(self.child))} does not lie below {quoted(str(self.parent))}",
                field=f"{field}.child",
            )
        self._check_log(field)
        if self.state is State.REVOKED:
            if self.keys or self.endpoints or self.version == 1:
                raise _wrong(field, "state", "a revocation follows a delegation and has no keys and no endpoints")
            return
        zone_keys = len(self.keys_for(Role.ZONE))
        if not self.keys_for(Role.NODE):
            raise _wrong(field, "keys", "at least one key has the role node, or nothing could be denied")
        if zone_keys and self.zone_threshold > zone_keys:
            raise _wrong(field, "zone_threshold", f"is at most the number of zone keys, {zone_keys}")
        if not self.endpoints:
            raise _wrong(field, "endpoints", "an active zone has at least one")

    def _check_log(self, field: str) -> None:
        if bool(self.log) != bool(self.keys_for(Role.LOG)):
            raise _wrong(field, "log", "a zone that names a log has a key with the role log, and no other has one")
        if any(k.until is not None and (not self.log or k.roles != {Role.RECORD}) for k in self.keys):
            raise _wrong(field, "keys", "a key that ends at an index is a record key of a zone with a log, and no more")
        if self.log and not is_log_name(self.log):
            raise _wrong(field, "log", "is a lower-case path of letters, digits, dots, hyphens and slashes")


def is_log_name(name: str) -> bool:
    """Whether a log may have this origin."""
    return _LOG.match(name) is not None


def _wrong(field: str, name: str, rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"{name}: {rule}", field=f"{field}.{name}")


def _key_body(key: ZoneKey) -> Json:
    ended: dict[str, Json] = {} if key.until is None else {"until": key.until}
    return ended | {"key": str(key.key), "roles": sorted(key.roles)}


def _zone_keys(fields: canonical.Fields) -> tuple[ZoneKey, ...]:
    keys: dict[str, ZoneKey] = {}
    for item in fields.objects("keys", most=KEYS_MAX + ENDED_KEYS_MAX):
        key = PublicKey.parse(item.text("key", most=128), field=item.path("key"))
        texts = item.texts("roles", least=1, most=len(Role))
        if texts != sorted(set(texts)) or not set(texts) <= set(Role):
            rule = f"roles are some of {', '.join(sorted(Role))}, each once and in this order"
            raise InputError(Reason.FIELD_MALFORMED, rule, field=item.path("roles"))
        until = item.optional_integer("until")
        item.end()
        if key.key_id in keys:
            raise InputError(Reason.FIELD_MALFORMED, "a key stands once", field=item.path("key"))
        keys[key.key_id] = ZoneKey(key, frozenset(Role(text) for text in texts), until)
    check_room(keys.values(), field=fields.path("keys"))
    return tuple(keys.values())


def check_room(keys: Iterable[ZoneKey], *, field: str = "keys") -> None:
    """Require at most 16 keys that count and 32 that have ended: the one that has ended first makes room for the next.

    Its owner first signs the next version of each record that it has signed and that is still in use (by the key of
    today); then a delegation leaves it out, and only proofs that were saved before go on verifying by it.

    Raises:
        InputError: FIELD_TOO_LARGE.
    """
    every = tuple(keys)
    ended = sum(key.until is not None for key in every)
    if ended > ENDED_KEYS_MAX:
        rule = (
            f"{ended} ended keys are more than {ENDED_KEYS_MAX}:"
            " sign anew what is in use of the oldest, and leave that key out"
        )
        raise InputError(Reason.FIELD_TOO_LARGE, rule, field=field)
    if len(every) - ended > KEYS_MAX:
        raise InputError(Reason.FIELD_TOO_LARGE, f"more than {KEYS_MAX} keys that count", field=field)


def _endpoints(fields: canonical.Fields) -> tuple[str, ...]:
    endpoints = fields.texts("endpoints", most=ENDPOINTS_MAX)
    for index, endpoint in enumerate(endpoints):
        check_endpoint(endpoint, field=fields.path(f"endpoints[{index}]"))
    return tuple(endpoints)


def check_endpoint(endpoint: str, *, field: str = "endpoint") -> None:
    """Require ``host:port`` with a lower-case host name, an IPv4 address or an IPv6 address in brackets.

    Raises:
        InputError: FIELD_MALFORMED.
    """
    host, _, port = endpoint.rpartition(":") if len(endpoint) <= ENDPOINT_BYTES_MAX else ("", "", "")
    if _PORT.match(port) is None or int(port) > 65_535 or not _is_host(host):
        raise InputError(Reason.FIELD_MALFORMED, f"{quoted(endpoint)} is not host:port", field=field)


def _is_host(host: str) -> bool:
    try:
        if host.startswith("[") and host.endswith("]"):
            # Not compared with its canonical text: Python 3.13 writes IPv4-mapped addresses in another way.
            return "%" not in host and host == host.lower() and ipaddress.IPv6Address(host[1:-1]) is not None
        return _HOST_NAME.match(host) is not None or str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False

"""The small signed statements: denial, currency, receipt, enrolment, application, command.

Each is a frozen dataclass with ``payload()`` (canonical bytes to sign) and ``parse(payload)`` (strict; raises
:class:`InputError` naming the field). Whoever parses one has checked its signature before, except for an enrolment,
which is signed by the very key that it presents: :func:`check_enrolment` does both in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from idtrace import canonical
from idtrace.canonical import BODY_BYTES_MAX, Json
from idtrace.delegation import ENDPOINTS_MAX, Role, check_endpoint
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix, require_visible
from idtrace.record import TIME_MAX
from idtrace.signature import CheckBudget, Kind, PublicKey, Signed, Signer, sign, verify

# RFC 9077: a denial may not outlive what it denies by long; a minute is what a new registration waits at worst.
DENIAL_SECONDS_MAX: Final = 60
# "Latest" is as short-lived as "absent": a minute is what a new version waits at worst behind a saved statement.
CURRENCY_SECONDS_MAX: Final = 60
COMMENT_MAX: Final = 500


class DenialReason(StrEnum):
    """Why there is no answer."""

    IDENTIFIER_ABSENT = "IDENTIFIER_ABSENT"  # the zone stands; the identifier is not registered in it
    PREFIX_DISABLED = "PREFIX_DISABLED"  # the parent's administrator has disabled the prefix


class PrefixStatus(StrEnum):
    """Where the review of a prefix stands (national node guide: 4, 5, 1, 0, 3)."""

    APPLIED = "applied"
    IN_REVIEW = "in_review"
    ENABLED = "enabled"
    DISABLED = "disabled"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Denial:
    """There is no such identifier: said by a currency key of ``zone``, or by a node key where it has none; times in s.

    ``log_size`` is how many entries the zone's log had (None: it has no log). An entry about the identifier below that
    index, or a denial in a log that has one, shows to anybody that the signer lied.
    """

    identifier: Identifier
    zone: Prefix
    reason: DenialReason
    issued_at: int
    expires: int
    log_size: int | None = None

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        logged: dict[str, Json] = {} if self.log_size is None else {"log_size": self.log_size}
        return canonical.encode(
            logged
            | {
                "identifier": str(self.identifier),
                "zone": str(self.zone),
                "reason": self.reason,
                "issued_at": self.issued_at,
                "expires": self.expires,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "denial") -> Denial:
        """Read a body."""
        fields = canonical.decode(payload, field=field)
        body = cls(
            identifier=fields.identifier("identifier"),
            zone=fields.prefix("zone"),
            reason=fields.choice("reason", DenialReason),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
            expires=fields.integer("expires", most=TIME_MAX),
            log_size=fields.optional_integer("log_size"),
        )
        fields.end()
        return body


@dataclass(frozen=True, slots=True)
class Currency:
    """This version is the latest one: said by a currency key of ``zone``, of a log with ``log_size`` entries.

    Times in s. An entry below that index about a later version of the identifier shows to anybody that the signer lied.
    """

    identifier: Identifier
    zone: Prefix
    version: int
    record_hash: bytes
    log_size: int
    issued_at: int
    expires: int

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "identifier": str(self.identifier),
                "zone": str(self.zone),
                "version": self.version,
                "record_hash": self.record_hash.hex(),
                "log_size": self.log_size,
                "issued_at": self.issued_at,
                "expires": self.expires,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "currency") -> Currency:
        """Read a body."""
        fields = canonical.decode(payload, field=field)
        body = cls(
            identifier=fields.identifier("identifier"),
            zone=fields.prefix("zone"),
            version=fields.integer("version", least=1),
            record_hash=fields.digest("record_hash"),
            log_size=fields.integer("log_size", least=1),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
            expires=fields.integer("expires", most=TIME_MAX),
        )
        fields.end()
        return body


@dataclass(frozen=True, slots=True)
class Receipt:
    """This record version is committed: said by a node key of ``zone``; time in seconds."""

    zone: Prefix
    identifier: Identifier
    version: int
    record_hash: bytes
    committed_at: int

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "zone": str(self.zone),
                "identifier": str(self.identifier),
                "version": self.version,
                "record_hash": self.record_hash.hex(),
                "committed_at": self.committed_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "receipt") -> Receipt:
        """Read a body."""
        usual = _usual_receipt(payload)
        if usual is not None:
            return usual
        fields = canonical.decode(payload, field=field)
        body = cls(
            zone=fields.prefix("zone"),
            identifier=fields.identifier("identifier"),
            version=fields.integer("version", least=1),
            record_hash=fields.digest("record_hash"),
            committed_at=fields.integer("committed_at", most=TIME_MAX),
        )
        fields.end()
        return body


# A node reads its own receipts, one for each record of a batch, so the usual form has a short way: what it takes, the
# long way reads the same.
_RECEIPT: Final = re.compile(
    r'{"committed_at":(0|[1-9][0-9]{0,11}),"identifier":"([!#-\[\]-~]+)","record_hash":"([0-9a-f]{64})",'
    r'"version":([1-9][0-9]{0,14}),"zone":"([!#-\[\]-~]*)"}'
)


def _usual_receipt(payload: bytes) -> Receipt | None:
    """A sound receipt in ASCII without escapes or spaces, read; None for anything else."""
    found = _RECEIPT.fullmatch(payload.decode()) if len(payload) <= BODY_BYTES_MAX and payload.isascii() else None
    if found is None or int(found[1]) > TIME_MAX:
        return None
    try:
        zone, identifier = Prefix.parse_canonical(found[5]), Identifier.parse_canonical(found[2])
    except InputError:
        return None
    return Receipt(zone, identifier, int(found[4]), bytes.fromhex(found[3]), int(found[1]))


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Proof of possession: "I hold this key and want it to have this role in that zone", signed by the key itself."""

    zone: Prefix
    key: PublicKey
    role: Role

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode({"zone": str(self.zone), "key": str(self.key), "role": self.role})

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "enrolment") -> Enrolment:
        """Read a body."""
        fields = canonical.decode(payload, field=field)
        key = PublicKey.parse(fields.text("key", most=128), field=fields.path("key"))
        body = cls(zone=fields.prefix("zone"), key=key, role=fields.choice("role", Role))
        fields.end()
        return body


@dataclass(frozen=True, slots=True)
class Application:
    """A request for a prefix: how it is to be served and whom to ask about it."""

    prefix: Prefix
    hosted: bool
    endpoints: tuple[str, ...]
    contact: str
    issued_at: int

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "prefix": str(self.prefix),
                "hosted": self.hosted,
                "endpoints": list(self.endpoints),
                "contact": self.contact,
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "application") -> Application:
        """Read a body."""
        fields = canonical.decode(payload, field=field)
        endpoints = fields.texts("endpoints", most=ENDPOINTS_MAX)
        for index, endpoint in enumerate(endpoints):
            check_endpoint(endpoint, field=fields.path(f"endpoints[{index}]"))
        body = cls(
            prefix=fields.prefix("prefix"),
            hosted=fields.boolean("hosted"),
            endpoints=tuple(endpoints),
            contact=fields.text("contact", least=1, most=COMMENT_MAX),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
        )
        fields.end()
        require_visible(body.contact, what="contact", field=f"{field}.contact")
        return body


@dataclass(frozen=True, slots=True)
class Command:
    """An administrator's move of a prefix, signed by a zone key of the parent."""

    prefix: Prefix
    status: PrefixStatus
    comment: str
    issued_at: int

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "prefix": str(self.prefix),
                "status": self.status,
                "comment": self.comment,
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "command") -> Command:
        """Read a body."""
        fields = canonical.decode(payload, field=field)
        body = cls(
            prefix=fields.prefix("prefix"),
            status=fields.choice("status", PrefixStatus),
            comment=fields.text("comment", most=COMMENT_MAX),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
        )
        fields.end()
        if body.comment:
            require_visible(body.comment, what="comment", field=f"{field}.comment")
        return body


def enrol(signer: Signer, zone: Prefix, role: Role) -> Signed:
    """Make a proof of possession."""
    return sign(Kind.ENROLMENT, Enrolment(zone, signer.public_key, role).payload(), signer)


def check_enrolment(signed: Signed, *, budget: CheckBudget, field: str = "enrolment") -> Enrolment:
    """Check that an enrolment is signed by the key that it names.

    The key stands inside the payload, so this is the one statement that is parsed before its signature is checked;
    nothing of it is used until the check has passed.

    Raises:
        InputError: malformed.
        VerificationError: PROOF_OF_POSSESSION.
    """
    enrolment = Enrolment.parse(signed.payload, field=field)
    try:
        verify(signed, Kind.ENROLMENT, {enrolment.key.key_id: enrolment.key}, budget=budget, field=field)
    except VerificationError as error:
        if error.reason is Reason.TOO_MUCH_CRYPTO:
            raise
        raise VerificationError(
            Reason.PROOF_OF_POSSESSION,
            f"key {enrolment.key.key_id} does not prove that its holder asks: {error.detail}",
            field=field,
        ) from error
    return enrolment

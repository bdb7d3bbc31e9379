"""The verified chain from the pinned root key to one zone: the only place where trust is decided.

A :class:`TrustedChain` can only hold verified links. It starts from the root's own key set and grows one delegation at
a time; each step makes these checks, in this order, and the code carries the same numbers:

1. the exact bytes are signed by enough of the parent's zone keys (for the first link: of the pinned root keys);
2. the body is well-formed, and its fields agree with each other;
3. the body's parent is the zone that the chain has reached, and its child lies strictly below it;
4. the delegation is in force at ``now``;
5. its version is not lower than one seen before, and one version has one content.

A record, a denial, a receipt or a currency statement ("this version is the latest") is then checked against the last
link:

6. the chain is in force at ``now``, and its last zone is not revoked;
7. the exact bytes are signed by a key of the zone with the right role: records also by a batch seal over them, or by
   a key that has ended where a checked proof shows an index below its end (as long as the delegation names that key
   with its end: one that leaves it out voids what it signed); "latest" and "absent" by a currency key, and
   where the zone has none by a node key;
8. the body is well-formed and about the identifier that was asked, and the zone covers that identifier;
9. records: shown values match their signed digests, ``issued_at`` is not in the future, the version is not lower than
   one seen before, and one version has one content; denials and currency statements: alive at ``now``, and for no
   longer than 60 s; currency statements: about this very record, of a log that holds it already.

Sources: RFC 4035 §5 (chain), TUF §5.3 to 5.6 (versions, expiry, one ``now`` a verification), Unbound CVE-2026-40622 (a
child never extends its own life: :attr:`TrustedChain.expires` is the least of all links).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Protocol, TypeVar

from idtrace.delegation import Delegation, Role, State
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, check_values
from idtrace.seal import Seal, check_path
from idtrace.signature import CheckBudget, Kind, PublicKey, SignatureMemory, Signed, signed_hash, verify
from idtrace.statements import CURRENCY_SECONDS_MAX, DENIAL_SECONDS_MAX, Currency, Denial, Receipt

T = TypeVar("T")

# Depth 8 (identifier.LABELS_MAX) and the root itself.
LINKS_MAX: Final = 9
# A chain of nine links with two signatures each needs 18; real ones have one each. KeyTrap: bound it.
CHECKS_MAX: Final = 16
# Clocks that follow NTP differ by far less; more would only widen what can be post-dated.
CLOCK_SKEW_SECONDS: Final = 30


class Floors(Protocol):
    """What was seen before, so that an older truth cannot be passed off as the latest."""

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        """Highest version and its hash that was verified for a zone."""
        ...

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        """Highest version and record hash that was verified for an identifier."""
        ...


def zone_name(zone: Prefix) -> str:
    """A zone as a sentence names it."""
    return str(zone) or "the root"


class NoFloors:
    """For a verifier without a memory, such as the offline one."""

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        """Nothing was seen."""
        del zone
        return None

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        """Nothing was seen."""
        del identifier
        return None


@dataclass(frozen=True, slots=True)
class Context:
    """One ``now`` (wall clock, s), one budget and one set of floors for everything that one question verifies."""

    now: int
    budget: CheckBudget
    floors: Floors

    @classmethod
    def at(
        cls,
        now: int,
        *,
        checks: int = CHECKS_MAX,
        floors: Floors | None = None,
        memory: SignatureMemory | None = None,
    ) -> Context:
        """A fresh budget at a time; what ``memory`` knows is not checked again."""
        return cls(now, CheckBudget(checks, memory), NoFloors() if floors is None else floors)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The pinned root keys, by key id, and how many of them have to sign the root's key set."""

    keys: dict[str, PublicKey]
    threshold: int = 1

    @classmethod
    def of(cls, *keys: PublicKey, threshold: int = 1) -> Anchor:
        """An anchor from keys."""
        return cls({key.key_id: key for key in keys}, threshold)


@dataclass(frozen=True, slots=True)
class Link:
    """One delegation: as signed, and as parsed. In a :class:`TrustedChain` it is verified as well."""

    signed: Signed
    delegation: Delegation

    @classmethod
    def read(cls, signed: Signed) -> Link:
        """Parse what was verified before, such as a stored delegation.

        Raises:
            InputError: naming field and rule.
        """
        return cls(signed, Delegation.parse(signed.payload))


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record that passed every check, with its body and the indexes of values that were withheld."""

    record: Record
    body: RecordBody
    withheld: tuple[int, ...]


class TrustedChain:
    """Verified links from the root to :attr:`zone`; immutable.

    Made by :meth:`begin` and :meth:`extend` alone, and by :meth:`from_authenticated` of what they made elsewhere.
    """

    __slots__ = ("expires", "links")

    def __init__(self, links: tuple[Link, ...]) -> None:
        assert links, "use begin()"
        self.links = links
        self.expires = min(link.delegation.expires for link in links)

    @property
    def delegation(self) -> Delegation:
        """The last link's body: the zone's keys and endpoints."""
        return self.links[-1].delegation

    @property
    def zone(self) -> Prefix:
        """The zone that the chain has reached."""
        return self.links[-1].delegation.child

    @property
    def is_revoked(self) -> bool:
        """Whether the last link takes the zone back; nothing can follow it."""
        return self.delegation.state is State.REVOKED

    @property
    def signed(self) -> tuple[Signed, ...]:
        """All links as signed, root first."""
        return tuple(link.signed for link in self.links)

    @classmethod
    def begin(cls, anchor: Anchor, signed: Signed, context: Context) -> TrustedChain:
        """Check the root's own key set against the pinned keys.

        Raises:
            VerificationError: ROOT_MISMATCH where none of the pinned keys signed it, or what the broken step says.
        """
        try:
            delegation = _signed_by(signed, anchor.keys, anchor.threshold, context, "delegation[0]")
        except VerificationError as error:
            if error.reason is Reason.SIGNER_UNKNOWN:
                detail = "the chain does not begin at the pinned root key"
                raise VerificationError(Reason.ROOT_MISMATCH, detail, field=error.field) from error
            raise
        if not delegation.child.is_root or delegation.state is State.REVOKED:
            raise VerificationError(
                Reason.ROOT_MISMATCH, "the chain does not begin at the root zone", field="delegation[0].child"
            )
        _current(signed, delegation, context, "delegation[0]")
        return cls((Link(signed, delegation),))

    def extend(self, signed: Signed, context: Context) -> TrustedChain:
        """Check one more delegation and return the longer chain; this one stays as it is.

        Raises:
            VerificationError: what the broken step says.
        """
        field = f"delegation[{len(self.links)}]"
        if self.is_revoked:
            raise VerificationError(Reason.DELEGATION_REVOKED, f"zone {self.zone} is revoked", field=field)
        keys = self.delegation.keys_for(Role.ZONE)
        delegation = _signed_by(signed, keys, self.delegation.zone_threshold, context, field)
        _below(self.delegation, delegation, field)
        _current(signed, delegation, context, field)
        return TrustedChain((*self.links, Link(signed, delegation)))

    @classmethod
    def from_authenticated(cls, links: tuple[Link, ...], context: Context) -> TrustedChain:
        """Take over a chain that a resolver of the same operator verified: steps 2 to 5, **no signature is checked**.

        For ``resolver/sharing.py`` alone, which calls it with the links of an entry of the shared cache once the
        entry's HMAC has shown that a holder of the shared key wrote it, for the same pinned root keys, after it had
        verified all of them (``resolver/shared_cache.py`` says what a stolen key could do). Anybody else who has
        bytes and wants a chain calls :meth:`begin`.

        Raises:
            VerificationError: what the broken step says, or CHAIN_EMPTY, CHAIN_TOO_DEEP, ROOT_MISMATCH.
        """
        if not links:
            raise VerificationError(Reason.CHAIN_EMPTY, "there is no delegation", field="delegation")
        if len(links) > LINKS_MAX:
            detail = f"a chain has at most {LINKS_MAX} links"
            raise VerificationError(Reason.CHAIN_TOO_DEEP, detail, field="delegation")
        if not links[0].delegation.child.is_root or links[0].delegation.state is State.REVOKED:
            detail = "the chain does not begin at the root zone"
            raise VerificationError(Reason.ROOT_MISMATCH, detail, field="delegation[0].child")
        for position, link in enumerate(links):
            field = f"delegation[{position}]"
            if position:
                _below(links[position - 1].delegation, link.delegation, field)
            _current(link.signed, link.delegation, context, field)
        return cls(links)

    @classmethod
    def whole(cls, anchor: Anchor, links: Sequence[Signed], context: Context) -> TrustedChain:
        """Check links from the root's own key set down, all of them; there is at least one.

        Raises:
            VerificationError: what the broken step says, at the first broken link.
        """
        chain = cls.begin(anchor, links[0], context)
        for signed in links[1:]:
            chain = chain.extend(signed, context)
        return chain

    def upto(self, count: int) -> TrustedChain:
        """The first ``count`` links (at least one): verified with the others."""
        return TrustedChain(self.links[:count])

    def in_force(self, now: int) -> None:
        """Step 6.

        Raises:
            VerificationError: DELEGATION_REVOKED, DELEGATION_EXPIRED or DELEGATION_NOT_YET_VALID.
        """
        if self.is_revoked:
            raise VerificationError(Reason.DELEGATION_REVOKED, f"zone {self.zone} is revoked", field="delegation")
        for position, link in enumerate(self.links):
            _in_force(link.delegation, now, f"delegation[{position}]")

    def check_record(
        self, record: Record, identifier: Identifier, context: Context, *, index: int | None = None
    ) -> VerifiedRecord:
        """Steps 6 to 9 for a record. ``index`` is its place in the zone's log, where a checked proof has shown it.

        Raises:
            VerificationError: what the broken step says.
        """
        self.in_force(context.now)
        # 7. signed by a record key of the zone
        self._signed_or_sealed(record, context, index)
        return self.check_content(record, identifier, context)

    def check_content(self, record: Record, identifier: Identifier, context: Context) -> VerifiedRecord:
        """Steps 8 and 9 alone, for a record that stands under a seal which :meth:`check_seal` has just found sound.

        For ``registry/intake.py`` alone, which has all records of the batch, has built their tree itself, and would
        else walk each one's path through the hashes that it has made of them.

        Raises:
            VerificationError: what the broken step says.
        """
        # 8. about this identifier, inside the zone
        body = _parsed(RecordBody.parse, record.signed.payload)
        if body.identifier != identifier:
            raise VerificationError(
                Reason.RECORD_WRONG_IDENTIFIER, f"the record is about {body.identifier}", field="record.identifier"
            )
        if not identifier.prefix.within(self.zone):
            raise VerificationError(
                Reason.RECORD_OUT_OF_ZONE, f"{identifier} does not lie in zone {self.zone}", field="record.identifier"
            )
        # 9. values, time, version
        withheld = check_values(body, record.values)
        if body.issued_at > context.now + CLOCK_SKEW_SECONDS:
            raise VerificationError(
                Reason.RECORD_FROM_FUTURE, "the record is dated in the future", field="record.issued_at"
            )
        floor = context.floors.record(identifier)
        if floor is not None:
            reasons = (Reason.RECORD_ROLLED_BACK, Reason.RECORD_FORKED)
            _not_below(floor, body.version, record.hash, reasons, "record")
        return VerifiedRecord(record, body, withheld)

    def _record_keys(self, index: int | None) -> dict[str, PublicKey]:
        """Keys whose records count: those that have not ended, and those that had not when this one was logged."""
        ended = self.delegation.ended_keys(Role.RECORD) if index is not None else {}
        before = {
            name: k.key for name, k in ended.items() if k.until is not None and index is not None and index < k.until
        }
        return self.delegation.keys_for(Role.RECORD) | before

    def _signed_or_sealed(self, record: Record, context: Context, index: int | None) -> None:
        """By record keys of the zone over these bytes, or over a batch that they are in; never by halves of both."""
        keys = self._record_keys(index)
        sealed = record.sealed
        if sealed is None:
            verify(record.signed, Kind.RECORD, keys, budget=context.budget, field="record")
            return
        if record.signed.signatures or record.signed.payload_type != Kind.RECORD.payload_type:
            detail = "a record under a seal has no signatures of its own and is a record"
            raise VerificationError(Reason.PAYLOAD_TYPE_UNKNOWN, detail, field="record")
        check_path(record.hash, sealed, self._seal(sealed.seal, keys, context, "record.seal"))

    def check_seal(self, signed: Signed, context: Context) -> Seal:
        """Steps 6 to 8 for a batch seal; that a record stands under it, and step 9, is for each record to show.

        Raises:
            VerificationError: what the broken step says.
        """
        self.in_force(context.now)
        return self._seal(signed, self._record_keys(None), context, "seal")

    def _seal(self, signed: Signed, keys: dict[str, PublicKey], context: Context, field: str) -> Seal:
        verify(signed, Kind.SEAL, keys, budget=context.budget, field=field)
        body = _parsed(partial(_seal_body, field), signed.payload)
        if body.zone != self.zone:
            raise VerificationError(Reason.SEAL_WRONG_ZONE, f"the seal is zone {body.zone}'s", field=f"{field}.zone")
        if body.issued_at > context.now + CLOCK_SKEW_SECONDS:
            detail = "the seal is dated in the future"
            raise VerificationError(Reason.RECORD_FROM_FUTURE, detail, field=f"{field}.issued_at")
        return body

    def check_denial(self, signed: Signed, identifier: Identifier, context: Context) -> Denial:
        """Steps 6 to 9 for a denial.

        Raises:
            VerificationError: what the broken step says.
        """
        self.in_force(context.now)
        verify(signed, Kind.DENIAL, self._currency_keys(), budget=context.budget, field="denial")
        denial = _parsed(Denial.parse, signed.payload)
        if denial.identifier != identifier:
            raise VerificationError(
                Reason.DENIAL_WRONG_IDENTIFIER, f"the denial is about {denial.identifier}", field="denial.identifier"
            )
        if denial.zone != self.zone or not identifier.prefix.within(self.zone):
            raise VerificationError(
                Reason.DENIAL_WRONG_ZONE, f"the denial speaks for zone {denial.zone}", field="denial.zone"
            )
        if not 0 <= denial.expires - denial.issued_at <= DENIAL_SECONDS_MAX:
            raise VerificationError(
                Reason.DENIAL_TOO_LONG, f"a denial lives at most {DENIAL_SECONDS_MAX} s", field="denial.expires"
            )
        if denial.issued_at > context.now + CLOCK_SKEW_SECONDS:
            raise VerificationError(
                Reason.DENIAL_NOT_YET_VALID, "the denial is dated in the future", field="denial.issued_at"
            )
        if context.now > denial.expires:
            raise VerificationError(Reason.DENIAL_EXPIRED, "the denial has expired; ask again", field="denial.expires")
        return denial

    def check_currency(self, signed: Signed, record: Record, context: Context, *, index: int | None = None) -> Currency:
        """Check that a statement is this zone's living word that this record is the latest.

        ``index`` is the record's place in the zone's log, where a checked proof has shown it. That the statement lives
        at ``now`` is checked last: one that fails for that alone is sound, and speaks of another time.

        Raises:
            VerificationError: what the broken step says, or CURRENCY_WRONG_RECORD.
        """
        self.in_force(context.now)
        verify(signed, Kind.CURRENCY, self._currency_keys(), budget=context.budget, field="currency")
        currency = _parsed(Currency.parse, signed.payload)
        body = _parsed(RecordBody.parse, record.signed.payload)
        said = (currency.zone, currency.identifier, currency.version, currency.record_hash)
        if said != (self.zone, body.identifier, body.version, record.hash):
            detail = f"the statement is about version {currency.version} of {currency.identifier}"
            raise VerificationError(Reason.CURRENCY_WRONG_RECORD, detail, field="currency.record_hash")
        if index is not None and currency.log_size <= index:
            detail = f"the statement is about a log of {currency.log_size} entries, and the record is entry {index}"
            raise VerificationError(Reason.CURRENCY_WRONG_RECORD, detail, field="currency.log_size")
        if not 0 <= currency.expires - currency.issued_at <= CURRENCY_SECONDS_MAX:
            detail = f"such a statement lives at most {CURRENCY_SECONDS_MAX} s"
            raise VerificationError(Reason.CURRENCY_TOO_LONG, detail, field="currency.expires")
        if currency.issued_at > context.now + CLOCK_SKEW_SECONDS:
            detail = "the statement is dated in the future"
            raise VerificationError(Reason.CURRENCY_NOT_YET_VALID, detail, field="currency.issued_at")
        if context.now > currency.expires:
            detail = "the statement that this is the latest version has expired; ask again"
            raise VerificationError(Reason.CURRENCY_EXPIRED, detail, field="currency.expires")
        return currency

    def _currency_keys(self) -> dict[str, PublicKey]:
        """Who may say "latest" and "absent": keys made for it; where there are none, the node's."""
        return self.delegation.keys_for(Role.CURRENCY) or self.delegation.keys_for(Role.NODE)

    def check_receipt(self, signed: Signed, record: Record, context: Context) -> Receipt:
        """Check that a receipt is this zone's word for this record.

        Raises:
            VerificationError: what the broken step says, or RECEIPT_WRONG_RECORD.
        """
        self.in_force(context.now)
        verify(signed, Kind.RECEIPT, self.delegation.keys_for(Role.NODE), budget=context.budget, field="receipt")
        receipt = _parsed(Receipt.parse, signed.payload)
        body = _parsed(RecordBody.parse, record.signed.payload)
        told = (receipt.zone, receipt.identifier, receipt.version, receipt.record_hash)
        if told != (self.zone, body.identifier, body.version, record.hash):
            raise VerificationError(
                Reason.RECEIPT_WRONG_RECORD, f"the receipt is about {receipt.identifier}", field="receipt.record_hash"
            )
        return receipt


def _signed_by(signed: Signed, keys: dict[str, PublicKey], threshold: int, context: Context, field: str) -> Delegation:
    # 1. signed by enough of the parent's keys
    verify(signed, Kind.DELEGATION, keys, budget=context.budget, threshold=threshold, field=field)
    # 2. well-formed
    return _parsed(partial(Delegation.parse, field=field), signed.payload)


def _below(reached: Delegation, delegation: Delegation, field: str) -> None:
    # 3. strictly below the zone that the chain has reached
    if reached.state is State.REVOKED:
        raise VerificationError(Reason.DELEGATION_REVOKED, f"zone {reached.child} is revoked", field=field)
    if reached.child.within(delegation.child):
        raise VerificationError(
            Reason.REFERRAL_UPWARD, f"{delegation.child} does not lie below {reached.child}", field=field
        )
    if delegation.parent != reached.child:
        raise VerificationError(
            Reason.REFERRAL_SIDEWAYS, f"{delegation.child} is no child of {reached.child}", field=field
        )


def _current(signed: Signed, delegation: Delegation, context: Context, field: str) -> None:
    # 4. in force
    _in_force(delegation, context.now, field)
    # 5. neither rolled back nor forked
    reasons = (Reason.DELEGATION_ROLLED_BACK, Reason.DELEGATION_FORKED)
    hashed = signed_hash(Kind.DELEGATION, signed.payload)
    _not_below(context.floors.zone(delegation.child), delegation.version, hashed, reasons, field)


def _in_force(delegation: Delegation, now: int, field: str) -> None:
    what = f"the delegation of {zone_name(delegation.child)}"
    if now < delegation.not_before:
        raise VerificationError(Reason.DELEGATION_NOT_YET_VALID, f"{what} is not yet valid", field=field)
    if now >= delegation.expires:
        raise VerificationError(Reason.DELEGATION_EXPIRED, f"{what} has expired", field=field)


def _not_below(
    floor: tuple[int, bytes] | None, version: int, content: bytes, reasons: tuple[Reason, Reason], field: str
) -> None:
    if floor is None:
        return
    if version < floor[0]:
        raise VerificationError(reasons[0], f"version {version} after version {floor[0]} was seen", field=field)
    if version == floor[0] and content != floor[1]:
        raise VerificationError(reasons[1], f"version {version} has two contents", field=field)


@lru_cache(maxsize=256)  # of 300 bytes: a batch's seal comes with each of its 2,000 records
def _seal_body(field: str, payload: bytes) -> Seal:
    return Seal.parse(payload, field=field)


def _parsed(parse: Callable[[bytes], T], payload: bytes) -> T:
    """Parse a body whose signature has been checked: malformed means that its signer broke the rules."""
    try:
        return parse(payload)
    except InputError as error:
        raise VerificationError(error.reason, error.detail, field=error.field) from error

"""What a question ends in, and how long that may be kept.

An answer lives for the least of: the record's own ``ttl_seconds``, every signed expiry that it rests on (each link of
the chain; for a denial also its own, 60 s at most), and the node's ceiling. Failures prove nothing, so nothing signed
bounds them: their back-off is the cache's (``resolver/cache.py``).

Values with the permission ``restricted`` are dropped here, before anything is cached or sent, since a resolver serves
anybody. The record still verifies without them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.chain import TrustedChain, VerifiedRecord
from idtrace.errors import Reason
from idtrace.identifier import Identifier
from idtrace.logproof import LogProof
from idtrace.record import Permission, RecordKind
from idtrace.signature import Signed
from idtrace.statements import Denial


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the tree says of an identifier, and what that rests on.

    Attributes:
        identifier: the one that was asked.
        verdict: FOUND, ABSENT, GONE (proven by ``bundle``), UNREACHABLE or BOGUS (nothing is proven).
        reason: stable reason of every verdict but FOUND.
        detail: one sentence for a person.
        bundle: the proof, restricted values withheld.
        chain: the verified chain down to the zone that decided.
        expires: wall clock, s: the least signed expiry of all that the answer rests on; 0 where nothing is proven.
        ttl_ms: how long the answer may be kept from now; 0 where nothing is proven.
        upstream_calls: calls to other nodes that the walk took.
        visited: endpoints in the order in which they were asked.
    """

    identifier: Identifier
    verdict: Verdict
    reason: Reason | None
    detail: str
    bundle: Bundle | None = None
    chain: TrustedChain | None = None
    expires: int = 0
    ttl_ms: int = 0
    upstream_calls: int = 0
    visited: tuple[str, ...] = ()


def without_restricted(verified: VerifiedRecord) -> VerifiedRecord:
    """The same verified record with its restricted values withheld."""
    hidden = {digest.index for digest in verified.body.values if digest.permission is Permission.RESTRICTED}
    values = tuple(value for value in verified.record.values if value.index not in hidden)
    withheld = tuple(sorted({*verified.withheld, *hidden}))
    return VerifiedRecord(replace(verified.record, values=values), verified.body, withheld)


def recorded(
    verified: VerifiedRecord,
    chain: TrustedChain,
    *,
    now: int,
    ceiling_seconds: int,
    proof: LogProof | None = None,
    currency: Signed | None = None,
) -> Resolution:
    """FOUND, or GONE where the record is a tombstone; with the checked proof and currency statement that came with it.

    The currency statement bounds nothing: it says what was the latest in the minute in which the answer was fetched,
    and how much later it may still be told is what changes and ``ttl_seconds`` decide.
    """
    body = verified.body
    ended = body.kind is RecordKind.TOMBSTONE
    kept_seconds = min(body.ttl_seconds, ceiling_seconds, chain.expires - now)
    return Resolution(
        body.identifier,
        Verdict.GONE if ended else Verdict.FOUND,
        Reason.IDENTIFIER_RETIRED if ended else None,
        f"{body.identifier} has ended with version {body.version}"
        if ended
        else f"version {body.version}, {body.status}",
        bundle=Bundle(body.identifier, chain.signed, verified.record, proof, currency),
        chain=chain,
        expires=chain.expires,
        ttl_ms=kept_seconds * 1000,
    )


def denied(outcome: Denied, denial: Denial, chain: TrustedChain, *, now: int, ceiling_seconds: int) -> Resolution:
    """ABSENT, for the reason that the denial gives."""
    expires = min(denial.expires, chain.expires)
    return Resolution(
        denial.identifier,
        Verdict.ABSENT,
        Reason(denial.reason),
        f"zone {chain.zone} denies {denial.identifier}"
        if chain.zone.labels
        else f"the root denies {denial.identifier}",
        bundle=Bundle(denial.identifier, chain.signed, outcome),
        chain=chain,
        expires=expires,
        ttl_ms=max(0, min(expires - now, ceiling_seconds)) * 1000,
    )


def revoked(identifier: Identifier, chain: TrustedChain, *, now: int, ceiling_seconds: int) -> Resolution:
    """GONE: the chain ends in a zone above the identifier that its parent has taken back."""
    return Resolution(
        identifier,
        Verdict.GONE,
        Reason.DELEGATION_REVOKED,
        f"zone {chain.zone} is revoked",
        bundle=Bundle(identifier, chain.signed, Revoked(chain.zone)),
        chain=chain,
        expires=chain.expires,
        ttl_ms=min(ceiling_seconds, chain.expires - now) * 1000,
    )

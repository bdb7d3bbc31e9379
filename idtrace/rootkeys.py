"""The pinned root keys over their whole life: which keys are the root, and how they are followed by others.

What a verifier pins by hand is version 1 of the root's keys. Version N + 1 is signed by enough keys of N *and* by
enough keys of N + 1: by the old ones, so that nobody else can name their successors, and by the new ones, so that
nobody is left with keys that no one holds. Whoever has pinned an older version goes through all that lie between, one
after the other. Fields of a version: ``version``, ``previous`` (hash of the version before), ``keys``, ``threshold``,
``issued_at`` (s). Sources: TUF §5.3.4 to 5.3.5 (both thresholds, one version at a time).

Steps of one update; the code carries the same numbers:

1. the body is well-formed; its version is the next one, and it names the one before by its hash;
2. it is signed by enough keys of both versions, and by nobody else;
3. it is not dated in the future, and not before the version that it replaces.

**What an old proof is worth.** A chain that begins at keys of an older version is believed as of a time at which that
version was in force (:meth:`RootKeys.in_force_at`), and at no later one: whoever steals a key that has been replaced
can date what he signs as he likes, so nobody believes him today. Two versions make a change that nobody notices: one
that has the old keys and the new ones, and, when every verifier has it, one that has the new ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from idtrace import canonical
from idtrace.chain import CLOCK_SKEW_SECONDS, Anchor
from idtrace.delegation import KEYS_MAX
from idtrace.errors import InputError, Reason, VerificationError, quoted
from idtrace.record import TIME_MAX
from idtrace.signature import SIGNATURES_MAX, CheckBudget, Kind, PublicKey, Signed, signed_hash, verify

# Every two years for a century, with the version in between; each costs eight signature checks at most.
UPDATES_MAX: Final = 100
# A statement has at most eight signatures (SIGNATURES_MAX), and both versions sign it.
THRESHOLD_MAX: Final = SIGNATURES_MAX // 2


@dataclass(frozen=True, slots=True)
class RootVersion:
    """One version of the root's keys; the keys in the order of their text form."""

    version: int
    previous: bytes
    keys: tuple[PublicKey, ...]
    threshold: int
    issued_at: int

    @property
    def anchor(self) -> Anchor:
        """What a chain begins at."""
        return Anchor.of(*self.keys, threshold=self.threshold)

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "version": self.version,
                "previous": self.previous.hex(),
                "keys": [str(key) for key in self.keys],
                "threshold": self.threshold,
                "issued_at": self.issued_at,
            }
        )

    @property
    def hash(self) -> bytes:
        """SHA-256 over the framed body, 32 bytes: what the next version names as ``previous``."""
        return signed_hash(Kind.ROOT_KEYS, self.payload())

    @classmethod
    def pinned(cls, keys: Sequence[PublicKey]) -> RootVersion:
        """Version 1: keys that somebody has pinned by hand, each of which may speak alone."""
        assert keys, "a root without keys is nobody's"
        return cls(1, b"", tuple(sorted(keys, key=str)), 1, 0)

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "root") -> RootVersion:
        """Read a body of version 2 or later; :meth:`RootKeys.updated` says whether it counts.

        Raises:
            InputError: naming field and rule.
        """
        fields = canonical.decode(payload, field=field)
        texts = fields.texts("keys", least=1, most=KEYS_MAX)
        body = cls(
            version=fields.integer("version", least=2, most=UPDATES_MAX + 1),
            previous=fields.digest("previous"),
            keys=tuple(PublicKey.parse(text, field=fields.path(f"keys[{n}]")) for n, text in enumerate(texts)),
            threshold=fields.integer("threshold", least=1, most=THRESHOLD_MAX),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
        )
        fields.end()
        if texts != sorted(set(texts)):
            rule = "keys stand once each and in order"
            raise InputError(Reason.FIELD_MALFORMED, rule, field=f"{field}.keys")
        if body.threshold > len(body.keys):
            rule = f"threshold is at most the number of keys, {len(body.keys)}"
            raise InputError(Reason.FIELD_MALFORMED, rule, field=f"{field}.threshold")
        return body


@dataclass(frozen=True, slots=True)
class RootKeys:
    """All versions of the root's keys from the pinned one on, with the statements that prove them; never empty.

    Made by :meth:`pinned` and grown by :meth:`updated` alone, so whatever stands here has been verified.
    """

    versions: tuple[RootVersion, ...]
    updates: tuple[Signed, ...] = ()

    @classmethod
    def pinned(cls, keys: Sequence[PublicKey]) -> RootKeys:
        """What somebody has pinned by hand."""
        return cls((RootVersion.pinned(keys),))

    @property
    def latest(self) -> RootVersion:
        """The version in force now."""
        return self.versions[-1]

    @property
    def anchor(self) -> Anchor:
        """What a chain begins at now."""
        return self.latest.anchor

    def in_force_at(self, moment: int) -> RootVersion:
        """The version that was in force at a time (s): the last one issued by then, and the pinned one before that."""
        return next((v for v in reversed(self.versions) if v.issued_at <= moment), self.versions[0])

    def updated(self, signed: Signed, *, now: int) -> RootKeys:
        """These keys and their next version; an update that is held already changes nothing.

        Raises:
            VerificationError: what the broken step says (ROOT_MISMATCH where it does not follow the latest version).
        """
        try:
            # 1. the next version
            body = RootVersion.parse(signed.payload, field="root")
        except InputError as error:
            raise VerificationError(error.reason, error.detail, field=error.field) from error
        latest = self.latest
        if body in self.versions:
            return self
        if body.version != latest.version + 1 or body.previous != latest.hash:
            detail = f"version {body.version} of the root's keys does not follow version {latest.version} held here"
            raise VerificationError(Reason.ROOT_MISMATCH, detail, field="root.version")
        # 2. signed by both
        _signed_by_both(signed, latest, body)
        # 3. dated in order
        if not latest.issued_at <= body.issued_at <= now + CLOCK_SKEW_SECONDS:
            detail = "a version is issued after the one before it, and not in the future"
            raise VerificationError(Reason.ROOT_MISMATCH, detail, field="root.issued_at")
        return RootKeys((*self.versions, body), (*self.updates, signed))

    def updated_by(self, updates: Sequence[Signed], *, now: int) -> RootKeys:
        """These keys and what follows from updates, in order; all of them verify or none counts.

        Raises:
            VerificationError: as :meth:`updated`, at the first that does not hold.
        """
        keys = self
        for signed in updates:
            keys = keys.updated(signed, now=now)
        return keys


def next_root(
    latest: RootVersion,
    *,
    add: Sequence[PublicKey],
    drop: Sequence[str],
    threshold: int | None,
    now: int,
) -> RootVersion:
    """The body of the version after ``latest``: with keys added, and dropped by key id.

    Raises:
        InputError: with the rule that it would break.
    """
    held = {key.key_id: key for key in latest.keys}
    for key_id in drop:
        if held.pop(key_id, None) is None:
            raise InputError(Reason.FIELD_MALFORMED, f"key {quoted(key_id)} is none of the root's keys", field="drop")
    held |= {key.key_id: key for key in add}
    keys = tuple(sorted(held.values(), key=str))
    body = RootVersion(latest.version + 1, latest.hash, keys, threshold or latest.threshold, now)
    if (set(body.keys), body.threshold) == (set(latest.keys), latest.threshold):
        raise InputError(Reason.FIELD_MALFORMED, "nothing would change", field="add")
    return RootVersion.parse(body.payload(), field="root")


def missing_signatures(latest: RootVersion, body: RootVersion, signed: Signed) -> tuple[int, int]:
    """How many signatures an update still lacks: of keys of the latest version, and of keys of its own."""
    there = {signature.key_id for signature in signed.signatures}
    old, new = (version.threshold - len(there & _key_ids(version)) for version in (latest, body))
    return max(old, 0), max(new, 0)


def _signed_by_both(signed: Signed, latest: RootVersion, body: RootVersion) -> None:
    """Every signature is checked once, whichever of the two versions its key belongs to."""
    keys = {key.key_id: key for key in (*latest.keys, *body.keys)}
    verify(signed, Kind.ROOT_KEYS, keys, budget=CheckBudget(SIGNATURES_MAX), field="root")
    old, new = missing_signatures(latest, body, signed)
    if old or new:
        which = f"{old} more of version {latest.version}" if old else f"{new} more of its own keys"
        detail = f"version {body.version} of the root's keys needs signatures: {which}"
        raise VerificationError(Reason.THRESHOLD_NOT_MET, detail, field="root")


def _key_ids(version: RootVersion) -> set[str]:
    return {key.key_id for key in version.keys}

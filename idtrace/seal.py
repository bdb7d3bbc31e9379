"""Batch seals: one signature over many records, each of which verifies alone with its path.

The seal's body names the root of an RFC 6962 tree whose leaves are the record hashes of one batch, in order; a record
key of the zone signs it as it would sign a record. A record of the batch carries the seal, its place and its inclusion
path (2,000 records: 11 hashes) instead of signatures. Signing 2,000 records costs one signature, and a verifier that
has checked the seal once only hashes for its siblings.

Body fields: ``zone``, ``root``, ``size``, ``issued_at`` (s). A record hash covers the whole record under a domain of
its own, so nothing but a record of this very content fits a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from idtrace import canonical, merkle
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.record import SEAL_PATH_MAX, TIME_MAX, Sealed
from idtrace.signature import Kind, Signer, sign

# A client's batch has 2,000 records; a block of a lot may be sealed in one, and a path of 20 hashes is still short.
SEAL_SIZE_MAX: Final = 2**SEAL_PATH_MAX


@dataclass(frozen=True, slots=True)
class Seal:
    """A parsed or newly made seal body."""

    zone: Prefix
    root: bytes
    size: int
    issued_at: int

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {"zone": str(self.zone), "root": self.root.hex(), "size": self.size, "issued_at": self.issued_at}
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "seal") -> Seal:
        """Read a body; check its signature first.

        Raises:
            InputError: naming field and rule.
        """
        fields = canonical.decode(payload, field=field)
        body = cls(
            zone=fields.prefix("zone"),
            root=fields.digest("root"),
            size=fields.integer("size", least=1, most=SEAL_SIZE_MAX),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
        )
        fields.end()
        return body


def seal(record_hashes: Sequence[bytes], zone: Prefix, signer: Signer, *, issued_at: int) -> tuple[Sealed, ...]:
    """Seal a batch of 1 to 1,048,576 records of one zone; what each of them carries, in order."""
    assert 0 < len(record_hashes) <= SEAL_SIZE_MAX, "the caller has cut its batches"
    tree = merkle.BatchTree([merkle.hash_leaf(record_hash) for record_hash in record_hashes])
    signed = sign(Kind.SEAL, Seal(zone, tree.root, tree.size, issued_at).payload(), signer)
    return tuple(Sealed(signed, position, path) for position, path in enumerate(tree.paths()))


def check_path(record_hash: bytes, sealed: Sealed, body: Seal, *, field: str = "record.seal") -> None:
    """Check that a record hash is the leaf at its place under a seal whose signature was checked.

    Raises:
        VerificationError: SEAL_PATH.
    """
    leaf = merkle.hash_leaf(record_hash)
    try:
        merkle.check_inclusion(leaf, sealed.position, body.size, sealed.path, body.root)
    except VerificationError as error:
        detail = f"the record is not number {sealed.position} of the {body.size} that were sealed"
        raise VerificationError(Reason.SEAL_PATH, detail, field=field) from error

"""What a log's checkpoint says: origin, tree size, root hash; and the lines that all log formats are made of.

The body of a checkpoint (C2SP tlog-checkpoint) is text::

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

and perhaps extension lines, which are signed, kept, and mean nothing to us. It is signed as a note:
:mod:`idtrace.note`. Every form is read strictly: one spelling of each number and of each hash, so that two readers
never see two things under one signature.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from idtrace.errors import InputError, Reason, quoted
from idtrace.merkle import HASH_BYTES, SIZE_MAX

# ML-DSA cosignatures carry the origin behind a length of one byte (C2SP tlog-cosignature).
ORIGIN_BYTES_MAX: Final = 255
# Room for what logs of today put there (a timestamp, a second tree); extension lines cannot be audited by monitors.
EXTENSION_LINES_MAX: Final = 16
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")  # 19 digits hold 2**63 - 1
# C2SP signed-note: newline is the only control below U+0020. A lone surrogate cannot be written in UTF-8 at all.
_NO_NOTE_TEXT: Final = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")


def is_note_text(text: str) -> bool:
    """Whether this may stand in a note: UTF-8 can hold it, and no control but newline is in it."""
    return _NO_NOTE_TEXT.search(text) is None


def read_decimal(line: str, reason: Reason, *, field: str) -> int:
    """A tree size, index or time: ASCII digits without leading zeroes, at most 2**63 - 1.

    Raises:
        InputError: ``reason``.
    """
    number = int(line) if _DECIMAL.fullmatch(line) else -1
    if not 0 <= number <= SIZE_MAX:
        raise InputError(reason, f"{quoted(line)} is no number from 0 to 2**63 - 1 in plain digits", field=field)
    return number


def read_base64(line: str, reason: Reason, *, field: str) -> bytes:
    """RFC 4648 §4 base64 with its padding, in the only spelling that these bytes have.

    Raises:
        InputError: ``reason``.
    """
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(reason, f"{quoted(line)} is not base64", field=field) from None
    if in_base64(data) != line:
        raise InputError(reason, f"{quoted(line)} is not canonical base64", field=field)
    return data


def in_base64(data: bytes) -> str:
    """The one spelling that :func:`read_base64` takes."""
    return base64.b64encode(data).decode()


def read_hash(line: str, reason: Reason, *, field: str) -> bytes:
    """A SHA-256 (32 bytes) in base64, as proofs and checkpoints write it.

    Raises:
        InputError: ``reason``.
    """
    data = read_base64(line, reason, field=field)
    if len(data) != HASH_BYTES:
        raise InputError(reason, f"a hash has {HASH_BYTES} bytes, not {len(data)}", field=field)
    return data


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree at one size. Holding one proves nothing: it is believed when a note with it has been opened.

    Attributes:
        origin: identity of the log, one line; by convention a URL without scheme.
        size: number of leaves.
        root: root hash, 32 bytes.
        extensions: further lines, opaque, none of them empty.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, field: str = "checkpoint") -> Checkpoint:
        """Read a body, with its last newline and without signatures.

        Raises:
            InputError: CHECKPOINT_MALFORMED.
        """
        malformed = Reason.CHECKPOINT_MALFORMED
        if not is_note_text(text):
            raise InputError(malformed, "a checkpoint has no control characters", field=field)
        *lines, last = text.split("\n")
        if last or len(lines) < 3 or "" in lines:
            raise InputError(
                malformed, "a checkpoint is three filled lines or more, each with its newline", field=field
            )
        origin, size, root, *extensions = lines
        if len(origin.encode()) > ORIGIN_BYTES_MAX:
            raise InputError(malformed, f"an origin has at most {ORIGIN_BYTES_MAX} bytes", field=f"{field}.origin")
        if len(extensions) > EXTENSION_LINES_MAX:
            detail = f"more than {EXTENSION_LINES_MAX} extension lines"
            raise InputError(malformed, detail, field=f"{field}.extensions")
        return cls(
            origin=origin,
            size=read_decimal(size, malformed, field=f"{field}.size"),
            root=read_hash(root, malformed, field=f"{field}.root"),
            extensions=tuple(extensions),
        )

    @property
    def text(self) -> str:
        """The body, as :meth:`parse` reads it."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, in_base64(self.root), *self.extensions))

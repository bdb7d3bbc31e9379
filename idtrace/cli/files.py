"""Files that the command line writes and reads: signed statements and bundles.

A file of signed statements is JSON, with each statement in the shape that it has in a bundle::

    {"format": "idtrace-signed/v1", "statements": [{"payload_type": …, "payload": …, "signatures": […]}, …]}
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from idtrace.bundle import BUNDLE_BYTES_MAX, Bundle, signed_from_fields, signed_to_json
from idtrace.canonical import Fields
from idtrace.errors import InputError, Reason
from idtrace.signature import Kind, Signed
from idtrace.wire import bundle_from_bytes, bundle_to_bytes

SIGNED_FORMAT: Final = "idtrace-signed/v1"
# 16 keys with three roles each (registry/delegating.py) in one file of enrolments.
STATEMENTS_MAX: Final = 48


def write_signed(path: Path, statements: Sequence[Signed]) -> None:
    """Write a file of signed statements, replacing an older one in one step."""
    body = {"format": SIGNED_FORMAT, "statements": [signed_to_json(signed) for signed in statements]}
    replace_file(path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode())


def read_signed(path: Path, kind: Kind) -> tuple[Signed, ...]:
    """Read a file of signed statements of one kind. They prove nothing until somebody verifies them.

    Raises:
        InputError: FIELD_MALFORMED or a field's own reason; the field begins with the file.
    """
    fields = read_form(path, SIGNED_FORMAT, f"this is not a file of signed statements ({SIGNED_FORMAT})")
    items = fields.objects("statements", least=1, most=STATEMENTS_MAX)
    fields.end()
    statements = tuple(signed_from_fields(item) for item in items)
    for position, signed in enumerate(statements):
        if signed.payload_type != kind.payload_type:
            rule = f"expected {kind.payload_type}, found {signed.payload_type}"
            raise InputError(Reason.PAYLOAD_TYPE_UNKNOWN, rule, field=f"{path}.statements[{position}]")
    return statements


def read_form(path: Path, name: str, otherwise: str) -> Fields:
    """Fields of a JSON file whose ``format`` is this name; ``otherwise`` says what it is not, and how to make one.

    Raises:
        InputError: FIELD_MALFORMED; the field is the file.
    """
    try:
        body = json.loads(read_file(path))
    except (ValueError, RecursionError):
        raise InputError(Reason.FIELD_MALFORMED, "this is not a JSON file", field=str(path)) from None
    if not isinstance(body, dict) or body.get("format") != name:
        raise InputError(Reason.FIELD_MALFORMED, otherwise, field=str(path))
    fields = Fields(body, str(path))
    fields.text("format", most=64)
    return fields


def read_bundle(path: Path) -> Bundle:
    """Read a bundle in either form; the JSON one begins with a brace, which no binary one can.

    Raises:
        InputError: BUNDLE_MALFORMED, BUNDLE_DIGEST or a part's own reason.
    """
    data = read_file(path)
    if not data.startswith(b"{"):
        return bundle_from_bytes(data)
    try:
        return Bundle.from_json(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InputError(Reason.BUNDLE_MALFORMED, "the bundle is not UTF-8", field="bundle") from None


def write_bundle(path: Path, bundle: Bundle) -> str:
    """Write a bundle, as JSON where the name ends in .json and in the binary form otherwise; tells which."""
    as_json = path.suffix == ".json"
    replace_file(path, bundle.to_json().encode() if as_json else bundle_to_bytes(bundle))
    return "JSON" if as_json else "binary"


def read_file(path: Path, most: int = BUNDLE_BYTES_MAX) -> bytes:
    """Bytes of a file of at most ``most`` bytes.

    Raises:
        InputError: FIELD_TOO_LARGE.
        OSError: as the file system says.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(Reason.FIELD_TOO_LARGE, f"the file has more than {most} bytes", field=str(path))
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a reader sees the old one or the new one, never half of either."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - Path cannot open a descriptor
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""The file that pins the root: public keys as somebody got them by hand, or those and the updates that followed.

Public keys in PEM form (``root.pub``) are version 1, as they always were. What ``idtrace key root-update`` writes is
JSON, and keeps the keys that were pinned first and every update since, so that whoever reads it goes through them again
and proofs of earlier years can be verified as of their time (:mod:`idtrace.rootkeys`)::

    {"format": "idtrace-root/v1", "pinned": ["ed25519:…"], "updates": [{"payload_type": …, "payload": …, …}, …]}

Whoever can write the file decides what is trusted, in either form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from idtrace.bundle import signed_from_fields, signed_to_json
from idtrace.canonical import Fields
from idtrace.delegation import KEYS_MAX
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.record import TIME_MAX
from idtrace.rootkeys import UPDATES_MAX, RootKeys
from idtrace.serving.keyfile import load_public_keys
from idtrace.signature import PublicKey

ROOT_FORMAT: Final = "idtrace-root/v1"
# An update with 16 keys and 8 signatures has under 4 KiB, and there are 100 at most.
ROOT_FILE_BYTES_MAX: Final = 524_288


def load_root_keys(path: Path) -> RootKeys:
    """Read a file that pins the root, in either form; updates in it are verified again.

    Raises:
        InputError: KEY_MALFORMED (no such file, no key, an update that does not follow) or a field's own reason; the
            field begins with the file.
    """
    text = _json_of(path)
    if text is None:
        return RootKeys.pinned(load_public_keys(path))
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _bad(path, "this is neither a file of public keys nor one that idtrace key root-update wrote") from None
    fields = Fields(body, str(path))
    if fields.text("format", most=64) != ROOT_FORMAT:
        raise _bad(path, f"the format is not {ROOT_FORMAT}")
    texts = fields.texts("pinned", least=1, most=KEYS_MAX)
    keys = [PublicKey.parse(text, field=fields.path(f"pinned[{n}]")) for n, text in enumerate(texts)]
    updates = [signed_from_fields(item) for item in fields.objects("updates", most=UPDATES_MAX)]
    fields.end()
    if len(set(keys)) != len(keys):
        raise _bad(path, "the same key stands twice")
    try:
        # Whoever wrote the file has compared the times with his clock; one that is behind stops no node.
        return RootKeys.pinned(keys).updated_by(updates, now=TIME_MAX)
    except VerificationError as error:
        raise _bad(path, f"an update does not hold: {error.detail}") from None


def root_file(keys: RootKeys) -> bytes:
    """The file that :func:`load_root_keys` reads back."""
    body = {
        "format": ROOT_FORMAT,
        "pinned": [str(key) for key in keys.versions[0].keys],
        "updates": [signed_to_json(signed) for signed in keys.updates],
    }
    return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode()


def _json_of(path: Path) -> str | None:
    """The text of a file that begins with a brace; None for any other, whose errors are those of a key file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            if file.read(1) != b"{":
                return None
            data = b"{" + file.read(ROOT_FILE_BYTES_MAX)
    except OSError as error:
        raise _bad(path, f"the file cannot be read: {error.strerror}") from None
    if len(data) > ROOT_FILE_BYTES_MAX:
        raise _bad(path, f"a file of root keys has at most {ROOT_FILE_BYTES_MAX} bytes")
    return data.decode("utf-8", "replace")


def _bad(path: Path, rule: str) -> InputError:
    return InputError(Reason.KEY_MALFORMED, rule, field=str(path))

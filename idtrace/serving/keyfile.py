"""Keys on disk: a private key that only its owner can read, and public keys that anyone can.

Private: PKCS#8 PEM, encrypted where there is a passphrase. Public: one or more SubjectPublicKeyInfo PEM blocks (RFC
7468, RFC 8410), so OpenSSL reads both. What comes back is a :class:`Signer`; a hardware module takes its place by
having the same two members. Every complaint names the file as its ``field``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from idtrace.delegation import KEYS_MAX
from idtrace.errors import InputError, Reason, quoted
from idtrace.signature import MemorySigner, PublicKey

Passphrase = Callable[[], bytes] | bytes

# An encrypted ed25519 key has some 400 bytes and a public one 113; more is a file named by mistake.
KEY_FILE_BYTES_MAX: Final = 16_384
# OpenSSL's and ssh's own bound; longer ones come from a file piped in by mistake.
PASSPHRASE_BYTES_MAX: Final = 1_023

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?\r?\n-----END \1-----", re.DOTALL)


def write_private_key(path: Path, private: Ed25519PrivateKey, passphrase: bytes | None = None) -> None:
    """Create a key file of mode 0600; an existing file is never touched, and a failed write leaves none behind.

    Raises:
        InputError: FIELD_MALFORMED where the file exists or cannot be written, or the passphrase is unusable.
    """
    if passphrase is not None and not 0 < len(passphrase) <= PASSPHRASE_BYTES_MAX:
        rule = f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes"
        raise InputError(Reason.FIELD_MALFORMED, rule, field="passphrase")
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    create_file(path, pem, 0o600)


def write_public_key(path: Path, keys: Sequence[PublicKey]) -> None:
    """Create a file with one PEM block a key; an existing file is never touched.

    Raises:
        InputError: FIELD_MALFORMED where the file exists or cannot be written.
    """
    assert keys, "a file of no keys says nothing"
    pem = b"".join(
        Ed25519PublicKey.from_public_bytes(key.raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for key in keys
    )
    create_file(path, pem, 0o644)


def load_signer(path: Path, passphrase: Passphrase | None = None) -> MemorySigner:
    """Read a private key file that nobody else can read.

    Args:
        path: the file.
        passphrase: bytes, or a function that is called only if the key is encrypted (so nobody is asked in vain).

    Raises:
        InputError: KEY_MALFORMED (other users can read it, no such file, no key, not ed25519, passphrase missing or
            wrong) or KEY_LOW_ORDER; ``field`` is the file.
    """
    data = _read(path, secret=True)
    kinds = _kinds(data)
    if kinds not in ([b"PRIVATE KEY"], [b"ENCRYPTED PRIVATE KEY"]):
        raise _bad(path, "this is not a PKCS#8 private key in PEM form; make one with: idtrace key new FILE")
    private = _decrypted(path, data, passphrase, encrypted=kinds == [b"ENCRYPTED PRIVATE KEY"])
    if not isinstance(private, Ed25519PrivateKey):
        raise _bad(path, "the key is not an ed25519 key")
    try:
        return MemorySigner(private)
    except InputError as error:
        raise InputError(error.reason, error.detail, field=str(path)) from None


def load_public_keys(path: Path) -> tuple[PublicKey, ...]:
    """Read one or more public keys, in the order of the file.

    Raises:
        InputError: KEY_MALFORMED (a private key, no key, not ed25519, the same key twice, too many) or KEY_LOW_ORDER;
            ``field`` is the file.
    """
    data = _read(path, secret=False)
    blocks = list(_BLOCK.finditer(data))
    if any(b"PRIVATE KEY" in block[1] for block in blocks):
        raise _bad(path, "this is a PRIVATE key; name the .pub file, and show this one to nobody")
    if not blocks or any(block[1] != b"PUBLIC KEY" for block in blocks):
        raise _bad(path, "these are not public keys in PEM form (-----BEGIN PUBLIC KEY-----)")
    if len(blocks) > KEYS_MAX:
        raise _bad(path, f"{len(blocks)} keys are more than {KEYS_MAX}")
    keys = tuple(_public_key(path, block[0]) for block in blocks)
    if len(set(keys)) != len(keys):
        raise _bad(path, "the same key stands twice")
    return keys


def _public_key(path: Path, pem: bytes) -> PublicKey:
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise _bad(path, "a PEM block is damaged or of an unknown algorithm") from None
    if not isinstance(public, Ed25519PublicKey):
        raise _bad(path, "a key is not an ed25519 key")
    return PublicKey.of(public.public_bytes_raw(), field=str(path))


def _decrypted(path: Path, data: bytes, passphrase: Passphrase | None, *, encrypted: bool) -> object:
    secret: bytes | None = None
    if encrypted:
        secret = passphrase() if callable(passphrase) else passphrase
        if not secret:
            raise _bad(path, "the key is encrypted, and no passphrase was given")
    try:
        return serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        wrong = "the passphrase is wrong, or the file is damaged" if encrypted else "the file is damaged"
        raise _bad(path, wrong) from None


def _kinds(data: bytes) -> list[bytes]:
    """What a file holds, by the names of its PEM blocks."""
    return [match[1] for match in _BLOCK.finditer(data)]


def _bad(path: Path, rule: str) -> InputError:
    return InputError(Reason.KEY_MALFORMED, rule, field=str(path))


def load_secret(path: Path, *, least: int) -> bytes:
    """Read a file of secret bytes that nobody else can read, such as ``head -c 32 /dev/urandom`` makes.

    Raises:
        InputError: KEY_MALFORMED (other users can read it, no such file, fewer than ``least`` bytes, or more than a key
            file has); ``field`` is the file.
    """
    data = _read(path, secret=True)
    if len(data) < least:
        raise _bad(path, f"a shared key has at least {least} bytes")
    return data


def _read(path: Path, *, secret: bool) -> bytes:
    """Bytes of a regular file; permissions are taken from the open file, so nothing can be swapped in between."""
    try:
        # Without O_NONBLOCK, opening a named pipe that nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - Path cannot open a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _bad(path, "this is not a regular file")
            data = file.read(KEY_FILE_BYTES_MAX + 1)
            if secret:
                # First: whoever names the public key would else be told to hide it, and go on with the wrong file.
                if set(_kinds(data)) == {b"PUBLIC KEY"}:
                    raise _bad(path, "this is a public key; the private one is needed, usually the file without .pub")
                _require_private(path, status)
    except OSError as error:
        raise _bad(path, f"the file cannot be read: {error.strerror}") from None
    if len(data) > KEY_FILE_BYTES_MAX:
        raise _bad(path, f"a key file has at most {KEY_FILE_BYTES_MAX} bytes")
    return data


def _require_private(path: Path, status: os.stat_result) -> None:
    """Refuse a private key that other users can use.

    A file that root owns may be readable by the group of a process that is not root: that is how Kubernetes hands a
    mounted secret to a pod, and PostgreSQL draws the same line for its server key.
    """
    mode = stat.S_IMODE(status.st_mode)
    forbidden = 0o027 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if mode & forbidden:
        hint = f"chmod 600 {quoted(str(path))}"
        raise _bad(path, f"other users can use this private key (mode {mode:04o}); make it yours alone: {hint}")


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Create a file of this mode, durably; an existing one is never touched, and a failed write leaves none behind.

    Raises:
        InputError: FIELD_MALFORMED where the file exists or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise InputError(Reason.FIELD_MALFORMED, "the file exists and is not overwritten", field=str(path)) from None
    except OSError as error:
        detail = f"the file cannot be written: {error.strerror}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field=str(path)) from None
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - Path cannot open a descriptor
            os.fchmod(file.fileno(), mode)  # whatever the umask says
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        detail = f"the file cannot be written: {error.strerror}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field=str(path)) from None


def _sync_directory(directory: Path) -> None:
    """Make the new name durable too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

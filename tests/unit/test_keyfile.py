"""Keys on disk: nobody else can read the private ones, nothing is overwritten, and every wrong file is named."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from idtrace.delegation import KEYS_MAX
from idtrace.errors import InputError, Reason
from idtrace.serving import keyfile
from idtrace.serving.keyfile import (
    load_public_keys,
    load_secret,
    load_signer,
    write_private_key,
    write_public_key,
)
from idtrace.signature import PublicKey
from tests.core_fixtures import LOW_ORDER, public

SPKI_HEAD = bytes.fromhex("302a300506032b6570032100")


def private_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"7" * 32)


def refused(action: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        action()
    return caught.value


def pem(label: str, der: bytes) -> str:
    import base64

    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n"


def test_a_key_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_private_key(tmp_path / "k", private_key(), None)
    signer = load_signer(tmp_path / "k")
    assert signer.public_key == PublicKey.of(private_key().public_key().public_bytes_raw())


def test_an_encrypted_key_needs_its_passphrase_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_private_key(path, private_key(), b"open sesame")
    assert b"ENCRYPTED" in path.read_bytes()
    assert load_signer(path, b"open sesame").public_key.raw == private_key().public_key().public_bytes_raw()
    assert load_signer(path, lambda: b"open sesame").public_key.key_id
    for passphrase in (None, b"", b"wrong", lambda: b"wrong", lambda: b""):
        error = refused(partial(load_signer, path, passphrase))
        assert (error.reason, error.field) == (Reason.KEY_MALFORMED, str(path))
        assert "passphrase" in error.detail


def test_nobody_is_asked_for_the_passphrase_of_an_open_key(tmp_path: Path) -> None:
    write_private_key(tmp_path / "k", private_key(), None)

    def ask() -> bytes:
        raise AssertionError("asked in vain")

    assert load_signer(tmp_path / "k", ask).public_key.key_id


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_file_is_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_private_key(tmp_path / "k", private_key(), None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600


def test_an_existing_file_is_never_overwritten_nor_a_link_followed(tmp_path: Path) -> None:
    taken, link = tmp_path / "taken", tmp_path / "link"
    taken.write_text("precious")
    link.symlink_to(tmp_path / "elsewhere")
    for path in (taken, link):
        assert "not overwritten" in refused(partial(write_private_key, path, private_key(), None)).detail
        assert refused(partial(write_public_key, path, [public("a")])).field == str(path)
    assert taken.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1_024])
def test_an_unusable_passphrase_writes_nothing(tmp_path: Path, passphrase: bytes) -> None:
    error = refused(lambda: write_private_key(tmp_path / "k", private_key(), passphrase))
    assert error.field == "passphrase"
    assert not (tmp_path / "k").exists()


def test_a_failed_write_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(lambda: write_private_key(tmp_path / "k", private_key(), None)).detail
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_answer_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "none" / "k"
    for action in (
        lambda: write_private_key(path, private_key(), None),
        lambda: load_signer(path),
        lambda: load_public_keys(path),
    ):
        assert "No such file" in refused(action).detail


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o666, 0o601])
def test_a_private_key_that_others_can_use_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k"
    write_private_key(path, private_key(), None)
    path.chmod(mode)
    error = refused(lambda: load_signer(path))
    assert error.reason is Reason.KEY_MALFORMED
    assert "chmod 600" in error.detail


@pytest.mark.parametrize(
    ("mode", "owner", "runs_as", "accepted"),
    [
        (0o440, 0, 1000, True),  # a secret that Kubernetes mounts for a group
        (0o640, 0, 1000, True),
        (0o660, 0, 1000, False),
        (0o644, 0, 1000, False),
        (0o440, 1000, 1000, False),
        (0o440, 0, 0, False),
        (0o400, 1000, 1000, True),
    ],
)
def test_a_group_may_read_only_what_root_lends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, mode: int, owner: int, runs_as: int, accepted: bool
) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: runs_as)
    if accepted:
        keyfile._require_private(tmp_path, status)
    else:
        refused(lambda: keyfile._require_private(tmp_path, status))


def test_what_is_no_regular_file_is_refused_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "regular" in refused(lambda: load_signer(tmp_path / "pipe")).detail
    for load in (load_signer, load_public_keys):
        assert refused(partial(load, tmp_path)).field == str(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"x" * (keyfile.KEY_FILE_BYTES_MAX + 1))
    assert "at most" in refused(lambda: load_public_keys(tmp_path / "k")).detail


def other_private(kind: str) -> bytes:
    key = x25519.X25519PrivateKey.generate() if kind == "x25519" else ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        other_private("x25519"),
        other_private("p256"),
    ],
)
def test_what_is_no_ed25519_private_key_is_refused_by_the_files_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    path.chmod(0o600)
    error = refused(lambda: load_signer(path, b"x"))
    assert (error.reason, error.field) == (Reason.KEY_MALFORMED, str(path))


def test_two_private_keys_in_one_file_are_not_guessed_between(tmp_path: Path) -> None:
    write_private_key(tmp_path / "a", private_key(), None)
    path = tmp_path / "k"
    path.write_bytes((tmp_path / "a").read_bytes() * 2)
    path.chmod(0o600)
    refused(lambda: load_signer(path))


def test_the_public_file_given_for_the_private_one_is_said_so(tmp_path: Path) -> None:
    for name, keys, mode in (("k", "a", 0o600), ("open", "a", 0o644), ("several", "ab", 0o644)):
        path = tmp_path / f"{name}.pub"
        write_public_key(path, [public(key) for key in keys])
        path.chmod(mode)
        for load in (load_signer, partial(load_secret, least=32)):
            detail = refused(partial(load, path)).detail
            assert "this is a public key" in detail
            assert "chmod" not in detail  # hidden from others it would be the wrong file still


def test_the_private_file_given_for_the_public_one_is_said_so(tmp_path: Path) -> None:
    write_private_key(tmp_path / "open", private_key(), None)
    write_private_key(tmp_path / "shut", private_key(), b"x")
    for name in ("open", "shut"):
        assert "PRIVATE key" in refused(partial(load_public_keys, tmp_path / name)).detail


def test_several_public_keys_keep_their_order_and_text_between_them_is_ignored(tmp_path: Path) -> None:
    keys = [public("b"), public("a"), public("c")]
    write_public_key(tmp_path / "k", keys)
    assert load_public_keys(tmp_path / "k") == tuple(keys)
    blocks = (tmp_path / "k").read_text().split("-----END PUBLIC KEY-----\n")
    (tmp_path / "k").write_text("# ours\n" + "-----END PUBLIC KEY-----\n# next\n".join(blocks))
    assert load_public_keys(tmp_path / "k") == tuple(keys)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o644


@pytest.mark.parametrize("raw", LOW_ORDER, ids=lambda raw: raw.hex()[:8])
def test_a_public_key_of_low_order_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "k"
    path.write_text(pem("PUBLIC KEY", SPKI_HEAD + raw))
    error = refused(lambda: load_public_keys(path))
    assert (error.reason, error.field) == (Reason.KEY_LOW_ORDER, str(path))


def spki(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        pem("PUBLIC KEY", SPKI_HEAD + b"short"),
        spki(ec.generate_private_key(ec.SECP256R1()).public_key()),
        "".join(pem("PUBLIC KEY", SPKI_HEAD + public("a").raw) for _ in range(2)),
        "".join(pem("PUBLIC KEY", SPKI_HEAD + public(f"key {n}").raw) for n in range(KEYS_MAX + 1)),
    ],
    ids=["empty", "certificate", "short", "p256", "twice", "too many"],
)
def test_what_is_no_list_of_ed25519_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k"
    path.write_text(content)
    assert refused(lambda: load_public_keys(path)).reason is Reason.KEY_MALFORMED


def test_openssl_form_is_what_is_written(tmp_path: Path) -> None:
    write_public_key(tmp_path / "k", [public("a")])
    assert (tmp_path / "k").read_text() == pem("PUBLIC KEY", SPKI_HEAD + public("a").raw)

"""Keys and signatures: the official vectors hold, and no byte of what is signed can change its meaning."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from idtrace import signature
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.signature import (
    SIGNATURES_MAX,
    Algorithm,
    CheckBudget,
    Kind,
    MemorySigner,
    PublicKey,
    SignatureMemory,
    Signed,
    framed,
    sign,
    signed_hash,
    valid,
    verify,
)
from tests.core_fixtures import LOW_ORDER, L, public, reason_of, signer, with_signature

R = Reason
A, B = public("a"), public("b")
P = 2**255 - 19
# RFC 8032 §7.1, tests 1 to 3: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("secret", "raw", "message", "expected"), RFC_8032)
def test_ed25519_is_that_of_rfc_8032(secret: str, raw: str, message: str, expected: str) -> None:
    ours = MemorySigner(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert ours.public_key.raw.hex() == raw
    assert ours.sign(bytes.fromhex(message)).hex() == expected
    assert valid(ours.public_key, bytes.fromhex(expected), bytes.fromhex(message))
    assert not valid(ours.public_key, bytes.fromhex(expected), bytes.fromhex(message) + b"\0")


@pytest.mark.parametrize(("secret", "raw", "message", "expected"), RFC_8032)
def test_a_signature_has_one_form(secret: str, raw: str, message: str, expected: str) -> None:
    key, good = PublicKey.of(bytes.fromhex(raw)), bytes.fromhex(expected)
    s = int.from_bytes(good[32:], "little")
    for times in range(1, 16):
        other = good[:32] + (s + times * L).to_bytes(32, "little") if s + times * L < 2**256 else b""
        assert not valid(key, other, bytes.fromhex(message))


def _is_on_curve(y: int) -> bool:
    d = -121665 * pow(121666, -1, P) % P
    x2 = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
    return pow(x2, (P - 1) // 2, P) in {0, 1}


def _times_eight_is_identity(y: int) -> bool:
    """Double a point three times by its y alone and see whether it ends in the identity (0, 1)."""
    d = -121665 * pow(121666, -1, P) % P
    for _ in range(3):
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        y = (y * y + x2) * pow(1 - d * x2 * y * y, -1, P) % P
    return y == 1


def test_the_fourteen_encodings_of_low_order_are_points_of_low_order() -> None:
    assert len(set(LOW_ORDER)) == 14
    for raw in LOW_ORDER:
        y = int.from_bytes(raw, "little") & (2**255 - 1)
        assert _is_on_curve(y % P)
        assert _times_eight_is_identity(y % P)


def test_the_code_knows_exactly_these_encodings() -> None:
    assert sorted(signature.LOW_ORDER) == sorted(LOW_ORDER)


@pytest.mark.parametrize("raw", LOW_ORDER, ids=bytes.hex)
def test_no_low_order_key_enrols(raw: bytes) -> None:
    assert reason_of(lambda: PublicKey.of(raw)) is R.KEY_LOW_ORDER
    text = f"ed25519:{base64.b64encode(raw).decode()}"
    assert reason_of(lambda: PublicKey.parse(text)) is R.KEY_LOW_ORDER


@pytest.mark.parametrize("y", range(P, 2**255))
@pytest.mark.parametrize("x_is_odd", [0, 1])
def test_no_key_outside_the_field_enrols(y: int, x_is_odd: int) -> None:
    raw = (y | x_is_odd << 255).to_bytes(32, "little")
    assert reason_of(lambda: PublicKey.of(raw)) in {R.KEY_MALFORMED, R.KEY_LOW_ORDER}


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_has_32_bytes(length: int) -> None:
    assert reason_of(lambda: PublicKey.of(b"\x09" * length)) is R.KEY_MALFORMED


ENCODED = base64.b64encode(A.raw).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENCODED, R.ALGORITHM_UNKNOWN),
        (f"rsa:{ENCODED}", R.ALGORITHM_UNKNOWN),
        (f"ED25519:{ENCODED}", R.ALGORITHM_UNKNOWN),
        ("", R.ALGORITHM_UNKNOWN),
        ("ed25519:", R.KEY_MALFORMED),
        (f"ed25519:{ENCODED[:-1]}", R.KEY_MALFORMED),
        (f"ed25519:{ENCODED}=", R.KEY_MALFORMED),
        (f"ed25519:{ENCODED}\n", R.KEY_MALFORMED),
        (f"ed25519: {ENCODED}", R.KEY_MALFORMED),
        (f"ed25519:{ENCODED[:-2]}{chr(ord(ENCODED[-2]) + 1)}=", R.KEY_MALFORMED),
        (f"ed25519:{A.raw.hex()}", R.KEY_MALFORMED),
        ("ed25519:é", R.KEY_MALFORMED),
        ("ed25519:\ud800", R.KEY_MALFORMED),
    ],
)
def test_a_key_has_one_spelling(text: str, reason: Reason) -> None:
    assert reason_of(lambda: PublicKey.parse(text)) is reason


def test_a_key_comes_back_from_its_text_with_the_same_id() -> None:
    assert PublicKey.parse(str(A)) == A
    named = b"idtrace/key/v1\0" + b"ed25519\0" + A.raw
    assert A.key_id == hashlib.sha256(named).hexdigest()[:32]
    assert A.key_id != B.key_id
    with pytest.raises(InputError) as caught:
        PublicKey.parse("x", field="zone.key")
    assert caught.value.field == "zone.key"


def test_what_is_signed_is_framed_as_documented() -> None:
    name = b"application/vnd.idtrace.record.v1+json"
    expected = b"idtrace/record/v1\0" + len(name).to_bytes(4, "big") + name + (2).to_bytes(8, "big") + b"{}"
    assert framed(Kind.RECORD, b"{}") == expected
    assert signed_hash(Kind.RECORD, b"{}") == hashlib.sha256(expected).digest()


def test_every_kind_has_its_own_domain_and_type() -> None:
    assert len({kind.domain for kind in Kind}) == len({kind.payload_type for kind in Kind}) == len(Kind)


@given(st.sampled_from(Kind), st.binary(max_size=40), st.sampled_from(Kind), st.binary(max_size=40))
def test_two_different_statements_never_share_their_bytes(one: Kind, a: bytes, other: Kind, b: bytes) -> None:
    assert (framed(one, a) == framed(other, b)) == ((one, a) == (other, b))


@pytest.mark.parametrize("signed_as", Kind)
@pytest.mark.parametrize("shown_as", Kind)
def test_a_signature_holds_for_its_own_kind_alone(signed_as: Kind, shown_as: Kind) -> None:
    signed = sign(signed_as, b"{}", signer("a"))
    shown = Signed(shown_as.payload_type, signed.payload, signed.signatures)
    reason = reason_of(lambda: verify(shown, shown_as, {A.key_id: A}, budget=CheckBudget(9)))
    assert reason is (None if signed_as is shown_as else R.SIGNATURE_INVALID)
    if signed_as is not shown_as:
        typed = reason_of(lambda: verify(signed, shown_as, {A.key_id: A}, budget=CheckBudget(9)))
        assert typed is R.PAYLOAD_TYPE_UNKNOWN


KEYS = {A.key_id: A, B.key_id: B}


@given(st.integers(0, 511))
def test_no_bit_of_a_signature_may_change(bit: int) -> None:
    signed = sign(Kind.RECORD, b"{}", signer("a"))
    raw = bytearray(signed.signatures[0].signature)
    raw[bit // 8] ^= 1 << bit % 8
    bent = with_signature(signed, bytes(raw))
    assert reason_of(lambda: verify(bent, Kind.RECORD, KEYS, budget=CheckBudget(9))) is R.SIGNATURE_INVALID


@pytest.mark.parametrize("raw", LOW_ORDER, ids=bytes.hex)
def test_no_signature_made_without_a_private_key_verifies_under_a_low_order_key(raw: bytes) -> None:
    weak = PublicKey(Algorithm.ED25519, raw, "weak")
    for r in LOW_ORDER:
        for message in range(8):
            assert not valid(weak, r + bytes(32), bytes([message]))


def test_every_signature_present_is_paid_for_and_checked() -> None:
    both = sign(Kind.RECORD, b"{}", signer("a"), signer("b"))
    budget = CheckBudget(2)
    verify(both, Kind.RECORD, KEYS, budget=budget, threshold=2)
    assert budget.left == 0
    with pytest.raises(VerificationError) as caught:
        verify(both, Kind.RECORD, KEYS, budget=budget)
    assert caught.value.reason is R.TOO_MUCH_CRYPTO


def test_a_flood_of_signatures_costs_no_check_at_all() -> None:
    one = sign(Kind.RECORD, b"{}", signer("a"))
    flood = Signed(one.payload_type, one.payload, one.signatures * (SIGNATURES_MAX + 1))
    budget = CheckBudget(100)
    assert reason_of(lambda: verify(flood, Kind.RECORD, KEYS, budget=budget)) is R.TOO_MANY_SIGNATURES
    unknown = sign(Kind.RECORD, b"{}", signer("c"))
    assert reason_of(lambda: verify(unknown, Kind.RECORD, KEYS, budget=budget)) is R.SIGNER_UNKNOWN
    assert budget.left == 100
    twice = Signed(one.payload_type, one.payload, one.signatures * 2)
    assert reason_of(lambda: verify(twice, Kind.RECORD, KEYS, budget=budget)) is R.SIGNER_UNKNOWN
    assert budget.left == 99


def test_refusals_name_the_field() -> None:
    with pytest.raises(VerificationError) as caught:
        verify(Signed("x", b"", ()), Kind.RECORD, KEYS, budget=CheckBudget(1), field="delegation[2]")
    assert caught.value.field == "delegation[2]"


def test_a_memory_forgets_the_oldest_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignatureMemory, "MOST", 2)
    memory = SignatureMemory()
    for digest in (b"1", b"2", b"2", b"3"):
        memory.add(digest)
    assert [digest in memory for digest in (b"1", b"2", b"3")] == [False, True, True]


@pytest.mark.parametrize(("kind", "checks"), [(Kind.SEAL, 1), (Kind.DELEGATION, 1), (Kind.RECORD, 2), (Kind.DENIAL, 2)])
def test_what_comes_again_and_again_is_checked_once_and_anything_else_each_time(kind: Kind, checks: int) -> None:
    ours = signer("ours")
    keys = {ours.public_key.key_id: ours.public_key}
    budget = CheckBudget(2, SignatureMemory())
    for _ in range(2):
        verify(sign(kind, b"{}", ours), kind, keys, budget=budget)
    assert budget.left == 2 - checks


def test_a_memory_believes_no_other_bytes_no_other_key_and_nothing_that_was_false() -> None:
    ours, others = signer("ours"), signer("others")
    sound = sign(Kind.SEAL, b"{}", ours)
    raw = sound.signatures[0].signature
    memory = SignatureMemory()

    def told(signed: Signed, key: PublicKey) -> Reason | None:
        keys = {sound.signatures[0].key_id: key}
        return reason_of(lambda: verify(signed, Kind.SEAL, keys, budget=CheckBudget(1, memory)))

    assert told(sound, ours.public_key) is None
    lies = [
        (replace(sound, payload=b"{ }"), ours.public_key),
        (sound, others.public_key),
        (with_signature(sound, bytes([*raw[:-1], raw[-1] ^ 1])), ours.public_key),
        (with_signature(sound, raw + b"\0"), ours.public_key),
    ]
    for _ in range(2):
        assert [told(*lie) for lie in lies] == [Reason.SIGNATURE_INVALID] * len(lies)
    assert told(sound, ours.public_key) is None

"""Lies about batch seals, log proofs and currency statements: each is refused for its own reason; and random ones.

The other lies stand in ``test_lie_matrix.py`` and the files that it names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace import wire
from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.chain import CHECKS_MAX
from idtrace.entry import EntryKind, UnderSeal
from idtrace.errors import IdtraceError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import LogProof
from idtrace.note import Note
from idtrace.record import Record, Sealed, Status
from idtrace.signature import Kind, Signed, sign
from tests.core_fixtures import (
    ITEM,
    NOW,
    ZONE,
    Lie,
    delegate,
    denial,
    links,
    reason_of,
    record,
    report,
    revocation,
    signer,
    with_last,
    with_signature,
)
from tests.log_fixtures import witness_signer
from tests.logged_fixtures import (
    CURRENT,
    HERE,
    LOG,
    OWNER,
    SIZE,
    currency_of,
    ending,
    log_signer,
    logged_bundle,
    logged_chain,
    proof_of,
    sealed_records,
)

R = Reason
BATCH = sealed_records()
FIRST, SECOND = BATCH[:2]
THIEF = "thief"


def under_seal(of: Record = FIRST, **changes: Any) -> Bundle:
    """A record under a seal, whose place is another than it was."""
    assert of.sealed is not None
    return logged_bundle(replace(of, sealed=replace(of.sealed, **changes)), proof=None, currency=None)


def sealed_otherwise(change: Callable[[Signed], Signed]) -> Bundle:
    assert FIRST.sealed is not None
    return under_seal(seal=change(FIRST.sealed.seal))


def with_record(change: Callable[[Record], Record]) -> Bundle:
    return logged_bundle(change(FIRST), proof=None, currency=None)


def with_proof(**changes: Any) -> Bundle:
    return logged_bundle(proof=replace(proof_of(record()), **changes))


def proved(of: Record | None = None, **changes: Any) -> Bundle:
    """The proof is about an entry that says something else of the record, or that another key has signed."""
    shown = record() if of is None else of
    return logged_bundle(shown, proof=proof_of(shown, **changes))


def proof_for(other: Record) -> Bundle:
    return logged_bundle(proof=proof_of(other))


def current(of: Record | None = None, **changes: Any) -> Bundle:
    return logged_bundle(currency=currency_of(of or record(), **changes))


def shifted() -> Bundle:
    """A genuine proof under the index of its neighbour."""
    sound = proof_of(record())
    return logged_bundle(proof=replace(sound, index=sound.index - 1))


def noted(change: Callable[[Note], Note]) -> Bundle:
    sound = proof_of(record())
    return logged_bundle(proof=replace(sound, checkpoint=change(Note.parse(sound.checkpoint)).encode()))


def by_ended_key(until: int, index: int, **changes: Any) -> Bundle:
    shown = record()
    given: dict[str, Any] = {"proof": proof_of(shown, index, index + 1), "currency": None} | changes
    return logged_bundle(shown, delegations=logged_chain(ending(until)), **given)


def sealed_by_ended_key(until: int, index: int) -> Bundle:
    chain = logged_chain(ending(until))
    return logged_bundle(FIRST, delegations=chain, proof=proof_of(FIRST, index, index + 1), currency=None)


OTHER = record(Identifier.parse(f"{ZONE}/SN-0002"))
NEXT = record(version=2, previous=record().hash, status=Status.RECALLED)

SEALS = [
    Lie("seal by a thief", R.SIGNER_UNKNOWN, lambda: with_record(lambda _: sealed_records(by=THIEF)[0])),
    Lie(
        "seal by the node key", R.SIGNER_UNKNOWN, lambda: with_record(lambda _: sealed_records(by=f"node of {ZONE}")[0])
    ),
    Lie("another zone's seal", R.SEAL_WRONG_ZONE, lambda: with_record(lambda _: sealed_records(zone="88.118.9")[0])),
    Lie(
        "seal from the future",
        R.RECORD_FROM_FUTURE,
        lambda: with_record(lambda _: sealed_records(issued_at=NOW + 31)[0]),
    ),
    Lie("place of a neighbour", R.SEAL_PATH, lambda: under_seal(position=1)),
    Lie("place beyond the batch", R.SEAL_PATH, lambda: under_seal(position=5)),
    Lie("path of a neighbour", R.SEAL_PATH, lambda: under_seal(path=SECOND.sealed.path if SECOND.sealed else ())),
    Lie("path cut", R.SEAL_PATH, lambda: under_seal(path=FIRST.sealed.path[:-1] if FIRST.sealed else ())),
    Lie("no path", R.SEAL_PATH, lambda: under_seal(path=())),
    Lie(
        "record that was not in the batch",
        R.SEAL_PATH,
        lambda: with_record(lambda r: replace(r, signed=replace(OTHER.signed, signatures=()))),
    ),
    Lie(
        "record changed under its seal",
        R.SEAL_PATH,
        lambda: with_record(
            lambda r: replace(r, signed=replace(r.signed, payload=r.signed.payload.replace(b"active", b"recalled")))
        ),
    ),
    Lie(
        "seal and signature", R.PAYLOAD_TYPE_UNKNOWN, lambda: with_record(lambda r: replace(r, signed=record().signed))
    ),
    Lie(
        "seal over another type",
        R.PAYLOAD_TYPE_UNKNOWN,
        lambda: with_record(lambda r: replace(r, signed=replace(r.signed, payload_type="text/plain"))),
    ),
    Lie("seal without a signature", R.SIGNATURE_MISSING, lambda: sealed_otherwise(lambda s: replace(s, signatures=()))),
    Lie(
        "seal's bytes changed",
        R.SIGNATURE_INVALID,
        lambda: sealed_otherwise(lambda s: replace(s, payload=s.payload.replace(b'"size":5', b'"size":6'))),
    ),
    Lie("record's signature as a seal", R.PAYLOAD_TYPE_UNKNOWN, lambda: sealed_otherwise(lambda _: record().signed)),
    Lie(
        "seal's body signed as a record",
        R.SIGNATURE_INVALID,
        lambda: sealed_otherwise(
            lambda s: replace(sign(Kind.RECORD, s.payload, signer(OWNER)), payload_type=s.payload_type)
        ),
    ),
    Lie(
        "seal that is none",
        R.FIELD_MALFORMED,
        lambda: sealed_otherwise(lambda _: sign(Kind.SEAL, b"junk", signer(OWNER))),
    ),
    Lie("neither seal nor signature", R.SIGNATURE_MISSING, lambda: with_record(lambda r: replace(r, sealed=None))),
]

PROOFS = [
    Lie("proof of another record", R.PROOF_INVALID, lambda: proof_for(OTHER)),
    Lie("proof of another version", R.PROOF_INVALID, lambda: proof_for(NEXT)),
    Lie("proof of another kind of entry", R.PROOF_INVALID, lambda: proved(kind=EntryKind.COMMAND)),
    Lie("proof in another zone's name", R.PROOF_INVALID, lambda: proved(zone=Prefix.parse("88.118"))),
    Lie("proof of the record under a seal", R.PROOF_INVALID, lambda: proved(by=UnderSeal(bytes(32), 0))),
    Lie("proof of the record under another seal", R.PROOF_INVALID, lambda: proved(FIRST, by=UnderSeal(bytes(32), 0))),
    Lie(
        "proof of the record at another place",
        R.PROOF_INVALID,
        lambda: proved(FIRST, by=UnderSeal(FIRST.sealed.hash if FIRST.sealed else b"", 1)),
    ),
    Lie(
        "proof with another time of commit",
        R.PROOF_INVALID,
        lambda: with_proof(head=proof_of(record()).head.replace(b"1900000000", b"1900000001")),
    ),
    Lie("proof under a neighbour's index", R.PROOF_INVALID, shifted),
    Lie("proof beyond the tree", R.PROOF_INVALID, lambda: with_proof(index=SIZE)),
    Lie("proof at index 2**64 - 1", R.PROOF_INVALID, lambda: with_proof(index=2**64 - 1)),
    Lie("proof with a cut path", R.PROOF_INVALID, lambda: with_proof(path=proof_of(record()).path[:-1])),
    Lie("proof with a longer path", R.PROOF_INVALID, lambda: with_proof(path=(*proof_of(record()).path, bytes(32)))),
    Lie("proof with half a hash", R.PROOF_INVALID, lambda: with_proof(path=(bytes(16), *proof_of(record()).path[1:]))),
    Lie("proof with a path of another tree", R.PROOF_INVALID, lambda: with_proof(path=(bytes(32),) * 3)),
    Lie("proof without a head", R.ENTRY_MALFORMED, lambda: with_proof(head=b"")),
    Lie("proof with a note that is none", R.NOTE_MALFORMED, lambda: with_proof(checkpoint=b"junk")),
    Lie(
        "proof in another log",
        R.LOG_UNKNOWN,
        lambda: proved(origin="log.example/88.118", signers=[log_signer(origin="log.example/88.118")]),
    ),
    Lie("proof where the zone has no log", R.LOG_UNKNOWN, lambda: logged_bundle(delegations=links(), currency=None)),
    Lie(
        "checkpoint by a thief",
        R.SIGNATURE_INVALID,
        lambda: noted(
            lambda n: replace(
                n, signatures=(replace(log_signer().sign(n.text), value=log_signer(THIEF).sign(n.text).value),)
            )
        ),
    ),
    Lie("checkpoint by a thief's own key", R.SIGNER_UNKNOWN, lambda: proved(signers=[log_signer(THIEF)])),
    Lie("checkpoint by the node key", R.SIGNER_UNKNOWN, lambda: proved(signers=[log_signer(f"node of {ZONE}")])),
    Lie("checkpoint by a witness alone", R.SIGNER_UNKNOWN, lambda: proved(signers=[witness_signer(1)])),
    Lie(
        "checkpoint of a larger tree",
        R.SIGNATURE_INVALID,
        lambda: noted(lambda n: replace(n, text=n.text.replace("\n7\n", "\n8\n"))),
    ),
    Lie(
        "checkpoint that is none",
        R.CHECKPOINT_MALFORMED,
        lambda: noted(lambda _: Note("x\n", (log_signer().sign("x\n"),))),
    ),
    Lie("ended key, logged too late", R.SIGNER_UNKNOWN, lambda: by_ended_key(3, 3)),
    Lie("ended key, no proof", R.SIGNER_UNKNOWN, lambda: by_ended_key(3, 2, proof=None)),
    Lie(
        "ended key, false proof",
        R.PROOF_INVALID,
        lambda: by_ended_key(3, 3, proof=replace(proof_of(record(), 3, 4), index=2)),
    ),
    Lie("seal by an ended key, logged too late", R.SIGNER_UNKNOWN, lambda: sealed_by_ended_key(3, 3)),
]

CURRENCY = [
    Lie("currency by a thief", R.SIGNER_UNKNOWN, lambda: current(by=THIEF)),
    Lie("currency by the node key beside a currency key", R.SIGNER_UNKNOWN, lambda: current(by=f"node of {ZONE}")),
    Lie("currency by the record key", R.SIGNER_UNKNOWN, lambda: current(by=OWNER)),
    Lie("currency of another record", R.CURRENCY_WRONG_RECORD, lambda: current(OTHER)),
    Lie("currency of another version", R.CURRENCY_WRONG_RECORD, lambda: current(NEXT)),
    Lie("currency of another content", R.CURRENCY_WRONG_RECORD, lambda: current(record_hash=bytes(32))),
    Lie("currency of another zone", R.CURRENCY_WRONG_RECORD, lambda: current(zone=Prefix.parse("88.118"))),
    Lie("currency of a log that lacks the record", R.CURRENCY_WRONG_RECORD, lambda: current(log_size=3)),
    Lie("currency for 61 s", R.CURRENCY_TOO_LONG, lambda: current(issued_at=NOW, expires=NOW + 61)),
    Lie("currency that ends early", R.CURRENCY_TOO_LONG, lambda: current(issued_at=NOW, expires=NOW - 1)),
    Lie(
        "currency without a signature",
        R.SIGNATURE_MISSING,
        lambda: logged_bundle(currency=replace(currency_of(record()), signatures=())),
    ),
    Lie(
        "currency's bytes changed",
        R.SIGNATURE_INVALID,
        lambda: logged_bundle(
            currency=replace(currency_of(record()), payload=currency_of(record(), log_size=9).payload)
        ),
    ),
    Lie("denial in place of currency", R.PAYLOAD_TYPE_UNKNOWN, lambda: logged_bundle(currency=denial(by=CURRENT))),
    Lie(
        "denial's signature over currency",
        R.SIGNATURE_INVALID,
        lambda: logged_bundle(
            currency=replace(
                sign(Kind.DENIAL, currency_of(record()).payload, signer(CURRENT)),
                payload_type=Kind.CURRENCY.payload_type,
            )
        ),
    ),
    Lie(
        "currency that is none",
        R.FIELD_MALFORMED,
        lambda: logged_bundle(currency=sign(Kind.CURRENCY, b"junk", signer(CURRENT))),
    ),
    Lie(
        "denial by the node key beside a currency key",
        R.SIGNER_UNKNOWN,
        lambda: logged_bundle(proof=None, currency=None, outcome=Denied(denial())),
    ),
    Lie(
        "denial with a proof",
        R.ANSWER_CONTRADICTS_ITSELF,
        lambda: logged_bundle(currency=None, outcome=Denied(denial(by=CURRENT))),
    ),
    Lie(
        "denial with currency",
        R.ANSWER_CONTRADICTS_ITSELF,
        lambda: logged_bundle(proof=None, outcome=Denied(denial(by=CURRENT))),
    ),
    Lie(
        "revocation with a proof",
        R.ANSWER_CONTRADICTS_ITSELF,
        lambda: Bundle(ITEM, with_last(delegate(revocation(ZONE))), Revoked(HERE), proof_of(record())),
    ),
]

LIES = [*SEALS, *PROOFS, *CURRENCY]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_lie_is_refused_for_its_own_reason(lie: Lie) -> None:
    assert reason_of(lie.told) is lie.reason


def test_each_lie_is_told_once() -> None:
    assert len({lie.name for lie in LIES}) == len(LIES)


def test_a_checkpoint_with_more_lines_by_log_keys_than_a_question_may_check_is_too_much() -> None:
    """The bytes of each are another's, so none is the same line twice; all but the first would be false."""
    sound = Note.parse(proof_of(record()).checkpoint)
    line = sound.signatures[0]
    many = tuple(replace(line, value=line.value[:-1] + bytes([n])) for n in range(CHECKS_MAX))
    lie = with_proof(checkpoint=replace(sound, signatures=(line, *many)).encode())
    assert reason_of(lambda: lie) is R.TOO_MUCH_CRYPTO


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_the_truth_about_seals_is_accepted(batch: int) -> None:
    first = sealed_records(batch)[0]
    for shown in (logged_bundle(first), logged_bundle(first, proof=None, currency=None)):
        assert report(shown).verdict is Verdict.FOUND
        assert wire.bundle_from_bytes(wire.bundle_to_bytes(shown)) == shown
        assert Bundle.from_json(shown.to_json()) == shown


def test_the_truth_about_logs_is_accepted() -> None:
    assert report(logged_bundle()).verdict is Verdict.FOUND
    assert report(proved(signers=[witness_signer(1), log_signer()])).verdict is Verdict.FOUND
    assert report(by_ended_key(3, 2)).verdict is Verdict.FOUND
    assert report(sealed_by_ended_key(3, 2)).verdict is Verdict.FOUND
    assert (
        report(logged_bundle(proof=None, currency=None, outcome=Denied(denial(by=CURRENT)))).verdict is Verdict.ABSENT
    )


SOUND = [logged_bundle(), logged_bundle(FIRST)]
BYTES = [wire.bundle_to_bytes(one) for one in SOUND]


@given(st.integers(0, 1), st.data())
def test_no_bit_of_a_bundle_can_change_unnoticed(which: int, data: st.DataObject) -> None:
    sound = BYTES[which]
    place = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(IdtraceError):
        wire.bundle_from_bytes(bytes(changed))


@pytest.mark.parametrize("spelled", ["zz" * 32, "0", "0 " * 32, "AB" * 32])
@pytest.mark.parametrize("where", ["proof", "seal"])
def test_a_hash_of_a_json_bundle_has_one_spelling(where: str, spelled: str) -> None:
    shown = logged_bundle(FIRST)
    assert FIRST.sealed is not None
    assert shown.proof is not None
    path = shown.proof.path if where == "proof" else FIRST.sealed.path
    text = shown.to_json().replace(path[0].hex(), spelled)
    with pytest.raises(IdtraceError) as caught:
        Bundle.from_json(text)
    assert caught.value.reason in {R.BUNDLE_MALFORMED, R.BUNDLE_DIGEST}


def parts(of: Bundle) -> list[Callable[[Callable[[bytes], bytes]], Bundle]]:
    """Ways to change one part of the proof, the currency statement or the seal, the digest made to fit."""
    proof, currency, shown = of.proof, of.currency, of.outcome
    assert isinstance(proof, LogProof)
    assert currency is not None
    assert isinstance(shown, Record)

    def proofs(**changes: Any) -> Bundle:
        return replace(of, proof=replace(proof, **changes))

    def seals(sealed: Sealed, **changes: Any) -> Bundle:
        return replace(of, outcome=replace(shown, sealed=replace(sealed, **changes)))

    ways: list[Callable[[Callable[[bytes], bytes]], Bundle]] = [
        lambda change: proofs(checkpoint=change(proof.checkpoint)),
        lambda change: proofs(head=change(proof.head)),
        *(
            lambda change, n=n: proofs(path=(*proof.path[:n], change(proof.path[n]), *proof.path[n + 1 :]))
            for n in range(len(proof.path))
        ),
        lambda change: replace(of, currency=replace(currency, payload=change(currency.payload))),
        lambda change: replace(of, currency=with_signature(currency, change(currency.signatures[0].signature))),
    ]
    if shown.sealed is not None:
        sealed = shown.sealed
        ways += [
            lambda change: seals(sealed, path=(change(sealed.path[0]), *sealed.path[1:])),
            lambda change: seals(sealed, seal=replace(sealed.seal, payload=change(sealed.seal.payload))),
            lambda change: seals(sealed, seal=with_signature(sealed.seal, change(sealed.seal.signatures[0].signature))),
        ]
    return ways


@given(st.integers(0, 1), st.data())
def test_no_part_that_is_changed_on_purpose_verifies(which: int, data: st.DataObject) -> None:
    way = data.draw(st.sampled_from(parts(SOUND[which])))

    def change(part: bytes) -> bytes:
        place = data.draw(st.integers(0, len(part) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "double"]))
        if how == "flip":
            flipped = part[place] ^ (1 << data.draw(st.integers(0, 7)))
            return part[:place] + bytes([flipped]) + part[place + 1 :]
        return part[:place] if how == "cut" else part[:place] + part[place : place + 1] + part[place:]

    assert report(way(change)).verdict is Verdict.BOGUS
    assert LOG in repr(SOUND[which])

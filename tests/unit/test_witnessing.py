"""A witness cosigns what follows from what it saw, says the right status to all else, and never goes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason
from idtrace.merkle import EMPTY_ROOT, consistency_plan, fold, hash_leaf
from idtrace.note import NOTE_BYTES_MAX, KeyType, Note, NoteKey, NoteSignature, open_note
from idtrace.witnessing import (
    REQUEST_BYTES_MAX,
    SIZE_TYPE,
    TEXT_TYPE,
    Accepted,
    AddCheckpoint,
    Refused,
    Seen,
    cosign,
    decide,
    malformed,
    read_cosignatures,
    read_seen_size,
)
from tests.log_fixtures import (
    NOW,
    checkpoint,
    leaves,
    log_signer,
    naive_root,
    note_signer,
    refusal,
    signed,
    stored_nodes,
    witness_signer,
)

# Log, key and requests of the tests of litewitness (filippo.io/torchwood). Its leaves are plain numbers, no hashes.
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = NoteKey.of(SIGSUM, bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f"))
FIRST = f"""old 0

{SIGSUM}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
TO_THREE = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {SIGSUM} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
TO_FIVE = f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {SIGSUM} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""
# The request of tlog-witness.md; its keys are not published, its form is.
SPECIFIED = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/\
5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+\
49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""
OTHER = hash_leaf(b"not in the log")
KEYS = [log_signer().key]


def request(old: int, new: int, proof: tuple[bytes, ...] | None = None) -> AddCheckpoint:
    """An honest request from one size to another."""
    honest = fold(consistency_plan(old, new), stored_nodes(64).__getitem__) if old <= new else ()
    return AddCheckpoint.of(old, honest if proof is None else proof, signed(checkpoint(new)))


def seen(size: int) -> Seen:
    return Seen(size, naive_root(leaves(size)))


def outcome(decision: Accepted | Refused) -> tuple[int, Reason | None]:
    return (200, None) if isinstance(decision, Accepted) else (decision.status, decision.reason)


def test_another_witnesses_examples_end_as_there() -> None:
    first = decide(AddCheckpoint.parse(FIRST.encode()), [SIGSUM_KEY], Seen())
    assert isinstance(first, Accepted)
    for body, size in ((TO_THREE, 3), (TO_FIVE, 5)):
        found = decide(AddCheckpoint.parse(body.encode()), [SIGSUM_KEY], first.after)
        assert isinstance(found, Accepted)
        assert (found.origin, found.before, found.after.size) == (SIGSUM, first.after, size)
        # The race of the specification: the other one has been stored in between, so this one starts from the past.
        again = decide(AddCheckpoint.parse(TO_THREE.encode()), [SIGSUM_KEY], found.after)
        assert outcome(again) == (409, Reason.CHECKPOINT_STALE)
    assert first.after.root == b"\x2a" + bytes(31)


@pytest.mark.parametrize("body", [FIRST, TO_THREE, TO_FIVE, SPECIFIED])
def test_requests_of_others_are_read_and_written(body: str) -> None:
    assert AddCheckpoint.parse(body.encode()).encode() == body.encode()


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (0, 9), (1, 1), (1, 2), (5, 8), (8, 13), (13, 13), (7, 64)])
def test_what_follows_from_what_was_seen_is_accepted_and_cosigned(old: int, new: int) -> None:
    asked = request(old, new)
    decision = decide(asked, KEYS, seen(old))
    assert decision == Accepted(asked.checkpoint.origin, seen(old), seen(new), asked.note)
    assert isinstance(decision, Accepted)
    witnesses = [witness_signer(1), witness_signer(1, KeyType.COSIGNATURE_ML_DSA_44)]
    answer = cosign(decision, witnesses, now=NOW)
    lines = read_cosignatures(answer, asked.note, [signer.key for signer in witnesses])
    found = open_note(asked.note.signed(*lines), [signer.key for signer in witnesses])
    assert [(one.key, one.timestamp_seconds) for one in found] == [(signer.key, NOW) for signer in witnesses]


def test_the_first_meeting_needs_no_proof_and_takes_none() -> None:
    assert outcome(decide(request(0, 7), KEYS, Seen())) == (200, None)
    assert outcome(decide(request(0, 7, (OTHER,)), KEYS, Seen())) == (422, Reason.PROOF_INVALID)


def test_each_way_to_be_wrong_has_its_status() -> None:
    stranger = replace(request(3, 7), note=signed(checkpoint(7), log=note_signer("log.example/other")))
    forged_line = NoteSignature(log_signer().key.name, log_signer().key.key_id, bytes(64))
    forged = replace(request(3, 7), note=Note(checkpoint(7).text, (forged_line,)))
    wrong_root = AddCheckpoint.of(3, request(3, 7).proof, signed(checkpoint(7, root=OTHER)))
    cases = [
        (request(3, 7), [], seen(3), 404, Reason.LOG_UNKNOWN),
        (stranger, KEYS, seen(3), 403, Reason.SIGNER_UNKNOWN),
        (forged, KEYS, seen(3), 403, Reason.SIGNATURE_INVALID),
        (request(8, 7), KEYS, seen(8), 400, Reason.PROOF_MALFORMED),
        (request(3, 7), KEYS, seen(4), 409, Reason.CHECKPOINT_STALE),
        (request(3, 7), KEYS, Seen(), 409, Reason.CHECKPOINT_STALE),
        (request(0, 7), KEYS, seen(3), 409, Reason.CHECKPOINT_STALE),
        (request(3, 7, ()), KEYS, seen(3), 422, Reason.PROOF_INVALID),
        (request(3, 7, (*request(3, 7).proof, OTHER)), KEYS, seen(3), 422, Reason.PROOF_INVALID),
        (wrong_root, KEYS, seen(3), 422, Reason.PROOF_INVALID),
        (request(3, 7), KEYS, Seen(3, OTHER), 422, Reason.PROOF_INVALID),
        (request(7, 7, (OTHER,)), KEYS, seen(7), 422, Reason.PROOF_INVALID),
        (request(7, 7), KEYS, Seen(7, OTHER), 409, Reason.LOG_INCONSISTENT),
    ]
    for asked, keys, before, status, reason in cases:
        assert outcome(decide(asked, keys, before)) == (status, reason)


def test_an_empty_tree_with_another_root_is_no_tree() -> None:
    for root in (OTHER, bytes(32)):
        asked = AddCheckpoint.of(0, (), signed(checkpoint(0, root=root)))
        assert outcome(decide(asked, KEYS, Seen())) == (422, Reason.PROOF_INVALID)
    assert Seen().root == EMPTY_ROOT


def test_a_conflict_names_the_size_and_everything_else_a_sentence() -> None:
    conflict = decide(request(3, 7), KEYS, seen(4))
    assert isinstance(conflict, Refused)
    assert (conflict.body, conflict.content_type) == (b"4\n", SIZE_TYPE)
    assert read_seen_size(conflict.body) == 4
    fork = decide(request(7, 7), KEYS, Seen(7, OTHER))
    assert isinstance(fork, Refused)
    assert (fork.status, fork.seen_size, fork.content_type) == (409, None, TEXT_TYPE)
    assert fork.body == b"two roots for the size 7\n"
    unknown = decide(request(3, 7), [], seen(3))
    assert isinstance(unknown, Refused)
    assert (unknown.body, unknown.content_type) == (b"no log with this origin is watched here\n", TEXT_TYPE)
    unread = malformed(InputError(Reason.NOTE_MALFORMED, "it is wrong"))
    assert (unread.status, unread.reason, unread.body) == (400, Reason.NOTE_MALFORMED, b"it is wrong\n")


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=25))
def test_over_any_requests_a_witness_only_grows_along_one_tree(asked: list[tuple[int, int, bool]]) -> None:
    state = Seen()
    for old, new, honest in asked:
        body = checkpoint(new) if honest else checkpoint(new, root=OTHER)
        proof = request(old, new).proof
        decision = decide(AddCheckpoint.of(old, proof, signed(body)), KEYS, state)
        if isinstance(decision, Accepted):
            assert decision.before == state
            assert decision.after.size >= state.size
            assert honest or state.size == 0, "a false root passes at the first meeting alone"
            if not honest:
                return
            state = decision.after
        assert state == seen(state.size)


MALFORMED = {
    "": Reason.PROOF_MALFORMED,
    "old": Reason.PROOF_MALFORMED,
    "old \n\n": Reason.PROOF_MALFORMED,
    "new 0\n\n": Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old 00"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old -1"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old  0"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "Old 0"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old 0 "): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old 0\r"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", "old \u0660"): Reason.PROOF_MALFORMED,
    FIRST.replace("old 0", f"old {2**63}"): Reason.PROOF_MALFORMED,
    TO_THREE.replace("KgEA", "\u00e9gEA"): Reason.PROOF_MALFORMED,
    TO_THREE.replace("KgEA", "KgE"): Reason.PROOF_MALFORMED,
    TO_THREE.replace("AAA=\nKgI", "AAA=\n\nKgI"): Reason.CHECKPOINT_MALFORMED,
    TO_THREE.replace(
        "old 1\n", "old 1\n" + "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 62
    ): Reason.PROOF_MALFORMED,
    FIRST.replace("\n1\n", "\n01\n"): Reason.CHECKPOINT_MALFORMED,
    FIRST.replace("\n\n— ", "\n— "): Reason.NOTE_MALFORMED,
    FIRST + "x": Reason.NOTE_MALFORMED,
    "old 0\n\n": Reason.NOTE_MALFORMED,
    "old 0\n\n" + "x" * (NOTE_BYTES_MAX + 1): Reason.FIELD_TOO_LARGE,
    "x" * (REQUEST_BYTES_MAX + 1): Reason.FIELD_TOO_LARGE,
}


@pytest.mark.parametrize(("body", "reason"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_what_is_no_request_is_refused(body: str, reason: Reason) -> None:
    assert refusal(AddCheckpoint.parse, body.encode()) is reason


def test_sixty_three_hashes_are_read() -> None:
    hashes = "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 63
    assert len(AddCheckpoint.parse(FIRST.replace("old 0\n", f"old 0\n{hashes}").encode()).proof) == 63


@given(st.binary(max_size=150))
def test_any_bytes_are_refused_with_a_reason_and_status_400(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        AddCheckpoint.parse(body)
    assert malformed(caught.value).status == 400


@given(st.integers(0, 40), st.integers(0, 24), st.data())
def test_a_request_with_one_byte_changed_is_canonical_or_refused(old: int, more: int, data: st.DataObject) -> None:
    written = bytearray(request(old, old + more).encode())
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    refused = refusal(AddCheckpoint.parse, bytes(written))
    expected = {Reason.PROOF_MALFORMED, Reason.NOTE_MALFORMED, Reason.CHECKPOINT_MALFORMED}
    assert refused in expected or AddCheckpoint.parse(bytes(written)).encode() == bytes(written)


def test_a_log_takes_over_the_lines_of_witnesses_it_knows_and_no_others() -> None:
    known, stranger = witness_signer(1), witness_signer(2)
    body = checkpoint(9)
    note = signed(body)
    answer = "".join(signer.sign(body.text, NOW).line for signer in (stranger, known)).encode()
    assert read_cosignatures(answer, note, [known.key]) == (known.sign(body.text, NOW),)
    assert refusal(read_cosignatures, answer, note, []) is Reason.SIGNER_UNKNOWN
    about_another = known.sign(checkpoint(10).text, NOW).line.encode()
    assert refusal(read_cosignatures, about_another, note, [known.key]) is Reason.COSIGNATURE_INVALID
    line = known.sign(body.text, NOW).line
    for false in (b"", b"\n", answer[:-1], b"\xff" + answer, b"9\n", f"more text\n\n{line}".encode()):
        assert refusal(read_cosignatures, false, note, [known.key]) is Reason.NOTE_MALFORMED


@pytest.mark.parametrize("answer", [b"", b"4", b"\n", b"04\n", b"4\n\n", b" 4\n", b"4\r\n", b"\xd9\xa1\n", b"-1\n"])
def test_a_size_that_is_none_is_refused(answer: bytes) -> None:
    assert refusal(read_seen_size, answer) is Reason.PROOF_MALFORMED

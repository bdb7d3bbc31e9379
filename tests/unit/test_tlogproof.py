"""An offline proof: read in one spelling, checked part by part, and believed only whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import Reason
from idtrace.logpolicy import LogPolicy
from idtrace.merkle import BatchTree, hash_leaf
from idtrace.note import NOTE_BYTES_MAX, KeyType, Note
from idtrace.tlogproof import EXTRA_BYTES_MAX, PROOF_BYTES_MAX, ProofReport, TlogProof, verify_proof
from tests.log_fixtures import (
    NOW,
    checkpoint,
    leaves,
    log_signer,
    note_signer,
    refusal,
    signed,
    witness_signer,
)

SIZE, INDEX = 23, 9
WITNESSES = (witness_signer(1), witness_signer(2, KeyType.COSIGNATURE_ML_DSA_44), witness_signer(3))
POLICY = LogPolicy.parse(
    "".join(
        (
            f"log {log_signer().key}\n",
            *(f"witness w{number} {witness.key}\n" for number, witness in enumerate(WITNESSES, 1)),
            "group all-three 2 w1 w2 w3\nquorum all-three\n",
        )
    ).encode()
)
ALONE = LogPolicy.parse(f"log {log_signer().key}\nquorum none\n".encode())
# The body of the specification's example; its signature lines are cut short there, so ours stand below it.
SPECIFIED = """c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

"""


def proof(*witnesses: int, size: int = SIZE, index: int = INDEX, extra: bytes | None = None) -> TlogProof:
    cosigned = signed(checkpoint(size), *(WITNESSES[number - 1] for number in witnesses))
    return TlogProof(index, BatchTree(leaves(size)).path(index), cosigned, extra)


def verified(made: TlogProof, policy: LogPolicy = POLICY, *, leaf: bytes = leaves(SIZE)[INDEX]) -> ProofReport:
    return verify_proof(made, leaf, policy, now=NOW)


def failed(report: ProofReport) -> dict[str, Reason | None]:
    return {check.name: check.reason for check in report.checks if not check.passed}


def test_a_witnessed_proof_passes_every_check_and_gives_the_checkpoint() -> None:
    report = verified(proof(1, 2))
    assert report.valid
    assert [check.name for check in report.checks] == ["checkpoint", "log signature", "inclusion", "witnesses"]
    assert report.checkpoint == checkpoint(SIZE)
    assert [check.detail for check in report.checks] == [
        "log.example/88.118, 23 leaves",
        "signed by log.example/88.118",
        "the entry is leaf 9 of 23",
        "cosigned by w1, w2",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 100])
def test_every_entry_of_a_log_is_proved_and_no_other(size: int) -> None:
    for index in {0, 1, size // 2, size - 1} & set(range(size)):
        made = proof(size=size, index=index)
        for leaf in range(size):
            assert verified(made, ALONE, leaf=leaves(size)[leaf]).valid == (leaf == index)


def test_a_policy_without_quorum_says_so() -> None:
    report = verified(proof(), ALONE)
    assert report.valid
    assert report.checks[-1].detail == "the policy asks for none"


def test_each_part_that_lies_fails_its_own_check_and_no_other() -> None:
    honest, other = proof(1, 2), hash_leaf(b"not in the log")
    body, elsewhere = checkpoint(SIZE), checkpoint(SIZE, origin="log.example/other")
    stranger = signed(body, *WITNESSES[:2], log=note_signer("stranger"))
    forged = Note(body.text, (log_signer().sign(checkpoint(22).text), *(one.sign(body.text, NOW) for one in WITNESSES)))
    false_witness = signed(body, *WITNESSES[:2]).signed(WITNESSES[2].sign(checkpoint(22).text, NOW))
    unknown_log = signed(elsewhere, *WITNESSES[:2])
    cases: list[tuple[TlogProof, dict[str, Reason]]] = [
        (replace(honest, index=10), {"inclusion": Reason.PROOF_INVALID}),
        (replace(honest, path=honest.path[:-1]), {"inclusion": Reason.PROOF_INVALID}),
        (replace(honest, path=(*honest.path, other)), {"inclusion": Reason.PROOF_INVALID}),
        (replace(honest, path=(other, *honest.path[1:])), {"inclusion": Reason.PROOF_INVALID}),
        (replace(honest, note=signed(checkpoint(24), *WITNESSES)), {"inclusion": Reason.PROOF_INVALID}),
        (replace(honest, note=stranger), {"log signature": Reason.SIGNER_UNKNOWN}),
        (replace(honest, note=forged), {"log signature": Reason.SIGNATURE_INVALID}),
        (replace(honest, note=unknown_log), {"log signature": Reason.LOG_UNKNOWN}),
        (proof(1), {"witnesses": Reason.WITNESS_QUORUM}),
        (proof(), {"witnesses": Reason.WITNESS_QUORUM}),
        (replace(honest, note=signed(body, *WITNESSES, at=NOW + 31)), {"witnesses": Reason.WITNESS_QUORUM}),
        (replace(honest, note=false_witness), {"witnesses": Reason.COSIGNATURE_INVALID}),
        (
            replace(proof(1), index=10, note=signed(body, log=note_signer("stranger"))),
            {
                "log signature": Reason.SIGNER_UNKNOWN,
                "inclusion": Reason.PROOF_INVALID,
                "witnesses": Reason.WITNESS_QUORUM,
            },
        ),
    ]
    for made, expected in cases:
        report = verified(made)
        assert failed(report) == expected
        assert not report.valid
    assert failed(verified(honest, leaf=other)) == {"inclusion": Reason.PROOF_INVALID}


def test_a_note_that_is_no_checkpoint_ends_the_report() -> None:
    text = "no checkpoint\n"
    report = verified(replace(proof(), note=Note(text, (log_signer().sign(text),))))
    assert failed(report) == {"checkpoint": Reason.CHECKPOINT_MALFORMED}
    assert (len(report.checks), report.checkpoint, report.valid) == (1, None, False)


def test_a_part_that_is_missing_says_what_it_would_have_shown() -> None:
    details = {check.name: check.detail for check in verified(proof(1)).checks}
    assert details["witnesses"] == (
        "'all-three' has 1 of 2, without 'w2', 'w3'; sound, the cosignatures show that others saw the same tree,"
        " so that the log does not show each its own"
    )
    assert all(check.detail.count("; sound, ") == (not check.passed) for check in verified(proof(1)).checks)


def test_a_log_known_from_elsewhere_signs_as_well() -> None:
    policy = LogPolicy.parse(b"quorum none\n")
    leaf = leaves(SIZE)[INDEX]
    assert not verify_proof(proof(), leaf, policy, now=NOW).valid
    assert verify_proof(proof(), leaf, policy, now=NOW, log_keys=[log_signer().key]).valid


def test_the_specifications_example_is_read_and_written() -> None:
    text = SPECIFIED + signed(checkpoint(5)).signatures[0].line
    found = TlogProof.parse(text.encode())
    assert (found.index, len(found.path)) == (73_894, 5)
    assert found.extra is not None
    assert found.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert found.encode() == text.encode()


@pytest.mark.parametrize("extra", [None, b"\0", b"salt", b"x" * EXTRA_BYTES_MAX])
def test_extra_data_is_kept_and_proves_nothing(extra: bytes | None) -> None:
    made = proof(1, 2, extra=extra)
    assert TlogProof.parse(made.encode()) == made
    assert verified(made) == verified(proof(1, 2))


WRITTEN = proof(1, 2).encode().decode()
LINE = WRITTEN.split("\n")[2]
BAD = {
    "empty": "",
    "no version": WRITTEN.replace("c2sp.org/tlog-proof@v1\n", ""),
    "another version": WRITTEN.replace("@v1", "@v2"),
    "version and more": WRITTEN.replace("@v1\n", "@v1 \n"),
    "no index": WRITTEN.replace("index 9\n", ""),
    "only the version": "c2sp.org/tlog-proof@v1",
    "only the version and extra": "c2sp.org/tlog-proof@v1\nextra YQ==",
    "index with a zero in front": WRITTEN.replace("index 9", "index 09"),
    "index with a sign": WRITTEN.replace("index 9", "index +9"),
    "index in other digits": WRITTEN.replace("index 9", "index \u0669"),
    "index of nothing": WRITTEN.replace("index 9", "index "),
    "index beyond all logs": WRITTEN.replace("index 9", f"index {2**63}"),
    "extra of nothing": WRITTEN.replace("index", "extra \nindex", 1),
    "extra twice": WRITTEN.replace("index", "extra YQ==\nextra YQ==\nindex", 1),
    "extra after the index": WRITTEN.replace("index 9\n", "index 9\nextra YQ==\n"),
    "extra not in base64": WRITTEN.replace("index", "extra YQ\nindex", 1),
    "extra not canonical": WRITTEN.replace("index", "extra YR==\nindex", 1),
    "extra not in ASCII": WRITTEN.replace("index", "extra \u00e9\nindex", 1),
    "extra too long": WRITTEN.replace("index", f"extra {'YWFh' * (EXTRA_BYTES_MAX // 3 + 1)}\nindex", 1),
    "a hash too short": WRITTEN.replace(LINE, "YQ=="),
    "a hash with a space": WRITTEN.replace(LINE, f"{LINE} "),
    "a hash with a return": WRITTEN.replace(LINE, f"{LINE}\r"),
    "too many hashes": WRITTEN.replace(LINE, f"{LINE}\n" * 63 + LINE),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_proof_is_refused(text: str) -> None:
    assert refusal(TlogProof.parse, text.encode()) is Reason.PROOF_MALFORMED


def test_a_proof_whose_note_is_none_is_refused() -> None:
    head, _, rest = WRITTEN.partition("\n\n")
    for text in (head, f"{head}\n\n", f"{head}\n\n{rest[:-1]}", f"{head}\n\n{rest}x"):
        assert refusal(TlogProof.parse, text.encode()) is Reason.NOTE_MALFORMED
    assert refusal(TlogProof.parse, f"{head}\n\n{'x' * (NOTE_BYTES_MAX + 1)}".encode()) is Reason.FIELD_TOO_LARGE
    assert refusal(TlogProof.parse, b"x" * (PROOF_BYTES_MAX + 1)) is Reason.FIELD_TOO_LARGE


def test_the_longest_path_is_read() -> None:
    made = replace(proof(), path=leaves(63))
    assert TlogProof.parse(made.encode()) == made


@given(st.binary(max_size=200) | st.just(b"c2sp.org/tlog-proof@v1\nindex 0\n\n").map(bytes))
def test_any_bytes_are_refused_with_a_reason(data: bytes) -> None:
    assert refusal(TlogProof.parse, data) in {Reason.PROOF_MALFORMED, Reason.NOTE_MALFORMED}


@given(st.data())
def test_no_changed_byte_makes_a_proof_say_anything_else(data: st.DataObject) -> None:
    made = proof(1, 2, extra=b"aside")
    written = bytearray(made.encode())
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    refused = refusal(TlogProof.parse, bytes(written))
    if refused is None:
        changed = TlogProof.parse(bytes(written))
        assert changed.encode() == bytes(written)
        # Extra data is the one part that nobody signs.
        assert not verified(changed).valid or replace(changed, extra=b"aside") == made
    else:
        assert refused in {Reason.PROOF_MALFORMED, Reason.NOTE_MALFORMED}

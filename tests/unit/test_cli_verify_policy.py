"""``idtrace verify --policy``: what was proven, what was not, and what is genuine and still not enough."""

from pathlib import Path

import pytest

from idtrace.bundle import Bundle
from idtrace.cli import files
from idtrace.cli.exits import ExitCode
from idtrace.errors import Reason
from idtrace.tlogproof import TlogProof
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import ITEM, NOW, PINNED, bundle, denial, denied, record
from tests.log_fixtures import witness_signer
from tests.logged_fixtures import LOG, currency_of, log_signer, logged_bundle, proof_of

W1, W2 = witness_signer(1), witness_signer(2)
POLICY = f"witness w1 {W1.key}\nwitness w2 {W2.key}\ngroup both all w1 w2\nquorum both\n"


def verify(folder: Path, what: Bundle, *arguments: object, at: int = NOW) -> Ran:
    path, policy = folder / "b.json", folder / "p.policy"
    files.write_bundle(path, what)
    policy.write_text(POLICY)
    root = f"{key_file(folder, PINNED)}.pub"
    return idtrace("verify", path, "--root", root, "--at", at, "--policy", policy, *arguments, columns=80)


def seen_by(*witnesses: object) -> Bundle:
    return logged_bundle(proof=proof_of(record(), signers=[log_signer(), *witnesses]))  # type: ignore[list-item]  # all are signers


def test_a_record_that_enough_witnesses_saw_is_found_and_all_steps_have_a_tick(tmp_path: Path) -> None:
    ran = verify(tmp_path, seen_by(W1, W2))
    assert ran.code == 0
    assert ran.said.startswith(f"✓ FOUND {ITEM}")
    assert ("cosigned by w1, w2" in ran.said, f"entry 3 of 7 in {LOG}" in ran.said) == (True, True)
    assert "·" not in ran.out
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    body = verify(tmp_path, seen_by(W1, W2), "--json").json
    assert body["logged"] == {"origin": LOG, "index": 3, "size": 7, "committed_at": NOW}
    assert "genuine" not in body


@pytest.mark.parametrize(
    ("what", "reason", "told"),
    [
        (logged_bundle(proof=None, currency=None), Reason.NOT_LOGGED, "there is none, and the policy asks for it"),
        (seen_by(), Reason.WITNESS_QUORUM, "'both' has 0 of 2, without 'w1', 'w2'"),
        (seen_by(W1), Reason.WITNESS_QUORUM, "'both' has 1 of 2, without 'w2'"),
    ],
    ids=["no proof", "no cosignature", "below the quorum"],
)
def test_a_genuine_proof_of_too_little_is_no_forgery_and_not_enough(
    tmp_path: Path, what: Bundle, reason: Reason, told: str
) -> None:
    ran = verify(tmp_path, what)
    assert ran.code == ExitCode.BOGUS
    assert ran.out.startswith("✗ NOT PROVEN AS THE POLICY ASKS")
    assert (told in ran.said, reason in ran.said, "sound, the" in ran.said) == (True, True, True)
    assert "do not act on it" not in ran.said
    assert "ACTIVE" in ran.said
    body = verify(tmp_path, what, "--json").json
    assert (body["valid"], body["genuine"], body["checks"][-1]["reason"]) == (False, True, reason)


def test_a_forged_record_beside_a_missing_proof_gets_no_kind_word(tmp_path: Path) -> None:
    forged = logged_bundle(record(by="a thief"), proof=None, currency=None)
    ran = verify(tmp_path, forged)
    assert ran.code == ExitCode.BOGUS
    assert "Genuine" not in ran.said
    assert "do not act on it" in ran.said


def test_a_word_for_latest_of_another_time_is_shown_with_its_time_and_fails_nothing(tmp_path: Path) -> None:
    ran = verify(tmp_path, seen_by(W1, W2), at=NOW + 600)
    assert ran.code == 0
    assert "version 1 was the latest at 2030-03-17 17:46:35 UTC" in ran.said
    assert ran.out.count("·") == 1


def test_a_false_word_for_latest_is_a_lie(tmp_path: Path) -> None:
    lie = logged_bundle(
        proof=proof_of(record(), signers=[log_signer(), W1, W2]), currency=currency_of(record(), "a thief")
    )
    assert verify(tmp_path, lie).code == ExitCode.BOGUS


def test_the_proof_is_written_as_its_text_form_and_reads_back(tmp_path: Path) -> None:
    out = tmp_path / "sn.tlog-proof"
    for what, code in ((seen_by(W1, W2), 0), (seen_by(), ExitCode.BOGUS)):
        assert verify(tmp_path, what, "--proof-out", out).code == code
        assert what.proof is not None
        assert out.read_bytes() == what.proof.to_text().encode()
        assert TlogProof.parse(out.read_bytes()).encode() == out.read_bytes()
        out.unlink()


@pytest.mark.parametrize("what", [bundle(), denied(denial())], ids=["no log", "denial"])
def test_where_there_is_no_proof_none_is_written_and_that_is_said(tmp_path: Path, what: Bundle) -> None:
    out, path = tmp_path / "none.tlog-proof", tmp_path / "b.json"
    files.write_bundle(path, what)
    root = f"{key_file(tmp_path, PINNED)}.pub"
    ran = idtrace("verify", path, "--root", root, "--at", NOW, "--proof-out", out)
    assert ran.code != 0
    assert "was not written" in ran.said
    assert not out.exists()


def test_a_policy_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    path, policy = tmp_path / "b.json", tmp_path / "p.policy"
    files.write_bundle(path, bundle())
    policy.write_text("quorum nobody\n")
    ran = idtrace("verify", path, "--root", f"{key_file(tmp_path, PINNED)}.pub", "--policy", policy)
    assert ran.code == ExitCode.USAGE
    assert "POLICY_MALFORMED" in ran.said

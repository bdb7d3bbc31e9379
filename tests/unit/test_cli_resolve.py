"""What a resolver says is believed only as far as its proof goes, whatever it says."""

from typing import Any

import pytest

from idtrace.bundle import Bundle, Revoked, Verdict
from idtrace.cli.exits import verdict_code
from idtrace.cli.resolve import judge
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.v1 import resolver_pb2
from idtrace.wire import bundle_to_pb
from tests.core_fixtures import (
    ITEM,
    NOW,
    anchor,
    bundle,
    delegate,
    denial,
    denied,
    record,
    revocation,
    tombstone,
    with_last,
)

REVOKED = bundle(Revoked(Prefix.parse("88.118.8")), with_last(delegate(revocation("88.118.8"))))
OTHER = Identifier.parse("88.118.8/SN-0002")


def said(verdict: str, proof: Bundle | None = None, **fields: Any) -> Any:
    value = resolver_pb2.Verdict.Value(f"VERDICT_{verdict}")
    response = resolver_pb2.ResolveResponse(identifier=str(ITEM), verdict=value, **fields)
    if proof is not None:
        response.bundle.CopyFrom(bundle_to_pb(proof))
    return response


def judged(response: Any, at: int = NOW) -> tuple[Verdict, str]:
    resolution = judge(str(ITEM), response, anchor(), at)
    return resolution.verdict, str(resolution.reason)


@pytest.mark.parametrize(
    ("verdict", "proof"),
    [("FOUND", bundle()), ("ABSENT", denied(denial())), ("GONE", bundle(tombstone())), ("GONE", REVOKED)],
)
def test_a_proven_answer_is_believed(verdict: str, proof: Bundle) -> None:
    assert judged(said(verdict, proof)) == (Verdict(verdict), "")


@pytest.mark.parametrize("verdict", ["FOUND", "ABSENT", "GONE", "UNSPECIFIED"])
def test_an_answer_without_proof_is_bogus(verdict: str) -> None:
    assert judged(said(verdict)) == (Verdict.BOGUS, Reason.ANSWER_EMPTY)


def test_a_verdict_from_the_future_is_bogus() -> None:
    response = said("FOUND", bundle())
    response.verdict = 77
    assert judged(response) == (Verdict.BOGUS, Reason.ANSWER_EMPTY)


@pytest.mark.parametrize(
    ("verdict", "proof"),
    [
        ("ABSENT", bundle()),
        ("GONE", bundle()),
        ("FOUND", denied(denial())),
        ("GONE", denied(denial())),
        ("FOUND", bundle(tombstone())),
        ("ABSENT", REVOKED),
    ],
)
def test_a_proof_of_something_else_than_the_verdict_is_bogus(verdict: str, proof: Bundle) -> None:
    assert judged(said(verdict, proof)) == (Verdict.BOGUS, Reason.ANSWER_CONTRADICTS_ITSELF)


def test_a_genuine_proof_about_another_identifier_is_bogus() -> None:
    other = bundle(record(OTHER), identifier=OTHER)
    assert judged(said("FOUND", other)) == (Verdict.BOGUS, Reason.RECORD_WRONG_IDENTIFIER)


def test_a_forged_proof_is_bogus_with_its_own_reason() -> None:
    assert judged(said("FOUND", bundle(record(by="a thief")))) == (Verdict.BOGUS, Reason.SIGNER_UNKNOWN)
    assert judged(said("FOUND", bundle()), at=NOW + 86_400) == (Verdict.BOGUS, Reason.DELEGATION_EXPIRED)
    assert judged(said("ABSENT", denied(denial())), at=NOW + 99) == (Verdict.BOGUS, Reason.DENIAL_EXPIRED)


def test_a_torn_proof_is_bogus() -> None:
    response = said("FOUND", bundle())
    response.bundle.digest = bytes(32)
    assert judged(response) == (Verdict.BOGUS, Reason.BUNDLE_DIGEST)


@pytest.mark.parametrize("verdict", ["UNREACHABLE", "BOGUS"])
def test_a_resolver_that_knows_nothing_is_not_asked_for_proof_and_not_shown_with_one(verdict: str) -> None:
    resolution = judge(str(ITEM), said(verdict, bundle(), reason="NO_ANSWER"), anchor(), NOW)
    assert (resolution.verdict, resolution.reason) == (Verdict(verdict), "NO_ANSWER")
    assert (resolution.bundle, resolution.report) == (None, None)


def test_every_verdict_has_its_exit_code() -> None:
    assert [int(verdict_code(verdict)) for verdict in Verdict] == [0, 1, 1, 4, 3]

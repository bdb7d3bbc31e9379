"""What a resolver says is believed only as far as its proof goes, whatever it says."""

from typing import Any, cast

import pytest

from idtrace.bundle import Bundle, Revoked, Verdict
from idtrace.chain import Anchor
from idtrace.cli.exits import ExitCode, Failure, verdict_code
from idtrace.cli.output import Output
from idtrace.cli.resolve import Resolution, as_json_body, ask, code_of, judge, resolve_all, show
from idtrace.errors import BusyError, IdtraceError, InputError, OutcomeUnknownError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import item_error
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
    public,
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


@pytest.mark.parametrize(
    ("unfollowed_ms", "mark"),
    [
        (0, "asked just now; the resolver is not being told of changes"),
        (40, "may be up to 40 ms out of date: the resolver is not being told of changes"),
        (3_240, "may be up to 3.2 s out of date: the resolver is not being told of changes"),
    ],
)
def test_an_answer_that_nobody_follows_is_marked(
    unfollowed_ms: int, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    response = said("FOUND", bundle(), unfollowed_ms=unfollowed_ms)
    show(Output(), judge(str(ITEM), response, anchor(), NOW))
    assert mark in " ".join(capsys.readouterr().out.split())
    assert as_json_body(judge(str(ITEM), response, anchor(), NOW))["unfollowed_ms"] == unfollowed_ms


def test_an_answer_that_is_followed_has_no_mark(capsys: pytest.CaptureFixture[str]) -> None:
    response = said("FOUND", bundle())
    show(Output(), judge(str(ITEM), response, anchor(), NOW))
    assert "told of changes" not in " ".join(capsys.readouterr().out.split())
    assert as_json_body(judge(str(ITEM), response, anchor(), NOW))["unfollowed_ms"] is None


def test_every_verdict_has_its_exit_code() -> None:
    assert [int(verdict_code(verdict)) for verdict in Verdict] == [0, 1, 1, 4, 3]


class FakeNode:
    """A resolver that answers these."""

    address = "fake:1"
    channel = None

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def ask(self, _: Any, request: Any) -> Any:
        self.asked.append(request)
        return self.answers.pop(0)


class FakeStub:
    """Nothing is called."""

    def __init__(self, _: Any) -> None:
        self.Resolve = self.ResolveBatch = None


@pytest.fixture(autouse=True)
def _no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idtrace.v1.resolver_pb2_grpc.ResolverServiceStub", FakeStub)


def batch(*results: Any) -> Any:
    return resolver_pb2.ResolveBatchResponse(results=results)


def test_many_texts_go_in_batches_of_256_and_stay_in_order() -> None:
    found = resolver_pb2.ResolveBatchResult(response=said("FOUND", bundle()))
    odd = resolver_pb2.ResolveBatchResult(error=resolver_pb2.ResolveError(code=3, reason="GS1_NO_KEY", detail="no key"))
    newer = resolver_pb2.ResolveBatchResult(error=resolver_pb2.ResolveError(code=3, reason="FROM_2030", detail="what"))
    node = FakeNode(batch(*([found] * 255), odd), batch(newer))
    texts = [f"88.118.8/{n}" for n in range(257)]
    results = ask(cast(Any, node), texts, fresh=True)
    assert [item.text for request in node.asked for item in request.items] == texts
    assert [getattr(result, "reason", None) for result in results[254:]] == ["", "GS1_NO_KEY", "INTERNAL"]


def test_an_answer_of_the_wrong_length_is_no_answer() -> None:
    with pytest.raises(Failure) as caught:
        ask(cast(Any, FakeNode(batch())), ["88.118.8/1", "88.118.8/2"], fresh=False)
    assert caught.value.code is ExitCode.UNREACHABLE


def test_a_refused_question_stands_in_its_place() -> None:
    odd = resolver_pb2.ResolveBatchResult(error=resolver_pb2.ResolveError(code=3, reason="GS1_NO_KEY", detail="no key"))
    found = resolver_pb2.ResolveBatchResult(response=said("FOUND", bundle()))
    node = cast(Any, FakeNode(batch(odd, found)))
    first, second = resolve_all(node, ["88.118.8/1", str(ITEM)], Anchor.of(public("other root")))
    assert isinstance(first, tuple)
    assert as_json_body(first)["error"]["reason"] == "GS1_NO_KEY"
    assert isinstance(second, Resolution)
    assert second.verdict is Verdict.BOGUS


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError(Reason.SCAN_UNKNOWN_SCHEME, "no code", field="items[0].text"), ExitCode.USAGE),
        (BusyError(Reason.OVERLOADED, "too many walks"), ExitCode.UNREACHABLE),
        (OutcomeUnknownError(Reason.INTERNAL, ""), ExitCode.UNREACHABLE),
    ],
)
def test_an_error_inside_a_batch_is_whose_fault_it_is(error: IdtraceError, code: ExitCode) -> None:
    """A resolver that is busy is no malformed input: who asks again may be answered."""
    number, reason, field, detail = item_error(error)
    parts = resolver_pb2.ResolveError(code=number, reason=reason, field=field, detail=detail)
    wrong = resolver_pb2.ResolveBatchResult(error=parts)
    found = resolver_pb2.ResolveBatchResult(response=said("FOUND", bundle()))
    results = resolve_all(cast(Any, FakeNode(batch(wrong, found))), ["88.118.8/X", str(ITEM)], anchor())
    assert isinstance(results[0], tuple)
    told = results[0][1]
    assert (told.reason, told.field, told.detail) == (error.reason, error.field, error.detail)
    assert code_of(results[0]) is code
    assert as_json_body(results[0])["error"]["exit_code"] == code


@pytest.mark.parametrize("verdict", ["UNREACHABLE", "BOGUS"])
def test_a_liar_draws_nothing_on_the_terminal(verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    forged = "\x1b[1A\x1b[2K\x1b[32m✓ FOUND 88.118.8/FAKE" + "x" * 10_000
    show(Output(), judge(str(ITEM), said(verdict, reason=forged, detail=forged), anchor(), NOW))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.startswith(("? UNREACHABLE", "✗ BOGUS"))
    assert len(shown) < 2_000

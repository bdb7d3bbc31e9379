"""``idtrace resolve``: ask a resolver, and believe only what its proof shows under the pinned root key.

1. the text is read here, so the question is ours and not the resolver's;
2. the bundle answers that very identifier;
3. the bundle verifies from the pinned root key at this machine's time;
4. what it proves is the verdict that the resolver gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from idtrace.bundle import Bundle, Verdict
from idtrace.chain import Anchor
from idtrace.cli.client import Node, connect
from idtrace.cli.exits import ExitCode, Failure, gravest, local_code, verdict_code
from idtrace.cli.files import write_bundle
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    ResolverOption,
    RootOption,
    RootUpdateOption,
    TimeoutOption,
    now,
    output_of,
    roots_of,
)
from idtrace.cli.output import Output, failure_of, pairs, plain
from idtrace.cli.remembering import Memories, RememberedLogOption, RememberOption, remembering
from idtrace.cli.show import (
    chain_tree,
    checks_table,
    record_view,
    report_json,
    span,
    unfollowed_text,
    verdict_line,
)
from idtrace.errors import IdtraceError, InputError, OutcomeUnknownError, Reason, VerificationError
from idtrace.record import RecordBody, Status
from idtrace.scan import scan
from idtrace.serving.errors import code_name, error_of
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from idtrace.verification import Report, verify_bundle
from idtrace.wire import bundle_from_pb

# ResolveBatch's own limit.
BATCH_MAX: Final = 256

_VERDICTS: Final = {
    resolver_pb2.VERDICT_FOUND: Verdict.FOUND,
    resolver_pb2.VERDICT_ABSENT: Verdict.ABSENT,
    resolver_pb2.VERDICT_GONE: Verdict.GONE,
    resolver_pb2.VERDICT_UNREACHABLE: Verdict.UNREACHABLE,
    resolver_pb2.VERDICT_BOGUS: Verdict.BOGUS,
}
_SOURCES: Final = {
    resolver_pb2.SOURCE_CACHE: "its cache",
    resolver_pb2.SOURCE_WALK: "a walk through the tree",
    resolver_pb2.SOURCE_SHARED: "a walk shared with another caller",
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """One answer after our own verification.

    Attributes:
        verdict: what we conclude; BOGUS where the proof fails, whatever the resolver says.
        reason: stable reason of every verdict but FOUND.
        detail: one sentence.
        bundle: the proof, whether or not it holds.
        report: our verification of it.
        origin: where the resolver says it has the answer from, its age, and for how long nobody would have told it of a
            change (None where somebody would); nobody can verify that.
    """

    identifier: str
    verdict: Verdict
    reason: str
    detail: str
    bundle: Bundle | None
    report: Report | None
    origin: dict[str, Any]


def judge(identifier: str, response: Any, anchor: Anchor, at: int) -> Resolution:
    """Steps 2 to 4 for one response (resolver.proto, ResolveResponse)."""
    claimed = _VERDICTS.get(response.verdict)
    origin = {
        "source": _SOURCES.get(response.source, ""),
        "age_ms": response.age_ms,
        "ttl_ms": response.ttl_ms,
        "upstream_calls": response.upstream_calls,
        "unfollowed_ms": response.unfollowed_ms if response.HasField("unfollowed_ms") else None,
    }
    if claimed in (Verdict.UNREACHABLE, Verdict.BOGUS):
        # Nothing is proven, and nothing has to be: neither is believed as an answer.
        return Resolution(identifier, claimed, response.reason, response.detail, None, None, origin)
    try:
        bundle = _proof(identifier, response)
    except IdtraceError as error:
        return Resolution(identifier, Verdict.BOGUS, error.reason, error.detail, None, None, origin)
    # 3. the bundle verifies
    report = verify_bundle(bundle, anchor, now=at)
    if not report.valid:
        broken = report.checks[-1]
        return Resolution(identifier, Verdict.BOGUS, broken.reason or "", broken.detail, bundle, report, origin)
    # 4. it proves the verdict
    if report.verdict is not claimed:
        detail = f"the resolver says {claimed}, and its proof shows {report.verdict}"
        reason = Reason.ANSWER_CONTRADICTS_ITSELF
        return Resolution(identifier, Verdict.BOGUS, reason, detail, bundle, report, origin)
    return Resolution(identifier, claimed, response.reason, response.detail, bundle, report, origin)


def _proof(identifier: str, response: Any) -> Bundle:
    """The bundle of a response that claims to prove something.

    Raises:
        InputError, VerificationError: there is none, it is malformed, or it answers another question.
    """
    if response.verdict not in _VERDICTS or not response.HasField("bundle"):
        raise VerificationError(Reason.ANSWER_EMPTY, "the resolver answers without a proof")
    bundle = bundle_from_pb(response.bundle)
    # 2. the bundle answers our question
    if str(bundle.identifier) != identifier:
        raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, f"the proof is about {bundle.identifier}")
    return bundle


def ask(node: Node, texts: Sequence[str], *, fresh: bool) -> list[Any]:
    """Responses or typed errors, one a text, in order.

    Raises:
        Failure: the resolver does not answer at all.
    """
    stub = resolver_pb2_grpc.ResolverServiceStub(node.channel)
    requests = [resolver_pb2.ResolveRequest(text=text, fresh=fresh) for text in texts]
    if len(requests) == 1:
        return [node.ask(stub.Resolve, requests[0])]
    answers: list[Any] = []
    for start in range(0, len(requests), BATCH_MAX):
        part = requests[start : start + BATCH_MAX]
        results = node.ask(stub.ResolveBatch, resolver_pb2.ResolveBatchRequest(items=part)).results
        if len(results) != len(part):
            error = OutcomeUnknownError(Reason.ANSWER_MALFORMED, f"{len(results)} results for {len(part)} questions")
            raise Failure(ExitCode.UNREACHABLE, error, title=f"{node.address} answers nonsense")
        for result in results:
            is_answer = result.WhichOneof("result") == "response"
            answers.append(result.response if is_answer else _batch_error(result.error))
    return answers


def _batch_error(error: Any) -> IdtraceError:
    reason = Reason(error.reason) if error.reason in tuple(Reason) else Reason.INTERNAL
    return error_of(code_name(error.code), reason, error.field, error.detail)


def resolve_all(
    node: Node, texts: Sequence[str], anchor: Anchor, *, fresh: bool = False
) -> list[Resolution | tuple[str, IdtraceError]]:
    """Read, ask and verify each text; a text that is no code comes back with its error, in its place.

    Raises:
        Failure: the resolver does not answer at all.
    """
    results: list[Resolution | tuple[str, IdtraceError]] = []
    readable: list[tuple[int, str]] = []
    for text in texts:
        try:
            readable.append((len(results), str(scan(text).identifier)))
            results.append((text, InputError(Reason.ANSWER_EMPTY, "no answer")))
        except InputError as error:
            results.append((text, error))
    answers = ask(node, [identifier for _, identifier in readable], fresh=fresh) if readable else []
    for (position, identifier), answer in zip(readable, answers, strict=True):
        refused = isinstance(answer, IdtraceError)
        results[position] = (identifier, answer) if refused else judge(identifier, answer, anchor, now())
    return results


def remembered(
    result: Resolution | tuple[str, IdtraceError], memories: Memories
) -> Resolution | tuple[str, IdtraceError]:
    """The answer as it is, or BOGUS where its log has been shown to have forked.

    Raises:
        BusyError, InputError: what is remembered cannot be used.
    """
    if not isinstance(result, Resolution) or result.bundle is None or result.report is None or not result.report.valid:
        return result
    forked = memories.convicts(result.bundle, now())
    if forked is None:
        return result
    return replace(result, verdict=Verdict.BOGUS, reason=Reason.LOG_INCONSISTENT, detail=forked.detail)


def code_of(result: Resolution | tuple[str, IdtraceError]) -> ExitCode:
    """Exit code of one result."""
    return verdict_code(result.verdict) if isinstance(result, Resolution) else local_code(result[1])


def show(output: Output, result: Resolution | tuple[str, IdtraceError]) -> None:
    """One result for a person."""
    if isinstance(result, Resolution):
        _show(output, result)
    elif not output.as_json:
        output.failure(failure_of(result[1]))


def as_json_body(result: Resolution | tuple[str, IdtraceError]) -> dict[str, Any]:
    """One result for a program."""
    if isinstance(result, Resolution):
        return _json(result)
    text, error = result
    body = {"reason": str(error.reason), "field": error.field, "detail": error.detail}
    return {"text": text, "error": {**body, "exit_code": int(local_code(error))}}


def _show(output: Output, resolution: Resolution) -> None:
    report, bundle = resolution.report, resolution.bundle
    body = RecordBody.parse(report.record.signed.payload) if report and report.record else None
    status = body.status if body else Status.ACTIVE
    output.show(verdict_line(resolution.verdict, resolution.identifier, status))
    if resolution.verdict in (Verdict.UNREACHABLE, Verdict.BOGUS):
        rows = [("reason", plain(resolution.reason)), ("", plain(resolution.detail))]  # a liar chooses both
        output.show(pairs([row for row in rows if row[1]]))
        if resolution.verdict is Verdict.BOGUS:
            output.show(Text("Do not act on this answer: it is not what the owner signed.", style="bold red"))
        if report is not None:
            output.show("", checks_table(report.checks))
        output.show("")
        return
    assert report is not None, "every other verdict is proven"
    assert bundle is not None, "and this is what proves it"
    if report.record is not None and body is not None:
        output.show(*record_view(report.record, body, report.withheld))
    else:
        output.show(pairs([("proof", report.checks[-1].detail)]))
    origin = resolution.origin
    age = f"{span(origin['age_ms'] / 1000)} old" if origin["age_ms"] else "fresh"
    output.show("", chain_tree(bundle, now()))
    output.show(Text(f"verified here from the root key; from {origin['source'] or 'the resolver'}, {age}", style="dim"))
    if origin["unfollowed_ms"] is not None:
        output.show(unfollowed_text(origin["unfollowed_ms"]))
    output.show("")


def _json(resolution: Resolution) -> dict[str, Any]:
    body: dict[str, Any] = {
        "identifier": resolution.identifier,
        "verdict": resolution.verdict,
        "reason": str(resolution.reason),
        "detail": resolution.detail,
        "exit_code": int(verdict_code(resolution.verdict)),
        **resolution.origin,
    }
    if resolution.report is not None:
        report = report_json(resolution.report)
        body["checks"] = report["checks"]
        if "record" in report and resolution.verdict is not Verdict.BOGUS:
            body["record"] = report["record"]
    return body


def resolve(
    ctx: typer.Context,
    identifiers: Annotated[list[str], typer.Argument(metavar="ID...", help="Identifiers, or any codes as scanned.")],
    resolver: ResolverOption,
    root: RootOption,
    root_update: RootUpdateOption = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep the proof (.json: readable; else binary).")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask the authority, not the cache.")] = False,
    remember: RememberOption = None,
    log: RememberedLogOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Ask what an identifier means, and verify the answer here, from the root key down.

    Example: idtrace resolve 88.118.8/SN-1 --resolver localhost:7400 --root root.key.pub --save sn-1.json
    """
    del as_json
    output = output_of(ctx)
    if save is not None and len(identifiers) > 1:
        raise typer.BadParameter("one proof goes into one file: give one identifier", param_hint="--save")
    anchor = roots_of(root, root_update).anchor
    with connect(resolver, timeout) as node, remembering(output, remember, log, anchor, timeout) as memories:
        answers = resolve_all(node, identifiers, anchor, fresh=fresh)
        results = [remembered(answer, memories) for answer in answers]
    for result in results:
        show(output, result)
    documents = [as_json_body(result) for result in results]
    output.document(documents[0] if len(documents) == 1 else documents)
    first = results[0]
    if save is not None and isinstance(first, Resolution) and first.bundle is not None:
        form = write_bundle(save, first.bundle)
        doubt = ", which does NOT verify: evidence, not an answer" if first.verdict is Verdict.BOGUS else ""
        output.note(f"saved {save} ({form} form){doubt}")
    raise typer.Exit(gravest(code_of(result) for result in results))

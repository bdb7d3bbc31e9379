"""``idtrace judge``: may this be used? Asks a resolver, and judges again here by the proofs that it sends.

1. the text is read here, so the question is ours and not the resolver's;
2. the file of proofs is about that very identifier, and of now;
3. every proof verifies from the pinned root key;
4. facts are made of them and judged again: what is shown is that judgement and not the resolver's word.

``--check FILE`` does 3 and 4 for a saved file, without any node. Proofs show that what is there is true, and never that
nothing was left out: for that somebody has to stand. So a file that no key of yours has signed, or that is not of now,
is no leave to use anything, and USE in it ends with the exit code of HOLD.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from idtrace.chain import CLOCK_SKEW_SECONDS, Anchor
from idtrace.checks import Check
from idtrace.cli.client import connect
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_file, replace_file
from idtrace.cli.judge_view import Language, verdict_json, verdict_view
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    OptionalResolverOption,
    RootOption,
    RootUpdateOption,
    TimeoutOption,
    now,
    output_of,
    roots_of,
)
from idtrace.cli.output import Output
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.scan import scan
from idtrace.serving.keyfile import load_public_keys
from idtrace.v1 import resolver_pb2, resolver_pb2_grpc
from idtrace.verdict.findings import Use
from idtrace.verdict.statement import FILE_BYTES_MAX, VerdictFile, VerdictReport, check_verdict

# A resolver keeps a verdict for five minutes (resolver/judge_limits.py); twice that is no answer to a question of now.
AGE_SECONDS_MAX: Final = 600
_CODES: Final = {Use.USE: ExitCode.OK, Use.HOLD: ExitCode.HOLD, Use.DO_NOT_USE: ExitCode.DO_NOT_USE}


def unpacked(data: bytes) -> VerdictFile:
    """A verdict file, compressed or not.

    Raises:
        InputError: VERDICT_MALFORMED, or a part's own reason.
    """
    try:
        if data.startswith(b"\x1f\x8b"):
            stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            data = stream.decompress(data, FILE_BYTES_MAX + 1)
        return VerdictFile.from_json(data.decode("utf-8"))
    except (zlib.error, UnicodeDecodeError):
        raise InputError(Reason.VERDICT_MALFORMED, "this is no verdict file", field="verdict") from None


def require_ours(report: VerdictReport, identifier: str, at: int) -> None:
    """Step 2: about this identifier, and of now.

    Raises:
        VerificationError: RECORD_WRONG_IDENTIFIER or VERDICT_STALE.
    """
    body = report.body
    assert body is not None, "a valid report has read one"
    if body.subject != identifier:
        raise VerificationError(Reason.RECORD_WRONG_IDENTIFIER, f"the verdict is about {body.subject}")
    age = at - body.now_ms // 1000
    if not -CLOCK_SKEW_SECONDS <= age <= AGE_SECONDS_MAX:
        raise VerificationError(Reason.VERDICT_STALE, f"the verdict was made {age} s ago", field="verdict.now_ms")
    if body.until_ms and at * 1000 >= body.until_ms:
        raise VerificationError(Reason.VERDICT_STALE, "time has changed it since", field="verdict.until_ms")


def _ask(resolver: str, identifier: str, timeout: float, *, fresh: bool) -> Any:
    with connect(resolver, timeout) as node:
        stub = resolver_pb2_grpc.ResolverServiceStub(node.channel)
        return node.ask(stub.Judge, resolver_pb2.JudgeRequest(text=identifier, fresh=fresh, evidence=True))


def _checked(file: VerdictFile, anchor: Anchor, keys: Path | None) -> VerdictReport:
    signers = {key.key_id: key for key in load_public_keys(keys)} if keys is not None else {}
    return check_verdict(file, anchor, signers)


def _require_valid(report: VerdictReport) -> None:
    if not report.valid:
        broken: Check = report.checks[-1]
        error = VerificationError(broken.reason or Reason.VERDICT_DIFFERS, broken.detail, field="verdict")
        hint = "Do not act on this verdict: what it rests on does not give it."
        raise Failure(ExitCode.BOGUS, error, title="the verdict does not verify", hint=hint)


def cautions(report: VerdictReport, *, signed: bool, then: bool, at: int) -> list[str]:
    """Why a saved verdict, sound as it is, is no leave to use a thing at this time (s)."""
    body = report.body
    assert body is not None, "a valid report has read one"
    found: list[str] = []
    if not signed:
        found.append("Whoever made this file may have left events out; --resolver-key shows who stands for it.")
    age = at - body.now_ms // 1000
    if not then and (abs(age) > AGE_SECONDS_MAX or (body.until_ms and at * 1000 >= body.until_ms)):
        found.append("It says what held then and nothing of now; ask a resolver, or give --then if you mean then.")
    return found


def _end(
    output: Output, report: VerdictReport, language: Language, origin: dict[str, Any], warned: Sequence[str] = ()
) -> None:
    assert report.judgement is not None, "a valid report has judged"
    code = _CODES[report.judgement.use]
    if warned and code is ExitCode.OK:
        code = ExitCode.HOLD
    output.show(*verdict_view(report, language, origin, warned))
    output.document(verdict_json(report, origin) | {"cautions": list(warned), "exit_code": int(code)})
    raise typer.Exit(code)


def judge(
    ctx: typer.Context,
    root: RootOption,
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="An identifier, or any code as scanned.")] = None,
    resolver: OptionalResolverOption = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Judge a saved verdict again, without any node.")
    ] = None,
    then: Annotated[
        bool, typer.Option("--then", help="With --check: what held at the time of the file, however long ago.")
    ] = False,
    evidence_out: Annotated[
        Path | None, typer.Option("--evidence-out", metavar="FILE", help="Keep the verdict with all its proofs.")
    ] = None,
    resolver_key: Annotated[
        Path | None,
        typer.Option("--resolver-key", metavar="FILE.pub", help="Keys that have to have signed the verdict."),
    ] = None,
    lang: Annotated[Language, typer.Option("--lang", help="Language of the reasons.")] = Language.BOTH,
    fresh: Annotated[bool, typer.Option("--fresh", help="Gather and judge anew, whatever is kept.")] = False,
    root_update: RootUpdateOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Say whether a thing may be used: USE (exit code 0), HOLD (8) or DO NOT USE (9), with every reason.

    Example: idtrace judge 88.118.8/SN-1 --resolver localhost:7400 --root root.key.pub --evidence-out sn-1.verdict
    """
    del as_json
    output = output_of(ctx)
    anchor = roots_of(root, root_update).anchor
    if check is not None:
        if code is not None or resolver is not None:
            raise typer.BadParameter("it judges a file, and asks nobody about a code", param_hint="--check")
        report = _checked(unpacked(read_file(check, FILE_BYTES_MAX)), anchor, resolver_key)
        _require_valid(report)
        warned = cautions(report, signed=resolver_key is not None, then=then, at=now())
        _end(output, report, lang, {"source": str(check)}, warned)
    if then:
        raise typer.BadParameter("it is about a saved file; give --check FILE with it", param_hint="--then")
    if code is None or resolver is None:
        raise typer.BadParameter("give a code and a resolver, or a file to --check", param_hint="CODE")
    # 1. the question is ours
    identifier = str(scan(code).identifier)
    answer = _ask(resolver, identifier, timeout, fresh=fresh)
    file = unpacked(answer.evidence)
    # 3. and 4.
    report = _checked(file, anchor, resolver_key)
    if evidence_out is not None:
        replace_file(evidence_out, gzip.compress(file.to_json().encode(), mtime=0))
    _require_valid(report)
    # 2.
    require_ours(report, identifier, now())
    kept = answer.source == resolver_pb2.SOURCE_CACHE
    origin = {
        "source": "kept by the resolver" if kept else "judged for this question",
        "age_ms": answer.age_ms,
        "unfollowed_ms": answer.unfollowed_ms if answer.HasField("unfollowed_ms") else None,
    }
    _end(output, report, lang, origin)

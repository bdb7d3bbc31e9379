"""The gRPC edge of drug code queries: parse, ask, answer (``proto/idtrace/v1/drugcode.proto``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import grpc.aio

from idtrace import wire
from idtrace.bundle import Bundle
from idtrace.drugcode.answers import Entry, parent_of
from idtrace.drugcode.codes import CHILDREN_PAGE, CODES_MAX, code_of, identifier_of, sort_out
from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.identifier import Identifier
from idtrace.provenance.history import Gap
from idtrace.scan import scan
from idtrace.v1 import drugcode_pb2 as pb
from idtrace.v1 import drugcode_pb2_grpc, resolver_pb2
from idtrace.verdict.findings import Use
from resolver.drugcodes import DrugCodes
from resolver.judging import Judging

# Verdicts cost a history with all of its papers each; one page of a carton.
VERDICTS_MAX: Final = 50
# Half of what a resolver judges at once (judge_limits.JudgeLimits.at_once): scanners get the other half.
_JUDGED_AT_ONCE: Final = 4
# What is left of the edge's 30 s after the facts have taken their 20.
_VERDICT_SECONDS: Final = 8.0
_USES: Final[Mapping[Use, Any]] = {
    Use.USE: resolver_pb2.USE_USE,
    Use.HOLD: resolver_pb2.USE_HOLD,
    Use.DO_NOT_USE: resolver_pb2.USE_DO_NOT_USE,
}


class DrugCodeService(drugcode_pb2_grpc.DrugCodeServiceServicer):
    """``idtrace.v1.DrugCodeService`` over one :class:`DrugCodes`."""

    def __init__(self, codes: DrugCodes, judging: Judging) -> None:
        self._codes = codes
        self._judging = judging

    async def QueryCodes(
        self, request: pb.QueryCodesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.QueryCodesResponse]:
        """Where codes stand; what is no code is told as such, and the others are answered.

        Raises:
            InputError: none, or more than 1,000; more than 50 with a verdict.
            BusyError: OVERLOADED.
        """
        del context
        texts = list(request.codes)
        most = VERDICTS_MAX if request.verdict else CODES_MAX
        if not 1 <= len(texts) <= most:
            raise InputError(Reason.BATCH_TOO_LARGE, f"a query has 1 to {most:,} codes", field="codes")
        codes, rejected = sort_out(texts)
        unfit = {one.index: one for one in rejected}
        keys = {code: identifier_of(code) for code in codes}
        answers: dict[str, Any] = {}
        proofs: dict[str, Bundle] = {}
        gaps: Sequence[Gap] = ()
        now_ms = 0
        if keys:
            found = await self._codes.ask(list(keys.values()))
            entries = await asyncio.to_thread(found.entries, [str(key) for key in keys.values()])
            uses = await self._uses(list(keys.values())) if request.verdict else {}
            gaps, now_ms = found.gaps, found.now_ms
            lost = {gap.subject for gap in gaps}
            for code, one in zip(codes, entries, strict=True):
                answers[code] = _entry(
                    code, one, uses.get(one.key, resolver_pb2.USE_UNSPECIFIED), incomplete=_touched(one, lost)
                )
            papers = (bundle for line in found.papers.values() for bundle in line)
            proofs = {str(bundle.identifier): bundle for bundle in (*papers, *found.events.values())}
        for index, text in enumerate(texts):
            answer = pb.DrugCode(code=text[:64], unfit=unfit[index].why) if index in unfit else answers[text]
            yield pb.QueryCodesResponse(code=answer)
        for bundle in proofs.values() if request.proofs else ():
            yield pb.QueryCodesResponse(proof=wire.bundle_to_pb(bundle))
        for gap in gaps:
            yield pb.QueryCodesResponse(gap=_gap(gap))
        sent = len(proofs) if request.proofs else 0
        summary = pb.QueryCodesSummary(codes=len(texts), proofs=sent, gaps=len(gaps), now_ms=now_ms)
        yield pb.QueryCodesResponse(summary=summary)

    async def QueryRelation(
        self, request: pb.QueryRelationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.QueryRelationResponse:
        """In what a thing is packed now, and a page of what is packed in it.

        Raises:
            InputError: the text is no identifier.
            BusyError: OVERLOADED.
        """
        del context
        identifier = scan(request.code).identifier
        found = await self._codes.ask([identifier])
        key = str(identifier)
        children = found.book.children(key)
        start = request.page * CHILDREN_PAGE
        return pb.QueryRelationResponse(
            code=request.code,
            parent=_shown(parent_of(found.book.history(key))),
            level=found.book.level(key),
            children=[_shown(one) for one in children[start : start + CHILDREN_PAGE]],
            total=len(children),
            gaps=[_gap(one) for one in found.gaps],
        )

    async def _uses(self, identifiers: Sequence[Identifier]) -> dict[str, Any]:
        """The verdicts that come in time; the others are left unspecified."""
        slots = asyncio.Semaphore(_JUDGED_AT_ONCE)
        uses: dict[str, Any] = {}

        async def one(identifier: Identifier) -> None:
            async with slots:
                try:
                    judged = await self._judging.judge(identifier)
                except IdtraceError:
                    return
                uses[str(identifier)] = _USES[judged.judgement.use]

        try:
            async with asyncio.timeout(_VERDICT_SECONDS), asyncio.TaskGroup() as group:
                for identifier in identifiers:
                    group.create_task(one(identifier))
        except TimeoutError:
            pass
        return uses


def _touched(one: Entry, lost: set[str]) -> bool:
    """Whether something is missing that the answer may rest on; of a lost event nobody knows whom it is about."""
    return one.key in lost or any("/event/" in subject or subject == one.parent for subject in lost)


def _shown(key: str) -> str:
    return code_of(key) or key


def _entry(code: str, one: Entry, use: Any, *, incomplete: bool) -> pb.DrugCode:
    return pb.DrugCode(
        code=code,
        state=one.state,
        level=one.level,
        parent=_shown(one.parent),
        product_zh=one.product_zh,
        product_en=one.product_en,
        lot=one.lot,
        expiry=one.expiry,
        party=one.party,
        at_ms=one.at_ms,
        replaced_by=_shown(one.replaced_by),
        breaches=[
            pb.DrugCodeBreach(rule=each.rule, at_ms=each.at_ms, party=each.party, evidence=each.evidence)
            for each in one.breaches
        ],
        incomplete=incomplete,
        use=use,
    )


def _gap(gap: Gap) -> resolver_pb2.TraceGap:
    return resolver_pb2.TraceGap(kind=gap.kind, subject=gap.subject, detail=gap.detail, node=gap.node)

"""A verdict on the wire: use, every reason in both languages, and where it comes from."""

from __future__ import annotations

from typing import Final

from idtrace.v1 import resolver_pb2 as pb
from idtrace.verdict.findings import Finding, Use
from idtrace.verdict.policy import Policy
from idtrace.verdict.texts import EN, ZH, text
from resolver.judging import Judged

_MS_MAX: Final = 2**32 - 1
_USES: Final = {Use.USE: pb.USE_USE, Use.HOLD: pb.USE_HOLD, Use.DO_NOT_USE: pb.USE_DO_NOT_USE}


def judged_to_pb(judged: Judged, policy: Policy, evidence: bytes = b"") -> pb.JudgeResponse:
    """Domain to message."""
    judgement, facts = judged.judgement, judged.facts
    product = facts.product
    return pb.JudgeResponse(
        identifier=judgement.subject,
        use=_USES[judgement.use],
        findings=[_finding(one, policy) for one in judgement.findings],
        policy=judgement.policy,
        now_ms=judgement.now_ms,
        until_ms=judgement.until_ms or 0,
        source=pb.SOURCE_CACHE if judged.kept else pb.SOURCE_WALK,
        age_ms=min(judged.age_ms, _MS_MAX),
        unfollowed_ms=None if judged.unfollowed_ms is None else min(judged.unfollowed_ms, _MS_MAX),
        lot=facts.lot,
        expiry=facts.expiry,
        product_en=product.name_en if product else "",
        product_zh=product.name_zh if product else "",
        evidence=evidence,
    )


def _finding(finding: Finding, policy: Policy) -> pb.Finding:
    return pb.Finding(
        code=finding.code,
        severity=_USES[policy.severity(finding.code)],
        at_ms=finding.at_ms,
        text_en=text(finding, EN),
        text_zh=text(finding, ZH),
        values=finding.values,
        evidence=finding.evidence,
        source=finding.source,
    )

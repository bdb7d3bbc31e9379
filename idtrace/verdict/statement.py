"""A verdict that a resolver signs, and the file that lets anybody judge again without it.

Body (canonical JSON, domain ``idtrace/verdict/v1``): subject, use, the findings' codes and times, ``findings_hash``
over all of each finding, policy and facts by their hashes, ``now_ms`` (when it was judged), ``until_ms`` (0: never) and
``issued_at`` (s). The file bundles it with every proof that the facts rest on::

    {"format": "idtrace-verdict/v1", "signed": …, "policy": {"name": …, "raise": {CODE: SEVERITY}},
     "answer": ["UNREACHABLE", REASON] or [], "gaps": [[kind, subject, detail, node], …], "bundles": [TEXT, …]}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from idtrace import canonical
from idtrace.bundle import Bundle, Verdict, signed_from_fields, signed_to_json
from idtrace.canonical import Fields, Json
from idtrace.chain import Anchor
from idtrace.checks import Check
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError
from idtrace.provenance.history import Gap, GapKind
from idtrace.record import TIME_MAX
from idtrace.signature import CheckBudget, Kind, PublicKey, Signed, Signer, sign, verify
from idtrace.verdict.evidence import facts_hash, facts_of
from idtrace.verdict.facts import KEY_CHARACTERS_MAX, Answered, Facts
from idtrace.verdict.findings import Code, Judgement, Use
from idtrace.verdict.judge import FINDINGS_MAX, judge
from idtrace.verdict.policy import NAME_MAX, Policy
from idtrace.verification import verify_bundle

FILE_FORMAT: Final = "idtrace-verdict/v1"
# 4,000 events of 4 KiB with their proofs; a dose as a rule has 300 of them.
FILE_BYTES_MAX: Final = 67_108_864
BUNDLES_MAX: Final = 8_192
GAPS_MAX: Final = 8_192
DETAIL_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class VerdictBody:
    """What is signed of a verdict; times ``*_ms`` in ms, ``issued_at`` in s, hashes in hex."""

    subject: str
    use: Use
    findings: tuple[tuple[Code, int], ...]  # code and time, -1 where it is no matter of time
    findings_hash: str
    policy: str
    facts_hash: str
    now_ms: int
    until_ms: int
    issued_at: int

    @classmethod
    def of(cls, judgement: Judgement, facts: Facts, *, issued_at: int) -> VerdictBody:
        """The body that says this judgement of these facts."""
        return cls(
            judgement.subject,
            judgement.use,
            tuple((one.code, -1 if one.at_ms is None else one.at_ms) for one in judgement.findings),
            findings_hash(judgement),
            judgement.policy,
            facts_hash(facts),
            judgement.now_ms,
            judgement.until_ms or 0,
            issued_at,
        )

    def payload(self) -> bytes:
        """Canonical bytes to sign."""
        return canonical.encode(
            {
                "subject": self.subject,
                "use": self.use.name,
                "findings": [{"code": code, "at_ms": at_ms} for code, at_ms in self.findings],
                "findings_hash": self.findings_hash,
                "policy": self.policy,
                "facts_hash": self.facts_hash,
                "now_ms": self.now_ms,
                "until_ms": self.until_ms,
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes, *, field: str = "verdict") -> VerdictBody:
        """Read a body strictly.

        Raises:
            InputError: naming field and rule.
        """
        fields = canonical.decode(payload, field=field)
        findings = []
        for item in fields.objects("findings", most=FINDINGS_MAX):
            findings.append((item.choice("code", Code), item.integer("at_ms", least=-1)))
            item.end()
        use = fields.text("use", most=16)
        if use not in Use.__members__:
            raise InputError(
                Reason.FIELD_MALFORMED, f"use is one of {', '.join(Use.__members__)}", field=f"{field}.use"
            )
        body = cls(
            subject=fields.text("subject", least=1, most=KEY_CHARACTERS_MAX),
            use=Use[use],
            findings=tuple(findings),
            findings_hash=fields.digest("findings_hash").hex(),
            policy=fields.digest("policy").hex(),
            facts_hash=fields.digest("facts_hash").hex(),
            now_ms=fields.integer("now_ms", most=TIME_MAX * 1000),
            until_ms=fields.integer("until_ms", most=TIME_MAX * 1000),
            issued_at=fields.integer("issued_at", most=TIME_MAX),
        )
        fields.end()
        return body


def findings_hash(judgement: Judgement) -> str:
    """SHA-256 in hex over all of each finding, in their order."""
    findings: list[Json] = [
        [one.code, -1 if one.at_ms is None else one.at_ms, dict(one.values), list(one.evidence), one.source]
        for one in judgement.findings
    ]
    return hashlib.sha256(b"idtrace/verdict-findings/v1\0" + canonical.encode({"findings": findings})).hexdigest()


def sign_verdict(judgement: Judgement, facts: Facts, *signers: Signer, issued_at: int) -> Signed:
    """The verdict, signed; by nobody where nobody is given."""
    return sign(Kind.VERDICT, VerdictBody.of(judgement, facts, issued_at=issued_at).payload(), *signers)


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """A signed verdict with all that it rests on; proves nothing until :func:`check_verdict` has judged again."""

    signed: Signed
    policy: Policy
    bundles: tuple[Bundle, ...]
    gaps: tuple[Gap, ...] = ()
    unproven: Answered | None = None

    def to_json(self) -> str:
        """The file, ending in a line feed."""
        raised: dict[str, Json] = {str(code): use.name for code, use in sorted(self.policy.raised.items())}
        body: dict[str, Json] = {
            "format": FILE_FORMAT,
            "signed": signed_to_json(self.signed),
            "policy": {"name": self.policy.name, "raise": raised},
            "answer": [self.unproven.verdict, self.unproven.reason] if self.unproven else [],
            "gaps": [[gap.kind, gap.subject, gap.detail, gap.node] for gap in self.gaps],
            "bundles": [bundle.to_json() for bundle in self.bundles],
        }
        return json.dumps(body, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> VerdictFile:
        """Read a file.

        Raises:
            InputError: VERDICT_MALFORMED, VERDICT_POLICY_LOOSER, or a part's own reason.
        """
        if len(text) > FILE_BYTES_MAX:
            raise _malformed(f"a verdict file has at most {FILE_BYTES_MAX} bytes", "")
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            raise _malformed("this is not JSON", "") from None
        if not isinstance(parsed, dict):
            raise _malformed("this is not a JSON object", "")
        gaps = _gaps(parsed.pop("gaps", []))
        fields = Fields(parsed, "verdict")
        if fields.text("format", most=64) != FILE_FORMAT:
            raise _malformed(f"the format is not {FILE_FORMAT}", "format")
        file = cls(
            signed_from_fields(fields.object("signed")),
            _policy(fields.object("policy"), parsed["policy"].get("raise")),
            tuple(Bundle.from_json(one) for one in fields.texts("bundles", most=BUNDLES_MAX)),
            gaps,
            _unproven(fields.texts("answer", most=2)),
        )
        fields.end()
        return file


def _policy(fields: Fields, raised: object) -> Policy:
    name = fields.text("name", least=1, most=NAME_MAX)
    table = fields.object("raise")
    severities: dict[Code, Use] = {}
    for code in sorted(raised) if isinstance(raised, dict) else ():
        word = table.text(code, most=16)
        if code not in tuple(Code) or word not in Use.__members__:
            raise _malformed("a policy raises codes to severities", "policy.raise")
        severities[Code(code)] = Use[word]
    fields.end()
    return Policy(name, severities)


def _gaps(listed: object) -> tuple[Gap, ...]:
    if not isinstance(listed, list) or len(listed) > GAPS_MAX:
        raise _malformed(f"gaps are a list of at most {GAPS_MAX}", "gaps")
    gaps = []
    for position, item in enumerate(listed):
        texts = Fields({"gap": item}, f"verdict.gaps[{position}]").texts("gap", least=4, most=4)
        if texts[0] not in tuple(GapKind):
            raise _malformed("a gap begins with its kind", f"gaps[{position}]")
        gaps.append(Gap(GapKind(texts[0]), *(text[:DETAIL_MAX] for text in texts[1:])))
    return tuple(gaps)


def _unproven(texts: list[str]) -> Answered | None:
    if not texts:
        return None
    if len(texts) != 2 or texts[0] not in {Verdict.UNREACHABLE, Verdict.BOGUS}:
        raise _malformed("an answer that nothing proves is UNREACHABLE or BOGUS, with its reason", "answer")
    return Answered(Verdict(texts[0]), reason=texts[1][:DETAIL_MAX])


def _malformed(rule: str, where: str) -> InputError:
    return InputError(Reason.VERDICT_MALFORMED, rule, field=f"verdict.{where}" if where else "verdict")


@dataclass(slots=True)
class VerdictReport:
    """What a check of a verdict file found: every step, and the judgement as it was made again, by which policy."""

    policy: Policy
    checks: list[Check] = field(default_factory=list)
    body: VerdictBody | None = None
    facts: Facts | None = None
    judgement: Judgement | None = None

    @property
    def valid(self) -> bool:
        """Whether every step that was made passed."""
        return all(check.passed or not check.made for check in self.checks)


def check_verdict(file: VerdictFile, anchor: Anchor, signers: Mapping[str, PublicKey]) -> VerdictReport:
    """Verify a file without any node: signature, every proof from the root key down, facts, policy, judgement.

    The proofs are verified at the time of judging, which the body names. Without ``signers`` (keys by their id) no
    signature of the body is checked, and the report says so; all else holds without it.
    """
    report = VerdictReport(file.policy)
    try:
        _check(file, anchor, signers, report)
    except IdtraceError as error:
        report.checks.append(Check("verdict", passed=False, detail=error.detail, reason=error.reason))
    return report


def _check(file: VerdictFile, anchor: Anchor, signers: Mapping[str, PublicKey], report: VerdictReport) -> None:
    if signers:
        verify(file.signed, Kind.VERDICT, signers, budget=CheckBudget(8), field="verdict.signed")
        report.checks.append(Check("signature", passed=True, detail="by a key that was given"))
    else:
        detail = "no resolver's key was given; sound, it shows who judged"
        report.checks.append(Check.not_made("signature", detail))
    body = report.body = VerdictBody.parse(file.signed.payload)
    for bundle in file.bundles:
        found = verify_bundle(bundle, anchor, now=body.now_ms // 1000)
        if not found.valid:
            last = found.checks[-1]
            raise VerificationError(last.reason or Reason.VERDICT_DIFFERS, f"{bundle.identifier}: {last.detail}")
    report.checks.append(Check("proofs", passed=True, detail=f"{len(file.bundles)} proofs, verified from the root key"))
    facts = report.facts = facts_of(body.subject, file.bundles, file.gaps, now_ms=body.now_ms, unproven=file.unproven)
    _same(report, "facts", body.facts_hash, facts_hash(facts))
    _same(report, "policy", body.policy, file.policy.hash)
    judgement = report.judgement = judge(facts, file.policy)
    _same(report, "use", body.use.name, judgement.use.name)
    _same(report, "findings", body.findings_hash, findings_hash(judgement))
    if VerdictBody.of(judgement, facts, issued_at=body.issued_at) != body:
        raise VerificationError(Reason.VERDICT_DIFFERS, "the signed verdict is not the one that these proofs give")


def _same(report: VerdictReport, name: str, said: str, found: str) -> None:
    if said != found:
        raise VerificationError(Reason.VERDICT_DIFFERS, f"the {name} differ: {said} was signed, {found} is found")
    report.checks.append(Check(name, passed=True, detail=f"the same when judged again: {found[:16]}"))

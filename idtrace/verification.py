"""Offline verification of a bundle: every step named, and the first broken one explained.

The steps are those of :mod:`idtrace.chain` and :mod:`idtrace.logproof`, by these names and in this order:

``root key set``, ``delegation`` (one each)
    the chain from the pinned root key;
``log proof``
    the record stands in its zone's log; so it cannot be taken back or dated back unnoticed, and a record by a key that
    has ended since is believed where its index lies below the end;
``witnesses``
    enough witnesses saw the same log; needs a policy, which says whose word counts;
``record``, ``denial`` or ``revocation``
    what the zone says;
``currency``
    the zone's word that this version was the latest one. It lives for a minute, so in a saved bundle it speaks of the
    minute in which it was saved; that is shown, and nothing fails for it.

Where a part is missing the step is there as one that was not made (:attr:`Check.made`) and says what it would have
shown; a policy makes the proof and its witnesses a demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.chain import Anchor, Context, TrustedChain, VerifiedRecord, zone_name
from idtrace.checks import Check
from idtrace.errors import IdtraceError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.logpolicy import NO_QUORUM, LogPolicy
from idtrace.logproof import LoggedAt, LogProof, check_logged
from idtrace.record import Record, RecordKind
from idtrace.signature import Signed
from idtrace.statements import Currency
from idtrace.tlogproof import INCLUSION_MEANS, WITNESSES_MEAN

T = TypeVar("T")

CURRENCY_MEANS: Final = "the zone's own word that this version was the latest can be held against its log"
# A currency statement that fails for one of these is sound, and about another time than the one that was asked for.
_ANOTHER_TIME: Final = frozenset({Reason.CURRENCY_EXPIRED, Reason.CURRENCY_NOT_YET_VALID})


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found: the verdict that the bundle proves (BOGUS where a check failed) and every step.

    ``logged`` is where the record stands in its zone's log, where a proof has shown it.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    record: Record | None = None
    withheld: tuple[int, ...] = ()
    logged: LoggedAt | None = None

    @property
    def valid(self) -> bool:
        """Whether every check that was made passed."""
        return self.verdict is not Verdict.BOGUS


def verify_bundle(bundle: Bundle, anchor: Anchor, *, now: int, policy: LogPolicy | None = None) -> Report:
    """Verify a bundle against pinned root keys at a time (s): no network, no node, no clock.

    With a policy a record has to be in its zone's log, and the log's checkpoint has to be witnessed as the policy says.
    The first step that fails ends the report.
    """
    steps = _Steps(bundle, Context.at(now), policy)
    try:
        return steps.judge(steps.walk_chain(anchor))
    except IdtraceError:
        return Report(Verdict.BOGUS, tuple(steps.checks))


@dataclass(slots=True)
class _Steps:
    """One verification on its way."""

    bundle: Bundle
    context: Context
    policy: LogPolicy | None
    checks: list[Check] = field(default_factory=list)

    def step(self, name: str, action: Callable[[], tuple[T, str]]) -> T:
        try:
            result, detail = action()
        except IdtraceError as error:
            self.checks.append(Check(name, passed=False, detail=error.detail, reason=error.reason))
            raise
        self.checks.append(Check(name, passed=True, detail=detail))
        return result

    def walk_chain(self, anchor: Anchor) -> TrustedChain:
        first, *others = self.bundle.delegations or (None,)

        def root() -> tuple[TrustedChain, str]:
            if first is None:
                raise VerificationError(Reason.CHAIN_EMPTY, "there is no delegation", field="bundle.delegations")
            return _linked(TrustedChain.begin(anchor, first, self.context), "the pinned root key")

        chain = self.step("root key set", root)
        for signed in others:
            assert signed is not None, "only the first may be missing"
            chain = self._extended(chain, signed)
        return chain

    def _extended(self, chain: TrustedChain, signed: Signed) -> TrustedChain:
        return self.step("delegation", lambda: _linked(chain.extend(signed, self.context), "its parent"))

    def judge(self, chain: TrustedChain) -> Report:
        match self.bundle.outcome:
            case Record() as record:
                return self._judge_record(record, chain)
            case Denied() as denied:
                self.step("denial", lambda: self._denial(denied, chain))
                return Report(Verdict.ABSENT, tuple(self.checks))
            case revoked:
                self.step("revocation", lambda: self._revocation(revoked, chain))
                return Report(Verdict.GONE, tuple(self.checks))

    def _judge_record(self, record: Record, chain: TrustedChain) -> Report:
        logged = self._log_proof(self.bundle.proof, record, chain)
        index = logged.index if logged else None

        def genuine() -> tuple[VerifiedRecord, str]:
            found = chain.check_record(record, self.bundle.identifier, self.context, index=index)
            return found, f"version {found.body.version}, {found.body.status}, signed by zone {zone_name(chain.zone)}"

        verified = self.step("record", genuine)
        self._currency(self.bundle.currency, record, chain, index)
        verdict = Verdict.GONE if verified.body.kind is RecordKind.TOMBSTONE else Verdict.FOUND
        return Report(verdict, tuple(self.checks), record, verified.withheld, logged)

    def _log_proof(self, proof: LogProof | None, record: Record, chain: TrustedChain) -> LoggedAt | None:
        if proof is None and self.policy is None:
            if chain.delegation.log:
                self.checks.append(Check.not_made("log proof", f"there is none; sound, {INCLUSION_MEANS}"))
            return None

        def logged() -> tuple[LoggedAt, str]:
            if proof is None:
                detail = f"there is none, and the policy asks for it; sound, {INCLUSION_MEANS}"
                raise VerificationError(Reason.NOT_LOGGED, detail, field="bundle.proof")
            found = check_logged(proof, record, chain, self.context)
            return found, f"entry {found.index} of {found.checkpoint.size} in {found.checkpoint.origin}"

        found = self.step("log proof", logged)
        if self.policy is None:
            detail = f"without a policy nobody's cosignature counts; sound, {WITNESSES_MEAN}"
            self.checks.append(Check.not_made("witnesses", detail))
        else:
            policy = self.policy
            self.step("witnesses", lambda: (None, _witnessed(policy, found, self.context.now)))
        return found

    def _currency(self, signed: Signed | None, record: Record, chain: TrustedChain, index: int | None) -> None:
        if signed is None:
            if chain.delegation.log:
                self.checks.append(Check.not_made("currency", f"there is none; sound, {CURRENCY_MEANS}"))
            return

        def current() -> tuple[Currency, str]:
            found = chain.check_currency(signed, record, self.context, index=index)
            return found, f"version {found.version} is the latest in a log of {found.log_size} entries"

        try:
            self.step("currency", current)
        except VerificationError as error:
            if error.reason not in _ANOTHER_TIME:
                raise
            said = Currency.parse(signed.payload)
            detail = (
                f"signed for {said.issued_at} to {said.expires} (seconds since 1970) and no other time:"
                f" then version {said.version} was the latest in a log of {said.log_size} entries"
            )
            self.checks[-1] = Check.not_made("currency", detail)

    def _denial(self, denied: Denied, chain: TrustedChain) -> tuple[None, str]:
        self._stands_alone()
        denial = chain.check_denial(denied.signed, self.bundle.identifier, self.context)
        return None, f"{denial.reason}, signed by zone {zone_name(chain.zone)}"

    def _revocation(self, revoked: Revoked, chain: TrustedChain) -> tuple[None, str]:
        self._stands_alone()
        _check_revocation(chain, revoked.zone, self.bundle.identifier)
        return None, f"zone {revoked.zone} is revoked"

    def _stands_alone(self) -> None:
        """A proof or a currency statement is about a record; beside anything else nobody would have checked it."""
        if self.bundle.proof is not None or self.bundle.currency is not None:
            detail = "a proof or a currency statement stands beside something that is no record"
            raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, detail, field="bundle.proof")


def _linked(chain: TrustedChain, signer: str) -> tuple[TrustedChain, str]:
    return chain, f"{zone_name(chain.zone)}, version {chain.delegation.version}, signed by {signer}"


def _witnessed(policy: LogPolicy, logged: LoggedAt, now: int) -> str:
    found = policy.witnessing(logged.note, now=now)
    if not found.met:
        detail = f"{'; '.join(found.shortfall)}; sound, {WITNESSES_MEAN}"
        raise VerificationError(Reason.WITNESS_QUORUM, detail, field="bundle.proof.checkpoint")
    there = [standing.name for standing in found.standings if standing.cosigned_at is not None]
    return "the policy asks for none" if policy.quorum == NO_QUORUM else f"cosigned by {', '.join(there)}"


def _check_revocation(chain: TrustedChain, zone: Prefix, identifier: Identifier) -> None:
    if not chain.is_revoked or chain.zone != zone or not identifier.prefix.within(zone):
        detail = f"the chain does not show that {zone_name(zone)} above {identifier} is revoked"
        raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, detail, field="bundle.revocation")

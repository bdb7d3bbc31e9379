"""The referral walk: a pure state machine that takes one question from the pinned root down to the deciding zone.

Events in, one effect out, told the time with each event. The states:

======== ====================================== ==================================================================
state    waits for                              leaves it by
======== ====================================== ==================================================================
NEW      :meth:`Walk.begin`                     ReadCache
READING  ``CacheRead``                          Done (the cache had the answer), or Ask
ASKING   ``Answered``, ``Malformed``, ``Failed`` Ask (further down, a sibling endpoint, or again from the root), or Done
ENDED    nothing
======== ====================================== ==================================================================

One **step** is the asking of one zone's endpoints. What an answer has to pass, in this order; the code carries the same
numbers:

1. it holds no more links than a chain may have;
2. every delegation extends the chain (:mod:`idtrace.chain`) and covers the identifier, so each goes strictly down;
3. a referral comes with at least one delegation, names the child of the last one, and goes down from the zone asked;
4. a record passes :func:`idtrace.logproof.check_recorded` together with its proof and its currency statement, as far
   as they are there: one that is missing proves nothing, and one that is false is a lie; and it shows every value
   that everybody may read;
5. a denial passes :meth:`~TrustedChain.check_denial`, and an identifier whose record was verified before cannot be
   denied as absent (it ends with a tombstone, never with silence).

An endpoint that fails (1) to (5) has lied, one that gives nothing is dead, and either way its sibling is asked: one bad
node does not take down a zone that has a good one. Where none is good the step is lost: BOGUS with the first lie's
reason if there was one, else UNREACHABLE. A step that rests on cached links may be lost because they are out of date
(keys or endpoints have moved), so the walk then starts **once** again from the pinned root, on the same budget.

What a walk may cost stands in :class:`Limits`; nothing of it is ever reset. Loops need no other guard: every referral
is strictly down and a prefix has at most eight labels.

Sources: RFC 1034 §5.3.3 (the algorithm), RFC 4035 §5 (the chain), Unbound ``iterator.h`` (states, limits), NXNSAttack
and KeyTrap (what the limits are against), tsuNAME (a failure is cached like an answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import assert_never

from idtrace.bundle import Denied, NodeAnswer, Referred, Verdict
from idtrace.chain import LINKS_MAX, Anchor, Context, TrustedChain, VerifiedRecord
from idtrace.delegation import Delegation, Role
from idtrace.delegation import State as Standing
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import check_recorded
from idtrace.record import Record, withheld_public
from idtrace.signature import CheckBudget, SignatureMemory, Signed
from idtrace.statements import DenialReason
from resolver.effects import (
    Answered,
    Ask,
    CacheRead,
    Done,
    Effect,
    Event,
    Failed,
    Learned,
    Limits,
    Malformed,
    Memory,
    ReadCache,
)
from resolver.resolution import Resolution, denied, recorded, revoked, without_restricted


class State(Enum):
    """Where a walk stands; see the module's table."""

    NEW = "new"
    READING = "reading"
    ASKING = "asking"
    ENDED = "ended"


class Walk:
    """One question. Call :meth:`begin`, then :meth:`receive` with the outcome of each effect until it is ``Done``.

    Args:
        identifier: the question.
        anchor: the pinned root keys.
        root_endpoints: where a walk from the pinned root begins.
        floors: what was verified before this question.
        limits: what the question may cost.
        memory: seals and delegations that were checked for questions before; they cost this one nothing.
    """

    def __init__(
        self,
        identifier: Identifier,
        *,
        anchor: Anchor,
        root_endpoints: Sequence[str],
        floors: Memory,
        limits: Limits | None = None,
        memory: SignatureMemory | None = None,
    ) -> None:
        self.state = State.NEW
        self._identifier = identifier
        self._anchor = anchor
        self._root_endpoints = tuple(root_endpoints)
        self._floors = floors
        self._limits = limits or Limits()
        # Budgets: spent and never given back
        self._checks = CheckBudget(self._limits.signature_checks, memory)
        self._visited: list[str] = []
        self._deadline_ms = 0
        self._dead: set[str] = set()
        # What is verified so far
        self._base: Learned | None = None
        self._base_is_cached = False
        self._learned: list[Learned] = []
        self._reached: Learned | None = None
        # This step
        self._targets: list[str] = []
        self._asked_ms = 0
        self._seen = _Seen(floors, identifier)
        self._lie: VerificationError | None = None
        self._lie_links = 0
        self._silence = ""

    def begin(self, *, now_ms: int) -> Effect:
        """Start the clock of the question."""
        assert self.state is State.NEW, "a walk answers one question"
        self.state = State.READING
        self._deadline_ms = now_ms + self._limits.question_ms
        return ReadCache(self._identifier, tuple(reversed(self._identifier.prefix.lineage())))

    def receive(self, event: Event, *, now: int, now_ms: int) -> Effect:
        """Take the outcome of the last effect; ``now`` is wall clock in s, ``now_ms`` monotonic."""
        match event:
            case CacheRead(answer, chain):
                assert self.state is State.READING, "nobody asked the cache"
                return self._start(answer, chain, now_ms)
            case Answered(answer):
                self._expect_reply()
                try:
                    return self._take(answer, now, now_ms)
                except VerificationError as error:
                    return self._lied(error, now_ms)
            case Malformed(reason, detail):
                self._expect_reply()
                return self._lied(VerificationError(reason, detail, field="answer"), now_ms)
            case Failed(kind, detail):
                self._expect_reply()
                self._dead.add(self._visited[-1])
                self._silence = f"{self._visited[-1]} is {kind}: {detail}"
                return self._next(now_ms)
            case _:
                assert_never(event)

    @property
    def _held(self) -> int:
        """Links that were verified before this step."""
        return len(self._base.chain.links) if self._base else 0

    def _expect_reply(self) -> None:
        assert self.state is State.ASKING, "nobody was asked"

    # Choosing whom to ask

    def _start(self, answer: Resolution | None, chain: Learned | None, now_ms: int) -> Effect:
        if answer is not None:
            return self._end(answer)
        if chain is not None:
            assert self._identifier.prefix.within(chain.chain.zone), "the cache gave a chain of another branch"
            self._base_is_cached = True
        return self._step(chain, now_ms)

    def _step(self, base: Learned | None, now_ms: int) -> Effect:
        """Go on from a verified chain, or from the pinned root: its endpoints that are not known to be dead."""
        self._base = base
        endpoints = base.chain.delegation.endpoints if base else self._root_endpoints
        living = [endpoint for endpoint in dict.fromkeys(endpoints) if endpoint not in self._dead]
        self._targets = living[: self._limits.endpoints_tried]
        return self._next(now_ms)

    def _next(self, now_ms: int) -> Effect:
        """Ask the step's next endpoint, or give the step up."""
        left_ms = self._deadline_ms - now_ms
        if left_ms <= 0:
            return self._fail(Reason.BUDGET_TIME, f"no answer within {self._limits.question_ms} ms")
        if len(self._visited) >= self._limits.upstream_calls:
            return self._fail(Reason.BUDGET_CALLS, f"no answer within {self._limits.upstream_calls} calls")
        if not self._targets:
            return self._lost(now_ms)
        self.state = State.ASKING
        self._asked_ms = now_ms
        # Taken before the question leaves: what another walk learns meanwhile must not make this answer a lie.
        self._seen = _Seen(self._floors, self._identifier)
        for learned in self._learned:
            self._seen.learn(learned.chain.delegation)
        endpoint = self._targets.pop(0)
        self._visited.append(endpoint)
        zone_known = self._base.chain.zone if self._base else None
        return Ask(endpoint, zone_known, self._identifier, min(left_ms, self._limits.call_ms))

    def _lied(self, error: VerificationError, now_ms: int) -> Effect:
        if self._lie is None:
            self._lie, self._lie_links = error, self._held
        if error.reason is Reason.TOO_MUCH_CRYPTO:  # no other endpoint can be believed on what is left of the budget
            return self._fail(error.reason, error.detail)
        return self._next(now_ms)

    def _lost(self, now_ms: int) -> Effect:
        """No endpoint of the step was good: start again where cached links may be to blame, else fail."""
        base = self._base
        if base and self._base_is_cached and now_ms - base.since_ms >= self._limits.restart_age_ms:
            self._base_is_cached = False  # so this happens once
            return self._step(None, now_ms)
        if not self._silence:
            return self._fail(Reason.NO_ENDPOINT, "there is no endpoint to ask")
        return self._fail(Reason.NO_ANSWER, self._silence)

    # Judging an answer

    def _take(self, answer: NodeAnswer, now: int, now_ms: int) -> Effect:
        context = Context(now, self._checks, self._seen)
        # 1. no more links than a chain may have
        base, added = _without_known(self._base, answer.delegations)
        held = len(base.chain.links) if base else 0
        if held + len(added) > LINKS_MAX:
            detail = f"{held} links and {len(added)} more are beyond {LINKS_MAX}"
            raise VerificationError(Reason.CHAIN_TOO_DEEP, detail, field="answer.delegations")
        # 2. every delegation extends the chain and covers the identifier
        reached = self._reached = self._extend(base, added, context)
        chain = reached.chain
        if len(chain.links) - 1 > self._limits.depth:
            return self._fail(Reason.BUDGET_DEPTH, f"zone {chain.zone} is more than {self._limits.depth} zones deep")
        ceiling = self._limits.answer_seconds
        match answer.outcome:
            case Referred(zone):
                # 3. a referral comes with a delegation, and names its child
                _check_referral(added, zone, chain.zone)
                if chain.is_revoked:
                    return self._end(revoked(self._identifier, chain, now=now, ceiling_seconds=ceiling))
                if self._base and not chain.zone.strictly_within(self._base.chain.zone):
                    detail = f"a referral from {self._base.chain.zone} to {chain.zone}"
                    raise VerificationError(Reason.REFERRAL_UPWARD, detail, field="answer.referral")
                if len(chain.links) > self._lie_links:
                    self._lie = None  # past the zone in whose name it was told: an honest sibling has made it good
                return self._step(reached, now_ms)
            case Record() as record:
                # 4. a record of this identifier by this zone, with what came beside it
                return self._recorded(record, answer, chain, context)
            case Denied(signed) as outcome:
                # 5. a denial of this identifier by this zone, of which no record was ever seen
                denial = chain.check_denial(signed, self._identifier, context)
                seen = self._seen.record(self._identifier)
                if denial.reason is DenialReason.IDENTIFIER_ABSENT and seen:
                    detail = f"{self._identifier} is denied after version {seen[0]} was seen"
                    raise VerificationError(Reason.RECORD_ROLLED_BACK, detail, field="denial")
                return self._end(denied(outcome, denial, chain, now=now, ceiling_seconds=ceiling))
            case _:
                assert_never(answer.outcome)

    def _recorded(self, record: Record, answer: NodeAnswer, chain: TrustedChain, context: Context) -> Effect:
        proof, currency = answer.proof, answer.currency
        found = check_recorded(record, self._identifier, chain, context, proof=proof, currency=currency)
        hidden = withheld_public(found.record, found.body)
        if hidden:
            detail = f"value {hidden[0]} is for everybody and is left out"
            raise VerificationError(Reason.VALUE_WITHHELD, detail, field="record.values")
        verified = without_restricted(found)
        resolution = recorded(
            verified,
            chain,
            now=context.now,
            ceiling_seconds=self._limits.answer_seconds,
            proof=proof,
            currency=currency,
        )
        return self._end(resolution, verified)

    def _extend(self, base: Learned | None, delegations: Sequence[Signed], context: Context) -> Learned:
        """Put delegations through the chain's checks; what is verified is learned even if a later one is not."""
        reached = base
        for signed in delegations:
            since_ms = reached.since_ms if reached else self._asked_ms
            if reached is None:
                chain = TrustedChain.begin(self._anchor, signed, context)
            else:
                chain = reached.chain.extend(signed, context)
            if not self._identifier.prefix.within(chain.zone):
                detail = f"the node hands out {chain.zone}, which does not cover {self._identifier}"
                raise VerificationError(Reason.REFERRAL_SIDEWAYS, detail, field="answer.delegations")
            links_ms = (*(reached.asked_ms if reached else ()), self._asked_ms)
            reached = Learned(chain, since_ms, links_ms)
            self._learned.append(reached)
            self._seen.learn(chain.delegation)
        if reached is None:
            raise VerificationError(Reason.CHAIN_EMPTY, "there is no delegation", field="answer.delegations")
        return reached

    # Ending

    def _fail(self, reason: Reason, detail: str) -> Done:
        """Nothing is proven: BOGUS where somebody has lied on this step, else UNREACHABLE."""
        if self._lie is not None:
            return self._end(Resolution(self._identifier, Verdict.BOGUS, self._lie.reason, self._lie.detail))
        return self._end(Resolution(self._identifier, Verdict.UNREACHABLE, reason, detail))

    def _end(self, resolution: Resolution, record: VerifiedRecord | None = None) -> Done:
        self.state = State.ENDED
        counted = replace(resolution, upstream_calls=len(self._visited), visited=tuple(self._visited))
        reached = self._reached if resolution.bundle is not None else None
        return Done(counted, tuple(self._learned), record, reached, self._asked_ms)


def _without_known(base: Learned | None, given: tuple[Signed, ...]) -> tuple[Learned | None, tuple[Signed, ...]]:
    """What an answer adds, and to what.

    A node that answers for a zone above the one that it was asked about (a parent that hosts the zone and has disabled
    it) sends the chain from the root. The links that it shares with ours, byte for byte, are verified already.
    """
    if base is None or not given or given[0] != base.chain.links[0].signed:
        return base, given
    links = base.chain.links
    shared = next((n for n, (ours, its) in enumerate(zip(links, given, strict=False)) if ours.signed != its), None)
    shared = min(len(links), len(given)) if shared is None else shared
    return Learned(base.chain.upto(shared), base.since_ms, base.asked_ms[:shared]), given[shared:]


def _check_referral(added: Sequence[Signed], named: Prefix, reached: Prefix) -> None:
    if not added:
        raise VerificationError(
            Reason.REFERRAL_UNSIGNED, f"a referral to {named} without a delegation", field="answer.referral"
        )
    if named != reached:
        reason = Reason.REFERRAL_UPWARD if reached.within(named) else Reason.REFERRAL_SIDEWAYS
        detail = f"a referral to {named} beside a delegation of {reached}"
        raise VerificationError(reason, detail, field="answer.referral")


class _Seen:
    """The floors of one question at one moment, without those that the question itself shows to be void."""

    def __init__(self, floors: Memory, identifier: Identifier) -> None:
        self._zones = {zone: floors.zone_floor(zone) for zone in identifier.prefix.lineage()}
        self._record = floors.record_floor(identifier)

    def learn(self, delegation: Delegation) -> None:
        """Drop what rests on keys that a verified new version of their zone does not name.

        A revocation names none, and does not say which were stolen. A zone whose own floor was void has a new version.
        """
        held = self._zones[delegation.child]
        if (held and delegation.version <= held.version) or delegation.state is Standing.REVOKED:
            return
        for zone, floor in self._zones.items():
            if floor is not None and floor.is_void(delegation, Role.ZONE):
                self._zones[zone] = None
        if self._record is not None and self._record.is_void(delegation, Role.RECORD):
            self._record = None

    def zone(self, zone: Prefix) -> tuple[int, bytes] | None:
        """As of then; a zone beside the question has no floor, and is refused for that."""
        floor = self._zones.get(zone)
        return floor.known if floor else None

    def record(self, identifier: Identifier) -> tuple[int, bytes] | None:
        """As of then."""
        del identifier  # a walk has one
        return self._record.known if self._record else None

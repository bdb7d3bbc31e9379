"""Offline verification of a bundle: every step named, and the first broken one explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from idtrace.bundle import Bundle, Denied, Verdict
from idtrace.chain import Anchor, Context, TrustedChain, zone_name
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordKind
from idtrace.signature import Signed


@dataclass(frozen=True, slots=True)
class Check:
    """One step of a verification: a stable name, whether it passed, and why not."""

    name: str
    passed: bool
    detail: str
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What verification found: the verdict that the bundle proves (BOGUS where a check failed) and every step."""

    verdict: Verdict
    checks: tuple[Check, ...]
    record: Record | None = None
    withheld: tuple[int, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether every check passed."""
        return self.verdict is not Verdict.BOGUS


def verify_bundle(bundle: Bundle, anchor: Anchor, *, now: int) -> Report:
    """Verify a bundle against pinned root keys at a time (s): no network, no node, no clock.

    The steps are those of :mod:`idtrace.chain`; the first one that fails ends the report.
    """
    checks: list[Check] = []
    context = Context.at(now)

    def step(name: str, action: Callable[[], tuple[Any, str]]) -> Any:
        try:
            result, detail = action()
        except IdtraceError as error:
            checks.append(Check(name, passed=False, detail=error.detail, reason=error.reason))
            raise
        checks.append(Check(name, passed=True, detail=detail))
        return result

    try:
        chain = _walk_chain(bundle, anchor, context, step)
        return _judge(bundle, chain, context, step, checks)
    except (VerificationError, InputError):
        return Report(Verdict.BOGUS, tuple(checks))


Step = Callable[[str, Callable[[], tuple[Any, str]]], Any]


def _walk_chain(bundle: Bundle, anchor: Anchor, context: Context, step: Step) -> TrustedChain:
    chain: TrustedChain | None = None
    for signed in bundle.delegations:

        def action(signed: Signed = signed, chain: TrustedChain | None = chain) -> tuple[TrustedChain, str]:
            longer = chain.extend(signed, context) if chain else TrustedChain.begin(anchor, signed, context)
            signer = "its parent" if chain else "the pinned root key"
            return longer, f"{zone_name(longer.zone)}, version {longer.delegation.version}, signed by {signer}"

        chain = step("root key set" if chain is None else "delegation", action)
    if chain is None:
        step("root key set", _empty_chain)
    assert chain is not None
    return chain


def _empty_chain() -> tuple[None, str]:
    raise VerificationError(Reason.CHAIN_EMPTY, "there is no delegation", field="bundle.delegations")


def _judge(bundle: Bundle, chain: TrustedChain, context: Context, step: Step, checks: list[Check]) -> Report:
    match bundle.outcome:
        case Record() as record:
            verified = step(
                "record",
                lambda: (
                    result := chain.check_record(record, bundle.identifier, context),
                    f"version {result.body.version}, {result.body.status}, signed by zone {chain.zone}",
                ),
            )
            gone = verified.body.kind is RecordKind.TOMBSTONE
            verdict = Verdict.GONE if gone else Verdict.FOUND
            return Report(verdict, tuple(checks), record, verified.withheld)
        case Denied(signed):
            step(
                "denial",
                lambda: (
                    denial := chain.check_denial(signed, bundle.identifier, context),
                    f"{denial.reason}, signed by zone {zone_name(chain.zone)}",
                ),
            )
            return Report(Verdict.ABSENT, tuple(checks))
        case revoked:
            zone = revoked.zone
            step("revocation", lambda: (_check_revocation(chain, zone, bundle.identifier), f"zone {zone} is revoked"))
            return Report(Verdict.GONE, tuple(checks))


def _check_revocation(chain: TrustedChain, zone: Prefix, identifier: Identifier) -> Prefix:
    if not chain.is_revoked or chain.zone != zone or not identifier.prefix.within(zone):
        detail = f"the chain does not show that {zone_name(zone)} above {identifier} is revoked"
        raise VerificationError(Reason.ANSWER_CONTRADICTS_ITSELF, detail, field="bundle.revocation")
    return zone

"""From bundles to facts and back: what has no proof is unknown, and a saved verdict is judged again or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.epcis import statement as event_statement
from idtrace.epcis.model import Action, Event, EventType, Typed
from idtrace.epcis.write import event_bytes
from idtrace.errors import InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.party import PARTY_TYPE, Location, LocationKind, Party, PartyRole, format_party
from idtrace.product import PRODUCT_TYPE
from idtrace.provenance.history import Gap, GapKind
from idtrace.recall import RECALL_TYPE, Recall, Scope, ScopeKind, format_recall
from idtrace.record import Permission, Record, RecordKind, Status, build_values
from idtrace.verdict.evidence import answered, facts_hash, facts_of, zones_with_a_say
from idtrace.verdict.facts import Answered
from idtrace.verdict.findings import Code, Use
from idtrace.verdict.judge import judge
from idtrace.verdict.policy import Policy
from idtrace.verdict.statement import (
    FILE_BYTES_MAX,
    GAPS_MAX,
    VerdictBody,
    VerdictFile,
    check_verdict,
    sign_verdict,
)
from tests.core_fixtures import (
    NOW,
    anchor,
    body_and_values,
    bundle,
    denial,
    denied,
    links,
    public,
    salts,
    signed_record,
    signer,
    tombstone,
)
from tests.unit.verdict.facts_builder import product

ZONE = "88.118.8"
DOSE = Identifier.parse("88.118.8/SN-0001")
CLASS = Identifier.parse("88.118.8/class/v1")
RESOLVER = "a resolver"
NOW_MS = NOW * 1000


def paper(identifier: str, *values: tuple[str, bytes], **changes: Any) -> Bundle:
    """A bundle of a record with these values."""
    parsed = Identifier.parse(identifier)
    digests, shown = build_values([(name, data, Permission.PUBLIC) for name, data in values], salts())
    body, _ = body_and_values(parsed, (), values=digests, **changes)
    return bundle(signed_record(body.payload(), shown, f"record of {parsed.prefix}"), identifier=parsed)


def nothing(identifier: str) -> Bundle:
    """A bundle of a denial."""
    parsed = Identifier.parse(identifier)
    return denied(denial(parsed, zone=str(parsed.prefix)), links(str(parsed.prefix)), parsed)


def reported(event: Event, by: str = ZONE) -> Bundle:
    """A bundle of an event's record."""
    data = event_bytes(event)
    identifier = event_statement.event_identifier(Prefix.parse(by), data)
    parts = event_statement.split(data)
    entries = [(event_statement.EVENT_TYPE, part, Permission.PUBLIC) for part in parts]
    digests, shown = build_values(entries, (event_statement.salt(data, n) for n in range(1, len(parts) + 1)))
    body, _ = body_and_values(identifier, (), values=digests)
    return bundle(signed_record(body.payload(), shown, f"record of {by}"), identifier=identifier)


MADE = Event(
    EventType.OBJECT, Action.ADD, NOW_MS - 60_000, 480, epcs=("idtrace:88.118.8/SN-0001",), biz_step="commissioning",
    destinations=(Typed("possessing_party", "idtrace:88.118.8"), Typed("location", "https://example.com/dock")),
)  # fmt: skip
LICENCE = Party(
    ZONE, "Maker", "厂", frozenset({PartyRole.MAKER}),
    (Location("idtrace:88.118.8/site", LocationKind.SITE, 31.2304, 121.4737),), NOW - 1000, NOW + 1000,
)  # fmt: skip
RECALL = Recall("88.118", "R-1", Scope(ScopeKind.PRODUCT, str(CLASS)), 2, "glass", "玻璃", NOW - 500)


def papers(**changes: Bundle | None) -> list[Bundle]:
    """All that a verdict of the dose needs; changed or left out by name."""
    named: dict[str, Bundle | None] = {
        "own": paper(str(DOSE), ("lot", b"L1"), ("expiry", b"300531"), class_id=CLASS),
        "made": reported(MADE),
        "class_": paper(str(CLASS), (PRODUCT_TYPE, product().payload()), kind=RecordKind.CLASS),
        "licence": paper("88.118/party/88.118.8", (PARTY_TYPE, format_party(LICENCE))),
        "recalls_88": nothing("88/recalls"),
        "recalls_118": nothing("88.118/recalls"),
        "recalls_8": nothing("88.118.8/recalls"),
    }
    return [one for one in (named | changes).values() if one is not None]


def facts(bundles: Iterable[Bundle] | None = None, gaps: Iterable[Gap] = (), **given: Any) -> Any:
    return facts_of(str(DOSE), papers() if bundles is None else bundles, gaps, now_ms=NOW_MS, **given)


def findings(of: Any) -> list[Code]:
    return [one.code for one in judge(of, Policy()).findings]


def test_the_proofs_of_a_sound_dose_make_its_facts() -> None:
    found = facts()
    assert (found.answer, found.lot, found.expiry) == (
        Answered(Verdict.FOUND, Status.ACTIVE, "", 1), "L1", "2030-05-31",
    )  # fmt: skip
    assert found.product == product()
    assert found.parties[ZONE].name_en == "Maker"
    assert [one.event.biz_step for one in found.observed] == ["commissioning"]
    assert (found.gaps, found.recalls, found.recalls_unknown) == ((), (), ())
    assert judge(found, Policy()).use is Use.USE
    assert facts(reversed(papers())) == found
    assert facts_hash(facts(reversed(papers()))) == facts_hash(found)


def test_what_has_no_proof_is_unknown_and_holds() -> None:
    for missing, code in (
        ("class_", Code.PRODUCT_UNKNOWN), ("licence", Code.HISTORY_GAP), ("recalls_118", Code.RECALL_UNKNOWN),
        ("own", Code.UNPROVEN), ("made", Code.NOT_COMMISSIONED),
    ):  # fmt: skip
        found = facts(papers(**{missing: None}))
        assert code in findings(found), missing
        assert judge(found, Policy()).use is Use.HOLD
        assert facts_hash(found) != facts_hash(facts())


def test_a_gap_is_told_once_and_one_of_recalls_by_its_zone() -> None:
    gaps = [
        Gap(GapKind.UNREACHABLE, "88.118/party/88.118.8", "no answer"),
        Gap(GapKind.UNREACHABLE, "88.118/recalls", "no answer"),
    ]
    found = facts(papers(licence=None, recalls_118=None), gaps)
    assert found.gaps == (gaps[0],)
    assert found.recalls_unknown == ("88.118",)


def test_a_denied_licence_is_none() -> None:
    found = facts(papers(licence=nothing("88.118/party/88.118.8")))
    assert (dict(found.parties), found.gaps) == ({}, ())
    assert findings(found) == [Code.PARTY_UNLICENSED]


def test_a_suspended_licence_is_not_active() -> None:
    suspended = paper("88.118/party/88.118.8", (PARTY_TYPE, format_party(LICENCE)), status=Status.SUSPENDED)
    assert findings(facts(papers(licence=suspended))) == [Code.PARTY_UNLICENSED]


def test_a_recall_is_read_from_the_zone_that_made_it() -> None:
    recalls = paper("88.118/recalls", (RECALL_TYPE, format_recall(RECALL)), ("note", b"x"))
    found = facts(papers(recalls_118=recalls))
    assert found.recalls == (replace(RECALL, evidence="88.118/recalls", version=1),)
    assert findings(found) == [Code.RECALLED]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"recalls_8": paper("88.118.8/recalls", (RECALL_TYPE, b"{}"))}, Code.RECALL_UNKNOWN),
        ({"class_": paper(str(CLASS), kind=RecordKind.CLASS)}, Code.PRODUCT_UNKNOWN),
        ({"class_": paper(str(CLASS), (PRODUCT_TYPE, b"{}"), kind=RecordKind.CLASS)}, Code.PRODUCT_UNKNOWN),
        ({"class_": nothing(str(CLASS))}, Code.PRODUCT_UNKNOWN),
        ({"own": paper(str(DOSE), ("expiry", b"300531"))}, Code.PRODUCT_UNKNOWN),
        ({"own": paper(str(DOSE), ("expiry", b"some day"), class_id=CLASS)}, Code.EXPIRY_UNKNOWN),
        ({"licence": paper("88.118/party/88.118.8", (PARTY_TYPE, b"{}"))}, Code.HISTORY_GAP),
        ({"made": paper(f"88.118.8/event/{'0' * 64}", ("epcis.event", b"{}"))}, Code.NOT_COMMISSIONED),
    ],
)
def test_papers_that_cannot_be_read_hold_and_accuse_nobody(changed: dict[str, Bundle], code: Code) -> None:
    found = facts(papers(**changed))
    assert code in findings(found)
    assert judge(found, Policy()).use is Use.HOLD


def test_what_a_bundle_says_of_its_identifier() -> None:
    assert answered(bundle(tombstone(DOSE))) == Answered(Verdict.GONE, Status.RETIRED, Reason.IDENTIFIER_RETIRED, 2)
    assert answered(nothing(str(DOSE))) == Answered(Verdict.ABSENT, reason="IDENTIFIER_ABSENT")
    revoked = bundle(Revoked(Prefix.parse("88.118.8")), links(), DOSE)
    assert answered(revoked) == Answered(Verdict.GONE, reason=Reason.DELEGATION_REVOKED)
    lie = Answered(Verdict.BOGUS, reason="SIGNATURE_INVALID")
    assert facts([], unproven=lie).answer == lie
    assert findings(facts(papers(own=bundle(tombstone(DOSE))))) == [Code.ENDED]
    assert findings(facts(papers(class_=bundle(tombstone(CLASS), identifier=CLASS)))) == [Code.PRODUCT_UNKNOWN]


def test_zones_with_a_say_are_the_things_own_and_those_above() -> None:
    assert zones_with_a_say(["88.118.8/X", "urn:epc:id:sgtin:1", "88.9/Y"]) == ("88", "88.118", "88.118.8", "88.9")


# Saved verdicts


def saved(bundles: list[Bundle] | None = None, policy: Policy | None = None, **given: Any) -> VerdictFile:
    policy = policy or Policy()
    told = facts(bundles, **given)
    signed = sign_verdict(judge(told, policy), told, signer(RESOLVER), issued_at=NOW)
    proofs = tuple(papers() if bundles is None else bundles)
    return VerdictFile(signed, policy, proofs, told.gaps, given.get("unproven"))


KEYS = {public(RESOLVER).key_id: public(RESOLVER)}


def test_a_saved_verdict_is_judged_again_to_the_same() -> None:
    for file in (
        saved(),
        saved(policy=Policy("strict", {Code.EXCURSION: Use.HOLD})),
        saved(papers(licence=None)),
        saved([], unproven=Answered(Verdict.BOGUS, reason="SIGNATURE_INVALID")),
    ):
        read = VerdictFile.from_json(file.to_json())
        assert read == file
        report = check_verdict(read, anchor(), KEYS)
        assert report.valid, report.checks
        assert report.body is not None
        assert report.judgement is not None
        assert report.judgement.use is report.body.use
        assert [check.name for check in report.checks] == ["signature", "proofs", "facts", "policy", "use", "findings"]


def test_without_a_key_all_is_checked_but_the_signature() -> None:
    report = check_verdict(saved(), anchor(), {})
    assert report.valid
    assert not report.checks[0].made


def resigned(**changes: Any) -> VerdictFile:
    file = saved()
    body = replace(VerdictBody.parse(file.signed.payload), **changes)
    from idtrace.signature import Kind, sign

    return replace(file, signed=sign(Kind.VERDICT, body.payload(), signer(RESOLVER)))


LIES: dict[str, tuple[Callable[[], VerdictFile], Reason]] = {
    "another use": (lambda: resigned(use=Use.HOLD), Reason.VERDICT_DIFFERS),
    "another finding": (lambda: resigned(findings=((Code.FROZEN, -1),)), Reason.VERDICT_DIFFERS),
    "another reason": (lambda: resigned(findings_hash="00" * 32), Reason.VERDICT_DIFFERS),
    "another policy": (lambda: resigned(policy="00" * 32), Reason.VERDICT_DIFFERS),
    "other facts": (lambda: resigned(facts_hash="00" * 32), Reason.VERDICT_DIFFERS),
    "another end": (lambda: resigned(until_ms=5), Reason.VERDICT_DIFFERS),
    "a proof less": (lambda: replace(saved(), bundles=saved().bundles[:-1]), Reason.VERDICT_DIFFERS),
    "a gap less": (
        lambda: replace(saved(papers(), gaps=(Gap(GapKind.BOUND, "a", "b"),)), gaps=()),
        Reason.VERDICT_DIFFERS,
    ),
    "a foreign key": (
        lambda: replace(saved(), signed=replace(saved().signed, signatures=())),
        Reason.SIGNATURE_MISSING,
    ),
    "a forged proof": (
        lambda: replace(saved(), bundles=(replace(saved().bundles[0], delegations=()), *saved().bundles[1:])),
        Reason.CHAIN_EMPTY,
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_no_lie_in_a_saved_verdict_survives(name: str) -> None:
    told, reason = LIES[name]
    report = check_verdict(told(), anchor(), KEYS)
    assert not report.valid
    assert report.checks[-1].reason is reason


def test_a_body_is_read_strictly() -> None:
    payload = saved().signed.payload
    assert VerdictBody.parse(payload).payload() == payload
    held = saved(papers(licence=None)).signed.payload
    assert VerdictBody.parse(held).payload() == held
    for old, new in ((b'"USE"', b'"MAYBE"'), (b'"use"', b'"usf"'), (b'"now_ms":', b'"now_ms":-')):
        with pytest.raises(InputError):
            VerdictBody.parse(payload.replace(old, new))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda body: body.update(format="x"), "verdict.format"),
        (lambda body: body.update(extra=1), "verdict.'extra'"),
        (lambda body: body.update(gaps=1), "verdict.gaps"),
        (lambda body: body.update(gaps=[["bound", "a", "b", ""]] * (GAPS_MAX + 1)), "verdict.gaps"),
        (lambda body: body.update(gaps=[["nokind", "a", "b", ""]]), "verdict.gaps[0]"),
        (lambda body: body.update(gaps=[["bound"]]), "verdict.gaps[0].gap"),
        (lambda body: body.update(answer=["FOUND", ""]), "verdict.answer"),
        (lambda body: body.update(answer=["BOGUS"]), "verdict.answer"),
        (lambda body: body["policy"].update({"raise": {"NONE": "HOLD"}}), "verdict.policy.raise"),
        (lambda body: body["policy"].update({"raise": {"FROZEN": "NO"}}), "verdict.policy.raise"),
        (lambda body: body["policy"].update({"raise": {"FROZEN": "USE"}}), "policy.raise.FROZEN"),
        (lambda body: body["policy"].update({"raise": 1}), "verdict.policy.raise"),
        (lambda body: body["policy"].update({"more": 1}), "verdict.policy.'more'"),
    ],
)
def test_a_file_is_read_strictly(change: Callable[[dict[str, Any]], None], field: str) -> None:
    body = json.loads(saved().to_json())
    change(body)
    with pytest.raises(InputError) as caught:
        VerdictFile.from_json(json.dumps(body))
    assert caught.value.field == field


def test_what_is_no_file_is_refused() -> None:
    for text in ("", "[]", "x" * (FILE_BYTES_MAX + 1)):
        with pytest.raises(InputError) as caught:
            VerdictFile.from_json(text)
        assert caught.value.reason is Reason.VERDICT_MALFORMED


def test_a_record_that_is_no_event_is_no_observation() -> None:
    odd = Record(papers()[0].outcome.signed, ())  # type: ignore[union-attr]  # the dose's own record
    found = facts([*papers(made=None), Bundle(Identifier.parse(f"88.118.8/event/{'1' * 64}"), links(), odd)])
    assert found.observed == ()
    assert [gap.kind for gap in found.gaps] == [GapKind.MISFIT]
    denied_event = nothing(f"88.118.8/event/{'1' * 64}")
    assert facts([*papers(made=None), denied_event]).observed == ()
    assert isinstance(denied_event.outcome, Denied)

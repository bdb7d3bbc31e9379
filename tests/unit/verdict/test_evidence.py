"""From bundles to facts and back: what has no proof is unknown, and a saved verdict is judged again or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

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
from idtrace.recall import RECALL_TYPE, Recall, Scope, ScopeKind, Thing, format_recall
from idtrace.record import Permission, Record, RecordKind, Status, build_values
from idtrace.verdict.evidence import answered, facts_hash, facts_of, maker_of, zones_with_a_say
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


FAMILY = Identifier.parse("86.5/class/all")


def in_a_family(**changes: Bundle | None) -> list[Bundle]:
    """The dose's class tells nothing itself, and what it inherits from lies in another zone."""
    return papers(
        **{
            "own": paper(str(DOSE), class_id=CLASS),
            "class_": paper(str(CLASS), kind=RecordKind.CLASS, class_id=FAMILY),
            "family": paper(
                str(FAMILY), (PRODUCT_TYPE, product(identifier=str(FAMILY)).payload()), ("lot", b"L7"),
                ("expiry", b"20300531"), kind=RecordKind.CLASS,
            ),
            "recalls_86": nothing("86/recalls"),
            "recalls_865": nothing("86.5/recalls"),
        } | changes
    )  # fmt: skip


def test_what_its_classes_say_holds_for_a_dose_that_does_not_say_it_itself() -> None:
    found = facts(in_a_family())
    assert (found.product, found.lot, found.expiry) == (product(identifier=str(FAMILY)), "L7", "2030-05-31")
    assert found.classes == (str(CLASS), str(FAMILY))
    assert (found.gaps, found.recalls_unknown) == ((), ())
    own = paper(str(DOSE), ("lot", b"L1"), ("expiry", b"some day"), class_id=CLASS)
    nearer = facts(in_a_family(own=own))
    assert (nearer.lot, nearer.expiry) == ("L1", "")
    assert [gap.kind for gap in nearer.gaps] == [GapKind.UNREADABLE]
    assert Code.HISTORY_GAP in findings(nearer)  # whatever an event says of it


def test_the_recalls_of_the_zones_of_its_classes_are_asked_for_and_reach_it() -> None:
    assert facts(in_a_family(recalls_865=None)).recalls_unknown == ("86.5",)
    family = replace(RECALL, zone="86.5", scope=Scope(ScopeKind.PRODUCT, str(FAMILY)))
    recalls = paper("86.5/recalls", (RECALL_TYPE, format_recall(family)))
    found = facts(in_a_family(recalls_865=recalls))
    assert Code.RECALLED in findings(found)
    assert facts_hash(found) != facts_hash(facts(in_a_family()))


def test_the_recalls_of_its_makers_zone_are_asked_for() -> None:
    by_another = paper(str(CLASS), (PRODUCT_TYPE, product(maker="86.9").payload()), kind=RecordKind.CLASS)
    assert facts(papers(class_=by_another)).recalls_unknown == ("86", "86.9")
    own = replace(RECALL, zone="86.9")
    recalls = paper("86.9/recalls", (RECALL_TYPE, format_recall(own)))
    assert Code.RECALLED in findings(facts(papers(class_=by_another, maker=recalls, above=nothing("86/recalls"))))
    assert maker_of(cast("Record", by_another.outcome)) == "86.9"
    for values in ((), ((PRODUCT_TYPE, b"{}"),)):
        tells_none = paper(str(CLASS), *values, kind=RecordKind.CLASS)
        assert maker_of(cast("Record", tells_none.outcome)) == ""


def test_a_class_on_the_way_that_cannot_be_had_holds() -> None:
    found = facts(in_a_family(class_=None))
    assert (found.product, found.classes) == (None, (str(CLASS),))
    assert Code.PRODUCT_UNKNOWN in findings(found)
    unknown = facts(in_a_family(family=None))
    assert [gap.subject for gap in unknown.gaps] == [str(FAMILY)]
    own_word = paper(str(CLASS), (PRODUCT_TYPE, product().payload()), kind=RecordKind.CLASS, class_id=FAMILY)
    known = facts(in_a_family(class_=own_word, family=None))
    assert known.product == product()
    assert Code.HISTORY_GAP in findings(known)


def test_classes_that_name_each_other_end() -> None:
    circle = paper(str(FAMILY), kind=RecordKind.CLASS, class_id=CLASS)
    assert facts(in_a_family(family=circle)).classes == (str(CLASS), str(FAMILY))


BULK = "86.7/BULK-1"
FILLED = Event(
    EventType.TRANSFORMATION, None, NOW_MS - 30_000, 480, inputs=(f"idtrace:{BULK}", "urn:x:water"),
    outputs=("idtrace:88.118.8/SN-0001",), biz_step="commissioning", ilmd={"cbvmda:lotNumber": "L1"},
)  # fmt: skip
DRAWN = Event(
    EventType.OBJECT, Action.ADD, NOW_MS - 90_000, 480, epcs=(f"idtrace:{BULK}",), biz_step="commissioning",
    ilmd={"cbvmda:lotNumber": "B7"},
)  # fmt: skip


def with_bulk(**changes: Bundle | None) -> list[Bundle]:
    return papers(
        **{
            "made": reported(FILLED),
            "drawn": reported(DRAWN),
            "bulk": paper(BULK, class_id=FAMILY),
            "family": paper(str(FAMILY), kind=RecordKind.CLASS),
            "recalls_86": nothing("86/recalls"),
            "recalls_865": nothing("86.5/recalls"),
            "recalls_867": nothing("86.7/recalls"),
        } | changes
    )  # fmt: skip


def test_a_recalled_lot_of_its_bulk_reaches_the_dose() -> None:
    found = facts(with_bulk())
    assert found.origins == (Thing(BULK, str(FAMILY), "B7"),)
    assert (found.gaps, found.recalls_unknown) == ((), ())
    assert Code.RECALLED not in findings(found)
    lot = replace(RECALL, zone="86.5", scope=Scope(ScopeKind.LOT, str(FAMILY), "B7"))
    for scope, expected in ((lot.scope, True), (replace(lot.scope, lot="B8"), False)):
        recalls = paper("86.5/recalls", (RECALL_TYPE, format_recall(replace(lot, scope=scope))))
        assert (Code.RECALLED in findings(facts(with_bulk(recalls_865=recalls)))) is expected


def test_a_bulk_without_a_record_is_no_gap_and_one_that_cannot_be_had_is() -> None:
    assert facts(with_bulk(bulk=nothing(BULK))).origins == ()
    assert facts(with_bulk(bulk=nothing(BULK))).gaps == ()
    assert facts(with_bulk(bulk=paper(BULK))).origins == ()
    assert [gap.subject for gap in facts(with_bulk(bulk=None)).gaps] == [BULK]


def test_a_foreign_zones_recall_of_its_lot_does_not_touch_it() -> None:
    """The zone has a say in the bulk, which is in the history, and none in the dose's lot."""
    foreign = replace(RECALL, zone="86.7", scope=Scope(ScopeKind.LOT, str(CLASS), "L1"))
    recalls = paper("86.7/recalls", (RECALL_TYPE, format_recall(foreign)))
    found = facts(with_bulk(recalls_867=recalls))
    assert [one.zone for one in found.recalls] == ["86.7"]
    assert Code.RECALLED not in findings(found)
    assert Code.RECALL_UNKNOWN not in findings(found)


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
    odd = papers()[0].outcome  # the dose's own record
    assert isinstance(odd, Record)
    found = facts([*papers(made=None), Bundle(Identifier.parse(f"88.118.8/event/{'1' * 64}"), links(), odd)])
    assert found.observed == ()
    assert [gap.kind for gap in found.gaps] == [GapKind.UNREADABLE]
    denied_event = nothing(f"88.118.8/event/{'1' * 64}")
    assert facts([*papers(made=None), denied_event]).observed == ()
    assert isinstance(denied_event.outcome, Denied)


def cut(bundle: Bundle) -> Bundle:
    assert isinstance(bundle.outcome, Record)
    return replace(bundle, outcome=replace(bundle.outcome, values=()))


def test_a_record_without_its_public_values_hides_nothing() -> None:
    recalls = paper("88.118/recalls", (RECALL_TYPE, format_recall(RECALL)))
    found = facts(papers(recalls_118=cut(recalls)))
    assert found.recalls_unknown == ("88.118",)
    assert Code.RECALL_UNKNOWN in findings(found)
    damaged = replace(MADE, action=Action.OBSERVE, biz_step="inspecting", disposition="damaged", ilmd={})
    found = facts([*papers(), cut(reported(damaged))])
    assert Code.HISTORY_GAP in findings(found)
    licence = cut(paper("88.118/party/88.118.8", (PARTY_TYPE, format_party(LICENCE))))
    assert Code.HISTORY_GAP in findings(facts(papers(licence=licence)))
    own = cut(paper(str(DOSE), ("lot", b"L1"), ("expiry", b"200531"), class_id=CLASS))
    assert Code.UNPROVEN in findings(facts(papers(own=own)))


def test_one_recall_that_cannot_be_read_hides_no_other() -> None:
    recalls = paper("88.118/recalls", (RECALL_TYPE, format_recall(RECALL)), (RECALL_TYPE, b"{}"))
    found = facts(papers(recalls_118=recalls))
    assert ([one.name for one in found.recalls], found.recalls_unknown) == ([RECALL.name], ("88.118",))


def test_a_pointer_to_nothing_does_not_stand_for_a_licence() -> None:
    for kind in (GapKind.MISFIT, GapKind.UNFOUNDED):
        found = facts(papers(licence=None), [Gap(kind, "88.118/party/88.118.8", "x")])
        assert {Code.HISTORY_GAP} <= set(findings(found))


def test_two_lots_of_its_bulk_leave_a_recall_of_either_in_doubt() -> None:
    other = replace(DRAWN, ilmd={"cbvmda:lotNumber": "B8"}, time_ms=DRAWN.time_ms - 1)
    found = facts(with_bulk(other=reported(other)))
    assert [one.lot for one in found.origins] == [""]

"""From proofs to facts: one pure function for the resolver that judges and for whoever checks it years later.

What is needed follows from what is there: the subject's record names a class and that one its own, its events name
parties, and classes, packages and sources lie in zones that may recall. Whatever of that has no bundle is unknown, and
said to be; nothing is taken from anywhere else, so the same bundles, gaps and time give the same facts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from idtrace import canonical
from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.canonical import Json
from idtrace.epcis.lots import made_by, master_text
from idtrace.epcis.statement import is_event
from idtrace.epcis.uris import key, party_of
from idtrace.errors import IdtraceError, InputError, Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.party import Party, PartyRole, format_party, license_identifier, read_license
from idtrace.product import EXPIRY_TYPE, LOT_TYPE, PRODUCT_TYPE, Product, parse_expiry
from idtrace.provenance.assemble import history
from idtrace.provenance.history import IDLE_GAPS, Gap, GapKind, History, Observed
from idtrace.provenance.reading import read_event
from idtrace.recall import RECALL_TYPE, RECALLS_SUFFIX, Recall, Thing, format_recall, parse_recall
from idtrace.record import Record, RecordBody, RecordKind, withheld_public
from idtrace.statements import Denial
from idtrace.template import CLASS_DEPTH_MAX
from idtrace.verdict.context import is_under
from idtrace.verdict.facts import Answered, Facts

NOT_THERE: Final = "it was not asked for, or did not answer"


@dataclass(slots=True)
class _Papers:
    """Bundles by identifier, and what is missing among them."""

    bundles: Mapping[str, Bundle]
    gaps: dict[Gap, None] = field(default_factory=dict)

    def missing(self, identifier: str, detail: str, kind: GapKind = GapKind.UNREACHABLE) -> None:
        """Say so, unless it is said."""
        if all(gap.subject != identifier or gap.kind in IDLE_GAPS for gap in self.gaps):
            self.gaps[Gap(kind, identifier, detail)] = None

    def record(self, identifier: str) -> tuple[Record, RecordBody] | None:
        """A living record; None where it is proven that there is none, or where nothing is known, which is a gap."""
        bundle = self.bundles.get(identifier)
        if bundle is None:
            self.missing(identifier, NOT_THERE)
        elif isinstance(bundle.outcome, Record):
            body = RecordBody.parse(bundle.outcome.signed.payload)
            return None if body.kind is RecordKind.TOMBSTONE else (bundle.outcome, body)
        return None


def facts_of(
    subject: str,
    bundles: Iterable[Bundle],
    gaps: Iterable[Gap],
    *,
    now_ms: int,
    unproven: Answered | None = None,
) -> Facts:
    """The facts that these bundles show; each has been verified before.

    Args:
        subject: canonical identifier.
        bundles: of the subject, its events, its class, licences and recalls, in any order; of two about one identifier
            the first counts.
        gaps: what is known to be missing.
        now_ms: time of judging.
        unproven: what to say of the subject where no bundle is about it: UNREACHABLE or BOGUS, with the reason.
    """
    return facts_and_history(subject, bundles, gaps, now_ms=now_ms, unproven=unproven)[0]


def facts_and_history(
    subject: str,
    bundles: Iterable[Bundle],
    gaps: Iterable[Gap],
    *,
    now_ms: int,
    unproven: Answered | None = None,
) -> tuple[Facts, History]:
    """As :func:`facts_of`, with the history that was made on the way, which is the dearest part of a verdict."""
    by_identifier: dict[str, Bundle] = {}
    for bundle in bundles:
        by_identifier.setdefault(str(bundle.identifier), bundle)
    papers = _Papers(by_identifier, dict.fromkeys(gaps))
    for name in [name for name, bundle in by_identifier.items() if _is_cut(bundle)]:
        del by_identifier[name]
        papers.missing(name, "values of its record that are for everybody are left out", GapKind.BOGUS)
    own = by_identifier.get(subject)
    unknown = unproven or Answered(Verdict.UNREACHABLE, reason=Reason.NO_ANSWER)
    answer = unknown if own is None else answered(own)
    lot = expiry = ""
    product: Product | None = None
    classes: tuple[str, ...] = ()
    if own is not None and isinstance(own.outcome, Record):
        classes, told = _classes(own.outcome, papers)
        lot, expiry = _lot(own.outcome, *told.values()), _expiry(papers, own.outcome, *told.values())
        product = _product(classes, told, papers)
    observed = _observed(by_identifier, papers)
    parties = _parties(observed, papers)
    made = history(subject, observed, now_ms=now_ms, parties=parties)
    origins = _origins(made.sources, observed, parties, papers)
    concerned = [subject, *made.containers, *made.sources, *classes]
    concerned += [name for origin in origins for name in (origin.product, *origin.families)]
    makers = {one.maker for one in origins} | ({product.maker} if product is not None else set())
    concerned += [of_maker(maker) for maker in sorted(makers - {""})]
    recalls, unknown_zones = _recalls(concerned, papers)
    facts = Facts(
        subject=subject,
        now_ms=now_ms,
        answer=answer,
        lot=lot,
        expiry=expiry,
        product=product,
        observed=observed,
        parties=parties,
        recalls=recalls,
        recalls_unknown=unknown_zones,
        gaps=tuple(sorted(papers.gaps, key=_gap_order)),
        classes=classes,
        origins=origins,
    )
    return facts, made


def _is_cut(bundle: Bundle) -> bool:
    """Whether values are left out that everybody may read: a recall, an event or a last day of use would be gone."""
    record = bundle.outcome
    return isinstance(record, Record) and bool(withheld_public(record, RecordBody.parse(record.signed.payload)))


def answered(bundle: Bundle) -> Answered:
    """What a verified bundle says of its identifier."""
    match bundle.outcome:
        case Record(signed=signed):
            body = RecordBody.parse(signed.payload)
            if body.kind is RecordKind.TOMBSTONE:
                return Answered(Verdict.GONE, body.status, Reason.IDENTIFIER_RETIRED, body.version)
            return Answered(Verdict.FOUND, body.status, "", body.version)
        case Denied(signed=signed):
            return Answered(Verdict.ABSENT, reason=str(Denial.parse(signed.payload).reason))
        case Revoked():
            return Answered(Verdict.GONE, reason=Reason.DELEGATION_REVOKED)
        case _:
            assert_never(bundle.outcome)


def _values(record: Record, of_type: str) -> list[bytes]:
    types = {digest.index: digest.type for digest in RecordBody.parse(record.signed.payload).values}
    return [value.data for value in record.values if types.get(value.index) == of_type]


def _classes(record: Record, papers: _Papers) -> tuple[tuple[str, ...], dict[str, Record]]:
    """The class that a record names, that class's own, and so on; and the records of those that have one."""
    names: list[str] = []
    told: dict[str, Record] = {}
    body = RecordBody.parse(record.signed.payload)
    while body.class_id is not None and str(body.class_id) not in names and len(names) < CLASS_DEPTH_MAX:
        name = str(body.class_id)
        names.append(name)
        found = papers.record(name)
        if found is None:
            break
        told[name], body = found
    return tuple(names), told


def _lot(*records: Record) -> str:
    """What the first of these records says that says any; a class tells what its items do not state themselves."""
    for record in records:
        lots = {data.decode("utf-8", "replace") for data in _values(record, LOT_TYPE)}
        if lots:
            return min(lots)
    return ""


def _expiry(papers: _Papers, *records: Record) -> str:
    """As :func:`_lot`; what is no date is a gap, and no other record is asked in its place."""
    for record in records:
        stated = _values(record, EXPIRY_TYPE)
        expiries = set()
        for data in stated:
            try:
                expiries.add(parse_expiry(data.decode("utf-8", "replace")))
            except InputError as error:
                papers.missing(f"{_identifier(record)}#expiry", error.detail, GapKind.UNREADABLE)
        if stated:
            return min(expiries, default="")
    return ""


def _identifier(record: Record) -> str:
    return str(RecordBody.parse(record.signed.payload).identifier)


def _product(classes: tuple[str, ...], told: Mapping[str, Record], papers: _Papers) -> Product | None:
    """What the nearest class says that says any. Where one on the way is not known, there is none: it might differ."""
    for name in classes:
        if name not in told:
            return None
        stated = _values(told[name], PRODUCT_TYPE)
        if stated:
            try:
                (data,) = stated
                return Product.parse(data, identifier=name)
            except (ValueError, InputError) as error:
                papers.missing(name, f"its class tells no product: {error}", GapKind.UNREADABLE)
                return None
    if classes:
        papers.missing(classes[0], "its class tells no product, and none that it inherits from", GapKind.UNREADABLE)
    return None


def of_maker(maker: str) -> str:
    """What stands for a maker among the subjects of :func:`zones_with_a_say`."""
    return f"{maker}/{RECALLS_SUFFIX}"


def maker_of(record: Record) -> str:
    """The maker that a class record's product names, "" where it tells none that can be read."""
    for data in _values(record, PRODUCT_TYPE):
        try:
            return Product.parse(data, identifier=_identifier(record)).maker
        except InputError:
            continue
    return ""


def _origins(
    sources: Iterable[str], observed: Iterable[Observed], parties: Mapping[str, Party], papers: _Papers
) -> tuple[Thing, ...]:
    """What is known of the sources that have a record of their own which names a class."""
    lots = _lots_made(observed)
    found: list[Thing] = []
    for source in sources:
        record = papers.record(source) if _is_identifier(source) else None
        if record is None:
            continue
        classes, told = _classes(record[0], papers)
        if classes:
            makers = (maker_of(told[name]) for name in classes if name in told)
            maker = next((maker for maker in makers if maker), "")
            # A stranger's word counts for nothing, and two lots for one thing are none: a recall of either then holds.
            said = {lot for lot, party in lots.get(source, ()) if is_under(source, party) or _makes(parties, party)}
            lot = _lot(record[0], *told.values()) or (min(said) if len(said) == 1 else "")
            found.append(Thing(source, classes[0], lot, families=classes[1:], maker=maker))
    return tuple(found)


def _lots_made(observed: Iterable[Observed]) -> dict[str, set[tuple[str, str]]]:
    """The lots of each thing as the events that made it say, each with who says it."""
    lots: dict[str, set[tuple[str, str]]] = {}
    for one in observed:
        lot = master_text(one.event.ilmd, "lotNumber")
        for uri in made_by(one.event) if lot else ():
            lots.setdefault(key(uri), set()).add((lot, one.party))
    return lots


def _makes(parties: Mapping[str, Party], prefix: str) -> bool:
    party = parties.get(prefix)
    return party is not None and PartyRole.MAKER in party.roles


def _is_identifier(subject: str) -> bool:
    try:
        Identifier.parse(subject)
    except InputError:
        return False
    return True


def _observed(bundles: Mapping[str, Bundle], papers: _Papers) -> tuple[Observed, ...]:
    found: list[Observed] = []
    for identifier, bundle in sorted(bundles.items()):
        if is_event(bundle.identifier) and isinstance(bundle.outcome, Record):
            try:
                found.append(read_event(bundle.outcome, logged=bundle.proof is not None))
            except InputError as error:
                papers.missing(identifier, f"its record is no event: {error.detail}", GapKind.UNREADABLE)
    return tuple(found)


def _parties(observed: Iterable[Observed], papers: _Papers) -> dict[str, Party]:
    """Licences of all that report or are named; one that is denied or ended is not there, an unknown one is a gap."""
    prefixes = set()
    for one in observed:
        ends = (party_of(end.id) for end in (*one.event.sources, *one.event.destinations))
        prefixes |= {one.party, *(prefix for prefix in ends if prefix)}
    parties: dict[str, Party] = {}
    for text in sorted(prefixes):
        prefix = Prefix.parse(text)
        identifier = str(license_identifier(Prefix(prefix.labels[:-1]), prefix))
        found = papers.record(identifier)
        if found is not None:
            try:
                parties[text] = read_license(*found)
            except IdtraceError as error:
                papers.missing(identifier, f"its licence cannot be read: {error.detail}", GapKind.BOGUS)
    return parties


def zones_with_a_say(subjects: Iterable[str]) -> tuple[str, ...]:
    """Every zone that may recall one of these things: its own and those above, but for the root's."""
    zones: set[str] = set()
    for subject in subjects:
        try:
            lineage = Identifier.parse(subject).prefix.lineage()
        except InputError:
            continue
        zones |= {str(zone) for zone in lineage if zone.labels}
    return tuple(sorted(zones))


def _recalls(subjects: Iterable[str], papers: _Papers) -> tuple[tuple[Recall, ...], tuple[str, ...]]:
    """The recalls of all zones that have a say, and the zones of which they are not known."""
    recalls: list[Recall] = []
    unknown: list[str] = []
    for zone in zones_with_a_say(subjects):
        identifier = f"{zone}/{RECALLS_SUFFIX}"
        bundle = papers.bundles.get(identifier)
        if bundle is None:
            papers.gaps = {gap: None for gap in papers.gaps if gap.subject != identifier}  # said once, by the zone
            unknown.append(zone)
        elif isinstance(bundle.outcome, Record):
            version = RecordBody.parse(bundle.outcome.signed.payload).version
            bad = 0
            for data in _values(bundle.outcome, RECALL_TYPE):
                try:
                    recalls.append(parse_recall(data, zone=zone, version=version))
                except InputError:
                    bad += 1
            unknown += [zone] if bad else []  # what can be read counts all the same
    return tuple(recalls), tuple(unknown)


def _gap_order(gap: Gap) -> tuple[str, str, str, str]:
    return (gap.kind, gap.subject, gap.detail, gap.node)


def facts_hash(facts: Facts) -> str:
    """SHA-256 in hex over all facts in canonical form; an event is named by its identifier, which is its hash."""
    parties: list[Json] = [
        [prefix, format_party(party).decode(), party.active, party.evidence]
        for prefix, party in sorted(facts.parties.items())
    ]
    observed: list[Json] = [
        [one.identifier, one.reported_at, one.logged] for one in sorted(facts.observed, key=lambda one: one.identifier)
    ]
    recalls = sorted(f"{one.zone} {one.version} {format_recall(one).decode()}" for one in facts.recalls)
    gaps: list[Json] = [list(_gap_order(gap)) for gap in sorted(set(facts.gaps), key=_gap_order)]
    answer = facts.answer
    body = canonical.encode(
        {
            "subject": facts.subject,
            "now_ms": facts.now_ms,
            "answer": [answer.verdict, str(answer.status or ""), answer.reason, answer.version],
            "lot": facts.lot,
            "expiry": facts.expiry,
            "product": [facts.product.identifier, facts.product.payload().decode()] if facts.product else [],
            "observed": observed,
            "parties": parties,
            "recalls": recalls,
            "recalls_unknown": sorted(set(facts.recalls_unknown)),
            "gaps": gaps,
            "classes": list(facts.classes),
            "origins": [[one.identifier, one.product, *one.families, one.lot, one.maker] for one in facts.origins],
        }
    )
    return hashlib.sha256(b"idtrace/verdict-facts/v1\0" + body).hexdigest()

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from idtrace.epcis.model import EventType
from idtrace.epcis.parse import read_document
from idtrace.epcis.statement import EVENT_BYTES_MAX
from idtrace.epcis.uris import key, mentions
from idtrace.epcis.write import event_bytes
from idtrace.identifier import Identifier
from idtrace.party import format_party, may_report
from idtrace.product import Product
from idtrace.scan import check_scheme, scheme_of
from idtrace.simulation.chain import DOSES_MAX, simulate
from idtrace.simulation.model import EXPECTED, MINUTE_MS, Chain, Fault, Trait
from tests.unit.simulation.naive import complaints

CHAINS = [simulate(4, number, 120) for number in range(12)]


def each_chain() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"chain-{chain.number}")


def test_the_same_seed_gives_the_same_chain_and_another_seed_another() -> None:
    assert repr(simulate(4, 3, 120)) == repr(CHAINS[3])
    assert repr(simulate(5, 3, 120)) != repr(CHAINS[3])
    assert simulate(4, 4, 120).product != CHAINS[3].product


@each_chain()
def test_a_sound_dose_has_a_history_in_which_a_naive_checker_finds_nothing(chain: Chain) -> None:
    sound = [dose for dose in chain.doses if not dose.faults]
    assert len(sound) > 20
    # One of each box and each kind of story: its neighbours have the same events.
    chosen = {(dose.box, dose.traits): dose for dose in sound}.values()
    assert {dose.identifier: found for dose in chosen if (found := list(complaints(chain, dose)))} == {}


def test_the_naive_checker_sees_what_it_is_there_for() -> None:
    seen: Counter[Fault] = Counter()
    for chain in CHAINS:
        for dose in chain.doses:
            if dose.faults and any(complaints(chain, dose)):
                seen.update(dose.faults)
    told = {Fault.WRONG_RECEIVER, Fault.NO_RECEIPT, Fault.SILENCE_STORE, Fault.NEVER_MADE, Fault.TWO_HOLDERS}
    injected = {fault for chain in CHAINS for fault in chain.injected}
    assert told & injected
    assert told & injected <= set(seen)


def test_every_kind_of_fault_comes_about_and_every_kind_names_its_finding() -> None:
    injected: set[Fault] = set()
    traits: set[Trait] = set()
    for number in range(40):
        chain = simulate(1, number, 200)
        injected.update(chain.injected)
        for dose in chain.doses:
            traits |= dose.traits
    assert injected == set(Fault)
    assert set(EXPECTED) == set(Fault)
    assert all(EXPECTED.values())
    assert traits == set(Trait)


@each_chain()
def test_the_truth_is_complete(chain: Chain) -> None:
    assert {fault for dose in chain.doses for fault in dose.faults} == set(chain.injected)
    assert all(len(dose.faults) <= 1 for dose in chain.doses)
    assert not any(dose.faults and dose.traits for dose in chain.doses)


@each_chain()
def test_a_fault_of_a_shipment_concerns_all_who_were_in_it_and_nobody_else(chain: Chain) -> None:
    whole: dict[Fault, set[str]] = {}
    for dose in chain.doses:
        for fault in dose.faults:
            whole.setdefault(fault, set()).add(dose.box)
    of_shipment = {Fault.FROZEN, Fault.HEAT_SPIKE, Fault.SILENCE_TRANSPORT, Fault.NO_RECEIPT, Fault.WRONG_RECEIVER}
    for fault in of_shipment & set(chain.injected):
        in_boxes = [dose for dose in chain.doses if dose.box in whole[fault]]
        assert all(fault in dose.faults for dose in in_boxes)
        # Who was in the last shipment with them: by the events alone, whatever the planner believes.
        (tote,) = {
            key(entry.observed.event.parent)
            for entry in chain.entries
            if entry.observed.event.biz_step == "packing"
            and "/tote/" in entry.observed.event.parent
            and whole[fault] & {key(child) for child in entry.observed.event.children}
        }
        packed = {
            key(child)
            for entry in chain.entries
            if entry.observed.event.biz_step == "packing" and key(entry.observed.event.parent) == tote
            for child in entry.observed.event.children
        }
        assert packed == whole[fault]


@each_chain()
def test_every_event_is_valid_epcis_and_is_read_back_as_it_was_written(chain: Chain) -> None:
    for entry in chain.entries:
        event = entry.observed.event
        written = event_bytes(event)
        assert len(written) <= EVENT_BYTES_MAX
        assert read_document(written).items == (event,)
        assert mentions(event)


def test_the_longest_chain_has_events_that_fit_into_a_record() -> None:
    chain = simulate(3, 1, DOSES_MAX)
    longest = max((entry.observed.event for entry in chain.entries), key=lambda event: len(event.outputs))
    assert longest.type is EventType.TRANSFORMATION
    assert len(event_bytes(longest)) <= EVENT_BYTES_MAX


@each_chain()
def test_codes_licences_and_products_are_what_registries_take(chain: Chain) -> None:
    for dose in chain.doses:
        identifier = Identifier.parse_canonical(dose.identifier)
        assert (key(dose.uri), scheme_of(identifier)) == (dose.identifier, chain.scheme)
        check_scheme(identifier)
    assert len({dose.identifier for dose in chain.doses}) == len(chain.doses)
    for party in chain.parties.values():
        assert format_party(party)
    assert Product.parse(chain.product.payload(), identifier=chain.product.identifier) == chain.product


@each_chain()
def test_parties_report_what_their_roles_may_unless_that_is_the_fault(chain: Chain) -> None:
    wrong = {
        entry.observed.event.biz_step
        for entry in chain.entries
        if entry.observed.party in chain.parties
        and not may_report(chain.parties[entry.observed.party].roles, entry.observed.event.biz_step)
    }
    expected = {Fault.CARRIER_OPENS: {"unpacking", "packing"}, Fault.MADE_TWICE: {"commissioning"}}
    assert wrong == {step for fault in chain.injected for step in expected.get(fault, set())}


@each_chain()
def test_a_vehicle_goes_one_way_at_a_time(chain: Chain) -> None:
    ways: dict[str, list[tuple[int, int]]] = {}
    for entry in chain.entries:
        event = entry.observed.event
        if "/vehicle/" in event.read_point:
            times = [report.time_ms or 0 for element in event.sensors for report in element.reports]
            ways.setdefault(event.read_point, []).append((min(times), max(times)))
    for told in ways.values():
        ordered = sorted(told)
        assert all(one[1] <= other[0] for one, other in pairwise(ordered))


def test_clocks_differ_by_minutes() -> None:
    # The same handover by two clocks: unloaded by the carrier, received two minutes later by the receiver.
    apart = {
        (received.observed.event.time_ms - unloaded.observed.event.time_ms) // MINUTE_MS
        for chain in CHAINS
        for unloaded, received in zip(chain.entries, chain.entries[1:], strict=False)
        if unloaded.observed.event.biz_step == "unloading" and received.observed.event.biz_step == "receiving"
    }
    assert min(apart) < 0
    assert max(apart) >= 3

"""Pointers from strangers: what is refused, how much is too much, and what a node has to deliver itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import BusyError, InputError, Reason, RefusedError
from registry.pointers import (
    CALLER_BURST,
    LISTED_MAX,
    SUBJECT_BURST,
    SUBJECT_TOTAL,
    TIME_MS_MAX,
    Allowance,
    Floods,
    asked_subject,
    delivered,
    is_ours,
    outbound,
    page_size,
)
from registry.storage import SUBJECT_BYTES_MAX, Delivery, Mention, deliveries_of, home, told_events
from tests.core_fixtures import ZONE, delegation
from tests.pointing import NOW_MS, event_name, event_write
from tests.registry_fixtures import authority_for, hand_out, hosted

BOX, DOSE, ROOM = f"{ZONE}/BOX", "86.1.5/DOSE", "urn:epc:id:sgln:952005385.011.0"
SOUND = Mention(BOX, NOW_MS, event_name(1, "86.1.5"), "epc")


def test_a_pointer_to_what_is_ours_is_taken() -> None:
    assert delivered(authority_for(ZONE), SOUND) == SOUND


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"subject": ROOM}, Reason.IDENTIFIER_MALFORMED, "pointers.subject"),
        ({"subject": ""}, Reason.IDENTIFIER_MALFORMED, "pointers.subject"),
        ({"event": f"{ZONE}/BOX"}, Reason.FIELD_MALFORMED, "pointers.event"),
        ({"event": f"{ZONE}/event/" + "A" * 64}, Reason.FIELD_MALFORMED, "pointers.event"),
        ({"event": f"{ZONE}/event/" + "0" * 65}, Reason.FIELD_MALFORMED, "pointers.event"),
        ({"role": ""}, Reason.FIELD_MALFORMED, "pointers.role"),
        ({"role": "owner"}, Reason.FIELD_MALFORMED, "pointers.role"),
        ({"time_ms": -1}, Reason.FIELD_MALFORMED, "pointers.time_ms"),
        ({"time_ms": TIME_MS_MAX + 1}, Reason.FIELD_MALFORMED, "pointers.time_ms"),
    ],
)
def test_a_malformed_pointer_is_refused_with_its_field(changes: Any, reason: Reason, field: str) -> None:
    with pytest.raises(InputError) as refused:
        delivered(authority_for(ZONE), replace(SOUND, **changes))
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_a_pointer_to_what_is_not_ours_is_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        delivered(authority_for(ZONE), replace(SOUND, subject=DOSE))
    assert refused.value.reason is Reason.NOT_AUTHORITATIVE


def test_what_was_handed_out_is_not_ours_and_what_is_hosted_is() -> None:
    authority = authority_for(ZONE)
    hand_out(authority, delegation(f"{ZONE}.1"))
    hand_out(authority, hosted(f"{ZONE}.2"))
    names = [f"{ZONE}.{n}/A" for n in (1, 2, 3)]
    mentions = [Mention(name, NOW_MS, SOUND.event, "epc") for name in names]
    assert outbound(authority, mentions) == (names[0],)
    known = [home(name) for name in names]
    assert [one is not None and is_ours(authority, one.prefix) for one in known] == [False, True, True]


def test_each_subject_with_a_home_elsewhere_is_delivered_once_and_a_uri_nowhere() -> None:
    write = event_write(1, (DOSE, "epc"), (DOSE, "child"), (BOX, "parent"), (ROOM, "read_point"))
    assert outbound(authority_for(ZONE), write.mentions) == (DOSE,)
    assert outbound(authority_for(ZONE), ()) == ()
    write = replace(write, outbound=(DOSE,))
    assert deliveries_of(write) == [Delivery(DOSE, write.identifier, NOW_MS, ("child", "epc"))]
    assert told_events([write, replace(write, mentions=(), outbound=())]) == [BOX]
    assert told_events([], [SOUND, SOUND]) == [BOX]


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 3)), max_size=40))
def test_nobody_gets_more_than_the_burst_and_the_rate(asked: list[tuple[int, float]]) -> None:
    allowance, now, given_out = Allowance(10, 2.0, 5), 0.0, 0
    for count, pause in asked:
        now += pause
        given_out += count * allowance.take("a", count, now)
        assert given_out <= 10 + 2 * now + 1e-6


def test_whoever_rests_is_allowed_the_burst_again_and_no_more() -> None:
    allowance = Allowance(10, 2.0, 5)
    assert [allowance.take("a", 10, 0.0), allowance.take("a", 1, 0.0), allowance.take("b", 1, 0.0)] == [
        True,
        False,
        True,
    ]
    assert [allowance.take("a", 11, 1e6), allowance.take("a", 10, 1e6), allowance.take("a", 1, 1e6)] == [
        False,
        True,
        False,
    ]
    assert not allowance.take("a", 1, 1e6 - 60)  # a clock that goes back gives nothing


def test_those_who_are_remembered_are_bounded() -> None:
    allowance = Allowance(1, 0.0, 2)
    assert [allowance.take(n, 1, 0.0) for n in (1, 2, 1, 3, 2)] == [True, True, False, True, True]


def test_a_flood_by_one_caller_or_about_one_subject_is_refused() -> None:
    floods = Floods()
    floods.require_caller("ipv4:192.0.2.1", CALLER_BURST, 0.0)
    floods.require_caller("ipv4:192.0.2.2", CALLER_BURST, 0.0)
    with pytest.raises(BusyError, match=r"192\.0\.2\.1") as refused:
        floods.require_caller("ipv4:192.0.2.1", 1, 0.0)
    assert refused.value.reason is Reason.OVERLOADED
    one = "ipv4:192.0.2.1"
    for _ in range(SUBJECT_BURST):
        floods.require_subject(one, BOX, 0.0)
    floods.require_subject(one, f"{ZONE}/B2", 0.0)
    floods.require_subject("ipv4:192.0.2.2", BOX, 0.0)  # whom it cannot starve
    with pytest.raises(BusyError, match=one) as refused:
        floods.require_subject(one, BOX, 0.0)
    assert (refused.value.reason, refused.value.field) == (Reason.OVERLOADED, "pointers.subject")
    floods.was_here(one, BOX)
    floods.was_here("ipv4:192.0.2.3", f"{ZONE}/B3")  # nothing was counted
    floods.require_subject(one, BOX, 0.0)


def test_a_flood_about_one_subject_by_many_is_refused() -> None:
    floods = Floods()
    for caller in range(SUBJECT_TOTAL):
        for _ in range(SUBJECT_BURST):
            floods.require_subject(f"ipv4:192.0.2.{caller}", BOX, 0.0)
    with pytest.raises(BusyError, match="are delivered") as refused:
        floods.require_subject("ipv4:192.0.2.99", BOX, 0.0)
    assert (refused.value.reason, refused.value.field) == (Reason.OVERLOADED, "pointers.subject")


def test_a_question_names_a_subject_of_bounded_length_and_a_page_of_bounded_size() -> None:
    assert asked_subject(ROOM) == ROOM
    assert asked_subject("x" * SUBJECT_BYTES_MAX)
    for text, reason in (("", Reason.FIELD_MISSING), ("é" * SUBJECT_BYTES_MAX, Reason.FIELD_TOO_LARGE)):
        with pytest.raises(InputError) as refused:
            asked_subject(text)
        assert refused.value.reason is reason
    assert [page_size(n, 7) for n in (0, 1, LISTED_MAX)] == [7, 1, LISTED_MAX]
    with pytest.raises(InputError):
        page_size(LISTED_MAX + 1, 7)

"""A delivery that fails waits longer each time, is given up after a week, and is never lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from registry.outbox import (
    ATTEMPTS_MIN,
    FIRST_WAIT_MS,
    GIVEN_UP_AFTER_MS,
    WAIT_MS_MAX,
    done,
    failed,
    revived,
)
from registry.storage import DELIVERY_ERROR_MAX, Delivery, DeliveryState
from tests.pointing import NOW_MS

NEW = Delivery("86.1.5/DOSE", "88.118.8/event/" + "0" * 64, NOW_MS, ("epc",))


def test_the_first_failure_is_tried_again_within_a_second() -> None:
    for chance, wait_ms in ((0.0, FIRST_WAIT_MS // 2), (1.0, FIRST_WAIT_MS)):
        one = failed(NEW, "silence", now_ms=NOW_MS, chance=chance)
        assert one == Delivery(
            *NEW.key, NOW_MS, ("epc",), attempts=1, since_ms=NOW_MS, next_at_ms=NOW_MS + wait_ms, error="silence"
        )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_waits_grow_to_an_hour_and_no_further(chances: list[float]) -> None:
    one, now_ms = NEW, NOW_MS
    for n, chance in enumerate(chances):
        one = failed(one, "silence", now_ms=now_ms, chance=chance)
        longest = min(FIRST_WAIT_MS * 2**n, WAIT_MS_MAX)
        assert longest // 2 <= one.next_at_ms - now_ms <= longest
        assert (one.attempts, one.since_ms, one.state) == (n + 1, NOW_MS, DeliveryState.WAITING)
        now_ms = one.next_at_ms


def test_a_week_of_tries_is_enough_and_neither_a_week_nor_the_tries_alone() -> None:
    last = NEW
    for n in range(ATTEMPTS_MIN - 1):
        last = failed(last, "silence", now_ms=NOW_MS + n, chance=0.5)
    early = failed(last, "silence", now_ms=NOW_MS + GIVEN_UP_AFTER_MS - 1, chance=0.5)
    assert early.state is DeliveryState.WAITING
    assert failed(last, "silence", now_ms=NOW_MS + GIVEN_UP_AFTER_MS, chance=0.5).state is DeliveryState.DEAD
    jump = failed(NEW, "silence", now_ms=NOW_MS, chance=0.5)  # a clock that leaps by a year
    assert failed(jump, "silence", now_ms=NOW_MS * 2, chance=0.5).state is DeliveryState.WAITING


def test_what_will_never_be_taken_is_given_up_at_once() -> None:
    assert failed(NEW, "malformed", now_ms=NOW_MS, chance=0.5, for_good=True).state is DeliveryState.DEAD


def test_an_endless_reason_is_cut() -> None:
    assert len(failed(NEW, "x" * 10_000, now_ms=NOW_MS, chance=0.5).error) == DELIVERY_ERROR_MAX


def test_what_is_taken_up_again_begins_from_the_beginning() -> None:
    dead = failed(NEW, "malformed", now_ms=NOW_MS, chance=0.5, for_good=True)
    again = revived(dead, now_ms=NOW_MS + 9)
    assert (again.state, again.attempts, again.since_ms, again.next_at_ms) == (DeliveryState.WAITING, 0, 0, NOW_MS + 9)
    assert again.error == "malformed"
    assert failed(again, "silence", now_ms=NOW_MS + 9, chance=0.5).state is DeliveryState.WAITING


def test_what_is_done_is_done_without_a_reason() -> None:
    one = done(failed(NEW, "silence", now_ms=NOW_MS, chance=0.5))
    assert (one.state, one.error) == (DeliveryState.DONE, "")

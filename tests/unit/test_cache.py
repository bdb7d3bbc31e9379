"""The answer cache: nothing outlives either of its two clocks, and no flood of one kind evicts another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from idtrace.bundle import Bundle, Denied, Revoked, Verdict
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, Value
from idtrace.signature import Signed
from resolver.cache import AnswerCache, CacheLimits
from resolver.following import Basis, Watch
from resolver.resolution import Resolution
from tests.simulator import NOW

Make = Callable[..., Resolution]
SIGNED = Signed("type", b"x" * 100, ())
FAR = NOW + 10_000_000


def name(number: int, zone: str = "88.118.8") -> Identifier:
    return Identifier.parse(f"{zone}/SN-{number}")


def found(identifier: Identifier, ttl_ms: int = 60_000, expires: int = FAR, size: int = 0) -> Resolution:
    values = (Value(1, b"s" * 16, b"d" * size),) if size else ()
    bundle = Bundle(identifier, (), Record(SIGNED, values))
    return Resolution(identifier, Verdict.FOUND, None, "", bundle=bundle, expires=expires, ttl_ms=ttl_ms)


def absent(identifier: Identifier, ttl_ms: int = 60_000, expires: int = FAR) -> Resolution:
    bundle = Bundle(identifier, (), Denied(SIGNED))
    reason = Reason.IDENTIFIER_ABSENT
    return Resolution(identifier, Verdict.ABSENT, reason, "", bundle=bundle, expires=expires, ttl_ms=ttl_ms)


def gone(identifier: Identifier) -> Resolution:
    bundle = Bundle(identifier, (), Revoked(identifier.prefix))
    reason = Reason.DELEGATION_REVOKED
    return Resolution(identifier, Verdict.GONE, reason, "", bundle=bundle, expires=FAR, ttl_ms=60_000)


def failed(identifier: Identifier, verdict: Verdict = Verdict.UNREACHABLE) -> Resolution:
    return Resolution(identifier, verdict, Reason.NO_ANSWER, "dead")


def verdict(cache: AnswerCache, identifier: Identifier, now_ms: int = 0, *, now: int = NOW, fresh: bool = False) -> str:
    hit = cache.get(identifier, now=now, now_ms=now_ms, fresh=fresh)
    return "" if hit is None else str(hit.resolution.verdict)


def test_what_nobody_follows_is_served_for_a_short_time_and_stays_for_when_it_is_followed_again() -> None:
    cache = AnswerCache()
    watch = Watch(Prefix.parse("88.118.8"), ("ent:7000",), 0, since_ms=500, heard_ms=1_000, until_ms=3_000)
    for make in (found, absent):
        cache.put(make(name(1)), now_ms=1_000, basis=Basis(((watch, 900),), 5_000))
        told = cache.get(name(1), now=NOW, now_ms=2_999)
        assert told is not None
        assert (told.unfollowed_ms, told.ttl_ms) == (None, 58_001)
        watch.until_ms = 0
        marked = cache.get(name(1), now=NOW, now_ms=5_999)
        assert marked is not None
        assert (marked.unfollowed_ms, marked.age_ms, marked.ttl_ms) == (4_999, 4_999, 1)
        assert cache.get(name(1), now=NOW, now_ms=6_000) is None
        watch.until_ms = 8_000
        assert cache.get(name(1), now=NOW, now_ms=6_001) is not None
        watch.until_ms = 3_000
    assert cache.counters.unfollowed == 2


def test_it_was_never_out_of_date_for_longer_than_its_age() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=1_000, basis=Basis(((Watch(Prefix.parse("88"), (), 0), 200),), 5_000))
    hit = cache.get(name(1), now=NOW, now_ms=1_100)
    assert hit is not None
    assert (hit.unfollowed_ms, hit.ttl_ms) == (100, 4_100)


def test_to_forget_one_is_to_forget_its_failure_too() -> None:
    cache = AnswerCache()
    cache.put(failed(name(1)), now_ms=0)
    assert not cache.forget(name(1))
    assert verdict(cache, name(1)) == ""
    cache.put(found(name(1)), now_ms=0)
    assert cache.forget(name(1))
    assert not cache.forget(name(1))
    assert len(cache) == 0
    assert cache.purge(Prefix.parse("88")) == 0


def test_hit_tells_age_and_what_is_left() -> None:
    cache = AnswerCache()
    assert cache.put(found(name(1)), now_ms=1_000) == 60_000
    hit = cache.get(name(1), now=NOW, now_ms=21_000)
    assert hit is not None
    assert (hit.age_ms, hit.ttl_ms) == (20_000, 40_000)


@pytest.mark.parametrize("make", [found, absent, gone])
def test_entry_ends_by_the_monotonic_clock(make: Make) -> None:
    cache = AnswerCache()
    cache.put(make(name(1)), now_ms=0)
    assert verdict(cache, name(1), 59_999)
    assert not verdict(cache, name(1), 60_000)
    assert len(cache) == 0
    assert cache.counters.expired == 1


@pytest.mark.parametrize("make", [found, absent])
def test_entry_ends_by_the_wall_clock_even_if_the_machine_slept(make: Make) -> None:
    cache = AnswerCache()
    cache.put(make(name(1), expires=NOW + 5), now_ms=0)
    hit = cache.get(name(1), now=NOW + 4, now_ms=1)
    assert hit is not None
    assert hit.ttl_ms == 1_000  # not the 59,999 ms that the other clock would allow
    assert not verdict(cache, name(1), 1, now=NOW + 5)


def test_clock_set_back_prolongs_nothing() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    assert not verdict(cache, name(1), 60_000, now=NOW - 1_000_000)


def test_answer_that_may_not_be_kept_is_not_and_ends_the_one_before() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    assert cache.put(found(name(1), ttl_ms=0), now_ms=0) == 0
    assert not verdict(cache, name(1))
    assert cache.answer_bytes == 0


def test_latest_word_replaces_the_one_before_whatever_its_kind() -> None:
    cache = AnswerCache()
    cache.put(absent(name(1)), now_ms=0)
    cache.put(found(name(1)), now_ms=0)
    assert verdict(cache, name(1)) == "FOUND"
    cache.put(gone(name(1)), now_ms=0)
    assert verdict(cache, name(1)) == "GONE"
    assert len(cache) == 1


# Fresh


def test_fresh_question_passes_over_answers_but_not_over_a_failure_in_back_off() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    assert not verdict(cache, name(1), fresh=True)
    cache.put(failed(name(1)), now_ms=0)
    assert verdict(cache, name(1), fresh=True) == "UNREACHABLE"
    assert verdict(cache, name(1)) == "FOUND"


# Failures


def test_back_off_doubles_from_one_second_to_five_minutes() -> None:
    cache, now_ms, waits = AnswerCache(), 0, []
    for _ in range(12):
        waits.append(cache.put(failed(name(1)), now_ms=now_ms))
        assert verdict(cache, name(1), now_ms + waits[-1] - 1) == "UNREACHABLE"
        now_ms += waits[-1]
        assert not verdict(cache, name(1), now_ms)
    assert waits == [1_000 * 2**n for n in range(9)] + [300_000] * 3


def test_back_off_of_a_lie_begins_later_and_ends_at_a_minute() -> None:
    cache, now_ms, waits = AnswerCache(), 0, []
    for _ in range(6):
        waits.append(cache.put(failed(name(1), Verdict.BOGUS), now_ms=now_ms))
        now_ms += waits[-1]
    assert waits == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]


def test_back_off_begins_anew_after_an_answer_and_after_a_long_quiet() -> None:
    cache = AnswerCache()
    for now_ms in (0, 1_000, 3_000):
        cache.put(failed(name(1)), now_ms=now_ms)
    cache.put(absent(name(1), ttl_ms=1), now_ms=7_000)
    assert cache.put(failed(name(1)), now_ms=8_000) == 1_000
    assert cache.put(failed(name(1)), now_ms=9_000) == 2_000
    assert cache.put(failed(name(1)), now_ms=11_000 + 300_000) == 1_000


def test_failure_does_not_end_an_answer_that_still_holds() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    cache.put(failed(name(1), Verdict.BOGUS), now_ms=10)
    assert verdict(cache, name(1), 20) == "FOUND"


def test_expired_answer_is_never_served_in_place_of_a_failure() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    cache.put(failed(name(1)), now_ms=59_900)
    assert verdict(cache, name(1), 60_000) == "UNREACHABLE"


# Bounds


def test_flood_of_random_names_evicts_no_answer() -> None:
    cache = AnswerCache(CacheLimits(answers=10, denials=10, failures=10))
    for number in range(10):
        cache.put(found(name(number)), now_ms=0)
    for number in range(100, 1_100):
        cache.put(absent(name(number)), now_ms=0)
        cache.put(gone(name(number, "88.9")), now_ms=0)
        cache.put(failed(name(number, "77")), now_ms=0)
    assert all(verdict(cache, name(number)) == "FOUND" for number in range(10))
    assert len(cache) == 30
    assert cache.counters.evicted == 1_990 + 990


def test_least_recently_used_answer_goes_first() -> None:
    cache = AnswerCache(CacheLimits(answers=2))
    cache.put(found(name(1)), now_ms=0)
    cache.put(found(name(2)), now_ms=0)
    assert verdict(cache, name(1))
    cache.put(found(name(3)), now_ms=0)
    assert [bool(verdict(cache, name(n))) for n in (1, 2, 3)] == [True, False, True]


def test_few_huge_answers_do_not_fill_the_machine() -> None:
    cache = AnswerCache(CacheLimits(answer_bytes=1_000_000))
    for number in range(100):
        cache.put(found(name(number), size=100_000), now_ms=0)
    assert cache.answer_bytes <= 1_000_000
    assert 5 <= len(cache) <= 9
    assert verdict(cache, name(99))


def test_answer_bigger_than_the_whole_cache_is_not_kept() -> None:
    cache = AnswerCache(CacheLimits(answer_bytes=10_000))
    cache.put(found(name(1), size=100_000), now_ms=0)
    assert len(cache) == 0
    assert cache.answer_bytes == 0


def test_purge_drops_all_kinds_below_a_zone_and_nothing_beside_it() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    cache.put(absent(name(2, "88.118.8.1")), now_ms=0)
    cache.put(failed(name(3)), now_ms=0)
    cache.put(found(name(4, "88.118.80")), now_ms=0)
    assert cache.purge(Prefix.parse("88.118.8")) == 3
    assert len(cache) == 1
    assert verdict(cache, name(4, "88.118.80"))
    assert cache.counters.purged == 3


def test_counters_tell_what_happened() -> None:
    cache = AnswerCache()
    cache.put(found(name(1)), now_ms=0)
    cache.put(absent(name(2)), now_ms=0)
    cache.put(failed(name(3)), now_ms=0)
    for number in (1, 1, 2, 3, 4):
        verdict(cache, name(number))
    counted = dict(cache.counters.items())
    assert counted == {
        "hits": 2,
        "denial_hits": 1,
        "failure_hits": 1,
        "misses": 1,
        "expired": 0,
        "evicted": 0,
        "purged": 0,
        "unfollowed": 0,
    }


class CacheMachine(RuleBasedStateMachine):
    """Against a model that keeps everything: the cache may forget, but never says what the model would not."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = AnswerCache(CacheLimits(answers=3, denials=2, failures=2, answer_bytes=6_000))
        self.now_ms = 0
        self.model: dict[Identifier, tuple[Resolution, int]] = {}
        self.failed_until: dict[Identifier, int] = {}

    @property
    def now(self) -> int:
        return NOW + self.now_ms // 1000

    @rule(number=st.integers(0, 5), ttl=st.integers(0, 90_000), life=st.integers(1, 90), kind=st.integers(0, 1))
    def store(self, number: int, ttl: int, life: int, kind: int) -> None:
        make = (found, absent)[kind]
        resolution = replace(make(name(number)), ttl_ms=ttl, expires=self.now + life)
        self.cache.put(resolution, now_ms=self.now_ms)
        self.model[name(number)] = (resolution, self.now_ms)
        self.failed_until.pop(name(number), None)

    @rule(number=st.integers(0, 5), bogus=st.booleans())
    def fail(self, number: int, bogus: bool) -> None:
        kind = Verdict.BOGUS if bogus else Verdict.UNREACHABLE
        wait = self.cache.put(failed(name(number), kind), now_ms=self.now_ms)
        assert 1_000 <= wait <= 300_000
        self.failed_until[name(number)] = self.now_ms + wait

    @rule(ms=st.integers(0, 70_000))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule(number=st.integers(0, 5), fresh=st.booleans())
    def ask(self, number: int, fresh: bool) -> None:
        hit = self.cache.get(name(number), now=self.now, now_ms=self.now_ms, fresh=fresh)
        if hit is None:
            return
        assert hit.ttl_ms > 0
        if hit.resolution.bundle is None:
            assert self.now_ms < self.failed_until[name(number)]
            return
        resolution, stored_ms = self.model[name(number)]
        assert not fresh
        assert hit.resolution == resolution
        assert hit.age_ms == self.now_ms - stored_ms < resolution.ttl_ms
        assert self.now < resolution.expires

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= 7
        assert 0 <= self.cache.answer_bytes <= 6_000


TestCacheMachine = CacheMachine.TestCase


def test_purging_a_zone_looks_at_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = AnswerCache()
    for number in range(100):
        cache.put(found(name(number)), now_ms=0)
        cache.put(failed(name(number, "88.118.7")), now_ms=0)
    cache.put(absent(name(1, "88.118.9.1")), now_ms=0)

    def looked_at(*_: object) -> bool:
        raise AssertionError("every version that a zone's owner publishes would cost a look at the whole cache")

    monkeypatch.setattr(Prefix, "within", looked_at)
    assert cache.purge(Prefix.parse("88.118.9")) == 1
    assert len(cache) == 200


def test_what_has_left_the_cache_is_listed_nowhere() -> None:
    cache = AnswerCache(replace(CacheLimits(), answers=2, denials=2, failures=2))
    for number in range(10):
        cache.put(found(name(number)), now_ms=0)
        cache.put(absent(name(number, "88.118.7")), now_ms=0)
        cache.put(failed(name(number, "88.118.9")), now_ms=0)
    assert len(cache) == len(cache._below.of(Prefix(()))) == 6
    assert cache.get(name(9), now=NOW, now_ms=60_000) is None
    cache.put(found(name(8), ttl_ms=0), now_ms=0)
    assert len(cache) == len(cache._below.of(Prefix(()))) == 4

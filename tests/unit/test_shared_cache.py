"""Entries of the shared cache: only what we have sealed, where we sealed it, while it lives, and never backwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.bundle import Verdict
from idtrace.canonical import INTEGER_MAX
from idtrace.chain import CHECKS_MAX, LINKS_MAX, Anchor, Context, Link, TrustedChain
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from resolver.cache import AnswerCache
from resolver.effects import Learned
from resolver.resolution import Resolution
from resolver.shared_cache import (
    REMEMBERED_SECONDS,
    Breaker,
    Entry,
    EntryKind,
    Keys,
    Miss,
    Seal,
    SharedCounters,
    framed,
    identity,
    supersedes,
    tombstone,
    unframed,
    version_claimed,
)
from resolver.trust import TrustStore
from tests.simulator import NOW, Client, Tree, signer

ANCHOR = Anchor.of(signer("pinned root key").public_key)
SEAL = Seal(b"k" * 32, ANCHOR)
KEYS = Keys()
KEY = KEYS.answer(Identifier.parse("88.118.8/SN-1"))
ENTRY = Entry(EntryKind.RECORD, 3, NOW * 1000, NOW + 300, b"a bundle")
VALUE = SEAL.seal(KEY, ENTRY)

numbers = st.integers(0, INTEGER_MAX)
entries = st.builds(
    Entry,
    st.sampled_from(EntryKind),
    numbers,
    st.integers(0, NOW * 1000),
    st.integers(NOW + 1, INTEGER_MAX),
    st.binary(max_size=200),
)


@given(entry=entries, key=st.binary(max_size=80))
def test_what_is_sealed_is_opened(entry: Entry, key: bytes) -> None:
    value = SEAL.seal(key, entry)
    assert SEAL.open(key, value, now=NOW) == entry
    assert version_claimed(value) == entry.version


@given(at=st.integers(0, len(VALUE) - 1), bits=st.integers(1, 255))
def test_any_changed_byte_is_a_miss(at: int, bits: int) -> None:
    wrong = bytearray(VALUE)
    wrong[at] ^= bits
    assert SEAL.open(KEY, bytes(wrong), now=NOW) is Miss.FORGED


@given(st.binary(max_size=400))
def test_random_bytes_are_a_miss(value: bytes) -> None:
    assert SEAL.open(KEY, value, now=NOW) is Miss.FORGED
    assert 0 <= version_claimed(value) < 10**16


@given(cut=st.integers(0, len(VALUE) - 1))
def test_every_cut_and_every_addition_is_a_miss(cut: int) -> None:
    assert SEAL.open(KEY, VALUE[:cut], now=NOW) is Miss.FORGED
    assert SEAL.open(KEY, VALUE + VALUE[cut:], now=NOW) is Miss.FORGED


def test_entry_of_another_key_another_operator_or_another_root_is_a_miss() -> None:
    assert SEAL.open(KEYS.answer(Identifier.parse("88.118.8/SN-2")), VALUE, now=NOW) is Miss.FORGED
    assert Seal(b"j" * 32, ANCHOR).open(KEY, VALUE, now=NOW) is Miss.FORGED
    assert Seal(b"k" * 32, Anchor.of(signer("another").public_key)).open(KEY, VALUE, now=NOW) is Miss.FORGED
    assert Seal(b"k" * 32, Anchor(ANCHOR.keys, threshold=2)).open(KEY, VALUE, now=NOW) is Miss.FORGED


def test_border_of_key_and_header_is_under_the_mac() -> None:
    moved = SEAL.seal(KEY + VALUE[:1], ENTRY)
    assert SEAL.open(KEY, moved, now=NOW) is Miss.FORGED


def test_entry_ends_at_its_own_time_whatever_the_store_says() -> None:
    assert isinstance(SEAL.open(KEY, VALUE, now=NOW + 299), Entry)
    assert SEAL.open(KEY, VALUE, now=NOW + 300) is Miss.EXPIRED


def test_entry_that_is_dated_ahead_of_us_is_a_miss() -> None:
    assert isinstance(SEAL.open(KEY, VALUE, now=NOW - 30), Entry)
    assert SEAL.open(KEY, VALUE, now=NOW - 31) is Miss.EXPIRED


def test_nothing_and_a_tombstone_are_misses() -> None:
    assert SEAL.open(KEY, None, now=NOW) is Miss.NOTHING
    assert version_claimed(None) == 0
    dead = SEAL.seal(KEY, tombstone(7))
    assert (SEAL.open(KEY, dead, now=NOW), version_claimed(dead)) == (Miss.EXPIRED, 7)


def test_store_remembers_a_version_for_longer_than_an_answer_can_be_under_way() -> None:
    assert ENTRY.kept_ms(NOW) == 300_000
    assert ENTRY.kept_ms(NOW + 290) == tombstone(3).kept_ms(NOW) == REMEMBERED_SECONDS * 1000 == 60_000


def test_numbers_beyond_their_width_are_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        SEAL.seal(KEY, Entry(EntryKind.RECORD, 10**16, 0, 0, b""))
    with pytest.raises(AssertionError):
        Seal(b"short", ANCHOR)


def test_identity_tells_two_writings_apart() -> None:
    later = Entry(EntryKind.RECORD, 3, NOW * 1000 + 1, NOW + 300, b"a bundle")
    assert identity(VALUE) == identity(SEAL.seal(KEY, ENTRY)) != identity(SEAL.seal(KEY, later))


def at(version: int, tick: int, kind: EntryKind = EntryKind.RECORD) -> Entry:
    return Entry(kind, version, tick, 0, b"")


def test_older_version_never_replaces_a_newer_one() -> None:
    assert supersedes(at(10, 1), at(9, 5))  # as numbers: as text "10" would be less than "9"
    assert not supersedes(at(9, 5), at(10, 1))
    assert supersedes(at(3, 5), at(3, 5))
    assert supersedes(at(3, 6), at(3, 5))
    assert not supersedes(at(3, 4), at(3, 5))
    assert not supersedes(at(0, 9, EntryKind.ABSENT), at(1, 1))


def test_what_was_said_of_a_prefix_falls_only_to_what_was_asked_later() -> None:
    disabled = at(3, 5, EntryKind.PREFIX)
    assert not supersedes(at(4, 5), disabled)
    assert supersedes(at(4, 6), disabled)
    assert supersedes(disabled, at(3, 5))


@given(a=entries, b=entries)
def test_of_two_entries_one_stands_in_whichever_order_they_come(a: Entry, b: Entry) -> None:
    assert supersedes(a, b) or supersedes(b, a) or EntryKind.PREFIX in {a.kind, b.kind}


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=LINKS_MAX))
def test_framed_parts_come_back(parts: list[bytes]) -> None:
    assert unframed(framed(parts)) == tuple(parts)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0\2a", framed([b"a"]) + b"\0", framed([b"a"] * (LINKS_MAX + 1))])
def test_body_that_is_not_framed_has_no_parts(body: bytes) -> None:
    assert unframed(body) is None


def test_keys_say_what_they_are_about() -> None:
    zone, item = Prefix.parse("88.118"), Identifier.parse("88.118.8/Fläche:1")
    assert KEYS.named(KEYS.zone(zone)) == zone
    assert KEYS.named(KEYS.answer(item)) == item
    assert KEYS.named(KEYS.zone(Prefix(()))) == Prefix(())
    assert KEYS.is_zone(KEYS.zone(zone))
    assert not KEYS.is_zone(KEYS.answer(item))


@pytest.mark.parametrize("key", [b"", b"idt:", b"idt:x:88", b"idt:a:88", b"idt:a:\xff/1", b"other:z:88", b"idt:z:8..8"])
def test_key_that_we_would_not_write_is_about_nothing(key: bytes) -> None:
    assert KEYS.named(key) is None


def test_breaker_opens_after_three_in_a_row_and_half_open_one_is_enough() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.failed(1_000)
        assert breaker.wait_ms(1_000) == 0
    breaker.failed(1_000)
    assert (breaker.wait_ms(1_000), breaker.wait_ms(1_999), breaker.wait_ms(2_000)) == (1_000, 1, 0)
    breaker.failed(2_000)
    assert breaker.wait_ms(2_000) == 1_000
    breaker.succeeded()
    breaker.failed(9_000)
    assert breaker.wait_ms(9_000) == 0


def test_counters_have_names() -> None:
    assert ("forged", 0) in SharedCounters().items()


# --- What the shared cache asks of the other cores


def tree() -> Tree:
    built = Tree()
    built.zone("88", node="top")
    built.zone("88.118", node="second")
    built.zone("88.118.8", node="ent")
    built.register("88.118.8/SN-1", {"name": "vial"})
    return built


def links_of(built: Tree, zone: str = "88.118.8") -> tuple[Link, ...]:
    return tuple(Link.read(signed) for signed in built.chain(zone))


def taken_over(links: tuple[Link, ...], now: int = NOW, store: TrustStore | None = None) -> TrustedChain:
    return TrustedChain.from_authenticated(links, Context.at(now, checks=0, floors=store))


def test_authenticated_chain_is_taken_over_without_a_signature_check() -> None:
    assert CHECKS_MAX > 0
    assert taken_over(links_of(tree())).zone == Prefix.parse("88.118.8")


def test_authenticated_chain_has_to_hang_together() -> None:
    links = links_of(tree())
    cases = [
        ((), Reason.CHAIN_EMPTY),
        (links[1:], Reason.ROOT_MISMATCH),
        (links * 3, Reason.CHAIN_TOO_DEEP),
        ((links[0], links[2]), Reason.REFERRAL_SIDEWAYS),
        ((*links, links[1]), Reason.REFERRAL_UPWARD),
    ]
    for wrong, reason in cases:
        with pytest.raises(VerificationError) as caught:
            taken_over(wrong)
        assert caught.value.reason is reason


def test_authenticated_chain_has_to_be_in_force_and_below_no_floor() -> None:
    built = tree()
    links = links_of(built)
    with pytest.raises(VerificationError) as caught:
        taken_over(links, now=NOW + 400 * 86_400)
    assert caught.value.reason is Reason.DELEGATION_EXPIRED
    store = TrustStore(chain_seconds=300)
    built.rotate("88.118.8")
    store.learn(Learned(taken_over(links_of(built)), 0))
    with pytest.raises(VerificationError) as caught:
        taken_over(links, store=store)
    assert caught.value.reason is Reason.DELEGATION_ROLLED_BACK


def test_nothing_follows_a_revoked_zone() -> None:
    built = tree()
    below = links_of(built)[-1]
    built.revoke("88.118")
    links = links_of(built, "88.118")
    assert taken_over(links).is_revoked
    with pytest.raises(VerificationError) as caught:
        taken_over((*links, below))
    assert caught.value.reason is Reason.DELEGATION_REVOKED


def test_floors_can_be_raised_without_a_chain_to_start_from() -> None:
    store = TrustStore(chain_seconds=300)
    chain = taken_over(links_of(tree()))
    assert store.learn(Learned(chain, 1_000), floors_only=True) == []
    assert store.zone(chain.zone) is not None
    assert store.deepest((chain.zone,), now=NOW, now_ms=1_000) is None


def test_cache_drops_one_answer_and_nothing_where_there_is_none() -> None:
    built = tree()
    client = Client(built)
    cache = AnswerCache()
    for name in ("SN-1", "SN-absent"):
        cache.put(client.walk(f"88.118.8/{name}").resolution, now_ms=0)
    cache.drop(Identifier.parse("88.118.8/SN-unknown"))
    assert (len(cache), cache.counters.purged) == (2, 0)
    for name in ("SN-1", "SN-absent"):
        cache.drop(Identifier.parse(f"88.118.8/{name}"))
    assert (len(cache), cache.answer_bytes, cache.counters.purged) == (0, 0, 2)


def test_what_was_kept_before_the_word_was_lost_is_doubtful_until_it_is_kept_anew() -> None:
    built = tree()
    client = Client(built)
    cache = AnswerCache()
    names = [Identifier.parse(f"88.118.8/{name}") for name in ("SN-1", "SN-absent")]
    found = [client.walk(str(name)).resolution for name in names]

    def doubtful(now_ms: int) -> list[bool]:
        hits = [cache.get(name, now=NOW, now_ms=now_ms) for name in names]
        assert all(hit is not None and hit.resolution.bundle is not None for hit in hits)
        return [hit.doubtful for hit in hits if hit is not None]

    for resolution in found:
        cache.put(resolution, now_ms=1_000)
    assert doubtful(1_000) == [False, False]
    cache.doubt(now_ms=2_000)
    assert doubtful(2_000) == [True, True]
    cache.put(found[0], now_ms=2_001)
    assert doubtful(2_001) == [False, True]
    cache.doubt(now_ms=3_000)
    assert doubtful(3_000) == [True, True]


def test_doubtful_answer_is_not_asked_for_again_while_its_last_question_is_in_back_off() -> None:
    built = tree()
    client = Client(built)
    cache = AnswerCache()
    name = Identifier.parse("88.118.8/SN-1")
    cache.put(client.walk(str(name)).resolution, now_ms=0)
    cache.doubt(now_ms=10)
    cache.put(Resolution(name, Verdict.UNREACHABLE, None, "nobody answers"), now_ms=20)
    seen = []
    for now_ms in (20, 20 + cache.limits.unreachable_ms - 1, 20 + cache.limits.unreachable_ms):
        hit = cache.get(name, now=NOW, now_ms=now_ms)
        assert hit is not None
        seen.append((hit.resolution.verdict, hit.doubtful))
    assert seen == [(Verdict.FOUND, False), (Verdict.FOUND, False), (Verdict.FOUND, True)]

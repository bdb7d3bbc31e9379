"""What the contract's program asks of a store: small numbers, read as writes, grants and chains on the latest truth.

One number a wish, because a generator that draws one is five times as fast as one that draws its fields, and a smaller
number is a plainer wish. Half of the writes go to one identifier, so that it has more versions than a bucket holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from idtrace import wire
from idtrace.record import Status
from registry.outbox import done, failed, revived
from registry.storage import Claim, Delivery, DeliveryState, Grant, Mention, Write
from tests.contract.truth import Truth
from tests.core_fixtures import NOW, delegate, delegation, links
from tests.registry_fixtures import ENDED, typed_record, write_of

ABOVE: Final = "88.118"
NAMES: Final = (
    "88.118.8/A",
    "88.118.8/B",
    "88.118.8.1/A",
    "88.118.9/A",
    "88.118.9/B",
    "88.118.9.1/A",
    "88.118.80/A",
)
KEYS: Final = tuple(f"key-{n:05}" for n in range(40))
CLAIMS: Final = tuple(Claim("88.118/c", field, bytes([n]) * 32) for field in ("a", "b") for n in range(2))
ZONES: Final = ("88.118.8", "88.118.9", "88.118.80", ABOVE)
CHILDREN: Final = ("88.118.9", "88.118.7", "88.118.8", "88.118.8.1")
PREFIXES: Final = ("88", ABOVE, "88.118.8", "88.118.9", "88.118.80", "88.118.8.1", "88.118.7", "88.11", "8")
# More than one statement of SQLite holds (500 keys) at most, and more than it reads inline (16) at least.
BULK_SIZES: Final = (17, 17, 17, 40, 501)
WISH_MAX: Final = 2**20


@lru_cache(maxsize=20_000)
def write(
    name: str,
    key: str,
    zone: str,
    *,
    version: int = 1,
    previous: bytes = b"",
    claims: tuple[Claim, ...] = (),
    ends: bool = False,
) -> Write:
    """A signed write; proposals of one version differ by their keys."""
    fields: dict[str, Any] = {"version": version}
    if version > 1:
        fields |= {"status": Status.RECALLED, "previous_hash": previous} | (ENDED if ends else {})
    values = {} if ends and version > 1 else {"by": key}
    return write_of(typed_record(name, values, by="anyone", **fields), key, zone=zone, claims=claims)


def next_write(truth: Truth, name: str, key: str, zone: str, off: int = 0, **more: Any) -> Write:
    """A write on top of the latest version, or off by so many."""
    versions = truth.writes.get(name, ())
    version = max(len(versions) + 1 + off, 1)
    previous = versions[version - 2].head.record_hash if 1 < version <= len(versions) + 1 else bytes(32)
    return write(name, key, zone, version=version, previous=previous if version > 1 else b"", **more)


def batch(truth: Truth, wishes: Iterable[int]) -> list[Write]:
    """A batch in which each write knows what the ones before it will have done."""
    later, writes = truth.copy(), []
    for wish in wishes:
        writes.append(_write_of(later, wish))
        later.commit(writes[-1:])
    return writes


# Things, places and homes elsewhere that events are about; times on both sides of a month's and an hour's end.
SUBJECTS: Final = ("88.118.8/BOX", "88.118.9/BOX", "urn:epc:id:sgln:952005385.011.0", "86.1.5/DOSE-1", "86.1.5/DOSE-2")
AWAY: Final = SUBJECTS[3:]
MONTH_MS: Final = 30 * 86_400_000
TIMES: Final = tuple(NOW * 1000 // MONTH_MS * MONTH_MS + off for off in (0, -1, 1, 3_600_000, -MONTH_MS, 5))
ROLES: Final = ("epc", "parent")


def _about(write: Write, wish: int) -> Write:
    """A first version as an event; later ones are none."""
    wish, some = divmod(wish, 2 ** len(SUBJECTS))
    subjects = [name for n, name in enumerate(SUBJECTS) if some >> n & 1]
    if write.head.version > 1 or not subjects:
        return write
    time_ms = TIMES[wish % len(TIMES)]
    roles = ROLES if wish % 2 else ROLES[:1]
    mentions = tuple(Mention(name, time_ms, write.identifier, role) for name in subjects for role in roles)
    return replace(write, mentions=mentions, outbound=tuple(name for name in subjects if name in AWAY))


def pointers(number: int) -> list[Mention]:
    """Some that come from elsewhere, mostly new ones, and now and then one twice."""
    number, count = divmod(number, 4)
    number, twice = divmod(number, 2)
    found = []
    for n in range(count):
        subject, time_ms = SUBJECTS[(number + n) % 2], TIMES[(number // 2 + n) % len(TIMES)]
        found.append(Mention(subject, time_ms, f"86.1.5/E-{(number // 12 + n) % 50}", ROLES[n % 2]))
    return found + found[:1] * twice


def tried(outbox: Iterable[Delivery], number: int) -> list[Delivery]:
    """What became of some that wait, or are dead."""
    kept, settled = sorted(outbox, key=lambda one: one.key), []
    for n, one in enumerate(kept[:6]):
        if one.state is DeliveryState.DEAD:
            settled.append(revived(one, now_ms=NOW))
        elif number >> n & 1:
            settled.append(done(one))
        else:
            settled.append(failed(one, "no answer", now_ms=NOW, chance=0.5, for_good=number % 5 == 0))
    return settled


def _write_of(truth: Truth, wish: int) -> Write:
    return _about(_plain_write_of(truth, wish), wish // 7)


def _plain_write_of(truth: Truth, wish: int) -> Write:
    wish, which = divmod(wish, 2 * len(NAMES))
    name = NAMES[which % len(NAMES)] if which < len(NAMES) else NAMES[0]
    wish, key = divmod(wish, len(KEYS))
    wish, above = divmod(wish, 4)
    zone = ABOVE if above == 3 else next(zone for zone in ZONES if f"{name}/".startswith((f"{zone}.", f"{zone}/")))
    wish, claimed = divmod(wish, 8)
    claims = (CLAIMS[claimed - 4],) if claimed >= 4 else CLAIMS[:2] if claimed == 3 else ()
    wish, off = divmod(wish, 8)
    return next_write(truth, name, KEYS[key], zone, {6: -1, 7: 1}.get(off, 0), claims=claims, ends=wish % 8 == 7)


def bulk(truth: Truth, size: int) -> list[Write]:
    """The next version of so many identifiers that nothing else writes."""
    names = [f"88.118.9/BULK-{n:04}" for n in range(size)]
    writes = [next_write(truth, name, f"{name[9:]}-{len(truth.writes.get(name, ()))}", "88.118.9") for name in names]
    return [_about(write, n * 5) for n, write in enumerate(writes)]


def grant(truth: Truth, wish: int) -> tuple[Grant, Grant | None, tuple[str, str], bytes]:
    """Apply for a prefix, move it, delegate it anew; on what is held or on what is not."""
    wish, child = divmod(wish, len(CHILDREN))
    prefix = CHILDREN[child]
    wish, number = divmod(wish, 120)
    key = KEYS[number // 4] if number % 4 == 0 else f"grant-{number:05}"
    wish, action = divmod(wish, 4)
    wish, view = divmod(wish, 4)
    held = truth.granted.get(prefix)
    new = held or Grant(prefix, "applied", False, "", NOW, application=b"a", enrolments=(key.encode(), b"e"))
    if action >= 2:
        version = new.version + 1
        body = delegation(prefix, version=version, previous=bytes(32) if version > 1 else b"")
        new = replace(new, status="enabled", version=version, delegation=wire.signed_to_bytes(delegate(body)))
    elif held:
        new = replace(new, status=("in_review", "disabled")[action], hosted=not held.hosted, enrolments=(b"e",))
    new = replace(new, comment=key, changed_at=NOW + wish % 3)
    stale = replace(held, changed_at=0) if held else replace(new, comment="never held")
    expected = {2: stale, 3: None}.get(view, held)
    return new, expected, (ABOVE, key), bytes([wish % 251]) * 32


def chain(wish: int) -> tuple[str, list[bytes]]:
    """The chain of an own zone."""
    zone = ("88", ABOVE)[wish % 2]
    return zone, [wire.signed_to_bytes(signed) for signed in links(zone)]


Call = tuple[str, tuple[Any, ...]]


def race(truth: Truth, kind: int, number: int, wish: int) -> tuple[Call, Call]:
    """Two changes that want the same, each of which may come first; names and keys are this race's own."""
    if kind >= ABOUT_A_PREFIX:
        return _race_for_a_prefix(number, registers=kind == ABOUT_A_PREFIX)
    if kind == 0:  # one request that arrives twice
        twice = _write_of(truth, wish)
        return _commits(twice, twice)
    name, keys = f"88.118.9/RACE-{number}", [f"race-{number:05}-{who}" for who in "ab"]
    about = wish if kind == 4 else 0  # two that have nothing to do with each other may both be events
    names = [name, name] if kind == 1 else [f"{name}-a", f"{name}-b"]  # one identifier, two proposals
    if kind == 2:  # one key, two identifiers
        keys[1] = keys[0]
    # One value that is unique, two identifiers; else two that have nothing to do with each other.
    claims = (Claim("88.118/c", "race", number.to_bytes(32, "big")),) if kind == 3 else ()
    writes = [write(n, key, "88.118.9", claims=claims) for n, key in zip(names, keys, strict=True)]
    return _commits(*(_about(one, about) for one in writes))


# Of the kinds of races the first about a prefix, and how many there are.
ABOUT_A_PREFIX: Final = 5
RACES: Final = 7


def _race_for_a_prefix(number: int, *, registers: bool) -> tuple[Call, Call]:
    """It is handed out, while its parent's zone registers in it or another review hands it out as well."""
    child, keys = f"{ABOVE}.{100 + number}", [f"race-{number:05}-{who}" for who in "ab"]
    handed = Grant(child, "enabled", False, "", NOW, 1, wire.signed_to_bytes(delegate(delegation(child))), b"a")
    first: Call = ("put_grant", (handed, None, (ABOVE, keys[0]), bytes(32)))
    if registers:
        return first, ("commit", ([write(f"{child}/A", keys[1], ABOVE)],))
    return first, ("put_grant", (replace(handed, comment="b"), None, (ABOVE, keys[1]), bytes(32)))


def _commits(first: Write, second: Write) -> tuple[Call, Call]:
    return ("commit", ([first],)), ("commit", ([second],))

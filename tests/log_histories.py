"""Honest histories of a registry's log, step by step: what a sound node writes, and what it knows meanwhile.

A zone of its own under a parent outside the log, hosted child zones, rotations that end a key at an index, revocations,
single records, batches under a seal of which some are refused, ends, commands. :mod:`tests.history_lies` adds lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.entry import Entry, EntryKind, UnderSeal
from idtrace.identifier import Identifier, Prefix
from idtrace.record import Record, RecordBody, RecordKind, Status
from idtrace.seal import seal
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Command, PrefixStatus
from tests.core_fixtures import NOW, ZONE, delegate, public, record, signer
from tests.logged_fixtures import logged

Draw = Callable[[int], int]
"""A number from 0 to below the given one, by chance."""

Ends = dict[str, int | None]
"""A zone's record keys by name, each with the index at which it ends."""

STATUSES = (Status.ACTIVE, Status.SUSPENDED, Status.RECALLED)
PARENT = Prefix.parse("88.118")
OUTSIDE = {PARENT: {public(f"zone of {PARENT}").key_id: public(f"zone of {PARENT}")}}


@dataclass
class ZoneBook:
    """A zone as its node knows it: the delegation in force, and its record keys by name with their ends."""

    body: Delegation
    ends: Ends

    @property
    def name(self) -> str:
        return str(self.body.child)

    @property
    def stands(self) -> bool:
        return self.body.state is State.ACTIVE

    def signers(self, index: int) -> list[str]:
        """Names of the keys that may sign at an index."""
        return [name for name, end in self.ends.items() if end is None or index < end]


@dataclass
class History:
    """Entries so far, and what an honest node knows behind them."""

    draw: Draw
    entries: list[bytes] = field(default_factory=list)
    zones: dict[str, ZoneBook] = field(default_factory=dict)
    last: dict[Identifier, Record] = field(default_factory=dict)
    ended: dict[Identifier, Record] = field(default_factory=dict)
    now: int = NOW
    made: int = 0

    @property
    def size(self) -> int:
        return len(self.entries)

    def pick(self, items: Any) -> Any:
        found = list(items)
        return found[self.draw(len(found))]

    def add(self, *entries: Entry) -> None:
        self.entries += [entry.to_bytes() for entry in entries]

    def entry(self, kind: EntryKind, zone: str, signed: Signed) -> Entry:
        return Entry(kind, Prefix.parse(zone), self.now, signed.payload, signed.signatures)

    def fresh(self, zone: str) -> Identifier:
        self.made += 1
        return Identifier.parse(f"{zone}/N-{self.made}")

    # Zones

    def begin(self) -> None:
        self._say(logged(), {f"record of {ZONE}": None})

    def hand_out(self) -> str:
        self.made += 1
        child = f"{ZONE}.c{self.made}"
        body = logged(
            child=Prefix.parse(child), parent=Prefix.parse(ZONE), keys=named_keys(child, {f"record of {child}": None})
        )
        self._say(body, {f"record of {child}": None})
        return child

    def rotate(self, zone: str, grace: int) -> None:
        """The next keys of a zone: those of today end after so many more entries, a new one counts at once."""
        book = self.zones[zone]
        end = self.size + 1 + grace
        ends: Ends = {name: end if known is None else known for name, known in book.ends.items()}
        ends[f"record {book.body.version + 1} of {zone}"] = None
        body = replace(book.body, version=book.body.version + 1, previous=book.body.hash, keys=named_keys(zone, ends))
        self._say(body, ends)

    def revoke(self, zone: str) -> None:
        book = self.zones[zone]
        ended: dict[str, Any] = {"state": State.REVOKED, "keys": (), "endpoints": (), "log": ""}
        self._say(replace(book.body, version=book.body.version + 1, previous=book.body.hash, **ended), {})

    def _say(self, body: Delegation, ends: Ends) -> None:
        kind = EntryKind.KEYS if str(body.child) == ZONE else EntryKind.DELEGATION
        said = str(body.child if kind is EntryKind.KEYS else body.parent)
        self.add(self.entry(kind, said, delegate(body)))
        self.zones[str(body.child)] = ZoneBook(body, ends)

    def children(self, *, standing: bool = True) -> list[str]:
        return [name for name, book in self.zones.items() if name != ZONE and book.stands == standing]

    def command(self) -> None:
        body = Command(Prefix.parse(f"{ZONE}.x"), PrefixStatus.DISABLED, "", self.now)
        self.add(self.entry(EntryKind.COMMAND, ZONE, sign(Kind.COMMAND, body.payload(), signer(f"zone of {ZONE}"))))

    # Records

    def open_zones(self) -> list[str]:
        return [name for name, book in self.zones.items() if book.stands and book.signers(self.size)]

    def living(self, zone: str) -> list[Identifier]:
        return [one for one in self.last if str(one.prefix) == zone and one not in self.ended]

    def first(self, zone: str, by: str, **changes: Any) -> Record:
        return record(self.fresh(zone), by, **changes)

    def following(self, identifier: Identifier, by: str, **changes: Any) -> Record:
        """The next version of what stands."""
        before = self.last[identifier]
        body = RecordBody.parse(before.signed.payload)
        given: dict[str, Any] = {"version": body.version + 1, "previous": before.hash, "kind": body.kind}
        return record(identifier, by, **given | changes)

    def write(self, one: Record, zone: str) -> None:
        self.add(self.entry(EntryKind.RECORD, zone, one.signed))
        self.know(one)

    def know(self, one: Record) -> None:
        body = RecordBody.parse(one.signed.payload)
        self.last[body.identifier] = one
        if body.kind is RecordKind.TOMBSTONE:
            self.ended[body.identifier] = one

    def next_record(self, zone: str, by: str) -> Record:
        """A new identifier's first version, or the next one of a living one; now and then its end."""
        living = self.living(zone)
        if not living or self.draw(2):
            return self.first(zone, by, kind=self.pick([RecordKind.ITEM, RecordKind.BLOCK, RecordKind.CLASS]))
        which = self.pick(living)
        if which != living[0] and self.draw(4) == 0:
            return self.following(which, by, kind=RecordKind.TOMBSTONE, status=Status.RETIRED, data=())
        return self.following(which, by, status=self.pick(STATUSES))

    def batch(self, zone: str, count: int, refused: frozenset[int] = frozenset()) -> list[Entry]:
        """A sealed batch of first versions, without taking it down: its seal, and the records that were not refused."""
        by = f"record of {zone}" if len(self.zones[zone].ends) == 1 else list(self.zones[zone].ends)[-1]
        return sealed_entries(self, zone, by, [self.first(zone, by) for _ in range(count)], refused)

    def step(self) -> None:
        """One honest step by chance."""
        zone = self.pick(self.open_zones())
        match self.draw(10):
            case 0:
                self.hand_out()
            case 1:
                self.rotate(zone, self.draw(4))
            case 2 if len(self.children()) > 1:
                self.revoke(self.pick(self.children()[1:]))
            case 3 | 4:
                count = 1 + self.draw(4)
                refused = frozenset(n for n in range(count) if self.draw(4) == 0) if count > 1 else frozenset[int]()
                seal_entry, *taken = self.batch(zone, count, refused)
                self.add(seal_entry, *taken)
                for one in taken:
                    self.know(Record(one.signed, ()))
            case 5:
                self.command()
            case 6:
                self.now += self.draw(3)
            case _:
                by = self.pick(self.zones[zone].signers(self.size))
                self.write(self.next_record(zone, by), zone)


def named_keys(zone: str, ends: Ends) -> tuple[ZoneKey, ...]:
    """A zone's keys: one for each role, and the record keys by name."""
    others = (role for role in Role if role is not Role.RECORD)
    return (
        *(ZoneKey(public(f"{role} of {zone}"), frozenset({role})) for role in others),
        *(ZoneKey(public(name), frozenset({Role.RECORD}), end) for name, end in ends.items()),
    )


def sealed_entries(
    history: History, zone: str, by: str, records: list[Record], refused: frozenset[int] = frozenset()
) -> list[Entry]:
    """The entries of a batch under one seal by the key of this name."""
    hashes = [one.hash for one in records]
    places = seal(hashes, Prefix.parse(zone), signer(by), issued_at=history.now)
    opening = history.entry(EntryKind.SEAL, zone, places[0].seal)
    return [
        replace(opening, absent=tuple((n, hashes[n]) for n in sorted(refused))),
        *(
            Entry(EntryKind.RECORD, Prefix.parse(zone), history.now, one.signed.payload, UnderSeal(places[0].hash, n))
            for n, one in enumerate(records)
            if n not in refused
        ),
    ]


def begun(draw: Draw) -> History:
    """A history in which everything has happened once, so that there is something to lie about."""
    history = History(draw)
    history.begin()
    child, gone = history.hand_out(), history.hand_out()
    for zone in (ZONE, child, gone):
        by = f"record of {zone}"
        one = history.first(zone, by)
        history.write(one, zone)
        history.write(history.following(next(reversed(history.last)), by, status=Status.SUSPENDED), zone)
    end = history.first(ZONE, f"record of {ZONE}")
    history.write(end, ZONE)
    which = next(reversed(history.last))
    history.write(
        history.following(which, f"record of {ZONE}", kind=RecordKind.TOMBSTONE, status=Status.RETIRED, data=()), ZONE
    )
    history.add(*history.batch(ZONE, 3, frozenset({1})))
    history.rotate(ZONE, 0)
    history.rotate(child, 1)
    history.command()
    history.revoke(gone)
    return history

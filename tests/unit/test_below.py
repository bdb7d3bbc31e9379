"""Keys below a prefix: exactly those that were entered and not taken out, whatever the order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idtrace.identifier import Prefix
from resolver.below import Below

ZONES = [Prefix.parse(text) for text in ("", "88", "88.118", "88.118.8", "88.1", "99")]
moves = st.lists(st.tuples(st.booleans(), st.sampled_from(ZONES), st.integers(0, 3)), max_size=40)


@given(moves)
def test_it_holds_what_was_entered_and_not_taken_out(done: list[tuple[bool, Prefix, int]]) -> None:
    below: Below[tuple[Prefix, int]] = Below()
    model: dict[tuple[Prefix, int], None] = {}
    for enters, prefix, number in done:
        key = (prefix, number)
        if enters:
            below.add(prefix, key)
            model[key] = None
        else:
            below.discard(prefix, key)
            model.pop(key, None)
    for zone in ZONES:
        assert sorted(below.of(zone)) == sorted(key for key in model if key[0].within(zone))


def test_nothing_is_left_behind() -> None:
    below: Below[int] = Below()
    below.add(ZONES[3], 1)
    below.add(ZONES[3], 2)
    below.discard(ZONES[3], 1)
    assert below.of(ZONES[1]) == [2]
    below.discard(ZONES[3], 2)
    below.discard(ZONES[3], 2)
    assert below._keys == {}

"""Batch seals: every record of a batch verifies alone, and no other record, place or path does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.merkle import hash_leaf
from idtrace.seal import SEAL_SIZE_MAX, Seal, check_path, seal
from idtrace.signature import CheckBudget, Kind, verify
from tests.core_fixtures import NOW, ZONE, public, signer
from tests.log_fixtures import naive_path, naive_root
from tests.logged_fixtures import HERE, OWNER


def hashes(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % n).digest() for n in range(count)]


@given(st.integers(1, 70))
def test_every_place_has_the_path_that_the_rfc_gives_it(count: int) -> None:
    batch = hashes(count)
    places = seal(batch, HERE, signer(OWNER), issued_at=NOW)
    leaves = [hash_leaf(one) for one in batch]
    body = Seal.parse(places[0].seal.payload)
    assert body == Seal(HERE, naive_root(leaves), count, NOW)
    assert len({place.seal for place in places}) == len({place.hash for place in places}) == 1
    assert [place.path for place in places] == [tuple(naive_path(n, leaves)) for n in range(count)]
    for record_hash, place in zip(batch, places, strict=True):
        check_path(record_hash, place, body)
    verify(places[0].seal, Kind.SEAL, {public(OWNER).key_id: public(OWNER)}, budget=CheckBudget(1))


@given(st.integers(1, 20), st.data())
def test_nothing_fits_but_the_record_at_its_place(count: int, data: st.DataObject) -> None:
    batch = hashes(count)
    places = seal(batch, HERE, signer(OWNER), issued_at=NOW)
    body = Seal.parse(places[0].seal.payload)
    at = data.draw(st.integers(0, count - 1))
    place, own = places[at], batch[at]
    lies = [
        (hashes(count + 1)[-1], place, body),
        (own, replace(place, position=data.draw(st.integers(-2, 2 * count).filter(lambda n: n != at))), body),
        (own, replace(place, path=(*place.path, bytes(32))), body),
        (own, replace(place, path=place.path[:-1] if place.path else (bytes(32),)), body),
        (own, place, replace(body, root=bytes(32))),
    ]
    if place.path:
        lies.append((own, replace(place, path=(*place.path[:-1], place.path[-1][:-1] + b"x")), body))
        lies.append((own, replace(place, path=(place.path[0][:31], *place.path[1:])), body))
    for record_hash, claimed, under in lies:
        with pytest.raises(VerificationError) as caught:
            check_path(record_hash, claimed, under)
        assert (caught.value.reason, caught.value.field) == (Reason.SEAL_PATH, "record.seal")


BODIES = st.builds(
    Seal,
    st.sampled_from([Prefix.parse("88"), HERE, Prefix(())]),
    st.binary(min_size=32, max_size=32),
    st.integers(1, SEAL_SIZE_MAX),
    st.integers(0, 253_402_300_799),
)


@given(BODIES)
def test_a_body_comes_back_from_its_bytes(body: Seal) -> None:
    assert Seal.parse(body.payload()) == body


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 0}, "seal.size"),
        ({"size": SEAL_SIZE_MAX + 1}, "seal.size"),
        ({"issued_at": -1}, "seal.issued_at"),
        ({"root": b"x"}, "seal.root"),
    ],
)
def test_what_is_no_body_is_refused(changes: dict[str, Any], field: str) -> None:
    body = replace(Seal(Prefix.parse(ZONE), bytes(32), 1, NOW), **changes)
    with pytest.raises(InputError) as caught:
        Seal.parse(body.payload())
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_MALFORMED, field)


@given(st.binary(max_size=80))
def test_anything_else_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(InputError):
        Seal.parse(data)


def test_no_batch_is_empty() -> None:
    with pytest.raises(AssertionError):
        seal([], HERE, signer(OWNER), issued_at=NOW)

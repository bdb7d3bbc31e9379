"""Keys that have ended, over the years: how many a zone can have, what makes room, and what is lost with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.bundle import Bundle, Verdict
from idtrace.cli import files
from idtrace.cli.delegating import End, Terms, next_delegation
from idtrace.delegation import ENDED_KEYS_MAX, KEYS_MAX, Delegation, Role
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.signature import Kind
from idtrace.statements import Enrolment
from idtrace.verification import verify_bundle
from tests.cli import idtrace, key_file
from tests.core_fixtures import NOW, ZONE, anchor, delegate, public, record
from tests.logged_fixtures import OWNER, ending, logged, logged_bundle, logged_chain, proof_of

HERE = Prefix.parse(ZONE)
FIRST = public(OWNER).key_id


def key_id(number: int) -> str:
    return public(f"key {number}").key_id if number else FIRST


def after(current: Delegation, terms: Terms, enrolments: Sequence[Enrolment] = ()) -> Delegation:
    return next_delegation(HERE, current.parent, current, enrolments, terms, NOW)


def rotated(current: Delegation, number: int) -> Delegation:
    """The record role passes to key ``number``: it is added, and then the key before it ends at an index."""
    both = after(current, Terms(), [Enrolment(HERE, public(f"key {number}"), Role.RECORD)])
    return after(both, Terms(ends=(End(key_id(number - 1), Role.RECORD, 100 * number),)))


def test_the_17th_rotation_and_many_more_find_room() -> None:
    body = logged()
    for number in range(1, KEYS_MAX + 2):
        body = rotated(body, number)
    assert body.ended_keys(Role.RECORD).keys() == {key_id(n) for n in range(KEYS_MAX + 1)}
    assert body.keys_for(Role.RECORD).keys() == {key_id(KEYS_MAX + 1)}
    assert body.ended_keys(Role.RECORD)[FIRST].until == 100


def test_when_there_is_no_room_it_is_said_and_the_oldest_makes_room() -> None:
    body = logged()
    for number in range(1, ENDED_KEYS_MAX + 1):
        body = rotated(body, number)
    with pytest.raises(InputError) as caught:
        rotated(body, ENDED_KEYS_MAX + 1)
    assert (caught.value.reason, caught.value.field) == (Reason.FIELD_TOO_LARGE, "delegation.keys")
    assert "of the oldest, and leave that key out" in caught.value.detail
    body = rotated(after(body, Terms(drop_keys=(FIRST,))), ENDED_KEYS_MAX + 1)
    assert FIRST not in {key.key.key_id for key in body.keys}
    assert len(body.ended_keys(Role.RECORD)) == ENDED_KEYS_MAX


def by_owner(body: Delegation) -> Bundle:
    """A record that the owner's first key has signed, at index 3 of the log, under a version of the delegation."""
    shown = record()
    return logged_bundle(shown, delegations=logged_chain(body), proof=proof_of(shown, 3, 4), currency=None)


def test_a_version_that_leaves_an_ended_key_out_voids_what_it_signed_and_no_saved_proof() -> None:
    ends = ending(7)
    saved = by_owner(ends)
    left_out = replace(
        ends, version=ends.version + 1, previous=ends.hash, keys=tuple(k for k in ends.keys if k.until is None)
    )
    assert verify_bundle(saved, anchor(), now=NOW).verdict is Verdict.FOUND
    now = verify_bundle(by_owner(left_out), anchor(), now=NOW)
    assert (now.verdict, now.checks[-1].reason) == (Verdict.BOGUS, Reason.SIGNER_UNKNOWN)
    assert verify_bundle(saved, anchor(), now=NOW).verdict is Verdict.FOUND, "it carries the chain it was made under"


def test_the_command_line_says_what_is_lost_with_an_ended_key(tmp_path: Path) -> None:
    files.write_signed(tmp_path / "now.json", [delegate(ending(7))])
    out = tmp_path / "next.json"
    ran = idtrace(
        *("delegate", "--zone", "88.118", "--child", ZONE, "--key", key_file(tmp_path, "zone of 88.118")),
        *("--drop-key", FIRST, "--current", tmp_path / "now.json", "--out", out, "--days", 9),
    )
    assert ran.code == 0, ran.err
    assert f"Left out: key {FIRST}, which had ended at index 7" in ran.said
    (signed,) = files.read_signed(out, Kind.DELEGATION)
    assert FIRST not in {key.key.key_id for key in Delegation.parse(signed.payload).keys}

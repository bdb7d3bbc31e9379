"""``idtrace key rotate``, ``key revoke``, ``key root-…`` and drafts for several signers, all off line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace.checkpoint import Checkpoint
from idtrace.cli import files
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.identifier import Prefix
from idtrace.note import Note, NoteSigner
from idtrace.serving.rootfile import load_root_keys
from idtrace.signature import Kind, Signed, sign
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import (
    NOW,
    PINNED,
    ZONE,
    bundle,
    delegate,
    delegation,
    links,
    public,
    record,
    signer,
    zone_keys,
)
from tests.logged_fixtures import LOG, ending, logged

PARENT_KEY = "zone of 88.118"
OLD, NEW = f"record of {ZONE}", "new key"
DAYS = ("--days", 9)  # fixed times of the fixtures lie years ahead


def enrolment(tmp_path: Path, role: Role, zone: str = ZONE, name: str = NEW) -> Path:
    out = tmp_path / f"{role}.enrol.json"
    key = key_file(tmp_path, name)
    assert idtrace("key", "enrol", key, "--zone", zone, "--role", role, "--out", out).code == 0
    return out


def pub(tmp_path: Path, name: str) -> Path:
    return Path(f"{key_file(tmp_path, name)}.pub")


def turn(
    tmp_path: Path,
    verb: str,
    *arguments: object,
    body: Delegation | None = None,
    role: Role = Role.RECORD,
    old: str = OLD,
) -> Ran:
    files.write_signed(tmp_path / "now.json", [delegate(body or logged())])
    return idtrace(
        *("key", verb, "--zone", ZONE, "--role", role, "--old", pub(tmp_path, old), *DAYS),
        *("--key", key_file(tmp_path, PARENT_KEY), "--current", tmp_path / "now.json", "--out", tmp_path / "next.json"),
        *arguments,
    )


def made(tmp_path: Path) -> Delegation:
    (signed,) = files.read_signed(tmp_path / "next.json", Kind.DELEGATION)
    return Delegation.parse(signed.payload)


def checkpoint_file(tmp_path: Path, size: int, by: str = f"log of {ZONE}", origin: str = LOG) -> Path:
    text = Checkpoint(origin, size, bytes(32)).text
    path = tmp_path / "checkpoint"
    path.write_bytes(Note(text, (NoteSigner.of(origin, signer(by)).sign(text),)).encode())
    return path


def test_first_the_new_key_stands_beside_the_old(tmp_path: Path) -> None:
    ran = turn(tmp_path, "rotate", "--enrol", enrolment(tmp_path, Role.RECORD))
    assert ran.code == 0, ran.err
    assert made(tmp_path).keys_for(Role.RECORD).keys() == {public(OLD).key_id, public(NEW).key_id}
    assert made(tmp_path).log == LOG, "the zone keeps its log"
    assert "both keys count for the role record" in ran.said
    assert "sign records with the new key" in ran.said


def test_then_the_old_record_key_ends_at_the_size_of_the_log(tmp_path: Path) -> None:
    both = logged(keys=(*zone_keys(ZONE, Role), ZoneKey(public(NEW), frozenset({Role.RECORD}))))
    ran = turn(tmp_path, "rotate", "--end", "--log", checkpoint_file(tmp_path, 42), body=both)
    assert ran.code == 0, ran.err
    assert made(tmp_path).ended_keys(Role.RECORD)[public(OLD).key_id].until == 42
    assert made(tmp_path).keys_for(Role.RECORD).keys() == {public(NEW).key_id}
    assert f"ends at index 42 of the log {LOG}" in ran.said
    named = turn(tmp_path, "rotate", "--end", "--until", 50, "--log", tmp_path / "checkpoint", "--json", body=both)
    assert named.json["ended"] == [{"key_id": public(OLD).key_id, "until": 50}]
    assert "next 8" in named.json["holds"]["not yet"]


@pytest.mark.parametrize("role", [Role.ZONE, Role.NODE, Role.CURRENCY, Role.LOG])
def test_keys_of_other_roles_are_left_out(tmp_path: Path, role: Role) -> None:
    old = f"{role} of {ZONE}"
    alone = turn(tmp_path, "rotate", "--end", role=role, old=old)
    assert (alone.code, "add the new one first" in alone.err) == (ExitCode.USAGE, True)
    both = logged(keys=(*zone_keys(ZONE, Role), ZoneKey(public(NEW), frozenset({role}))))
    indexed = turn(tmp_path, "rotate", "--end", "--until", 3, body=both, role=role, old=old)
    assert (indexed.code, "no index to end at" in indexed.err) == (ExitCode.USAGE, True)
    assert turn(tmp_path, "rotate", "--end", body=both, role=role, old=old).code == 0
    assert {k.key.key_id for k in made(tmp_path).keys if role in k.roles} == {public(NEW).key_id}
    assert public(OLD).key_id in made(tmp_path).keys_for(Role.RECORD)


def test_a_stolen_key_ends_back_then_and_nothing_prolongs_it(tmp_path: Path) -> None:
    enrol = ("--enrol", enrolment(tmp_path, Role.RECORD))
    ran = turn(tmp_path, "revoke", "--since", 7, "--log", checkpoint_file(tmp_path, 42), *enrol)
    assert ran.code == 0, ran.err
    assert made(tmp_path).ended_keys(Role.RECORD)[public(OLD).key_id].until == 7
    assert "the last 35 are refused" in ran.said
    earlier = turn(tmp_path, "revoke", "--since", 3, body=ending(7))
    assert (earlier.code, made(tmp_path).ended_keys(Role.RECORD)[public(OLD).key_id].until) == (0, 3)
    later = turn(tmp_path, "revoke", "--since", 9, body=ending(7))
    assert (later.code, "not prolonged" in later.err) == (ExitCode.USAGE, True)
    again = turn(tmp_path, "rotate", "--enrol", enrolment(tmp_path, Role.RECORD, name=OLD), body=ending(7))
    assert (again.code, "never used again" in again.err) == (ExitCode.USAGE, True)


def test_without_a_log_it_is_said_what_is_lost(tmp_path: Path) -> None:
    plain = delegation(ZONE, keys=(*zone_keys(ZONE), ZoneKey(public(NEW), frozenset({Role.RECORD}))))
    for verb, more in (("rotate", ("--end",)), ("revoke", ())):
        ran = turn(tmp_path, verb, *more, body=plain)
        assert (ran.code, "signed anew" in ran.err) == (ExitCode.REFUSED, True)
        assert not (tmp_path / "next.json").exists()
    forced = turn(tmp_path, "revoke", "--force", body=plain)
    assert (forced.code, "Bogus until their owner signs each one anew" in forced.said) == (0, True)
    assert public(OLD).key_id not in {k.key.key_id for k in made(tmp_path).keys}
    assert turn(tmp_path, "revoke", "--since", 5, "--force", body=plain).code == ExitCode.USAGE


def test_a_key_of_several_roles_and_a_stranger_do_not_end_at_an_index(tmp_path: Path) -> None:
    wide = ZoneKey(public("wide"), frozenset({Role.RECORD, Role.NODE}))
    body = logged(keys=(*zone_keys(ZONE, Role), wide))
    assert "also has the roles node" in turn(tmp_path, "revoke", "--since", 5, body=body, old="wide").err
    assert turn(tmp_path, "revoke", body=body, role=Role.NODE, old="wide").code == 0
    assert made(tmp_path).keys[-1].roles == {Role.RECORD}
    assert "does not have the role" in turn(tmp_path, "revoke", "--since", 5, old="stranger").err


def test_steps_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    enrol = ("--enrol", enrolment(tmp_path, Role.RECORD))
    assert turn(tmp_path, "rotate").code == ExitCode.USAGE
    assert turn(tmp_path, "rotate", "--end", *enrol).code == ExitCode.USAGE
    assert "this is about the role node" in turn(tmp_path, "rotate", *enrol, role=Role.NODE, old=f"node of {ZONE}").err
    assert "say where the key ends" in turn(tmp_path, "revoke").err


@pytest.mark.parametrize(("by", "origin"), [("a thief", LOG), (f"log of {ZONE}", "other.example/log")])
def test_a_size_that_the_log_has_not_signed_ends_nothing(tmp_path: Path, by: str, origin: str) -> None:
    ran = turn(tmp_path, "revoke", "--log", checkpoint_file(tmp_path, 42, by, origin))
    assert ran.code in {ExitCode.USAGE, ExitCode.BOGUS}
    assert not (tmp_path / "next.json").exists()
    silent = turn(tmp_path, "revoke", "--log", "http://127.0.0.1:1/log")
    assert silent.code == ExitCode.UNREACHABLE


# --- Drafts ---


def drafted(tmp_path: Path, *names: str) -> Ran:
    """A draft for a zone whose parent wants two of three signatures, signed by these."""
    three = tuple(ZoneKey(public(name), frozenset({Role.ZONE})) for name in (PARENT_KEY, "second", "third"))
    others = tuple(key for key in zone_keys("88.118") if Role.ZONE not in key.roles)
    chain: list[Signed] = [*links("88"), delegate(delegation("88.118", keys=(*others, *three), zone_threshold=2))]
    files.write_signed(tmp_path / "now.json", chain)
    return idtrace(
        *("delegate", "--zone", "88.118", "--child", ZONE, "--draft", tmp_path / "draft.json", "--json"),
        *("--current", tmp_path / "now.json", "--endpoint", "n.example:1", "--enrol", enrolment(tmp_path, Role.NODE)),
        *(x for name in names for x in ("--key", key_file(tmp_path, name))),
    )


def countersigned(tmp_path: Path, name: str, *more: object) -> Ran:
    return idtrace("delegate", "--sign", tmp_path / "draft.json", "--key", key_file(tmp_path, name), *more)


def test_a_draft_goes_from_hand_to_hand_until_it_has_enough(tmp_path: Path) -> None:
    begun = drafted(tmp_path)
    assert (begun.code, begun.json["missing"], begun.json["threshold"]) == (0, 2, 2), begun
    first = countersigned(tmp_path, PARENT_KEY, "--out", tmp_path / "d.json")
    assert (first.code, "signatures 1 of 2" in first.said) == (0, True)
    assert f"zone {ZONE}" in first.said, "who signs sees what"
    assert "n.example:1" in first.said
    assert not (tmp_path / "d.json").exists(), "nothing leaves with too few"
    for name, code in ((PARENT_KEY, ExitCode.USAGE), ("stranger", ExitCode.BOGUS)):
        assert countersigned(tmp_path, name).code == code
    assert countersigned(tmp_path, "third", "--out", tmp_path / "d.json").code == 0
    (signed,) = files.read_signed(tmp_path / "d.json", Kind.DELEGATION)
    assert {s.key_id for s in signed.signatures} == {public(PARENT_KEY).key_id, public("third").key_id}


def test_a_draft_that_was_changed_on_the_way_is_not_signed(tmp_path: Path) -> None:
    assert drafted(tmp_path, PARENT_KEY).json["missing"] == 1
    path = tmp_path / "draft.json"
    sound = path.read_text()
    for old, new, said in (
        ("n.example:1", "evil.example:1", "SIGNATURE_INVALID"),
        ('\\"version\\":1', '\\"version\\":7', "delegation.previous"),
        ("idtrace-delegation-draft/v1", "another/v1", "not a draft"),
        ('"chain": [', '"chian": [', "chain is missing"),
    ):
        assert old in sound
        path.write_text(sound.replace(old, new, 1))
        ran = countersigned(tmp_path, "second")
        assert ran.code != 0
        assert said in ran.err
        assert path.read_text() == sound.replace(old, new, 1), "and stays as it was"
    body = json.loads(sound)
    path.write_text(json.dumps(body | {"chain": body["chain"][:1]}))
    assert "does not lead to the parent" in countersigned(tmp_path, "second").err


# --- The root ---


def test_the_pinned_root_is_followed_and_old_proofs_keep_their_time(tmp_path: Path) -> None:
    root, draft = pub(tmp_path, PINNED), tmp_path / "root-2.json"
    saved = tmp_path / "proof.json"
    files.write_bundle(saved, bundle())
    change = ("--add", pub(tmp_path, NEW), "--drop", public(PINNED).key_id)
    next_ = idtrace("key", "root-next", "--root", root, *change, "--out", draft)
    assert (next_.code, "still lacks 1 of the old keys and 1 of the new keys" in next_.said) == (0, True), next_
    unsigned = idtrace("key", "root-update", "--root", root, "--update", draft)
    assert unsigned.code == ExitCode.USAGE, "nobody has signed it"
    signing = ("key", "root-sign", draft, "--root", root, "--key")
    assert idtrace(*signing, key_file(tmp_path, "stranger")).code == ExitCode.BOGUS
    assert idtrace(*signing, key_file(tmp_path, NEW)).code == 0
    assert idtrace(*signing, key_file(tmp_path, NEW)).code == ExitCode.USAGE
    done = idtrace(*signing, key_file(tmp_path, PINNED), "--json")
    assert (done.code, done.json["missing"]) == (0, {"of_the_old": 0, "of_the_new": 0})
    at = ("--at", str(NOW))
    assert idtrace("verify", saved, "--root", root, *at).code == 0, "the old pin goes on as it was"
    followed = idtrace("verify", saved, "--root", root, "--root-update", draft, *at)
    assert followed.code == ExitCode.BOGUS, "by then the old key is no longer the root"
    assert idtrace("key", "root-update", "--root", root, "--update", draft, "--out", tmp_path / "new").code == 0
    assert load_root_keys(tmp_path / "new").anchor.keys.keys() == {public(NEW).key_id}
    assert idtrace("key", "show", tmp_path / "new", "--json").json["keys"][0]["key_id"] == public(NEW).key_id


def test_a_proof_from_before_the_change_is_shown_with_its_time(tmp_path: Path) -> None:
    root, draft = pub(tmp_path, PINNED), tmp_path / "root-2.json"
    keys = load_root_keys(root)
    body = replace(keys.latest, version=2, previous=keys.latest.hash, keys=(public(NEW),), issued_at=1_000_000_000)
    files.write_signed(draft, [sign(Kind.ROOT_KEYS, body.payload(), signer(PINNED), signer(NEW))])
    then = 999_990_000
    chain = tuple(
        delegate(delegation(str(zone), issued_at=then, not_before=then, expires=then + 86_400))
        for zone in Prefix.parse(ZONE).lineage()
    )
    files.write_bundle(tmp_path / "proof.json", bundle(record(issued_at=then), chain))
    asked = ("verify", tmp_path / "proof.json", "--root", root, "--root-update", draft)
    late = idtrace(*asked, "--json")
    assert late.code == ExitCode.BOGUS
    assert (late.json["valid_from"], late.json["valid_until"]) == (then, 999_999_999), "while the old key was the root"
    assert "NOT VALID AT THIS TIME" in idtrace(*asked).said
    assert idtrace(*asked, "--at", 999_999_999).code == 0
    assert idtrace(*asked, "--at", 1_000_000_000).code == ExitCode.BOGUS


def test_an_update_that_does_not_hold_leaves_the_pin_as_it_is(tmp_path: Path) -> None:
    root, draft = pub(tmp_path, PINNED), tmp_path / "root-2.json"
    before = root.read_bytes()
    idtrace("key", "root-next", "--root", root, "--add", pub(tmp_path, NEW), "--out", draft)
    assert idtrace("key", "root-sign", draft, "--root", root, "--key", key_file(tmp_path, PINNED)).code == 0
    draft.write_text(draft.read_text().replace(public(PINNED).key_id, public(NEW).key_id))
    assert idtrace("key", "root-update", "--root", root, "--update", draft).code == ExitCode.BOGUS
    other = pub(tmp_path, "other root")
    assert idtrace("key", "root-update", "--root", other, "--update", draft).code == ExitCode.BOGUS
    assert root.read_bytes() == before

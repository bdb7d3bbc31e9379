"""``idtrace verify``: every check is shown, nothing changed verifies, and what is only late says so."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from idtrace import wire
from idtrace.bundle import Bundle, Revoked
from idtrace.cli import files
from idtrace.cli.exits import ExitCode
from idtrace.identifier import Prefix
from idtrace.record import Permission, Status, build_values
from idtrace.signature import Kind, sign
from tests.cli import idtrace, key_file
from tests.core_fixtures import (
    ITEM,
    NOW,
    PINNED,
    body_and_values,
    bundle,
    delegate,
    delegation,
    denial,
    denied,
    links,
    record,
    revocation,
    signed_record,
    signer,
    tombstone,
    with_last,
)

AT_NOW = ("--at", str(NOW))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(f"{key_file(tmp_path, PINNED)}.pub")


def saved(tmp_path: Path, what: Bundle, form: str = "json") -> Path:
    path = tmp_path / f"bundle.{form}"
    files.write_bundle(path, what)
    return path


# --- verify ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "bundle"])
def test_a_genuine_bundle_of_either_form_shows_every_check(tmp_path: Path, root: Path, form: str) -> None:
    path = saved(tmp_path, bundle(), form)
    assert path.read_bytes().startswith(b"{") == (form == "json")
    ran = idtrace("verify", path, "--root", root, *AT_NOW)
    assert ran.code == 0
    assert ran.said.startswith(f"✓ FOUND {ITEM} as of ")
    assert ran.out.count("✓") == 1 + len(links()) + 1
    assert "ACTIVE" in ran.out
    body = idtrace("verify", path, "--root", root, *AT_NOW, "--json").json
    assert (body["verdict"], body["valid"], body["record"]["withheld"]) == ("FOUND", True, [])
    assert [check["passed"] for check in body["checks"]] == [True] * 5
    assert [value["data"] for value in body["record"]["values"]] == ["a", "b"]


def test_withheld_values_are_named_and_the_rest_still_verifies(tmp_path: Path, root: Path) -> None:
    whole = record()
    part = type(whole)(whole.signed, whole.values[1:])
    path = saved(tmp_path, bundle(part))
    ran = idtrace("verify", path, "--root", root, *AT_NOW)
    assert ran.code == 0
    assert "field.0 withheld" in ran.said
    assert "1 of 2 values withheld" in ran.said
    body = idtrace("verify", path, "--root", root, *AT_NOW, "--json").json["record"]
    assert body["withheld"] == [1]
    assert "data" not in body["values"][0]


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.RECALLED])
def test_a_thing_that_may_not_be_used_gets_no_tick(tmp_path: Path, root: Path, status: Status) -> None:
    ran = idtrace("verify", saved(tmp_path, bundle(record(status=status))), "--root", root, *AT_NOW)
    assert ran.code == 0
    assert ran.out.startswith(f"! FOUND, {status.upper()} {ITEM}")
    assert "do not use" in ran.out


def test_a_proven_no_ends_with_1(tmp_path: Path, root: Path) -> None:
    revoked = bundle(Revoked(Prefix.parse("88.118.8")), with_last(delegate(revocation("88.118.8"))))
    for no, verdict in ((denied(denial()), "ABSENT"), (bundle(tombstone()), "GONE"), (revoked, "GONE")):
        ran = idtrace("verify", saved(tmp_path, no), "--root", root, *AT_NOW)
        assert ran.code == ExitCode.PROVEN_NO
        assert ran.out.startswith(f"○ {verdict} {ITEM}")


def test_a_forged_bundle_ends_with_3_and_names_the_broken_check(tmp_path: Path, root: Path) -> None:
    path = saved(tmp_path, bundle(record(by="a thief")))
    ran = idtrace("verify", path, "--root", root, *AT_NOW)
    assert ran.code == ExitCode.BOGUS
    assert ran.out.startswith("✗ BOGUS")
    assert "SIGNER_UNKNOWN" in ran.out
    assert "do not act on it" in ran.out
    assert "--at" not in ran.out
    body = idtrace("verify", path, "--root", root, *AT_NOW, "--json").json
    assert (body["verdict"], body["checks"][-1]["passed"]) == ("BOGUS", False)
    assert "record" not in body
    assert "valid_until" not in body


def test_another_trees_root_key_verifies_nothing(tmp_path: Path) -> None:
    other = Path(f"{key_file(tmp_path, 'other root')}.pub")
    ran = idtrace("verify", saved(tmp_path, bundle()), "--root", other, *AT_NOW)
    assert ran.code == ExitCode.BOGUS
    assert "ROOT_MISMATCH" in ran.out


def test_a_private_key_given_as_root_is_refused(tmp_path: Path) -> None:
    ran = idtrace("verify", saved(tmp_path, bundle()), "--root", key_file(tmp_path, PINNED), *AT_NOW)
    assert ran.code == ExitCode.USAGE
    assert "PRIVATE" in ran.err


@pytest.mark.parametrize("at", [NOW + 86_400, NOW - 101])
def test_a_bundle_out_of_its_time_says_when_it_was_valid_and_the_command_works(
    tmp_path: Path, root: Path, at: int
) -> None:
    path = saved(tmp_path, bundle())
    ran = idtrace("verify", path, "--root", root, "--at", at, columns=400)
    assert ran.code == ExitCode.BOGUS
    assert "Nothing in it is forged" in ran.out
    command = re.search(r"idtrace (verify .*Z)", ran.out)
    assert command
    assert idtrace(*command[1].split()).code == 0
    body = idtrace("verify", path, "--root", root, "--at", at, "--json").json
    assert (body["valid_from"], body["valid_until"]) == (NOW - 50, NOW + 86_399)


def test_an_old_denial_says_when_it_was_valid(tmp_path: Path, root: Path) -> None:
    ran = idtrace("verify", saved(tmp_path, denied(denial())), "--root", root, "--at", NOW + 500, "--json")
    assert (ran.code, ran.json["valid_from"], ran.json["valid_until"]) == (ExitCode.BOGUS, NOW - 5, NOW + 55)


def test_a_forged_bundle_that_is_also_expired_gets_no_comfort(tmp_path: Path, root: Path) -> None:
    forged = bundle(record(by="a thief"))
    ran = idtrace("verify", saved(tmp_path, forged), "--root", root, "--at", NOW + 86_400)
    assert ran.code == ExitCode.BOGUS
    assert "Nothing in it is forged" not in ran.out


def test_chains_that_never_were_valid_together_have_no_window(tmp_path: Path, root: Path) -> None:
    early = delegate(delegation("88.118.8", not_before=NOW - 500, expires=NOW - 200), "zone of 88.118")
    ran = idtrace("verify", saved(tmp_path, bundle(delegations=with_last(early))), "--root", root, *AT_NOW, "--json")
    assert ran.code == ExitCode.BOGUS
    assert "valid_until" not in ran.json


@pytest.mark.parametrize("at", ["yesterday", "2026-01-31T00:00:00", "99999999999999", "1900-01-01T00:00:00Z", "²"])
def test_a_time_that_is_none_or_has_no_zone_is_refused(tmp_path: Path, root: Path, at: str) -> None:
    ran = idtrace("verify", saved(tmp_path, bundle()), "--root", root, "--at", at)
    assert ran.code == ExitCode.USAGE


def test_a_time_may_be_written_for_people(tmp_path: Path, root: Path) -> None:
    path = saved(tmp_path, bundle())
    assert idtrace("verify", path, "--root", root, "--at", "2030-03-17T17:46:40Z", "--json").json["at"] == NOW
    assert idtrace("verify", path, "--root", root, "--at", "2030-03-18T01:46:40+08:00", "--json").json["at"] == NOW


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\x08\x02", b"{\xff", b"hello"])
def test_what_is_no_bundle_is_malformed_and_not_bogus(tmp_path: Path, root: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    assert idtrace("verify", tmp_path / "b", "--root", root).code == ExitCode.USAGE


def flips(data: bytes) -> Iterator[bytes]:
    for place in range(0, len(data), max(1, len(data) // 60)):
        yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("form", ["json", "bundle"])
def test_no_flipped_bit_of_a_file_ever_verifies(tmp_path: Path, root: Path, form: str) -> None:
    path = saved(tmp_path, bundle(), form)
    for changed in flips(path.read_bytes()):
        path.write_bytes(changed)
        assert idtrace("verify", path, "--root", root, *AT_NOW).code in {ExitCode.USAGE, ExitCode.BOGUS}


def test_the_bundle_forms_hold_the_same(tmp_path: Path) -> None:
    as_json, binary = saved(tmp_path, bundle()), saved(tmp_path, bundle(), "bundle")
    assert files.read_bundle(as_json) == files.read_bundle(binary) == wire.bundle_from_bytes(binary.read_bytes())


def test_a_value_with_an_escape_sequence_is_shown_escaped(tmp_path: Path, root: Path) -> None:
    evil = record(data=["\x1b[2Jgone", "[red]markup[/red]"])
    ran = idtrace("verify", saved(tmp_path, bundle(evil)), "--root", root, *AT_NOW)
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "\\x1b[2Jgone" in ran.out
    assert "[red]markup[/red]" in ran.out


def test_a_chain_that_cannot_be_read_is_shown_as_far_as_it_goes(tmp_path: Path, root: Path) -> None:
    unreadable = sign(Kind.DELEGATION, b"{}", signer("zone of 88.118"))
    ran = idtrace("verify", saved(tmp_path, bundle(delegations=with_last(unreadable))), "--root", root, *AT_NOW)
    assert ran.code == ExitCode.BOGUS
    assert "unreadable delegation" in ran.out
    empty = idtrace("verify", saved(tmp_path, bundle(delegations=())), "--root", root, *AT_NOW)
    assert (empty.code, "no delegations" in empty.out) == (ExitCode.BOGUS, True)


def test_an_unreadable_link_above_an_expired_one_gives_no_window(tmp_path: Path, root: Path) -> None:
    late = delegate(delegation("88.118", not_before=NOW - 900, expires=NOW - 1))
    unreadable = sign(Kind.DELEGATION, b"{}", signer("zone of 88.118"))
    chain = (*links("88"), late, unreadable)
    ran = idtrace("verify", saved(tmp_path, bundle(delegations=chain)), "--root", root, *AT_NOW, "--json")
    assert (ran.code, ran.json["checks"][-1]["reason"]) == (ExitCode.BOGUS, "DELEGATION_EXPIRED")
    assert "valid_until" not in ran.json


def test_values_that_are_no_text_are_shown_as_hex(tmp_path: Path, root: Path) -> None:
    entries = [("photo", b"\xff\xd8", Permission.RESTRICTED)]
    digests, values = build_values(entries, [b"s" * 16])
    body, _ = body_and_values(class_id=ITEM)
    shown = bundle(signed_record(replace(body, values=digests).payload(), values))
    path = saved(tmp_path, shown)
    ran = idtrace("verify", path, "--root", root, *AT_NOW)
    assert "photo 0xffd8 restricted" in ran.said
    assert f"class {ITEM}" in ran.said
    values_json = idtrace("verify", path, "--root", root, *AT_NOW, "--json").json["record"]["values"]
    assert values_json[0]["data_hex"] == "ffd8"

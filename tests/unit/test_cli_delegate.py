"""``idtrace delegate`` without a node: what is signed follows the current version and keeps every rule."""

import json
from pathlib import Path
from typing import Any

import pytest

from idtrace.cli import files
from idtrace.cli.exits import ExitCode
from idtrace.delegation import Delegation, Role, State
from idtrace.signature import Kind
from tests.cli import Ran, idtrace, key_file
from tests.core_fixtures import (
    PINNED,
    delegate,
    delegation,
    link,
)

# --- delegate, signed without a node ---------------------------------------------------------------------------------


def signed_only(tmp_path: Path, *arguments: object, key: str = PINNED) -> Ran:
    path = key_file(tmp_path, key)
    return idtrace("delegate", "--key", path, "--out", tmp_path / "d.json", "--json", *arguments)


def enrolments(tmp_path: Path, zone: str, *roles: Role) -> Path:
    path = key_file(tmp_path, f"next {'+'.join(roles)} of {zone}")
    out = tmp_path / f"{path.name}.json"
    idtrace("key", "enrol", path, "--zone", zone, "--out", out, *(x for role in roles for x in ("--role", role)))
    return out


def kept(tmp_path: Path) -> Delegation:
    (signed,) = files.read_signed(tmp_path / "d.json", Kind.DELEGATION)
    return Delegation.parse(signed.payload)


def test_the_roots_first_key_set_needs_no_node(tmp_path: Path) -> None:
    proofs = enrolments(tmp_path, "", Role.NODE, Role.ZONE)
    ran = signed_only(tmp_path, "--root-zone", "--enrol", proofs, "--endpoint", "root.example:7201", "--days", 30)
    assert ran.code == 0
    body = kept(tmp_path)
    assert (body.version, body.child.is_root, body.endpoints) == (1, True, ("root.example:7201",))
    assert body.expires - body.not_before == 30 * 86_400
    (only,) = body.keys
    assert only.roles == {Role.NODE, Role.ZONE}


def test_a_rotation_keeps_what_is_not_named_and_drops_what_is(tmp_path: Path) -> None:
    zone = ("--zone", "88.118", "--child", "88.118.8")
    files.write_signed(tmp_path / "now.json", [link("88.118.8")])
    old = delegation("88.118.8")
    leaves = next(k.key.key_id for k in old.keys if Role.RECORD in k.roles)
    proofs = enrolments(tmp_path, "88.118.8", Role.RECORD)
    ran = signed_only(
        tmp_path,
        *zone,
        "--current",
        tmp_path / "now.json",
        "--enrol",
        proofs,
        "--drop-key",
        leaves,
        key="zone of 88.118",
    )
    assert ran.code == 0
    body = kept(tmp_path)
    assert (body.version, body.previous, body.endpoints) == (2, old.hash, old.endpoints)
    assert leaves not in {k.key.key_id for k in body.keys}
    assert set(body.keys_for(Role.ZONE)) == set(old.keys_for(Role.ZONE))
    assert len(body.keys) == 3


def test_a_revocation_follows_a_delegation_and_nothing_else(tmp_path: Path) -> None:
    zone = ("--zone", "88.118", "--child", "88.118.8", "--revoke")
    assert signed_only(tmp_path, *zone, key="zone of 88.118").code == ExitCode.USAGE
    files.write_signed(tmp_path / "now.json", [link("88.118.8")])
    ran = signed_only(tmp_path, *zone, "--current", tmp_path / "now.json", key="zone of 88.118")
    assert (ran.code, ran.json["state"]) == (0, State.REVOKED)
    assert kept(tmp_path).keys == ()


def test_a_current_version_that_somebody_else_signed_is_not_built_upon(tmp_path: Path) -> None:
    forged = delegate(delegation("88.118.8"), "a thief")
    files.write_signed(tmp_path / "now.json", [forged])
    zone = ("--zone", "88.118", "--child", "88.118.8", "--current", tmp_path / "now.json")
    ran = signed_only(tmp_path, *zone, "--days", "9", key="zone of 88.118")
    assert (ran.code, ran.json["error"]["reason"]) == (ExitCode.BOGUS, "SIGNER_UNKNOWN")
    assert "--root" in ran.json["error"]["hint"]
    assert not (tmp_path / "d.json").exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--zone", "88.118"], "--child"),
        (["--endpoint", "n.example:1"], "--child"),
        (["--root-zone", "--child", "88.118"], "--root-zone"),
        (["--zone", "88.118", "--child", "88.119.8"], "delegation.child"),
        (["--root-zone"], "delegation.keys"),
        (["--root-zone", "--drop-key", "abc"], "--drop-key"),
        (["--root-zone", "--endpoint", "NO PORT"], "delegation"),
        (["--root-zone", "--applied"], "--node"),
    ],
)
def test_a_delegation_that_breaks_a_rule_is_not_signed(tmp_path: Path, arguments: list[str], field: str) -> None:
    path = key_file(tmp_path, PINNED)
    ran = idtrace("delegate", "--key", path, "--out", tmp_path / "d.json", *arguments)
    assert ran.code == ExitCode.USAGE
    assert field in ran.err
    assert not (tmp_path / "d.json").exists()


def test_an_enrolment_for_another_zone_does_not_count(tmp_path: Path) -> None:
    proofs = enrolments(tmp_path, "88.119", Role.NODE)
    ran = signed_only(tmp_path, "--child", "88.118", "--enrol", proofs, "--endpoint", "n.example:1")
    assert (ran.code, ran.json["error"]["reason"]) == (ExitCode.BOGUS, "PROOF_OF_POSSESSION")


def test_a_forged_enrolment_does_not_count(tmp_path: Path) -> None:
    proofs = enrolments(tmp_path, "88.118", Role.NODE)
    body: dict[str, Any] = json.loads(proofs.read_text())
    body["statements"][0]["payload"] = body["statements"][0]["payload"].replace("node", "zone")
    proofs.write_text(json.dumps(body))
    ran = signed_only(tmp_path, "--child", "88.118", "--enrol", proofs, "--endpoint", "n.example:1")
    assert (ran.code, ran.json["error"]["reason"]) == (ExitCode.BOGUS, "PROOF_OF_POSSESSION")


def test_a_delegation_goes_nowhere_by_itself(tmp_path: Path) -> None:
    ran = idtrace("delegate", "--root-zone", "--key", key_file(tmp_path, PINNED))
    assert ran.code == ExitCode.USAGE
    assert "--node" in ran.err

"""The root's keys follow each other: both versions sign, one after the other, and nothing older speaks of today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idtrace import canonical
from idtrace.errors import IdtraceError, InputError, Reason, VerificationError
from idtrace.rootkeys import UPDATES_MAX, RootKeys, RootVersion, missing_signatures, next_root
from idtrace.serving.keyfile import write_public_key
from idtrace.serving.rootfile import ROOT_FILE_BYTES_MAX, load_root_keys, root_file
from idtrace.signature import Kind, Signed, sign
from tests.core_fixtures import NOW, public, signer

A, B, C, D = "root a", "root b", "root c", "root d"
PIN = RootKeys.pinned([public(A)])


def body_after(keys: RootKeys, *names: str, threshold: int = 1, at: int = NOW, **changes: Any) -> RootVersion:
    """The next version, of keys by these names."""
    ordered = tuple(sorted((public(name) for name in names), key=str))
    latest = keys.latest
    return replace(RootVersion(latest.version + 1, latest.hash, ordered, threshold, at), **changes)


def signed_by(body: RootVersion, *names: str) -> Signed:
    return sign(Kind.ROOT_KEYS, body.payload(), *(signer(name) for name in names))


def step(keys: RootKeys, names: list[str], by: list[str], **changes: Any) -> RootKeys:
    return keys.updated(signed_by(body_after(keys, *names, **changes), *by), now=NOW)


def refusal(action: Callable[[], object], family: type[IdtraceError] = VerificationError) -> Reason:
    with pytest.raises(family) as caught:
        action()
    return caught.value.reason


def test_a_pin_is_version_1_whatever_the_order_of_its_keys() -> None:
    one, other = RootVersion.pinned([public(A), public(B)]), RootVersion.pinned([public(B), public(A)])
    assert one == other
    assert one.hash == other.hash
    assert (one.version, one.threshold, set(one.anchor.keys)) == (1, 1, {public(A).key_id, public(B).key_id})


def test_old_and_new_keys_sign_and_the_next_version_follows() -> None:
    both = step(PIN, [A, B], [A])  # A is a key of either version
    assert both.latest.version == 2
    alone = step(both, [B], [A, B])
    assert step(both, [B], [B]).latest == alone.latest, "B is a key of version 2 as well"
    assert [version.version for version in alone.versions] == [1, 2, 3]
    assert alone.anchor.keys.keys() == {public(B).key_id}
    assert PIN.updated_by(alone.updates, now=NOW) == alone
    assert alone.updated_by(alone.updates, now=NOW) is alone, "what is held already changes nothing"


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ([A], Reason.THRESHOLD_NOT_MET),  # the new keys have not signed: nobody may hold them
        ([B], Reason.THRESHOLD_NOT_MET),  # the old ones have not: anybody could say so
        ([], Reason.SIGNATURE_MISSING),
        ([A, B, C], Reason.SIGNER_UNKNOWN),
        ([A, A, B], Reason.SIGNER_UNKNOWN),
    ],
)
def test_one_side_alone_or_a_stranger_beside_them_is_not_enough(by: list[str], reason: Reason) -> None:
    assert refusal(lambda: step(PIN, [B], by)) is reason


def test_both_thresholds_count_and_a_key_of_both_versions_counts_in_both() -> None:
    two = step(PIN, [A, B, C], [A, B], threshold=2)
    body = body_after(two, B, C, D, threshold=3)
    for by, reason in (([A, B], R.THRESHOLD_NOT_MET), ([B, C], R.THRESHOLD_NOT_MET), ([A, D], R.THRESHOLD_NOT_MET)):
        assert refusal(lambda by=by: two.updated(signed_by(body, *by), now=NOW)) is reason  # type: ignore[misc]  # bound now
    assert two.updated(signed_by(body, B, C, D), now=NOW).latest.threshold == 3
    assert missing_signatures(two.latest, body, signed_by(body, B)) == (1, 2)
    assert missing_signatures(two.latest, body, signed_by(body, A, B, C, D)) == (0, 0)


R = Reason


def test_a_forged_signature_of_a_known_key_is_refused() -> None:
    body = body_after(PIN, B)
    good = signed_by(body, A, B)
    wrong = replace(good.signatures[1], signature=bytes(64))
    forged = replace(good, signatures=(good.signatures[0], wrong))
    assert refusal(lambda: PIN.updated(forged, now=NOW)) is R.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},  # a version is left out
        {"previous": bytes(32)},  # another history
        {"at": NOW + 31},  # from the future
    ],
)
def test_what_does_not_follow_is_refused(changes: dict[str, Any]) -> None:
    assert refusal(lambda: step(PIN, [B], [A, B], **changes)) is R.ROOT_MISMATCH


def test_versions_neither_fork_nor_go_back_in_time() -> None:
    two = step(PIN, [A, B], [A])
    fork = signed_by(body_after(PIN, A, C), A)
    assert refusal(lambda: two.updated(fork, now=NOW)) is R.ROOT_MISMATCH
    assert refusal(lambda: step(two, [B], [B], at=NOW - 1)) is R.ROOT_MISMATCH


def test_a_thief_of_the_replaced_key_speaks_of_the_past_alone() -> None:
    keys = step(step(PIN, [A, B], [A], at=NOW - 100), [B], [B], at=NOW - 50)
    assert [keys.in_force_at(t).version for t in (0, NOW - 101, NOW - 100, NOW - 51, NOW - 50, NOW)] == [
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert public(A).key_id not in keys.in_force_at(NOW).anchor.keys


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"keys": []}, "root.keys"),
        ({"threshold": 0}, "root.threshold"),
        ({"threshold": 2}, "root.threshold"),
        ({"threshold": 5}, "root.threshold"),
        ({"version": 1}, "root.version"),
        ({"version": UPDATES_MAX + 2}, "root.version"),
        ({"previous": ""}, "root.previous"),
        ({"keys": [str(public(B))] * 2}, "root.keys"),
        ({"keys": ["ed25519:x"]}, "root.keys[0]"),
        ({"surplus": 1}, "root.'surplus'"),
    ],
)
def test_a_body_keeps_every_rule(changes: dict[str, Any], field: str) -> None:
    fields: dict[str, Any] = {
        "version": 2,
        "previous": PIN.latest.hash.hex(),
        "keys": [str(public(B))],
        "threshold": 1,
        "issued_at": NOW,
    }
    payload = canonical.encode(fields | changes)
    with pytest.raises(InputError) as caught:
        RootVersion.parse(payload)
    assert caught.value.field == field
    malformed = sign(Kind.ROOT_KEYS, payload, signer(A), signer(B))
    with pytest.raises(VerificationError):
        PIN.updated(malformed, now=NOW)


def test_the_next_body_adds_and_drops() -> None:
    two = next_root(PIN.latest, add=[public(B)], drop=[], threshold=2, now=NOW)
    assert (two.version, two.threshold, set(two.keys)) == (2, 2, {public(A), public(B)})
    for add, drop, threshold in (
        ([], [], None),
        ([public(A)], [], None),
        ([], [public(B).key_id], None),
        ([], [public(A).key_id], None),
        ([public(B)], [], 3),
    ):
        with pytest.raises(InputError):
            next_root(PIN.latest, add=add, drop=drop, threshold=threshold, now=NOW)


# --- The file ---


def test_the_file_comes_back_as_it_was_and_a_pem_file_is_version_1(tmp_path: Path) -> None:
    keys = step(step(PIN, [A, B], [A]), [B], [B])
    (tmp_path / "root").write_bytes(root_file(keys))
    assert load_root_keys(tmp_path / "root") == keys
    write_public_key(tmp_path / "root.pub", [public(A)])
    assert load_root_keys(tmp_path / "root.pub") == PIN


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-3],
        lambda text: text.replace("idtrace-root/v1", "idtrace-root/v2"),
        lambda text: text.replace(str(public(A)), str(public(C)), 1),  # another pin under the same updates
        lambda text: text.replace(f'"{public(A)}"', f'"{public(A)}", "{public(A)}"', 1),
        lambda text: text + " " * ROOT_FILE_BYTES_MAX,
        lambda text: "{" + "[" * 100_000,
        lambda text: "",
    ],
)
def test_a_damaged_file_pins_nothing(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "root"
    path.write_text(change(root_file(step(PIN, [A, B], [A])).decode()))
    assert refusal(lambda: load_root_keys(path), InputError) is R.KEY_MALFORMED


def test_a_missing_file_and_a_folder_are_told_as_such(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as caught:
            load_root_keys(path)
        assert caught.value.field == str(path)

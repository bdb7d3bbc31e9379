"""Delegations: every rule between fields, every bound, and endpoints that are endpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.delegation import (
    ENDED_KEYS_MAX,
    ENDPOINT_BYTES_MAX,
    ENDPOINTS_MAX,
    KEYS_MAX,
    LIFETIME_SECONDS_MAX,
    Delegation,
    Role,
    State,
    ZoneKey,
    check_endpoint,
)
from idtrace.errors import InputError, Reason
from idtrace.identifier import ROOT, Prefix
from idtrace.record import TIME_MAX
from idtrace.signature import SIGNATURES_MAX, Kind, signed_hash
from tests.core_fixtures import NOW, USUAL, ZONE, delegation, public, reason_of, revocation, signer, zone_keys

R = Reason
DIGEST = bytes(range(32))
NODE = zone_keys(ZONE)[-1]
LOG = "log.example/88.118"


def ended(until: int, *roles: Role) -> ZoneKey:
    return ZoneKey(public("ended key"), frozenset(roles), until)


@st.composite
def bodies(draw: st.DrawFn) -> Delegation:
    """Any body that keeps the rules."""
    parent = Prefix(tuple(draw(st.lists(st.sampled_from(["88", "0042", "a-b"]), max_size=4))))
    child = draw(st.sampled_from([Prefix((*parent.labels, "7")), Prefix((*parent.labels, "7", "x_y")), ROOT]))
    state = draw(st.sampled_from(State))
    version = draw(st.integers(2 if state is State.REVOKED else 1, 2**53 - 1))
    roles = draw(st.lists(st.sets(st.sampled_from(Role), min_size=1), max_size=4))
    active = state is State.ACTIVE
    logged = active and any(Role.LOG in some for some in roles)
    ends = st.none() | st.integers(0, 2**53 - 1)
    ended = [draw(ends) if logged and some == {Role.RECORD} else None for some in roles]
    keys = (
        NODE,
        *(
            ZoneKey(public(f"key {n}"), frozenset(some), until)
            for n, (some, until) in enumerate(zip(roles, ended, strict=True))
        ),
    )
    zone_keys_count = sum(Role.ZONE in some for some in roles)
    start = draw(st.integers(0, TIME_MAX - LIFETIME_SECONDS_MAX))
    ports = draw(st.lists(st.integers(1, 65_535), min_size=1, max_size=ENDPOINTS_MAX))
    return Delegation(
        child=child,
        parent=ROOT if child is ROOT else parent,
        version=version,
        previous=b"" if version == 1 else draw(st.binary(min_size=32, max_size=32)),
        state=state,
        hosted=draw(st.booleans()),
        keys=() if state is State.REVOKED else keys,
        zone_threshold=draw(st.integers(1, zone_keys_count or SIGNATURES_MAX)),
        endpoints=() if state is State.REVOKED else tuple(f"node.example:{port}" for port in ports),
        issued_at=draw(st.integers(0, TIME_MAX)),
        not_before=start,
        expires=start + draw(st.integers(1, LIFETIME_SECONDS_MAX)),
        log=draw(st.sampled_from(["log.example/88", "l", "a-b/0.1"])) if logged else "",
    )


@given(bodies())
def test_a_body_comes_back_from_its_bytes(body: Delegation) -> None:
    again = Delegation.parse(body.payload())
    assert again == body
    assert again.hash == signed_hash(Kind.DELEGATION, body.payload())


def keys(count: int, *roles: Role) -> tuple[ZoneKey, ...]:
    return tuple(ZoneKey(public(f"key {n}"), frozenset(roles)) for n in range(count))


def ends(count: int) -> tuple[ZoneKey, ...]:
    return tuple(ZoneKey(public(f"ended {n}"), frozenset({Role.RECORD}), n) for n in range(count))


LIFE = LIFETIME_SECONDS_MAX


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"version": 2}, R.FIELD_MALFORMED, "previous"),
        ({"previous": DIGEST}, R.FIELD_MALFORMED, "previous"),
        ({"version": 0}, R.FIELD_MALFORMED, "version"),
        ({"expires": NOW - 100}, R.FIELD_MALFORMED, "expires"),
        ({"expires": NOW - 101}, R.FIELD_MALFORMED, "expires"),
        ({"expires": NOW - 100 + LIFE + 1}, R.FIELD_MALFORMED, "expires"),
        ({"expires": TIME_MAX + 1}, R.FIELD_MALFORMED, "expires"),
        ({"child": Prefix.parse("88.119")}, R.REFERRAL_SIDEWAYS, "child"),
        ({"child": Prefix.parse("88.1180")}, R.REFERRAL_SIDEWAYS, "child"),
        ({"child": Prefix.parse("88.118")}, R.REFERRAL_UPWARD, "child"),
        ({"child": Prefix.parse("88")}, R.REFERRAL_UPWARD, "child"),
        ({"child": ROOT}, R.REFERRAL_UPWARD, "child"),
        ({"keys": ()}, R.FIELD_MALFORMED, "keys"),
        ({"keys": zone_keys(ZONE)[:2]}, R.FIELD_MALFORMED, "keys"),
        ({"keys": (NODE, NODE)}, R.FIELD_MALFORMED, "keys[1].key"),
        ({"keys": keys(1)}, R.FIELD_MALFORMED, "keys[0].roles"),
        ({"keys": keys(KEYS_MAX + 1, Role.NODE)}, R.FIELD_TOO_LARGE, "keys"),
        ({"zone_threshold": 0}, R.FIELD_MALFORMED, "zone_threshold"),
        ({"zone_threshold": 2}, R.FIELD_MALFORMED, "zone_threshold"),
        ({"keys": keys(9, *Role), "zone_threshold": SIGNATURES_MAX + 1}, R.FIELD_MALFORMED, "zone_threshold"),
        ({"log": LOG}, R.FIELD_MALFORMED, "log"),  # without a key to sign its checkpoints
        ({"keys": zone_keys(ZONE, Role)}, R.FIELD_MALFORMED, "log"),  # a key for a log that is not named
        ({"keys": zone_keys(ZONE, Role), "log": "l" * 129}, R.FIELD_TOO_LARGE, "log"),
        *(
            ({"keys": zone_keys(ZONE, Role), "log": name}, R.FIELD_MALFORMED, "log")
            for name in ("Log", "a b", "a+b", "/a", "a/", "a\n", "é", ".")
        ),
        ({"keys": (*zone_keys(ZONE), ended(5, Role.RECORD))}, R.FIELD_MALFORMED, "keys"),  # an index of no log
        ({"keys": (*zone_keys(ZONE, Role), ended(5, Role.NODE)), "log": LOG}, R.FIELD_MALFORMED, "keys"),
        ({"keys": (*zone_keys(ZONE, Role), ended(5, *USUAL)), "log": LOG}, R.FIELD_MALFORMED, "keys"),
        ({"keys": (*zone_keys(ZONE, Role), ended(-1, Role.RECORD)), "log": LOG}, R.FIELD_MALFORMED, "keys[5].until"),
        ({"keys": (*keys(4, *Role), *ends(ENDED_KEYS_MAX + 1)), "log": LOG}, R.FIELD_TOO_LARGE, "keys"),
        ({"keys": (*keys(KEYS_MAX + 1, *Role), *ends(1)), "log": LOG}, R.FIELD_TOO_LARGE, "keys"),
        ({"keys": (*keys(KEYS_MAX + 1, *Role), *ends(ENDED_KEYS_MAX)), "log": LOG}, R.FIELD_TOO_LARGE, "keys"),
        ({"endpoints": ()}, R.FIELD_MALFORMED, "endpoints"),
        ({"endpoints": ("a:1",) * (ENDPOINTS_MAX + 1)}, R.FIELD_TOO_LARGE, "endpoints"),
        ({"endpoints": ("a:1", "b")}, R.FIELD_MALFORMED, "endpoints[1]"),
    ],
)
def test_rules_of_a_body(changes: dict[str, Any], reason: Reason, field: str) -> None:
    payload = delegation(ZONE, **changes).payload()
    with pytest.raises(InputError) as caught:
        Delegation.parse(payload)
    assert (caught.value.reason, caught.value.field) == (reason, f"delegation.{field}")


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": NOW - 99},
        {"expires": NOW - 100 + LIFE},
        {"keys": (NODE,), "zone_threshold": 8},  # a zone that delegates to nobody
        {"keys": keys(KEYS_MAX, *Role), "zone_threshold": 8, "log": LOG},
        {"keys": (*zone_keys(ZONE, Role), ended(0, Role.RECORD)), "log": "l" * 128},
        {"keys": (*keys(KEYS_MAX, *Role), *ends(ENDED_KEYS_MAX)), "log": LOG},
        {"endpoints": ("a:1", "b:2", "c:3", "d:4")},
        {"parent": Prefix.parse("88")},  # a parent may skip a label
    ],
)
def test_what_the_rules_allow(changes: dict[str, Any]) -> None:
    body = delegation(ZONE, **changes)
    assert Delegation.parse(body.payload()) == body


@pytest.mark.parametrize(
    "changes",
    [{"keys": (NODE,)}, {"endpoints": ("a:1",)}, {"version": 1, "previous": b""}],
    ids=["keys", "endpoints", "first version"],
)
def test_a_revocation_hands_out_nothing_and_follows_something(changes: dict[str, Any]) -> None:
    assert reason_of(lambda: Delegation.parse(revocation(ZONE, **changes).payload())) is R.FIELD_MALFORMED
    assert Delegation.parse(revocation(ZONE).payload()).state is State.REVOKED


@pytest.mark.parametrize(
    "roles",
    [b'["node","node"]', b'["zone","node"]', b'["admin"]', b'["Node"]', b"[]", b'["node","record","zone","zone"]'],
)
def test_roles_have_one_spelling(roles: bytes) -> None:
    payload = delegation(ZONE).payload().replace(b'["node"]', roles)
    assert reason_of(lambda: Delegation.parse(payload)) in {R.FIELD_MALFORMED, R.FIELD_TOO_LARGE}


def test_a_key_speaks_only_in_its_roles() -> None:
    body = replace(delegation(ZONE), keys=(*keys(1, Role.ZONE, Role.NODE), *keys(2, Role.RECORD)[1:]))
    first, second = public("key 0"), public("key 1")
    assert body.keys_for(Role.ZONE) == body.keys_for(Role.NODE) == {first.key_id: first}
    assert body.keys_for(Role.RECORD) == {second.key_id: second}
    assert signer("key 0").public_key == first


@pytest.mark.parametrize(
    "endpoint",
    [
        "a:1",
        "node.example:7001",
        "127.0.0.1:65535",
        "[::1]:7001",
        "[2001:db8::1]:1",
        "[::ffff:10.0.0.1]:80",
        "x-1.y:80",
    ],
)
def test_an_endpoint_is_host_and_port(endpoint: str) -> None:
    check_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "a..b:1",
        "999.9.9.9:1",
        "1.2.3:1",
        "01.2.3.4:1",
        "[::::]:1",
        "[::1%eth0]:1",
        "[::FFFF]:1",
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:01",
        "a:65536",
        "a:99999",
        "a:100000",
        "a:-1",
        "a: 1",
        "a:1 ",
        "a:1\n",
        "a:٣",
        "A:1",
        "a..b:x",
        "-a:1",
        "a-:1",
        ".a:1",
        "a.:1",
        "a_b:1",
        "é:1",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::G]:1",
        "[a:1",
        "https://a:1",
        "a/b:1",
        "user@a:1",
        "unix:/run/x",
        "a" * ENDPOINT_BYTES_MAX + ":1",
    ],
)
def test_anything_else_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(InputError) as caught:
        check_endpoint(endpoint, field="here")
    assert (caught.value.reason, caught.value.field) == (R.FIELD_MALFORMED, "here")

"""A prefix's life at its parent's node, over real gRPC: review, delegation, rotation, revocation, and replays."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from idtrace import wire
from idtrace.bundle import Denied, Referred
from idtrace.chain import Context
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import Reason
from idtrace.identifier import Identifier, Prefix
from idtrace.serving.errors import error_from_rpc
from idtrace.signature import Kind, Signed, sign
from idtrace.statements import Application, Command, DenialReason, PrefixStatus, enrol
from idtrace.v1 import delegation_pb2, registry_pb2
from registry.authority import verified
from tests.core_fixtures import signer
from tests.nodes import TIMEOUT, Nodes, key_name, make_record

S = PrefixStatus
ZONE = "88.118.7"
_keys = (f"grant-key-{n}" for n in itertools.count())


async def refusal(call: Awaitable[object]) -> tuple[Reason, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_from_rpc(caught.value)
    assert error is not None, caught.value
    return error.reason, error.field


async def tree(folder: Path) -> Nodes:
    nodes = Nodes(folder)
    for zone in ("", "88", "88.118"):
        await nodes.registry(zone)
    return nodes


def now() -> int:
    return int(time.time())


def application(prefix: str = ZONE, *, by: str = "", hosted: bool = False, contact: str = "Ann") -> Signed:
    body = Application(Prefix.parse(prefix), hosted, ("child.example:7001",), contact, now())
    return sign(Kind.APPLICATION, body.payload(), signer(by or key_name(Role.ZONE, prefix)))


async def apply(
    nodes: Nodes, signed: Signed | None = None, key: str = "", *, proof_for: str = ZONE, at: str = "88.118"
) -> registry_pb2.PrefixStatus:
    proof = enrol(signer(key_name(Role.ZONE, ZONE)), Prefix.parse(proof_for), Role.ZONE)
    request = registry_pb2.ApplyPrefixRequest(
        idempotency_key=key or next(_keys),
        application=wire.signed_to_pb(signed or application()),
        enrolments=[wire.signed_to_pb(proof)],
    )
    return (await nodes.of_zone[at].registry.ApplyPrefix(request, timeout=TIMEOUT)).status


def command(status: S, *, by: str = "zone of 88.118", at: int = 0, prefix: str = ZONE, comment: str = "") -> Signed:
    return sign(Kind.COMMAND, Command(Prefix.parse(prefix), status, comment, at or now()).payload(), signer(by))


async def order(nodes: Nodes, signed: Signed, key: str = "") -> registry_pb2.PrefixStatus:
    request = registry_pb2.SetPrefixStatusRequest(idempotency_key=key or next(_keys), command=wire.signed_to_pb(signed))
    return (await nodes.of_zone["88.118"].registry.SetPrefixStatus(request, timeout=TIMEOUT)).status


async def status(nodes: Nodes, prefix: str = ZONE) -> Any:
    request = registry_pb2.GetPrefixStatusRequest(prefix=prefix)
    return await nodes.of_zone["88.118"].registry.GetPrefixStatus(request, timeout=TIMEOUT)


REVOKED: Any = {"state": State.REVOKED, "keys": ()}


async def test_the_whole_life_of_a_prefix(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        parent, name = nodes.of_zone["88.118"], Identifier.parse(f"{ZONE}/A")
        assert (await status(nodes)).status.status == ""
        filed = application()
        assert (await apply(nodes, filed)).status == S.APPLIED
        told = await status(nodes)
        assert wire.signed_from_pb(told.application, "a") == filed
        assert len(told.enrolments) == 1
        refused = await refusal(nodes.registry(ZONE))
        assert refused == (Reason.PREFIX_NOT_ENABLED, "delegation.child")
        await nodes.of_zone.pop(ZONE).close()
        assert (await order(nodes, command(S.IN_REVIEW, comment="looks good"))).comment == "looks good"
        assert (await order(nodes, command(S.ENABLED))).status == S.ENABLED
        (tmp_path / f"{ZONE}.key").unlink()
        child = await nodes.registry(ZONE)
        record = await nodes.register(str(name), {"lot": "L1"})
        answer = await nodes.get(str(name), parent)
        assert answer.outcome == Referred(Prefix.parse(ZONE))

        await order(nodes, command(S.DISABLED, comment="no licence"))
        answer = await nodes.get(str(name), parent)
        chain = verified(nodes.anchor, answer.delegations, Context.at(now()))
        assert isinstance(answer.outcome, Denied)
        assert chain.check_denial(answer.outcome.signed, name, Context.at(now())).reason is DenialReason.PREFIX_DISABLED
        rotation = nodes.delegate(ZONE, (child.endpoint,), node_key_zone=ZONE)
        assert (await refusal(rotation))[0] is Reason.PREFIX_NOT_ENABLED
        await order(nodes, command(S.ENABLED, comment="licence renewed"))

        new_key = ZoneKey(signer("second key").public_key, frozenset({Role.RECORD}))
        body = nodes.delegation(ZONE, (child.endpoint,), ZONE)
        by_new_key = make_record(f"{ZONE}/B", by=signer("second key"))
        assert (await refusal(nodes.submit(by_new_key, "key-new-B")))[0] is Reason.SIGNER_UNKNOWN
        await rotate(nodes, replace(body, keys=(*body.keys, new_key)), "second key")
        await nodes.until_adopted(child, ZONE, version=2)
        await nodes.submit(by_new_key, "key-new-B")
        assert (await nodes.get(str(name), child)).outcome == record

        await nodes.delegate(ZONE, (), node_key_zone=ZONE, **REVOKED)
        answer = await nodes.get(str(name), parent)
        assert answer.outcome == Referred(Prefix.parse(ZONE))
        assert verified(nodes.anchor, answer.delegations, Context.at(now())).is_revoked
        at_parent = make_record(f"{ZONE}/C", by=signer("record of 88.118"))
        assert (await refusal(nodes.submit(at_parent, "key-at-parent", node=parent)))[0] is Reason.ZONE_DELEGATED


async def rotate(nodes: Nodes, body: Delegation, *names: str, key: str = "") -> bytes:
    """Submit a next version, with proofs by these keys for the record role."""
    zone = str(body.child)
    signed = sign(Kind.DELEGATION, body.payload(), nodes.parent_signer(zone))
    request = delegation_pb2.RotateRequest(
        idempotency_key=key or next(_keys),
        delegation=wire.signed_to_pb(signed),
        enrolments=[wire.signed_to_pb(enrol(signer(name), body.child, Role.RECORD)) for name in names],
    )
    response = await nodes.parent(zone).delegation.Rotate(request, timeout=TIMEOUT)
    nodes.delegations[zone] = signed
    return response.delegation_hash


async def test_a_node_whose_zone_was_taken_back_takes_no_more_writes(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        child = await nodes.registry(ZONE)
        await nodes.register(f"{ZONE}/A")
        await nodes.delegate(ZONE, (), node_key_zone=ZONE, **REVOKED)
        for n in range(100):
            try:
                await nodes.submit(make_record(f"{ZONE}/N-{n}"), f"key-after-{n}", node=child)
            except grpc.aio.AioRpcError as error:
                refused = error_from_rpc(error)
                assert refused is not None
                assert refused.reason in {Reason.DELEGATION_REVOKED, Reason.ZONE_DELEGATED}
                return
            await asyncio.sleep(0.01)
        pytest.fail("ten refreshes after its revocation the node still takes records that nobody will ever find")


async def test_a_rejected_applicant_applies_again_and_a_revoked_zone_comes_back(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        await apply(nodes)
        assert (await refusal(apply(nodes)))[0] is Reason.PREFIX_STATUS_TRANSITION
        await order(nodes, command(S.REJECTED, comment="which drugs?"))
        again = application(contact="Bob")
        assert (await apply(nodes, again)).comment == ""
        assert wire.signed_from_pb((await status(nodes)).application, "a") == again
        await order(nodes, command(S.IN_REVIEW))
        await order(nodes, command(S.ENABLED))
        await nodes.registry(ZONE)
        endpoint = nodes.of_zone[ZONE].endpoint
        await nodes.delegate(ZONE, (), node_key_zone=ZONE, **REVOKED)
        await nodes.delegate(ZONE, (endpoint,), node_key_zone=ZONE)
        await nodes.until_adopted(nodes.of_zone[ZONE], ZONE, version=3)
        await nodes.register(f"{ZONE}/A")


@pytest.mark.parametrize(
    ("reason", "signed"),
    [
        (Reason.COMMAND_STALE, lambda: command(S.IN_REVIEW, at=now() - 302)),
        (Reason.COMMAND_STALE, lambda: command(S.IN_REVIEW, at=now() + 302)),
        (Reason.SIGNER_UNKNOWN, lambda: command(S.IN_REVIEW, by="zone of 88")),
        (Reason.SIGNER_UNKNOWN, lambda: command(S.IN_REVIEW, by="node of 88.118")),
        (Reason.SIGNER_UNKNOWN, lambda: command(S.IN_REVIEW, by=f"zone of {ZONE}")),
        (Reason.SIGNATURE_INVALID, lambda: replace(command(S.IN_REVIEW), payload=command(S.REJECTED).payload)),
        (Reason.PREFIX_STATUS_TRANSITION, lambda: command(S.ENABLED)),
        (Reason.PREFIX_UNKNOWN, lambda: command(S.IN_REVIEW, prefix="88.118.6")),
        (Reason.NOT_AUTHORITATIVE, lambda: command(S.IN_REVIEW, prefix="88.117.6")),
        (Reason.NOT_AUTHORITATIVE, lambda: command(S.IN_REVIEW, prefix="88.118")),
        (Reason.NOT_AUTHORITATIVE, lambda: command(S.IN_REVIEW, prefix="")),
        (Reason.PAYLOAD_TYPE_UNKNOWN, lambda: application(by="zone of 88.118")),
    ],
)
async def test_a_command_that_is_stale_forged_or_out_of_turn_changes_nothing(
    tmp_path: Path, reason: Reason, signed: Any
) -> None:
    async with await tree(tmp_path) as nodes:
        await apply(nodes)
        assert (await refusal(order(nodes, signed())))[0] in {reason, Reason.FIELD_MISSING}
        assert (await status(nodes)).status.status == S.APPLIED


async def test_a_command_works_once_whatever_key_it_is_replayed_with(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        await nodes.host(ZONE, at="88.118")
        disable, enable = command(S.DISABLED), command(S.ENABLED)
        await order(nodes, disable, "key-disable")
        await order(nodes, enable, "key-enable-1")
        assert (await order(nodes, disable, "key-disable")).status == S.ENABLED
        with pytest.raises(grpc.aio.AioRpcError):
            await order(nodes, disable, "key-of-the-replayer")
        assert (await status(nodes)).status.status == S.ENABLED


async def test_repeats_with_the_same_key_change_nothing_and_other_requests_with_it_are_refused(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        filed = application()
        first = await apply(nodes, filed, "key-apply")
        assert await apply(nodes, filed, "key-apply") == first
        assert (await refusal(apply(nodes, application(contact="Eve"), "key-apply")))[
            0
        ] is Reason.IDEMPOTENCY_KEY_REUSED
        moved = command(S.IN_REVIEW)
        second = await order(nodes, moved, "key-move-1")
        assert await order(nodes, moved, "key-move-1") == second
        assert await apply(nodes, filed, "key-apply") == second
        assert (await refusal(order(nodes, command(S.ENABLED), "key-move-1")))[0] is Reason.IDEMPOTENCY_KEY_REUSED
        assert (await refusal(order(nodes, command(S.ENABLED), "key-apply")))[0] is Reason.IDEMPOTENCY_KEY_REUSED
        await order(nodes, command(S.ENABLED))
        record = make_record("88.118/A")
        assert (await refusal(nodes.submit(record, "key-move-1")))[0] is Reason.IDEMPOTENCY_KEY_REUSED


@pytest.mark.parametrize("zone", ["", ZONE])
async def test_a_delegation_repeated_with_the_same_key_gives_the_same_hash(tmp_path: Path, zone: str) -> None:
    async with await tree(tmp_path) as nodes:
        if zone:
            await nodes.host(zone, at="88.118")
        node = nodes.parent(zone) if zone else nodes.of_zone[""]
        body = nodes.delegation(zone, (nodes.of_zone[zone].endpoint,), nodes.of_zone[zone].zones[0], hosted=bool(zone))
        request = delegation_pb2.RotateRequest(
            idempotency_key="key-rotate",
            delegation=wire.signed_to_pb(sign(Kind.DELEGATION, body.payload(), nodes.parent_signer(zone))),
        )
        hashes = {(await node.delegation.Rotate(request, timeout=TIMEOUT)).delegation_hash for _ in range(3)}
        assert hashes == {body.hash}
        request.delegation.CopyFrom(
            wire.signed_to_pb(
                sign(Kind.DELEGATION, replace(body, expires=body.expires - 1).payload(), nodes.parent_signer(zone))
            )
        )
        assert (await refusal(node.delegation.Rotate(request, timeout=TIMEOUT)))[0] in {
            Reason.IDEMPOTENCY_KEY_REUSED,
            Reason.VERSION_GAP,
        }


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        (Reason.PROOF_OF_POSSESSION, {"proof_for": "88.118.6"}),
        (Reason.SIGNER_UNKNOWN, {"by": "zone of 88.118.6"}),
        (Reason.NOT_AUTHORITATIVE, {"prefix": "88.118"}),
        (Reason.NOT_AUTHORITATIVE, {"prefix": "77.1"}),
        (Reason.NOT_AUTHORITATIVE, {"prefix": ""}),
    ],
)
async def test_an_application_is_its_own_keys_for_a_prefix_of_this_node(
    tmp_path: Path, reason: Reason, given: dict[str, str]
) -> None:
    async with await tree(tmp_path) as nodes:
        prefix = given.get("prefix", ZONE)
        signed = application(prefix, by=given.get("by", f"zone of {ZONE}"))
        call = apply(nodes, signed, proof_for=given.get("proof_for", prefix))
        assert (await refusal(call))[0] is reason


async def test_a_zone_is_not_handed_out_over_identifiers_that_its_parent_holds(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        for name in (f"{ZONE}/A", "88.118.70/A", "88.118.6.1/A"):
            await nodes.submit(
                make_record(name, by=signer("record of 88.118")), f"key-{name}", node=nodes.of_zone["88.118"]
            )
        for zone in (ZONE, "88.118.6"):
            assert await refusal(nodes.host(zone, at="88.118")) == (Reason.ZONE_DELEGATED, "delegation.child")
            del nodes.of_zone[zone]
        await nodes.host("88.118.8", at="88.118")


async def test_a_node_hands_out_no_zone_that_is_its_own_and_not_the_roots_key_set(tmp_path: Path) -> None:
    async with await tree(tmp_path) as nodes:
        node = nodes.of_zone["88.118"]
        for zone, field in (("88.118", "delegation.parent"), ("", "delegation.child")):
            body = nodes.delegation(zone, ("h:1",), "88.118", version=1, previous=b"")
            request = delegation_pb2.DelegateRequest(
                idempotency_key=next(_keys),
                delegation=wire.signed_to_pb(sign(Kind.DELEGATION, body.payload(), nodes.parent_signer(zone))),
            )
            refused = await refusal(node.delegation.Delegate(request, timeout=TIMEOUT))
            assert refused == (Reason.NOT_AUTHORITATIVE, field)

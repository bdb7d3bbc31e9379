"""Who signs offline is told the truth about whose signatures count, whatever chain the draft brings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idtrace.cli.countersign import Draft, believed, signers_of
from idtrace.cli.signing_options import Pins
from idtrace.delegation import Delegation, Role, ZoneKey
from idtrace.errors import Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.signature import Kind, Signed, sign
from tests.core_fixtures import NOW, ZONE, anchor, delegate, delegation, links, public, signer, zone_keys

PARENT = "88.118"


def draft(chain: tuple[Signed, ...]) -> Draft:
    return Draft(Signed(Kind.DELEGATION.payload_type, delegation(ZONE).payload(), ()), (), chain)


def test_a_first_version_is_signed_only_under_a_chain_from_the_pinned_root() -> None:
    honest = links(PARENT)
    assert signers_of(draft(honest), Pins(anchor()), NOW).threshold == 1
    thief = ZoneKey(public("thief"), frozenset({Role.ZONE}))
    parent = Delegation.parse(honest[-1].payload)
    forged = [sign(Kind.DELEGATION, one.payload, signer("thief")) for one in honest[:-1]]
    forged.append(sign(Kind.DELEGATION, replace(parent, keys=(*parent.keys, thief)).payload(), signer("thief")))
    for pins in (Pins(anchor()), Pins(anchor(), (public("thief"),))):
        with pytest.raises(VerificationError) as caught:
            signers_of(draft(tuple(forged)), pins, NOW)
        assert caught.value.reason is Reason.ROOT_MISMATCH


def test_a_former_key_excuses_no_version_that_it_has_not_signed() -> None:
    second = ZoneKey(public("second"), frozenset({Role.ZONE}))
    parent = delegation(PARENT, keys=(*zone_keys(PARENT), second), zone_threshold=2)
    last = sign(Kind.DELEGATION, replace(delegation(ZONE), version=7, previous=bytes(32)).payload(), signer("second"))
    chain = (*links(PARENT)[:-1], delegate(parent), last)
    for former in ((), (public("stolen"),)):
        with pytest.raises(VerificationError) as caught:
            believed(chain, Prefix.parse(ZONE), (), Pins(anchor(), former), NOW)
        assert caught.value.reason is Reason.THRESHOLD_NOT_MET

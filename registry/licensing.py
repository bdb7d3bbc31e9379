"""How a node comes by the licences of the parties whose events it takes: they are records of the parties' parents.

A hosted party's parent is served here, so its licence is read from the store. The parent of an own zone is asked, at
the endpoints that delegate the zone (:mod:`registry.adoption`), and its answer is verified from the root key. What was
learned is used for a moment; where it cannot be learned nobody guesses: LICENCE_UNREACHABLE, come back later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
import structlog

from idtrace import wire
from idtrace.bundle import Denied, NodeAnswer, Referred
from idtrace.chain import Context, TrustedChain
from idtrace.errors import BusyError, IdtraceError, InputError, Reason, VerificationError
from idtrace.identifier import Identifier, Prefix
from idtrace.logproof import check_recorded
from idtrace.party import Party, license_identifier, read_license
from idtrace.record import Record, RecordBody
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from registry.authority import Authority
from registry.reporting import places_of
from registry.storage import Storage

log = structlog.get_logger(__name__)

# One question, one hop away; a batch waits for it once.
CALL_SECONDS: Final = 3.0
# A suspension is felt here after so long at most; verdicts, which are pushed, feel it at once.
FRESH_SECONDS: Final = 30
# What the own store says costs 0.1 ms, which a batch of 2,000 events need not pay for each.
FRESH_SECONDS_HERE: Final = 1
# A party that has just been licensed need not wait long.
FRESH_SECONDS_ABSENT: Final = 5
# A hosting node has some thousand parties; 2 KiB each.
KEPT_MAX: Final = 4_096
# A licence is one value of 4 KiB; beside it at most nine delegations.
ANSWER_BYTES_MAX: Final = 262_144


@dataclass(frozen=True, slots=True)
class _Known:
    party: Party | None
    version: int
    until: int


class Licences:
    """Licences of parties, by the prefix of their zone. Belongs to one event loop."""

    def __init__(
        self, storage: Storage, authority: Authority, parents: Sequence[str], clock: Callable[[], int]
    ) -> None:
        self._storage = storage
        self._authority = authority
        self._parents = parents
        self._clock = clock
        self._known: dict[Prefix, _Known] = {}
        self.owners: dict[str, str] = {}  # of the places in those licences, by key: the prefix of the party

    async def of(self, party: Prefix) -> Party | None:
        """The licence of a party, in whichever state; None where its parent has given none.

        Raises:
            BusyError: LICENCE_UNREACHABLE where nobody who knows has answered.
        """
        now = self._clock()
        known = self._known.get(party)
        if known is not None and now < known.until:
            return known.party
        fresh = await self._learn(party, now, known)
        self._forget(party)
        while len(self._known) >= KEPT_MAX:
            self._forget(next(iter(self._known)))
        self._known[party] = fresh
        if fresh.party is not None:
            self.owners.update(places_of(fresh.party))
        return fresh.party

    def _forget(self, party: Prefix) -> None:
        known = self._known.pop(party, None)
        if known is None or known.party is None:
            return
        for place in places_of(known.party):
            if self.owners.get(place) == known.party.prefix:
                del self.owners[place]

    async def _learn(self, party: Prefix, now: int, known: _Known | None) -> _Known:
        parent = self._parent_of(party)
        if parent is None or parent.is_root:  # nobody is above the countries to license them
            return _Known(None, 0, now + FRESH_SECONDS_ABSENT)
        identifier = license_identifier(parent, party)
        if self._authority.serves(parent):
            stored = await self._storage.record(str(identifier))
            record = wire.record_from_bytes(stored) if stored is not None else None
            fresh = FRESH_SECONDS_HERE
        else:
            record = await self._ask_parents(identifier, parent, now)
            fresh = FRESH_SECONDS if record is not None else FRESH_SECONDS_ABSENT
        if record is None:
            return _Known(None, 0, now + fresh)
        body = RecordBody.parse(record.signed.payload)
        if known is not None and body.version < known.version:
            detail = f"version {known.version} of {identifier} was seen here, and version {body.version} is shown now"
            raise _unreachable(party, detail)
        return _Known(_read(record, body), body.version, now + fresh)

    def _parent_of(self, party: Prefix) -> Prefix | None:
        if party in self._authority.own:
            return self._authority.own[party][-1].delegation.parent
        child = self._authority.children.get(party)
        return child.delegation.parent if child is not None else None

    async def _ask_parents(self, identifier: Identifier, parent: Prefix, now: int) -> Record | None:
        said = "this node has no parents to ask"
        for endpoint in self._parents:
            try:
                return self._believed(await _ask(endpoint, identifier), identifier, parent, now)
            except grpc.aio.AioRpcError as error:
                said = f"{endpoint}: {error.code().name}"
            except IdtraceError as error:
                said = f"{endpoint}: {error.reason}"
            log.warning("licence not learned", identifier=str(identifier), reason=said)
        raise _unreachable(identifier, said)

    def _believed(self, answer: NodeAnswer, identifier: Identifier, parent: Prefix, now: int) -> Record | None:
        """The record that the parent's zone shows, or None where it denies that there is one.

        Raises:
            VerificationError: a broken step, or an answer by another zone.
        """
        context = Context.at(now)
        chain = TrustedChain.whole(self._authority.anchor, answer.delegations, context)
        if chain.zone != parent:
            raise VerificationError(Reason.REFERRAL_SIDEWAYS, f"zone {chain.zone} answers for {parent}", field="chain")
        match answer.outcome:
            case Record() as record:
                check_recorded(record, identifier, chain, context, proof=answer.proof, currency=answer.currency)
                return record
            case Denied(signed):
                chain.check_denial(signed, identifier, context)
                return None
            case Referred(zone):
                raise VerificationError(Reason.REFERRAL_SIDEWAYS, f"{parent} is referred to {zone}", field="chain")


async def _ask(endpoint: str, identifier: Identifier) -> NodeAnswer:
    options = (("grpc.max_receive_message_length", ANSWER_BYTES_MAX), ("grpc.enable_http_proxy", 0))
    async with grpc.aio.insecure_channel(endpoint, options=options) as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        request = registry_pb2.RegistryServiceGetRequest(identifier=str(identifier))
        response = await stub.Get(request, timeout=CALL_SECONDS)
    if response is None:  # what grpc.aio hands out for bytes that are no such message
        raise InputError(Reason.ANSWER_MALFORMED, "the parent's answer does not parse", field="answer")
    return wire.answer_from_pb(response.answer)


def _read(record: Record, body: RecordBody) -> Party | None:
    """The licence in a genuine record; one that says something else licenses nobody."""
    try:
        return read_license(record, body)
    except (InputError, VerificationError) as error:
        log.warning("licence unusable", identifier=str(body.identifier), reason=str(error.reason), field=error.field)
        return None


def _unreachable(party: object, said: str) -> BusyError:
    return BusyError(Reason.LICENCE_UNREACHABLE, f"the licence of {party} could not be learned: {said}", field="party")

"""Prefixes under this node's zones: applications, reviews and delegations, kept durable and in memory alike.

Everything here is rare (a prefix is reviewed once and rotated a few times a year), so moves happen one at a time under
one lock: read the current state, decide with the pure rules, store, and only then change the :class:`Authority`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from idtrace import wire
from idtrace.chain import CHECKS_MAX, Context, Link
from idtrace.delegation import Delegation, Role
from idtrace.entry import Entry, EntryKind
from idtrace.errors import BusyError, OutcomeUnknownError, Reason, RefusedError, VerificationError
from idtrace.identifier import ROOT, Prefix
from idtrace.signature import CheckBudget, Kind, Signed, verify
from idtrace.statements import Application, Command, PrefixStatus, check_enrolment
from registry.admission import repeated
from registry.authority import Authority, Child
from registry.delegating import Step, check_delegation, delegation_hash
from registry.intake import check_key
from registry.review import COMMAND_SECONDS_MAX, check_application, check_command_time, check_move
from registry.stamping import Stamper
from registry.storage import Grant, Logged, Outcome, Storage

T = TypeVar("T")

# An applicant proves one key or a few; the rest can follow with a rotation.
APPLICATION_KEYS_MAX: Final = 8
# Anybody may apply, so what waits is bounded: a year's worth for the busiest top-level node.
APPLICATIONS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Said:
    """What a change leaves in the log: the kind of its entry, the zone that has decided, and what it has signed."""

    kind: EntryKind
    zone: Prefix
    signed: Signed


class Grants:
    """The parent's side of a prefix's life. Owned by the event loop's thread."""

    def __init__(
        self,
        storage: Storage,
        authority: Authority,
        node_key_id: str,
        clock: Callable[[], int],
        on_commit: Callable[[], object] = lambda: None,
        *,
        stamper: Stamper | None = None,
    ) -> None:
        self._on_commit = on_commit  # called when a change may be in the store
        self._stamper = stamper  # where the node keeps a log
        self._node_key_id = node_key_id
        self._storage = storage
        self._authority = authority
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._grants: dict[Prefix, Grant] = {}
        self._behind = False  # a change may be on disk that is not in memory
        self._started = clock()
        self._commands: dict[bytes, tuple[str, int]] = {}  # request hash: idempotency key, time; the last few minutes'

    async def load(self) -> None:
        """Take over what the store holds; it was checked before it was stored."""
        for zone, links in (await self._storage.chains()).items():
            if Prefix.parse(zone) in self._authority.wanted:
                self._authority.adopt(Prefix.parse(zone), tuple(Link.read(wire.signed_from_bytes(x)) for x in links))
        await self._catch_up()

    async def catch_up(self, prefixes: Sequence[str] | None) -> None:
        """Take over what the store holds of these prefixes (None: of all), by whichever node it was changed.

        A change of this node's own that is under way comes first: after it memory knows what the store has told.
        """
        async with self._one_at_a_time:
            if prefixes is None or self._behind:
                await self._catch_up()
            else:
                for grant in await self._storage.grants(prefixes):
                    self._take_over(grant)

    async def _catch_up(self) -> None:
        for grant in await self._storage.grants():
            self._take_over(grant)
        self._behind = False

    async def _to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Carry a change through even where its caller has gone, so that memory never lags behind the disk."""

        async def alone() -> T:
            async with self._one_at_a_time:
                try:
                    if self._behind:
                        await self._catch_up()
                    return await change
                finally:
                    change.close()  # where catching up has raised it was never begun

        task = asyncio.ensure_future(alone())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # looked at, should nobody else
        return await asyncio.shield(task)

    def _take_over(self, grant: Grant) -> None:
        prefix = Prefix.parse(grant.prefix)
        if self._grants.get(prefix) == grant:
            return  # chains that were verified below it stay so
        self._grants[prefix] = grant
        if grant.delegation:
            link = Link.read(wire.signed_from_bytes(grant.delegation))
            self._authority.hand_out(Child(link, PrefixStatus(grant.status)))

    def grant(self, prefix: Prefix) -> Grant | None:
        """Where a prefix stands; None where nobody has applied."""
        return self._grants.get(prefix)

    def status(self, prefix: Prefix) -> PrefixStatus | None:
        """Review status of a prefix."""
        grant = self._grants.get(prefix)
        return PrefixStatus(grant.status) if grant else None

    async def apply(self, key: str, application: Signed, enrolments: Sequence[Signed]) -> Grant:
        """File an application.

        Raises:
            InputError, VerificationError: malformed, or not signed by a key that it enrols.
            RefusedError: NOT_AUTHORITATIVE, ZONE_DELEGATED or PREFIX_STATUS_TRANSITION.
        """
        check_key(key)
        budget = CheckBudget(CHECKS_MAX)
        enrolled = [
            check_enrolment(signed, budget=budget, field=f"enrolments[{n}]")
            for n, signed in enumerate(enrolments[:APPLICATION_KEYS_MAX])
        ]
        keys = {e.key.key_id: e.key for e in enrolled}
        verify(application, Kind.APPLICATION, keys, budget=budget, field="application")
        body = Application.parse(application.payload)
        if any(e.zone != body.prefix for e in enrolled):
            raise VerificationError(
                Reason.PROOF_OF_POSSESSION, "an enrolment is for another prefix", field="enrolments"
            )
        parent = self._parent_zone(body.prefix)
        filed = Grant(
            prefix=str(body.prefix),
            status=PrefixStatus.APPLIED,
            hosted=body.hosted,
            comment="",
            changed_at=self._clock(),
            application=wire.signed_to_bytes(application),
            enrolments=tuple(wire.signed_to_bytes(signed) for signed in enrolments),
        )
        request = hashlib.sha256(b"apply\0" + application.payload).digest()
        return await self._to_the_end(self._apply(body.prefix, filed, (parent, key), request))

    async def _apply(self, prefix: Prefix, filed: Grant, key: tuple[Prefix, str], request: bytes) -> Grant:
        current = self.grant(prefix)
        if await self._seen(*key, request):
            return self._grants[prefix]
        check_application(self.status(prefix))
        pending = sum(grant.status == PrefixStatus.APPLIED for grant in self._grants.values())
        if pending >= APPLICATIONS_MAX:
            raise BusyError(Reason.OVERLOADED, f"{pending} applications wait for review; come back later")
        if current is not None:
            filed = replace(filed, version=current.version, delegation=current.delegation)
        await self._store(filed, current, key, request)
        return filed

    async def move(self, key: str, command: Signed) -> Grant:
        """Carry out an administrator's signed command.

        Raises:
            InputError, VerificationError: malformed, or not signed by as many zone keys of the parent as a delegation
                has to be: whoever may not hand a zone out alone may not disable one alone.
            RefusedError: COMMAND_STALE, NOT_AUTHORITATIVE, PREFIX_UNKNOWN or PREFIX_STATUS_TRANSITION.
        """
        check_key(key)
        now = self._clock()
        parent = self._parent_zone(Command.parse(command.payload).prefix)
        context = Context.at(now)
        chain = self._authority.trusted(parent, context)
        keys, threshold = chain.delegation.keys_for(Role.ZONE), chain.delegation.zone_threshold
        budget = CheckBudget(CHECKS_MAX)
        verify(command, Kind.COMMAND, keys, budget=budget, threshold=threshold, field="command")
        body = Command.parse(command.payload)
        request = hashlib.sha256(b"move\0" + command.payload).digest()
        said = _Said(EntryKind.COMMAND, parent, command)
        return await self._to_the_end(self._move(body, now, (parent, key), request, said))

    async def _move(self, body: Command, now: int, key: tuple[Prefix, str], request: bytes, said: _Said) -> Grant:
        current = self.grant(body.prefix)
        if current is not None and await self._seen(*key, request):
            return current
        check_command_time(body.issued_at, now)
        self._check_replay(body.issued_at, key[1], request)
        check_move(self.status(body.prefix), body.status)
        assert current is not None, "check_move refuses an unknown prefix"
        moved = replace(current, status=body.status, comment=body.comment, changed_at=now)
        fresh = {h: (k, t) for h, (k, t) in self._commands.items() if abs(now - t) <= COMMAND_SECONDS_MAX}
        self._commands = fresh | {request: (key[1], body.issued_at)}
        await self._store(moved, current, key, request, said)
        return moved

    def _check_replay(self, issued_at: int, key: str, request: bytes) -> None:
        """A command works once, under one key: anyone who has seen it could send it again under another.

        Which commands were used is kept in memory, so those from before this node's start are stale.
        """
        if issued_at < self._started or self._commands.get(request, (key, 0))[0] != key:
            raise RefusedError(Reason.COMMAND_STALE, "the command was used before; sign a new one", field="command")

    async def delegate(self, step: Step, key: str, signed: Signed, enrolments: Sequence[Signed]) -> bytes:
        """Hand out, replace or take back a zone; returns the delegation's hash, 32 bytes.

        Raises:
            InputError, VerificationError, RefusedError: see :func:`registry.delegating.check_delegation`.
        """
        check_key(key)
        claimed = Delegation.parse(signed.payload)
        request = hashlib.sha256(step.encode() + b"\0" + signed.payload).digest()
        await self._to_the_end(self._delegate(step, signed, enrolments, (claimed.parent, key), request))
        return delegation_hash(signed)

    async def _delegate(
        self,
        step: Step,
        signed: Signed,
        enrolments: Sequence[Signed],
        key: tuple[Prefix, str],
        request: bytes,
    ) -> None:
        now = self._clock()
        claimed = Delegation.parse(signed.payload)
        if self._in_force(claimed.child) == signed or await self._seen(*key, request):
            return
        delegation = check_delegation(
            signed,
            enrolments,
            step=step,
            authority=self._authority,
            status=self.status(claimed.child),
            occupied=await self._storage.any_within(str(claimed.child)),
            node_key_id=self._node_key_id,
            context=Context.at(now),
        )
        if delegation.child.is_root:
            chain = [wire.signed_to_bytes(signed)]
            said = _Said(EntryKind.KEYS, ROOT, signed)
            await self._stored(partial(self._storage.put_chain, "", chain), said)
            self._authority.adopt(ROOT, (Link(signed, delegation),))
            return
        current = self.grant(delegation.child)
        blank = Grant(str(delegation.child), PrefixStatus.ENABLED, delegation.hosted, "", now)
        grant = replace(
            current or blank,
            hosted=delegation.hosted,
            version=delegation.version,
            delegation=wire.signed_to_bytes(signed),
            changed_at=now,
        )
        await self._store(grant, current, key, request, _Said(EntryKind.DELEGATION, delegation.parent, signed))

    def _in_force(self, zone: Prefix) -> Signed | None:
        """The delegation of a child, or of the root, that is handed out now."""
        child = self._authority.children.get(zone)
        links = self._authority.own.get(zone, ()) if zone.is_root else ()
        return child.link.signed if child else links[0].signed if links else None

    def _parent_zone(self, prefix: Prefix) -> Prefix:
        """The zone of this node that a prefix would hang below."""
        zone = self._authority.zone_of(Prefix(prefix.labels[:-1])) if prefix.labels else None
        if zone is None or not self._authority.serves(zone) or prefix in self._authority.own:
            detail = f"this node hands out no prefix '{prefix}'"
            raise RefusedError(Reason.NOT_AUTHORITATIVE, detail, field="prefix")
        return zone

    async def _seen(self, parent: Prefix, key: str, request: bytes) -> bool:
        known = (await self._storage.earlier(str(parent), [key])).get(key)
        return known is not None and repeated(request, known) is not None

    async def _store(
        self,
        grant: Grant,
        current: Grant | None,
        key: tuple[Prefix, str],
        request: bytes,
        said: _Said | None = None,
    ) -> None:
        used = (str(key[0]), key[1])
        put = partial(self._storage.put_grant, grant, current, used, request)
        outcome = await self._stored(put, said)
        if outcome is not Outcome.COMMITTED:
            self._behind = True
            raise RefusedError(Reason.WRITE_CONFLICT, "another change of this prefix came first", field="prefix")
        self._take_over(grant)

    async def _stored(self, put: Callable[..., Awaitable[T]], said: _Said | None) -> T:
        """Put a change into the store, and what was said into the log where there is one."""
        if self._stamper is None or said is None:
            return await self._told(put())
        async with self._stamper.turn:
            stamp = self._stamper.stamp()
            entry = Entry(said.kind, said.zone, stamp.now, said.signed.payload, said.signed.signatures)
            return await self._told(put(logged=Logged(stamp, entry)))

    async def _told(self, write: Awaitable[T]) -> T:
        try:
            return await write
        except BusyError:
            raise  # the store knows that nothing was written
        except Exception as error:
            self._behind = True
            detail = f"the change may or may not be durable ({type(error).__name__}); repeat it with the same key"
            raise OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, detail) from error
        finally:
            self._on_commit()

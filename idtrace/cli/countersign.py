"""Delegations that several people sign, one after the other and off line: a draft that goes from hand to hand.

A draft holds the delegation as far as it is signed, the enrolments that go with it, and the chain down to the version
that it follows, so that whoever signs sees what changes and can verify from the pinned root key what it rests on::

    {"format": "idtrace-delegation-draft/v1", "delegation": …, "enrolments": […], "chain": […]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import RenderableType

from idtrace.bundle import signed_from_fields, signed_to_json
from idtrace.chain import LINKS_MAX, zone_name
from idtrace.cli.files import STATEMENTS_MAX, read_form, replace_file
from idtrace.cli.show import utc
from idtrace.cli.signing_options import Pins
from idtrace.cli.trust import current_delegation, trusted_chain
from idtrace.delegation import Delegation, Role, State, ZoneKey
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.identifier import Prefix
from idtrace.signature import SIGNATURES_MAX, CheckBudget, Kind, PublicKey, Signed, Signer, sign, verify

DRAFT_FORMAT: Final = "idtrace-delegation-draft/v1"


@dataclass(frozen=True, slots=True)
class Draft:
    """A delegation on its way to enough signatures; ``chain`` leads down to its parent, or to its last version."""

    signed: Signed
    enrolments: tuple[Signed, ...]
    chain: tuple[Signed, ...]

    @property
    def body(self) -> Delegation:
        """What is being signed.

        Raises:
            InputError: malformed.
        """
        return Delegation.parse(self.signed.payload)


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures count, and how many there have to be."""

    keys: dict[str, PublicKey]
    threshold: int

    def missing(self, signed: Signed) -> int:
        """How many are still to sign."""
        return max(0, self.threshold - len({s.key_id for s in signed.signatures} & self.keys.keys()))

    def check(self, signed: Signed, *, threshold: int) -> None:
        """Check the signatures that are there.

        Raises:
            VerificationError: one is not valid, of a stranger, or there are fewer than ``threshold``.
        """
        budget = CheckBudget(SIGNATURES_MAX)
        verify(signed, Kind.DELEGATION, self.keys, budget=budget, threshold=threshold, field="draft")


def signers_of(draft: Draft, pins: Pins, now: int) -> Signers:
    """Who has to sign a draft: the pinned root keys for the root's own key set, else the parent's zone keys.

    With an anchor the chain is verified from it; without one the draft is believed, as the screen then says.

    Raises:
        InputError: the draft does not hang together.
        VerificationError: the chain does not verify.
    """
    body, anchor = draft.body, pins.anchor
    links = {link.child: link for link in (Delegation.parse(signed.payload) for signed in draft.chain)}
    _follows(body, links.get(body.child))
    if body.child.is_root:
        if anchor is None:
            detail = "the root's own key set is signed by the pinned root keys: name them with --root"
            raise InputError(Reason.FIELD_MISSING, detail, field="--root")
        return Signers(anchor.keys, anchor.threshold)
    parent = links.get(body.parent)
    if parent is None:
        raise _bad("the chain does not lead to the parent; make it with --node, or with a --current that has it")
    if anchor is not None:
        if pins.former and Delegation.parse(draft.chain[-1].payload).child == body.child:
            believed(draft.chain, body.child, (), pins, now)
        else:
            trusted_chain(draft.chain, anchor, now)
    return Signers(parent.keys_for(Role.ZONE), parent.zone_threshold)


def believed(
    chain: Sequence[Signed], child: Prefix, own: Sequence[PublicKey], pins: Pins, now: int
) -> Delegation | None:
    """The version in force of a child's delegation, at the end of a chain; None where it is not there.

    Where former keys are named, the last link may be signed by them in place of the parent's keys of today: after a
    theft nothing that the stolen key signed counts any more, and still the next version has to follow it.

    Raises:
        VerificationError: it is not genuine; SIGNER_UNKNOWN where another key signed it and no root key is pinned.
    """
    gone = {key.key_id for key in pins.former}
    signed_by = {one.key_id for one in chain[-1].signatures} if chain else set()
    if not signed_by & gone or Delegation.parse(chain[-1].payload).child != child:
        return current_delegation(chain, child, own, pins.anchor, now)
    *above, last = chain
    keys: Iterable[PublicKey] = own
    if pins.anchor is not None:
        keys = (
            trusted_chain(above, pins.anchor, now).delegation.keys_for(Role.ZONE) if above else pins.anchor.keys
        ).values()
    known = {key.key_id: key for key in (*keys, *pins.former)}
    verify(last, Kind.DELEGATION, known, budget=CheckBudget(SIGNATURES_MAX), field="chain")
    return Delegation.parse(last.payload)


def signed_once_more(draft: Draft, signer: Signer, signers: Signers) -> Draft:
    """The draft with one more signature, by a key that may sign it and has not.

    Raises:
        VerificationError: SIGNER_UNKNOWN for a stranger's key.
        InputError: it has signed already.
    """
    key_id = signer.public_key.key_id
    if key_id not in signers.keys:
        detail = f"key {key_id} may not sign this; one stranger's signature makes a delegation void"
        raise VerificationError(Reason.SIGNER_UNKNOWN, detail, field="--key")
    if any(signature.key_id == key_id for signature in draft.signed.signatures):
        raise InputError(Reason.FIELD_MALFORMED, f"key {key_id} has signed it already", field="--key")
    made = sign(Kind.DELEGATION, draft.signed.payload, signer)
    signatures = (*draft.signed.signatures, *made.signatures)
    return replace(draft, signed=replace(draft.signed, signatures=signatures))


def changes(draft: Draft) -> list[tuple[str, RenderableType]]:
    """What is being signed, and how it differs from the version that it follows: rows for the screen."""
    body = draft.body
    before = next(
        (d for d in (Delegation.parse(s.payload) for s in reversed(draft.chain)) if d.child == body.child), None
    )
    rows: list[tuple[str, RenderableType]] = [
        ("zone", zone_name(body.child)),
        ("handed out by", zone_name(body.parent)),
        ("version", f"{body.version}" + (f", after version {before.version}" if before else "")),
    ]
    if body.state is State.REVOKED:
        return [*rows, ("REVOKES", "the zone is taken back: nothing in it or below it counts any more")]
    rows.append(("until", utc(body.expires)))
    rows += key_changes(before.keys if before else (), body.keys)
    rows += _fields(before, body)
    return rows


def key_changes(before: Sequence[ZoneKey], after: Sequence[ZoneKey]) -> list[tuple[str, RenderableType]]:
    """Rows for keys that stay, come, change and go."""
    old = {key.key.key_id: key for key in before}
    rows: list[tuple[str, RenderableType]] = []
    for key in after:
        held = old.pop(key.key.key_id, None)
        word = "key added" if held is None else "key" if held == key else "key changed"
        rows.append((word if before else "key", key_text(key)))
    rows += [("key dropped", key_text(key)) for key in old.values()]
    return rows


def key_text(key: ZoneKey) -> str:
    """A key as one line: id, roles, and where it ends."""
    end = "" if key.until is None else f"  until index {key.until} of the log"
    return f"{key.key.key_id}  {', '.join(sorted(key.roles))}{end}"


def _fields(before: Delegation | None, body: Delegation) -> list[tuple[str, RenderableType]]:
    """Endpoints, threshold, hosting and log: what they are, and what they were where that differs."""

    def told(name: str, now: str, was: str | None) -> tuple[str, RenderableType]:
        return name, now if was is None or was == now else f"{now} (was {was or 'none'})"

    where = ", ".join(body.endpoints) + (" (hosted)" if body.hosted else "")
    was = None if before is None else ", ".join(before.endpoints) + (" (hosted)" if before.hosted else "")
    rows = [told("answers at", where, was)]
    rows.append(told("zone keys to sign", str(body.zone_threshold), str(before.zone_threshold) if before else None))
    if body.log or (before is not None and before.log):
        rows.append(told("log", body.log or "none", before.log if before else None))
    return rows


def write_draft(path: Path, draft: Draft) -> None:
    """Write a draft, replacing an older one in one step."""
    body = {
        "format": DRAFT_FORMAT,
        "delegation": signed_to_json(draft.signed),
        "enrolments": [signed_to_json(signed) for signed in draft.enrolments],
        "chain": [signed_to_json(signed) for signed in draft.chain],
    }
    replace_file(path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode())


def read_draft(path: Path) -> Draft:
    """Read a draft. Nothing in it is believed until it is verified.

    Raises:
        InputError: FIELD_MALFORMED or a field's own reason; the field begins with the file.
    """
    otherwise = "this is not a draft of a delegation; make one with: idtrace delegate … --draft FILE"
    fields = read_form(path, DRAFT_FORMAT, otherwise)
    signed = signed_from_fields(fields.object("delegation"))
    enrolments = tuple(signed_from_fields(item) for item in fields.objects("enrolments", most=STATEMENTS_MAX))
    chain = tuple(signed_from_fields(item) for item in fields.objects("chain", most=LINKS_MAX))
    fields.end()
    draft = Draft(signed, enrolments, chain)
    if signed.payload_type != Kind.DELEGATION.payload_type:
        raise _bad("what is to be signed is not a delegation")
    return draft


def _follows(body: Delegation, before: Delegation | None) -> None:
    """What the screen shows as changed is measured from the very version that the signature names."""
    version, previous = (before.version, before.hash) if before else (0, b"")
    if (body.version, body.previous) != (version + 1, previous):
        raise _bad("it does not follow the version that it comes with")


def _bad(rule: str) -> InputError:
    return InputError(Reason.FIELD_MALFORMED, f"the draft does not hang together: {rule}", field="--sign")

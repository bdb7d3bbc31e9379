"""``idtrace delegate``: sign the next version of a delegation, keep it, and bring it to the parent's node."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.cli.client import Node, connect
from idtrace.cli.countersign import (
    Draft,
    Signers,
    believed,
    changes,
    key_text,
    read_draft,
    signed_once_more,
    signers_of,
    write_draft,
)
from idtrace.cli.delegating import Terms, checked_enrolments, next_delegation
from idtrace.cli.drafts import idempotency_key
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.files import read_signed, write_signed
from idtrace.cli.options import now, output_of
from idtrace.cli.output import Output, pairs
from idtrace.cli.rotating import left_out_words
from idtrace.cli.show import utc
from idtrace.cli.signing_options import DelegationSigning, Pins, grouped
from idtrace.cli.trust import zone_of
from idtrace.delegation import LIFETIME_SECONDS_MAX, Delegation, State
from idtrace.errors import InputError, Reason, RefusedError
from idtrace.identifier import ROOT, Prefix
from idtrace.signature import Kind, Signed, Signer, sign
from idtrace.statements import Application
from idtrace.v1 import delegation_pb2, delegation_pb2_grpc, registry_pb2, registry_pb2_grpc
from idtrace.wire import signed_from_pb, signed_to_pb

ChildOption = Annotated[
    str | None, typer.Option("--child", metavar="PREFIX", help='Zone to hand out; "" is the root itself.')
]
ZoneOption = Annotated[str, typer.Option("--zone", metavar="PREFIX", help="Parent that hands it out.")]
RootZoneOption = Annotated[
    bool, typer.Option("--root-zone", help="The root's own key set, signed by the pinned root key.")
]
EnrolOption = Annotated[
    list[Path] | None, typer.Option("--enrol", metavar="FILE", help="Keys to add: files of idtrace key enrol.")
]
AppliedOption = Annotated[
    bool, typer.Option("--applied", help="Take keys, endpoints and hosting from the prefix application.")
]
DropKeyOption = Annotated[
    list[str] | None, typer.Option("--drop-key", metavar="KEY_ID", help="Key to take out; repeatable.")
]
EndpointOption = Annotated[
    list[str] | None, typer.Option("--endpoint", metavar="HOST:PORT", help="Where the child answers; repeatable.")
]
HostedOption = Annotated[
    bool | None, typer.Option("--hosted/--not-hosted", help="Whether the parent's node keeps the records.")
]
ThresholdOption = Annotated[
    int | None, typer.Option("--threshold", min=1, max=8, help="Zone keys that have to sign together.")
]
DaysOption = Annotated[
    int, typer.Option("--days", min=1, max=LIFETIME_SECONDS_MAX // 86_400, help="How long it lasts.")
]
RevokeOption = Annotated[bool, typer.Option("--revoke", help="Take the zone back.")]
LogOption = Annotated[str, typer.Option("--log", metavar="ORIGIN", help="Name of the log that the child keeps.")]
SignOption = Annotated[
    Path | None,
    typer.Option("--sign", metavar="DRAFT", help="Add signatures to a draft; with --node it is sent when complete."),
]


@grouped
def delegate(
    ctx: typer.Context,
    by: DelegationSigning,
    child: ChildOption = None,
    zone: ZoneOption = "",
    root_zone: RootZoneOption = False,
    enrol: EnrolOption = None,
    applied: AppliedOption = False,
    drop_key: DropKeyOption = None,
    endpoint: EndpointOption = None,
    hosted: HostedOption = None,
    threshold: ThresholdOption = None,
    days: DaysOption = 365,
    log: LogOption = "",
    revoke: RevokeOption = False,
    sign_draft: SignOption = None,
) -> None:
    """Hand out a zone: its keys, its endpoints and until when. Run again to rotate keys; --revoke takes it back.

    First:   idtrace delegate --zone 88.118 --child 88.118.8 --key parent.key --enrol a.json --endpoint n8.example:7201

    Later:   idtrace delegate --zone 88.118 --child 88.118.8 --key parent.key --enrol new.json --drop-key OLD_KEY_ID

    The parent's node knows the current version; keys and endpoints that are not named stay. Without --node the
    delegation is only signed and kept (--out), as an offline root key wants it; --current then names the last one.

    Where several zone keys have to sign and lie with several people: --draft FILE instead of sending, then each of
    them, off line, --sign FILE --key OWN.key --root root.pub, and whoever has the last signature adds --node.

    After a zone key of the parent was stolen and revoked, every zone that it handed out is signed anew, with --former
    STOLEN.pub, since the version to follow is one that the stolen key signed. What it says is the thief's word: compare
    its keys and endpoints with the child's own, and name what is wrong (--drop-key, --enrol, --endpoint).
    """
    output = output_of(ctx)
    signers, pins, way = by.signers(), by.pins(), Way.of(by)
    if sign_draft is not None:
        countersign(output, sign_draft, signers, pins, way)
        return
    parent, target = _zones(zone, child, root_zone=root_zone)
    way.check(applied=applied, signers=signers)
    terms = Terms(tuple(endpoint or ()), hosted, days, threshold, tuple(drop_key or ()), revoke, log)
    proofs = [signed for file in enrol or () for signed in read_signed(file, Kind.ENROLMENT)]
    with way.open() as peer:
        if applied:
            assert peer is not None
            proofs, terms = _from_application(peer, target, proofs, terms)
        chain, known = known_version(peer, by.current, target, signers, pins)
        body = next_delegation(target, parent, known, checked_enrolments(proofs, target), terms, now())
        for words in left_out_words(known, body):
            output.note(words)
        made = Draft(Signed(Kind.DELEGATION.payload_type, body.payload(), ()), tuple(proofs), tuple(chain))
        signed = deliver(output, made, signers, pins, way, peer)
    if signed is not None:
        _show(output, body, signed, way.out, way.node)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a delegation goes: to a node, into a file, or as a draft to others who have to sign it."""

    node: str | None
    timeout_seconds: float
    out: Path | None
    draft: Path | None

    @classmethod
    def of(cls, by: DelegationSigning) -> Way:
        """As the options say."""
        return cls(by.node, by.timeout, by.out, by.draft)

    def check(self, *, applied: bool, signers: Sequence[Signer]) -> None:
        """Require a destination, and somebody who signs.

        Raises:
            typer.BadParameter: it goes nowhere, or nobody signs it.
        """
        if self.draft is None and not signers:
            raise typer.BadParameter("name a key that signs, or --draft for others to sign", param_hint="--key")
        if self.node is None and ((self.out is None and self.draft is None) or applied):
            raise typer.BadParameter("say where it goes: --node, or --out to sign only", param_hint="--node")

    def open(self) -> AbstractContextManager[Node | None]:
        """The node, if it goes to one; a draft asks it for the current version and sends it nothing."""
        return connect(self.node, self.timeout_seconds) if self.node else nullcontext()


def deliver(
    output: Output, made: Draft, signers: Sequence[Signer], pins: Pins, way: Way, peer: Node | None
) -> Signed | None:
    """Sign, and send or keep; None where it became a draft, which is shown.

    Raises:
        Failure: the node refused it.
        VerificationError, InputError: a draft cannot be signed by these keys.
    """
    if way.draft is not None:
        who = signers_of(made, pins, now())
        for signer in signers:
            made = signed_once_more(made, signer, who)
        write_draft(way.draft, made)
        show_draft(output, made, who, way.draft, verified=pins.anchor is not None)
        return None
    signed = sign(Kind.DELEGATION, made.signed.payload, *signers)
    if peer is not None:
        submit(peer, made.body, signed, made.enrolments)
    if way.out is not None:
        write_signed(way.out, [signed])
    return signed


def countersign(output: Output, file: Path, signers: Sequence[Signer], pins: Pins, way: Way) -> None:
    """Add signatures to a draft; once it has enough it is kept (--out) and sent (--node).

    Raises:
        Failure: the node refused it.
        VerificationError, InputError: see :func:`signers_of` and :func:`signed_once_more`.
    """
    draft = read_draft(file)
    who = signers_of(draft, pins, now())
    for signer in signers:
        draft = signed_once_more(draft, signer, who)
    if draft.signed.signatures:
        who.check(draft.signed, threshold=1)
    write_draft(file, draft)
    if who.missing(draft.signed):
        show_draft(output, draft, who, file, verified=pins.anchor is not None)
        return
    with way.open() as peer:
        if peer is not None:
            submit(peer, draft.body, draft.signed, draft.enrolments)
    if way.out is not None:
        write_signed(way.out, [draft.signed])
    if way.node is None and way.out is None:
        show_draft(output, draft, who, file, verified=pins.anchor is not None)
        return
    _show(output, draft.body, draft.signed, way.out, way.node)


def show_draft(output: Output, draft: Draft, who: Signers, file: Path, *, verified: bool) -> None:
    """What is being signed, by whom it is signed, and what it lacks."""
    missing, body = who.missing(draft.signed), draft.body
    output.document(
        {
            "file": str(file),
            "child": str(body.child),
            "parent": str(body.parent),
            "version": body.version,
            "hash": body.hash.hex(),
            "signed_by": [signature.key_id for signature in draft.signed.signatures],
            "threshold": who.threshold,
            "missing": missing,
            "chain_verified": verified,
        }
    )
    rows = changes(draft)
    rows += [("signed by", signature.key_id) for signature in draft.signed.signatures]
    rows.append(("signatures", f"{who.threshold - missing} of {who.threshold}"))
    rows.append(("in force at", Text("no node yet", style="yellow")))
    output.show(pairs(rows))
    if not verified:
        output.note("What it rests on is not verified: name the pinned root key with --root.")
    if missing:
        output.note(f"Next: idtrace delegate --sign {file} --key FILE --root ROOT.pub")
    else:
        output.note(f"Complete: idtrace delegate --sign {file} --node HOST:PORT")


def _zones(zone: str, child: str | None, *, root_zone: bool) -> tuple[Prefix, Prefix]:
    """Parent and child.

    Raises:
        typer.BadParameter: neither a child nor the root is named, or both.
    """
    parent = Prefix.parse(zone, field="--zone")
    target = Prefix.parse(child or "", field="--child")
    if not target.is_root:
        if root_zone:
            rule = "--root-zone is for the root itself; leave --child away"
            raise typer.BadParameter(rule, param_hint="--root-zone")
        return parent, target
    if not parent.is_root or (child is None and not root_zone):
        rule = "name the zone to hand out (for the root's own key set: --root-zone)"
        raise typer.BadParameter(rule, param_hint="--child")
    return ROOT, ROOT


def known_version(
    node: Node | None, file: Path | None, target: Prefix, signers: Sequence[Signer], pins: Pins
) -> tuple[tuple[Signed, ...], Delegation | None]:
    """The chain towards a zone, from a file or from the node, and the version in force; checked.

    Raises:
        Failure: the node refused, or what it shows is signed by others and no root key is pinned.
        VerificationError: it is not genuine.
    """
    if file is not None:
        chain = read_signed(file, Kind.DELEGATION)
    elif node is not None:
        try:
            chain = zone_of(node, target).chain
        except Failure as failure:
            # A root that has no key set yet knows nothing of any zone, its own included.
            if target.is_root and failure.error.reason is Reason.NOT_AUTHORITATIVE:
                return (), None
            raise
    else:
        return (), None
    public = [signer.public_key for signer in signers]
    return tuple(chain), believed(chain, target, public, pins, now())


def _from_application(node: Node, target: Prefix, proofs: list[Signed], terms: Terms) -> tuple[list[Signed], Terms]:
    stub = registry_pb2_grpc.RegistryServiceStub(node.channel)
    answer = node.ask(stub.GetPrefixStatus, registry_pb2.GetPrefixStatusRequest(prefix=str(target)))
    if not answer.HasField("application"):
        error = RefusedError(Reason.PREFIX_UNKNOWN, f"nobody has applied for {target}", field="--applied")
        raise Failure(ExitCode.REFUSED, error, title=f"refused by {node.address}")
    application = Application.parse(signed_from_pb(answer.application, "application").payload)
    if application.prefix != target:
        raise InputError(Reason.ANSWER_MALFORMED, f"the application is for {application.prefix}", field="application")
    proofs = proofs + [signed_from_pb(signed, "enrolments") for signed in answer.enrolments]
    hosted = application.hosted if terms.hosted is None else terms.hosted
    endpoints = terms.endpoints or application.endpoints
    return proofs, replace(terms, endpoints=endpoints, hosted=hosted)


def submit(node: Node, body: Delegation, signed: Signed, proofs: Sequence[Signed]) -> None:
    """Bring a signed delegation to the parent's node.

    Raises:
        Failure: as :meth:`Node.write`.
    """
    stub = delegation_pb2_grpc.DelegationServiceStub(node.channel)
    key, message = idempotency_key(signed.payload, Kind.DELEGATION), signed_to_pb(signed)
    if body.state is State.REVOKED:
        node.write(stub.Revoke, delegation_pb2.RevokeRequest(idempotency_key=key, delegation=message))
        return
    enrolments = [signed_to_pb(proof) for proof in proofs]
    method, request = (
        (stub.Delegate, delegation_pb2.DelegateRequest)
        if body.version == 1
        else (stub.Rotate, delegation_pb2.RotateRequest)
    )
    node.write(method, request(idempotency_key=key, delegation=message, enrolments=enrolments))


def _show(output: Output, body: Delegation, signed: Signed, out: Path | None, node: str | None) -> None:
    output.document(
        {
            "child": str(body.child),
            "parent": str(body.parent),
            "version": body.version,
            "state": body.state,
            "expires": body.expires,
            "hash": body.hash.hex(),
            "submitted_to": node or "",
            "file": str(out or ""),
            "delegation": signed_to_json(signed),
        }
    )
    revoked = body.state is State.REVOKED
    word = Text("REVOKED", style="bold red") if revoked else Text("ACTIVE", style="bold green")
    rows: list[tuple[str, RenderableType]] = [
        ("zone", Text(str(body.child) or "the root", style="bold")),
        ("state", Text.assemble(word, f", version {body.version}")),
        ("until", utc(body.expires)),
    ]
    rows += [("key", key_text(key)) for key in body.keys]
    if body.endpoints:
        rows.append(("answers at", ", ".join(body.endpoints) + (" (hosted)" if body.hosted else "")))
    rows.append(("kept in", str(out)) if out else ("", ""))
    rows.append(("in force at", node) if node else ("", Text("signed only; no node knows it yet", style="yellow")))
    output.show(pairs([row for row in rows if row[1] != ""]))

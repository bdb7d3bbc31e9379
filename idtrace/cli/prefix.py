"""``idtrace prefix``: apply for a prefix, see how far it is, and decide about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from idtrace.bundle import signed_to_json
from idtrace.cli.client import connect
from idtrace.cli.drafts import idempotency_key
from idtrace.cli.files import read_signed
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    KeyOption,
    NodeOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    TimeoutOption,
    now,
    output_of,
    signer_of,
)
from idtrace.cli.output import Output, pairs, plain
from idtrace.cli.show import utc
from idtrace.delegation import check_endpoint
from idtrace.identifier import Prefix
from idtrace.signature import CheckBudget, Kind, sign
from idtrace.statements import Application, Command, PrefixStatus, check_enrolment
from idtrace.v1 import registry_pb2, registry_pb2_grpc
from idtrace.wire import signed_from_pb, signed_to_pb

app = typer.Typer(help="Apply for a prefix, follow its review, decide about it.", no_args_is_help=True)

PrefixArgument = Annotated[str, typer.Argument(metavar="PREFIX", help="For example 88.118.8.")]
_STYLES = {
    PrefixStatus.APPLIED: "bold",
    PrefixStatus.IN_REVIEW: "bold",
    PrefixStatus.ENABLED: "bold green",
    PrefixStatus.DISABLED: "bold red",
    PrefixStatus.REJECTED: "bold red",
}


@app.command()
def apply(
    ctx: typer.Context,
    prefix: PrefixArgument,
    key: KeyOption,
    node: NodeOption,
    contact: Annotated[str, typer.Option("--contact", help="Whom the parent may ask.")],
    enrolments: Annotated[
        list[Path], typer.Option("--enrol", metavar="FILE", help="File of idtrace key enrol; repeat for several.")
    ],
    endpoint: Annotated[
        list[str] | None, typer.Option("--endpoint", metavar="HOST:PORT", help="Where your node will answer.")
    ] = None,
    hosted: Annotated[bool, typer.Option("--hosted", help="Let the parent's node keep the records.")] = False,
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Apply for a prefix at the node of its parent.

    Example: idtrace prefix apply 88.118.8 --key zone.key --enrol zone.key.enrol.json --contact ops@maker.example
    """
    del as_json
    output = output_of(ctx)
    wanted = Prefix.parse(prefix, field="PREFIX")
    for text in endpoint or ():
        check_endpoint(text, field="--endpoint")
    proofs = [signed for file in enrolments for signed in read_signed(file, Kind.ENROLMENT)]
    budget = CheckBudget(len(proofs))
    for signed in proofs:
        check_enrolment(signed, budget=budget, field="--enrol")
    body = Application(wanted, hosted, tuple(endpoint or ()), contact, now())
    application = sign(
        Kind.APPLICATION, _checked(body).payload(), signer_of(key, passphrase_env, prompt=passphrase_prompt)
    )
    request = registry_pb2.ApplyPrefixRequest(
        idempotency_key=idempotency_key(application.payload, Kind.APPLICATION),
        application=signed_to_pb(application),
        enrolments=[signed_to_pb(signed) for signed in proofs],
    )
    with connect(node, timeout) as peer:
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        _show(output, peer.write(stub.ApplyPrefix, request).status)


@app.command()
def status(
    ctx: typer.Context,
    prefix: PrefixArgument,
    node: NodeOption,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Show how far a prefix has come, and what its applicant asked for.

    Example: idtrace prefix status 88.118.8 --node localhost:7201
    """
    del as_json
    output = output_of(ctx)
    wanted = Prefix.parse(prefix, field="PREFIX")
    with connect(node, timeout) as peer:
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        answer = peer.ask(stub.GetPrefixStatus, registry_pb2.GetPrefixStatusRequest(prefix=str(wanted)))
    proofs = [signed_from_pb(signed, "enrolments") for signed in answer.enrolments]
    rows: list[tuple[str, RenderableType]] = []
    extra: dict[str, Any] = {"enrolments": [signed_to_json(signed) for signed in proofs]}
    if answer.HasField("application"):
        application = signed_from_pb(answer.application, "application")
        extra["application"] = signed_to_json(application)
        body = Application.parse(application.payload)
        where = ", ".join(body.endpoints) or "none yet"
        rows += [("contact", plain(body.contact)), ("endpoints", plain(where))]
    budget = CheckBudget(len(proofs))
    for signed in proofs:
        proof = check_enrolment(signed, budget=budget)
        rows.append(("key", f"{proof.key.key_id}  {proof.role}"))
    _show(output, answer.status, rows, extra)


@app.command(name="set")
def move(
    ctx: typer.Context,
    prefix: PrefixArgument,
    status: Annotated[
        PrefixStatus, typer.Option("--status", metavar="STATUS", help="in_review, enabled, disabled or rejected.")
    ],
    keys: Annotated[
        list[Path],
        typer.Option(
            "--key",
            "-k",
            metavar="FILE",
            envvar="IDTRACE_KEY",
            help="Zone key of the parent; several for a threshold.",
        ),
    ],
    node: NodeOption,
    comment: Annotated[str, typer.Option("--comment", help="Reason, for the applicant to read.")] = "",
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Move a prefix to another status, signed by as many zone keys of its parent as a delegation has to be.

    Example: idtrace prefix set 88.118.8 --status disabled --key parent.key --comment 'licence expired'
    """
    del as_json
    output = output_of(ctx)
    body = Command(Prefix.parse(prefix, field="PREFIX"), status, comment, now())
    Command.parse(body.payload())
    signers = [signer_of(key, passphrase_env, prompt=passphrase_prompt) for key in keys]
    command = sign(Kind.COMMAND, body.payload(), *signers)
    request = registry_pb2.SetPrefixStatusRequest(
        idempotency_key=idempotency_key(command.payload, Kind.COMMAND), command=signed_to_pb(command)
    )
    with connect(node, timeout) as peer:
        stub = registry_pb2_grpc.RegistryServiceStub(peer.channel)
        _show(output, peer.write(stub.SetPrefixStatus, request).status)


def _checked(body: Application) -> Application:
    return Application.parse(body.payload())


def _show(
    output: Output,
    status: Any,
    rows: list[tuple[str, RenderableType]] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    body = {"prefix": status.prefix, "status": status.status, "hosted": status.hosted, "comment": status.comment}
    output.document({**body, "changed_at": status.changed_at, **(extra or {})})
    known = status.status in tuple(PrefixStatus)
    word = (
        Text(status.status.upper(), style=_STYLES[PrefixStatus(status.status)]) if known else Text("nobody has applied")
    )
    head: list[tuple[str, RenderableType]] = [("prefix", plain(status.prefix)), ("status", word)]
    if known:
        head.append(("since", utc(status.changed_at)))
        head.append(("records", "hosted by the parent's node" if status.hosted else "on the applicant's own node"))
    if status.comment:
        head.append(("comment", plain(status.comment)))
    output.show(pairs([*head, *(rows or [])]))

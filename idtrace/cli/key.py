"""``idtrace key``: make a key, look at one, prove possession of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from idtrace.cli import root, rotate
from idtrace.cli.files import read_file, write_signed
from idtrace.cli.options import (
    JsonOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    output_of,
    passphrase_source,
    signer_of,
)
from idtrace.cli.output import pairs
from idtrace.delegation import Role
from idtrace.errors import InputError, Reason
from idtrace.identifier import Prefix
from idtrace.note import NoteKey
from idtrace.serving.keyfile import write_private_key, write_public_key
from idtrace.serving.rootfile import ROOT_FILE_BYTES_MAX, load_root_keys
from idtrace.signature import PublicKey
from idtrace.statements import enrol as prove_possession

app = typer.Typer(help="Make keys, enrol them for a zone, and end them; follow the root's keys.", no_args_is_help=True)


@app.command()
def new(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Private key to create; FILE.pub gets the public one.")],
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make an ed25519 key: FILE for its owner alone (mode 0600), FILE.pub for everyone. Nothing is overwritten.

    Example: idtrace key new record.key --passphrase-prompt
    """
    del as_json
    output = output_of(ctx)
    public_file = Path(f"{file}.pub")
    if public_file.exists():
        raise InputError(Reason.FIELD_MALFORMED, "the file exists and is not overwritten", field=str(public_file))
    source = passphrase_source(passphrase_env, prompt=passphrase_prompt, what="New passphrase", twice=True)
    private = Ed25519PrivateKey.generate()
    public = PublicKey.of(private.public_key().public_bytes_raw())
    write_private_key(file, private, source() if source else None)
    write_public_key(public_file, [public])
    output.document(
        {"private": str(file), "public": str(public_file), "encrypted": source is not None, **_json(public)}
    )
    protection = "encrypted with the passphrase" if source else "NOT encrypted: guard the file, or use a passphrase"
    output.show(pairs([("private key", f"{file} (mode 0600, {protection})"), ("public key", str(public_file))]))
    output.show(_table(public))


@app.command()
def show(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Public or private key file.")],
    log: Annotated[
        str, typer.Option("--log", metavar="ORIGIN", help="Also show it as the key of this log, for policies (C2SP).")
    ] = "",
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the id and the public half of every key in a file; of a file that pins the root, those in force.

    Example: idtrace key show root.key.pub

    Example: idtrace key show log.key.pub --log log.example/88.118
    """
    del as_json
    output = output_of(ctx)
    if b" PRIVATE KEY-----" in read_file(file, ROOT_FILE_BYTES_MAX):
        keys: tuple[PublicKey, ...] = (signer_of(file, passphrase_env, prompt=passphrase_prompt).public_key,)
    else:
        keys = load_root_keys(file).latest.keys
    output.document({"file": str(file), "keys": [_json(key, log) for key in keys]})
    output.show(*(_table(key, log) for key in keys))


@app.command()
def enrol(
    ctx: typer.Context,
    keyfile: Annotated[Path, typer.Argument(metavar="KEYFILE", help="Private key that asks for the roles.")],
    zone: Annotated[str, typer.Option("--zone", metavar="PREFIX", help='Zone the key is for; "" is the root.')],
    roles: Annotated[list[Role], typer.Option("--role", help="What the key is to sign; repeat for several.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write. [default: KEYFILE.enrol.json]")
    ] = None,
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prove possession of a key: a file for the parent, who puts the key into the zone's delegation.

    Example: idtrace key enrol record.key --zone 88.118.8 --role record
    """
    del as_json
    output = output_of(ctx)
    prefix = Prefix.parse(zone, field="--zone")
    signer = signer_of(keyfile, passphrase_env, prompt=passphrase_prompt)
    wanted = sorted(set(roles))
    target = out or Path(f"{keyfile}.enrol.json")
    write_signed(target, [prove_possession(signer, prefix, role) for role in wanted])
    output.document({"file": str(target), "zone": str(prefix), "roles": wanted, **_json(signer.public_key)})
    output.show(
        pairs(
            [
                ("enrolment", str(target)),
                ("zone", str(prefix) or "the root"),
                ("roles", ", ".join(wanted)),
                ("key id", signer.public_key.key_id),
            ]
        )
    )
    output.note("Send the enrolment file to the parent; the private key stays here.")


app.command()(rotate.rotate)
app.command()(rotate.revoke)
app.command()(root.root_next)
app.command()(root.root_sign)
app.command()(root.root_update)


def _json(key: PublicKey, log: str = "") -> dict[str, str]:
    named = {"vkey": _vkey(key, log)} if log else {}
    return {"key_id": key.key_id, "algorithm": str(key.algorithm), "key": str(key)} | named


def _table(key: PublicKey, log: str = "") -> Table:
    return pairs([("key id", key.key_id), ("key", str(key)), *([("vkey", _vkey(key, log))] if log else [])])


def _vkey(key: PublicKey, log: str) -> str:
    """The key under a log's name, as a policy's ``log`` line has it (C2SP signed-note)."""
    return str(NoteKey.of(log, key.raw, field="--log"))

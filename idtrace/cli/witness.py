"""``idtrace witness``: make a witness's key, and run a witness for the logs of others."""

from __future__ import annotations

import asyncio
import secrets
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from idtrace.cli.node import _configure_logs, _loop_factory, _ready, _toml, _until_told
from idtrace.cli.options import JsonOption, output_of
from idtrace.cli.output import pairs
from idtrace.errors import InputError, Reason
from idtrace.note import KeyType, NoteSigner, private_text

# The one way in which key files are written: for their owner alone, never over another file, and durably.
from idtrace.serving.keyfile import _create

app = typer.Typer(help="Watch the logs of others: cosign what only ever grows.", no_args_is_help=True)


class Algorithm(StrEnum):
    """What a witness signs with."""

    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"


_TYPES = {
    Algorithm.ED25519: KeyType.COSIGNATURE_ED25519,
    Algorithm.ML_DSA_44: KeyType.COSIGNATURE_ML_DSA_44,
}


@app.command()
def key(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Private key to create; FILE.pub gets the public one.")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Who cosigns, as a URL without scheme: example.com/witness.")
    ],
    algorithm: Annotated[Algorithm, typer.Option("--algorithm", help="Signature algorithm.")] = Algorithm.ED25519,
    as_json: JsonOption = False,
) -> None:
    """Make a witness's key: FILE for its owner alone (mode 0600), FILE.pub with the line for policies of others.

    Example: idtrace witness key witness.key --name example.com/witness
    """
    del as_json
    output = output_of(ctx)
    public_file = Path(f"{file}.pub")
    if public_file.exists():
        raise InputError(Reason.FIELD_MALFORMED, "the file exists and is not overwritten", field=str(public_file))
    seed = secrets.token_bytes(32)
    public = NoteSigner.from_seed(name, seed, _TYPES[algorithm], field="--name").key
    _create(file, f"{private_text(public, seed)}\n".encode(), 0o600)
    _create(public_file, f"{public}\n".encode(), 0o644)
    output.document({"private": str(file), "public": str(public_file), "name": name, "vkey": str(public)})
    output.show(
        pairs(
            [
                ("private key", f"{file} (mode 0600, NOT encrypted: guard the file)"),
                ("public key", str(public_file)),
                ("vkey", str(public)),
            ]
        )
    )


@app.command()
def run(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE.toml", help="Configuration; paths are relative to it.")
    ],
) -> None:
    """Run a witness until SIGTERM or Ctrl-C. Prints "ready HOST:PORT" on stdout once it answers.

    The configuration has listen, state (a file), logs (a policy file with log lines) and keys (files).

    Example: idtrace witness run --config witness.toml
    """
    import registry.witness_config
    import registry.witness_server

    parsed = registry.witness_config.WitnessConfig.parse(_toml(config), config.resolve().parent)
    _configure_logs(parsed.log_level)

    async def start(stop: asyncio.Event) -> None:
        await registry.witness_server.run(parsed, lambda: int(time.time()), stop=stop, on_ready=_ready)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_until_told(start))

"""``idtrace witness``: make a witness's key, and run a witness for the logs of others."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from idtrace.checkpoint import Checkpoint
from idtrace.cli.options import JsonOption, output_of
from idtrace.cli.output import listing, pairs, plain
from idtrace.cli.running import log_from, read_toml, run_until_told, say_ready
from idtrace.errors import InputError, Reason
from idtrace.note import KeyType, NoteSigner, private_text
from idtrace.serving.keyfile import create_file

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
    create_file(file, f"{private_text(public, seed)}\n".encode(), 0o600)
    create_file(public_file, f"{public}\n".encode(), 0o644)
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

    parsed = registry.witness_config.WitnessConfig.parse(read_toml(config), config.resolve().parent)
    log_from(parsed.log_level)

    async def start(stop: asyncio.Event) -> None:
        await registry.witness_server.run(parsed, lambda: int(time.time()), stop=stop, on_ready=say_ready)

    run_until_told(start)


@app.command()
def evidence(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option("--config", metavar="FILE.toml", help="Configuration of the witness.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write each pair of checkpoints into this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the forks that this witness has seen: pairs of checkpoints of one size, both signed by the log.

    Each checkpoint is a signed note (C2SP), so that anybody can check it with the log's public key alone. Files that
    are there already are left as they are. Works beside a witness that runs.

    Example: idtrace witness evidence --config witness.toml --out evidence
    """
    del as_json
    import registry.witness_config
    import registry.witness_server

    parsed = registry.witness_config.WitnessConfig.parse(read_toml(config), config.resolve().parent)
    found = registry.witness_server.kept_evidence(parsed)
    output = output_of(ctx)
    described = []
    table = listing("log", "size", "root cosigned", "root refused", "seen at")
    for one in found:
        said, other = Checkpoint.parse(one.cosigned.text), Checkpoint.parse(one.refused.text)
        names = [f"fork-{one.digest.hex()[:16]}-{which}.note" for which in ("cosigned", "refused")] if out else []
        for name, note in zip(names, (one.cosigned, one.refused), strict=False):
            _export(out, name, note.encode())
        seen_at = datetime.fromtimestamp(one.seen_at, UTC).isoformat()
        roots = (said.root.hex(), other.root.hex())
        table.add_row(plain(one.origin), str(other.size), *(root[:16] for root in roots), seen_at)
        body = {"log": one.origin, "size": other.size, "cosigned_root": roots[0], "refused_root": roots[1]}
        notes = {"cosigned": one.cosigned.encode().decode(), "refused": one.refused.encode().decode()}
        described.append(body | {"seen_at": seen_at} | notes | {"files": names})
    output.document({"evidence": described})
    output.show(table if found else "no log has forked")


def _export(folder: Path | None, name: str, data: bytes) -> None:
    assert folder is not None, "files have names where there is a folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        detail = f"the folder cannot be made: {error.strerror}"
        raise InputError(Reason.FIELD_MALFORMED, detail, field="--out") from None
    if not (folder / name).exists():
        create_file(folder / name, data, 0o644)

"""``idtrace key root-…``: the pinned root keys are followed by others, each version signed by the last and itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from idtrace.bundle import signed_from_fields, signed_to_json
from idtrace.cli.files import read_form, replace_file, write_signed
from idtrace.cli.options import (
    JsonOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    RootOption,
    now,
    output_of,
    roots_of,
    signer_of,
)
from idtrace.cli.output import Output, pairs
from idtrace.cli.show import utc
from idtrace.errors import InputError, Reason, VerificationError
from idtrace.rootkeys import THRESHOLD_MAX, RootKeys, RootVersion, missing_signatures, next_root
from idtrace.serving.keyfile import load_public_keys
from idtrace.serving.rootfile import load_root_keys, root_file
from idtrace.signature import Kind, Signed, Signer, sign

UpdateArgument = Annotated[Path, typer.Argument(metavar="UPDATE", help="File of idtrace key root-next.")]
_DRAFT_FORMAT = "idtrace-root-draft/v1"


def root_next(
    ctx: typer.Context,
    root: RootOption,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Draft to write, for the holders of keys to sign.")
    ],
    add: Annotated[
        list[Path] | None, typer.Option("--add", metavar="NEW.pub", help="Public keys to add; repeatable.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="KEY_ID", help="Key to take out; repeatable.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", min=1, max=THRESHOLD_MAX, help="Keys that have to sign together.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the next version of the root's keys, unsigned. First add the new keys; drop the old in a later version.

    Example: idtrace key root-next --root root.pub --add new.key.pub --out root-2.json

    So that nobody is refused on the way: (1) a version that adds the new key goes to all who pin the root, verifiers
    first, and nodes and resolvers start again; (2) the root's own key set is signed by the new key (idtrace delegate
    --root-zone), nodes take it over within their refresh_seconds, and resolvers start again; (3) only then the version
    that drops the old key is written, since from its date on the old key is no longer believed: nodes and resolvers
    start again with it, and verifiers follow. A stolen root key is dropped at once, and (2) comes after (3), with
    --former.
    """
    del as_json
    output = output_of(ctx)
    keys = load_root_keys(root)
    added = [key for file in add or () for key in load_public_keys(file)]
    body = next_root(keys.latest, add=added, drop=drop or (), threshold=threshold, now=now())
    signed = Signed(Kind.ROOT_KEYS.payload_type, body.payload(), ())
    _write_draft(out, signed)
    _show(output, keys.latest, body, signed, out)
    output.note(f"Each holder signs it: idtrace key root-sign {out} --root {root} --key FILE")


def root_sign(
    ctx: typer.Context,
    draft: UpdateArgument,
    root: RootOption,
    keys: Annotated[list[Path], typer.Option("--key", "-k", metavar="FILE", help="Root key, old or new; repeatable.")],
    passphrase_env: PassphraseEnvOption = None,
    passphrase_prompt: PassphrasePromptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sign the next version of the root's keys, offline, and show what is signed. UPDATE is written again.

    Example: idtrace key root-sign root-2.json --root root.pub --key root.key
    """
    del as_json
    output = output_of(ctx)
    latest = load_root_keys(root).latest
    signed = _read_draft(draft)
    body = RootVersion.parse(signed.payload, field=str(draft))
    if body.version != latest.version + 1 or body.previous != latest.hash:
        detail = f"version {body.version} does not follow version {latest.version}, which {root} pins"
        raise VerificationError(Reason.ROOT_MISMATCH, detail, field=str(draft))
    for key in keys:
        signed = _signed_once_more(signed, signer_of(key, passphrase_env, prompt=passphrase_prompt), latest, body)
    old, new = missing_signatures(latest, body, signed)
    if old or new:
        _write_draft(draft, signed)
    else:
        RootKeys((latest,)).updated(signed, now=now())  # the signatures of others are checked before it goes out
        write_signed(draft, [signed])
    _show(output, latest, body, signed, draft)


def root_update(
    ctx: typer.Context,
    root: RootOption,
    updates: Annotated[
        list[Path], typer.Option("--update", metavar="FILE", help="Signed updates, in order; repeatable.")
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File to write. [default: --root]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the root's keys to their newest version, and pin that: nothing is written unless every update verifies.

    Example: idtrace key root-update --root root.pub --update root-2.json

    Nodes and resolvers read the file at their start; proofs of earlier years verify with --at a time of theirs.
    """
    del as_json
    output = output_of(ctx)
    before = load_root_keys(root)
    after = roots_of(root, updates)
    target = out or root
    replace_file(target, root_file(after))
    output.document({"file": str(target), "from_version": before.latest.version, **_json(after.latest)})
    rows: list[tuple[str, RenderableType]] = [
        ("pinned in", str(target)),
        ("version", f"{after.latest.version} (was {before.latest.version})"),
        ("in force since", utc(after.latest.issued_at)),
        ("keys", f"{after.latest.threshold} of {len(after.latest.keys)} have to sign"),
    ]
    rows += [("key", key.key_id) for key in after.latest.keys]
    output.show(pairs(rows))
    output.note("Nodes and resolvers take it over when they start again.")


def _signed_once_more(signed: Signed, signer: Signer, latest: RootVersion, body: RootVersion) -> Signed:
    key_id = signer.public_key.key_id
    if key_id not in {key.key_id for key in (*latest.keys, *body.keys)}:
        detail = f"key {key_id} stands in neither version; its signature would make the update void"
        raise VerificationError(Reason.SIGNER_UNKNOWN, detail, field="--key")
    if any(signature.key_id == key_id for signature in signed.signatures):
        raise InputError(Reason.FIELD_MALFORMED, f"key {key_id} has signed it already", field="--key")
    made = sign(Kind.ROOT_KEYS, signed.payload, signer)
    return Signed(signed.payload_type, signed.payload, (*signed.signatures, *made.signatures))


def _write_draft(path: Path, signed: Signed) -> None:
    body = {"format": _DRAFT_FORMAT, "draft": signed_to_json(signed)}
    replace_file(path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode())


def _read_draft(path: Path) -> Signed:
    otherwise = "this is not a draft that lacks signatures; make one with: idtrace key root-next"
    fields = read_form(path, _DRAFT_FORMAT, otherwise)
    signed = signed_from_fields(fields.object("draft"))
    fields.end()
    return signed


def _json(body: RootVersion) -> dict[str, object]:
    return {
        "version": body.version,
        "threshold": body.threshold,
        "keys": [str(key) for key in body.keys],
        "issued_at": body.issued_at,
        "hash": body.hash.hex(),
    }


def _show(output: Output, latest: RootVersion, body: RootVersion, signed: Signed, file: Path) -> None:
    old, new = missing_signatures(latest, body, signed)
    output.document({"file": str(file), **_json(body), "missing": {"of_the_old": old, "of_the_new": new}})
    held = {key.key_id for key in latest.keys}
    kept = {key.key_id for key in body.keys}
    rows: list[tuple[str, RenderableType]] = [
        ("root keys", f"version {body.version}, after version {latest.version}"),
        ("issued", utc(body.issued_at)),
        ("threshold", f"{body.threshold} of {len(body.keys)} (was {latest.threshold} of {len(latest.keys)})"),
    ]
    rows += [("key" if key.key_id in held else "added key", key.key_id) for key in body.keys]
    rows += [("dropped key", key.key_id) for key in latest.keys if key.key_id not in kept]
    rows += [("signed by", signature.key_id) for signature in signed.signatures]
    lacks = [f"{old} of the old keys"] * bool(old) + [f"{new} of the new keys"] * bool(new)
    rows.append(("still lacks", " and ".join(lacks)) if lacks else ("complete", "bring it to all who pin the root"))
    output.show(pairs(rows))

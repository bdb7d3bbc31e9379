"""Options that commands share, each spelled and explained once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from idtrace.chain import Anchor
from idtrace.cli.files import read_signed
from idtrace.cli.output import Output
from idtrace.delegation import check_endpoint
from idtrace.errors import InputError, Reason
from idtrace.rootkeys import RootKeys
from idtrace.serving.keyfile import load_signer
from idtrace.serving.rootfile import load_root_keys
from idtrace.signature import Kind, MemorySigner

# A batch of 2,000 records is verified in half a second; a node cuts any deadline at 30 s.
TIMEOUT_SECONDS: float = 10.0


def output_of(ctx: typer.Context) -> Output:
    """The command's output, made when the program began."""
    output = ctx.find_root().obj
    assert isinstance(output, Output), "the app begins with begin()"
    return output


def _set_json(ctx: typer.Context, value: bool) -> bool:
    root = ctx.find_root()
    root.obj = root.obj or Output()
    root.obj.as_json = root.obj.as_json or value
    return value


def _endpoint(value: Any) -> str | None:
    if value is None:
        return None
    address = str(value).lower()
    try:
        check_endpoint(address)
    except InputError as error:
        raise typer.BadParameter(error.detail) from None
    return address


JsonOption = Annotated[
    bool, typer.Option("--json", callback=_set_json, is_eager=True, help="Print JSON on stdout and nothing else there.")
]
KeyOption = Annotated[
    Path, typer.Option("--key", "-k", metavar="FILE", envvar="IDTRACE_KEY", help="Private key that signs.")
]
NodeOption = Annotated[
    str,
    typer.Option(
        "--node", "-n", metavar="HOST:PORT", envvar="IDTRACE_NODE", callback=_endpoint, help="Registry node to talk to."
    ),
]
OptionalNodeOption = Annotated[
    str | None,
    typer.Option(
        "--node", "-n", metavar="HOST:PORT", envvar="IDTRACE_NODE", callback=_endpoint, help="Registry node to talk to."
    ),
]
ResolverOption = Annotated[
    str,
    typer.Option(
        "--resolver",
        "-r",
        metavar="HOST:PORT",
        envvar="IDTRACE_RESOLVER",
        callback=_endpoint,
        help="Resolver to ask. It is not trusted: its proof is verified here.",
    ),
]
OptionalResolverOption = Annotated[
    str | None,
    typer.Option(
        "--resolver", "-r", metavar="HOST:PORT", envvar="IDTRACE_RESOLVER", callback=_endpoint, help="Resolver to ask."
    ),
]
RootOption = Annotated[
    Path,
    typer.Option("--root", metavar="ROOT.pub", envvar="IDTRACE_ROOT", help="Pinned root key: all that is trusted."),
]
RootUpdateOption = Annotated[
    list[Path] | None,
    typer.Option("--root-update", metavar="FILE", help="Signed updates of the pinned root keys, in order; repeatable."),
]
OptionalRootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="ROOT.pub", envvar="IDTRACE_ROOT", help="Pinned root key to verify answers against."
    ),
]
WitnessedOption = Annotated[
    bool,
    typer.Option(
        "--witnessed",
        help="Wait for the witnesses of the log. Where they do not come in time it is durable all the same, a warning "
        "says so, and the exit code is 0.",
    ),
]
PassphraseEnvOption = Annotated[
    str | None, typer.Option("--passphrase-env", metavar="VAR", help="Environment variable that holds the passphrase.")
]
PassphrasePromptOption = Annotated[bool, typer.Option("--passphrase-prompt", help="Ask for the passphrase.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=30.0, help="Longest wait for one answer.")
]


def now() -> int:
    """Wall clock, whole seconds: the one place where the command line reads it."""
    return int(time.time())


def anchor_of(root: Path) -> Anchor:
    """The root keys that a file pins, as they are now.

    Raises:
        InputError: as :func:`load_root_keys`.
    """
    return load_root_keys(root).anchor


def roots_of(root: Path, updates: Sequence[Path] | None = None) -> RootKeys:
    """The root keys that a file pins, and those that signed updates have put in their place.

    Raises:
        InputError: as :func:`load_root_keys` and :func:`read_signed`.
        VerificationError: an update does not follow.
    """
    signed = [one for file in updates or () for one in read_signed(file, Kind.ROOT_KEYS)]
    return load_root_keys(root).updated_by(signed, now=now())


def signer_of(key: Path, env: str | None = None, *, prompt: bool = False) -> MemorySigner:
    """Open a key file; an encrypted one asks for its passphrase at a terminal even where no option says so.

    Raises:
        InputError: as :func:`load_signer`.
    """
    return load_signer(key, passphrase_source(env, prompt=prompt or sys.stdin.isatty(), what=f"Passphrase of {key}"))


def passphrase_source(
    env: str | None, *, prompt: bool, what: str = "Passphrase", twice: bool = False
) -> Callable[[], bytes] | None:
    """Where a passphrase comes from: a variable, the keyboard, or nowhere (None).

    Raises:
        InputError: FIELD_MISSING (when called) where the variable is not set or empty.
    """

    def from_env() -> bytes:
        text = os.environ.get(env or "", "")
        if not text:
            raise InputError(Reason.FIELD_MISSING, f"the variable {env} is not set", field="--passphrase-env")
        return text.encode()

    def from_keyboard() -> bytes:
        text: str = typer.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
        return text.encode()

    if env is not None:
        return from_env
    return from_keyboard if prompt else None

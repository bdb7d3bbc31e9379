"""Options that commands which sign have in common, each group as one value.

A command takes a group as one parameter and is wrapped by :func:`grouped`; typer then sees every field as an option of
its own, in the place of that parameter::

    @grouped
    def rotate(ctx: typer.Context, zone: ZoneOption, by: DelegationSigning) -> None: ...
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from idtrace.chain import Anchor
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    KeyOption,
    NodeOption,
    OptionalNodeOption,
    OptionalRootOption,
    PassphraseEnvOption,
    PassphrasePromptOption,
    RootUpdateOption,
    TimeoutOption,
    roots_of,
    signer_of,
)
from idtrace.serving.keyfile import load_public_keys
from idtrace.signature import MemorySigner, PublicKey

ParentKeysOption = Annotated[
    list[Path] | None,
    typer.Option("--key", "-k", metavar="FILE", help="Zone key of the parent; several for a threshold."),
]
DraftOption = Annotated[
    Path | None, typer.Option("--draft", metavar="FILE", help="Write a draft for several to sign; nothing is sent.")
]
CurrentOption = Annotated[
    Path | None, typer.Option("--current", metavar="FILE", help="Current version, when signing without a node.")
]
FormerOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--former",
        metavar="OLD.pub",
        help="Believe a current version by this key that no longer counts, such as a stolen one: look at what it says.",
    ),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File to keep the signed delegation in.")]


@dataclass(frozen=True, slots=True)
class Pins:
    """What a current version is believed by: the pinned root keys, and keys that no longer count but have signed it."""

    anchor: Anchor | None = None
    former: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class DelegationSigning:
    """Who signs the next version of a delegation, what it rests on, and where it goes."""

    keys: ParentKeysOption = None
    node: OptionalNodeOption = None
    current: CurrentOption = None
    former: FormerOption = None
    out: OutOption = None
    draft: DraftOption = None
    root: OptionalRootOption = None
    root_update: RootUpdateOption = None
    passphrase_env: PassphraseEnvOption = None
    passphrase_prompt: PassphrasePromptOption = False
    timeout: TimeoutOption = TIMEOUT_SECONDS
    as_json: JsonOption = False

    def signers(self) -> tuple[MemorySigner, ...]:
        """The keys that sign, opened; passphrases are asked for.

        Raises:
            InputError: as :func:`signer_of`.
        """
        return tuple(signer_of(key, self.passphrase_env, prompt=self.passphrase_prompt) for key in self.keys or ())

    def pins(self) -> Pins:
        """What the current version is believed by.

        Raises:
            InputError, VerificationError: as :func:`pinned` and :func:`load_public_keys`.
        """
        former = tuple(key for file in self.former or () for key in load_public_keys(file))
        return Pins(pinned(self.root, self.root_update), former)


@dataclass(frozen=True, slots=True)
class RecordSigning:
    """Who signs the next version of a record, at which node, and what the node's answers are verified against."""

    key: KeyOption
    node: NodeOption
    root: OptionalRootOption = None
    root_update: RootUpdateOption = None
    passphrase_env: PassphraseEnvOption = None
    passphrase_prompt: PassphrasePromptOption = False
    timeout: TimeoutOption = TIMEOUT_SECONDS
    as_json: JsonOption = False

    def signer(self) -> MemorySigner:
        """The key that signs, opened; a passphrase is asked for.

        Raises:
            InputError: as :func:`signer_of`.
        """
        return signer_of(self.key, self.passphrase_env, prompt=self.passphrase_prompt)

    def anchor(self) -> Anchor | None:
        """The root keys that answers are verified against; None where nobody has named any.

        Raises:
            InputError, VerificationError: as :func:`pinned`.
        """
        return pinned(self.root, self.root_update)


def pinned(root: Path | None, updates: list[Path] | None) -> Anchor | None:
    """The root keys that a file pins and updates have changed; None where no file is named.

    Raises:
        typer.BadParameter: updates without what they update.
        InputError, VerificationError: as :func:`roots_of`.
    """
    if root is None:
        if updates:
            raise typer.BadParameter("name what they update: --root", param_hint="--root-update")
        return None
    return roots_of(root, updates).anchor


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each field of its groups as an option; groups are parameters whose type is a dataclass."""
    own = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in own.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }
    parameters = [
        one
        for name, parameter in own.parameters.items()
        for one in (_fields(groups[name]) if name in groups else [_keyword(parameter)])
    ]

    @wraps(command)
    def ungrouped(**given: Any) -> None:
        made = {
            name: group(**{f.name: given.pop(f.name) for f in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    ungrouped.__dict__["__signature__"] = own.replace(parameters=parameters)
    return ungrouped


def _fields(group: Any) -> list[inspect.Parameter]:
    kinds = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=kinds[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    """By keyword, as typer calls: so that an option without a default may stand behind one that has one."""
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)

"""``idtrace scan``: what a scanned code says, on this machine alone or resolved as well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from idtrace.cli.client import Node, connect
from idtrace.cli.exits import ExitCode, gravest, local_code
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    OptionalResolverOption,
    OptionalRootOption,
    TimeoutOption,
    anchor_of,
    output_of,
)
from idtrace.cli.output import Output, failure_of, pairs, plain
from idtrace.cli.resolve import resolve_all
from idtrace.errors import InputError
from idtrace.scan import TEXT_CHARS_MAX, Scanned
from idtrace.scan import scan as read_code

# A wedge scanner types FNC1 as the control character or, where it cannot, as one of these marks of its manual.
_LINE_CHARS_MAX: Final = TEXT_CHARS_MAX + 2


def scan(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='Code as scanned; "-" reads a code a line, as a wedge scanner types.')],
    resolver: OptionalResolverOption = None,
    root: OptionalRootOption = None,
    timeout: TimeoutOption = TIMEOUT_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Read a code: native identifier, GS1 element string or Digital Link, EPC, or China drug trace code.

    Example: idtrace scan '(01)09506000134352(21)SN-1'

    With --resolver and --root every code is also resolved and verified. With "-" each code is answered as it comes.
    """
    del as_json
    output = output_of(ctx)
    if resolver is None:
        raise typer.Exit(_each(output, text, None, None))
    if root is None:
        raise typer.BadParameter("an answer is verified: name the root key", param_hint="--root")
    anchor = anchor_of(root)
    with connect(resolver, timeout) as node:
        raise typer.Exit(_each(output, text, node, anchor))

"""``idtrace scan``: what a scanned code says, on this machine alone or resolved as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeAlias

import typer

from idtrace.cli import resolve as resolving
from idtrace.cli.client import connect
from idtrace.cli.exits import ExitCode, gravest, local_code
from idtrace.cli.options import (
    TIMEOUT_SECONDS,
    JsonOption,
    OptionalResolverOption,
    OptionalRootOption,
    RootUpdateOption,
    TimeoutOption,
    output_of,
    roots_of,
)
from idtrace.cli.output import Output, failure_of, pairs, plain
from idtrace.cli.remembering import RememberedLogOption, RememberOption, remembering
from idtrace.errors import IdtraceError, InputError
from idtrace.scan import TEXT_CHARS_MAX, Scanned
from idtrace.scan import scan as read_code

# Four bytes a character at most, and CR LF; what is longer is cut into refusals, never kept in memory.
LINE_BYTES_MAX: Final = 4 * TEXT_CHARS_MAX + 2

Resolved: TypeAlias = resolving.Resolution | tuple[str, IdtraceError]


def scan(
    ctx: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help='Code as scanned; "-" reads a code a line, as a wedge scanner types.')
    ],
    resolver: OptionalResolverOption = None,
    root: OptionalRootOption = None,
    root_update: RootUpdateOption = None,
    remember: RememberOption = None,
    log: RememberedLogOption = None,
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
        if remember is not None or log:
            raise typer.BadParameter("an answer is remembered: name a resolver", param_hint="--remember")
        raise typer.Exit(_scan_all(output, text, None))
    if root is None:
        raise typer.BadParameter("an answer is verified: name the root key", param_hint="--root")
    anchor = roots_of(root, root_update).anchor
    with connect(resolver, timeout) as node, remembering(output, remember, log, anchor, timeout) as memories:

        def resolve(code: str) -> Resolved:
            (answer,) = resolving.resolve_all(node, [code], anchor)
            return resolving.remembered(answer, memories)

        raise typer.Exit(_scan_all(output, text, resolve))


def _scan_all(output: Output, text: str, resolve: Callable[[str], Resolved] | None) -> ExitCode:
    if text != "-":
        code, body = _scan_one(output, text, resolve)
        output.document(body)
        return code
    codes = {ExitCode.OK}
    for line in _lines():
        code, body = _scan_one(output, line, resolve)
        output.line(body)
        sys.stdout.flush()
        codes.add(code)
    return gravest(codes)


def _scan_one(output: Output, text: str, resolve: Callable[[str], Resolved] | None) -> tuple[ExitCode, dict[str, Any]]:
    try:
        scanned = read_code(text)
    except InputError as error:
        if not output.as_json:
            output.failure(failure_of(error))
        return local_code(error), resolving.as_json_body((text, error))
    body = {
        "text": text,
        "identifier": str(scanned.identifier),
        "scheme": scanned.scheme,
        "form": scanned.form,
        "attributes": dict(scanned.attributes),
    }
    output.show(_table(scanned))
    if resolve is None:
        return ExitCode.OK, body
    result = resolve(text)
    resolving.show(output, result)
    return resolving.code_of(result), {**body, "resolution": resolving.as_json_body(result)}


def _table(scanned: Scanned) -> Any:
    claims = ", ".join(f"({ai}) {value}" for ai, value in scanned.attributes)
    rows = [
        ("identifier", plain(str(scanned.identifier))),
        ("scheme", f"{scanned.scheme}, written as {scanned.form}"),
        ("label also says", plain(claims)),
    ]
    return pairs([row for row in rows if row[1]])


def _lines() -> Iterator[str]:
    """Codes from standard input without their line ends; empty lines are skipped."""
    while line := sys.stdin.buffer.readline(LINE_BYTES_MAX):
        text = line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
        if text:
            yield text

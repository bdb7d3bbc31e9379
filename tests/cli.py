"""The command line as a user meets it: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from idtrace.cli.app import app
from idtrace.serving.keyfile import write_private_key, write_public_key
from tests.core_fixtures import public, signer


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which has to be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Stdout, which has to be JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def said(self) -> str:
        """All that a person reads, in one line."""
        return " ".join((self.out + " " + self.err).split())


def idtrace(
    *arguments: object, env: Mapping[str, str] | None = None, typed: bytes | str | None = None, columns: int = 160
) -> Ran:
    """Run one command in this process."""
    settings = dict.fromkeys(("IDTRACE_NODE", "IDTRACE_RESOLVER", "IDTRACE_ROOT", "IDTRACE_KEY"))
    result = CliRunner().invoke(
        app,
        [str(argument) for argument in arguments],
        env={**settings, "COLUMNS": str(columns), "NO_COLOR": "1", **(env or {})},
        input=typed,
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def key_file(folder: Path, name: str) -> Path:
    """The key of this name (tests/core_fixtures.py) as FILE and FILE.pub."""
    path = folder / f"{name.replace(' ', '-')}.key"
    if not path.exists():
        write_private_key(path, signer(name)._private, None)
        write_public_key(Path(f"{path}.pub"), [public(name)])
    return path

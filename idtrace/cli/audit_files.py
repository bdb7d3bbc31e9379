"""What an auditor has been given: bundles that somebody saved, and files of signed statements."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from idtrace.auditing.auditor import Saved
from idtrace.auditing.evidence import Chained
from idtrace.bundle import JSON_FORMAT, Bundle, Denied
from idtrace.cli.files import SIGNED_FORMAT, read_bundle, read_file, read_signed
from idtrace.delegation import Delegation
from idtrace.errors import InputError, Reason
from idtrace.signature import Kind, Signed
from idtrace.statements import Currency, Denial


def read_saved(paths: Iterable[Path]) -> tuple[Saved, ...]:
    """Everything in these files that a log can be held to; a bundle brings the chain of its time.

    Raises:
        InputError: a file is neither a bundle nor currency statements nor denials, or malformed.
    """
    found: list[Saved] = []
    for path in paths:
        if _is_signed_file(path):
            found += (Saved(f"{path}, {n}", one) for n, one in enumerate(_statements(path), start=1))
        else:
            found.append(_of_bundle(str(path), read_bundle(path)))
    return tuple(found)


def _is_signed_file(path: Path) -> bool:
    head = read_file(path)[:200]
    return SIGNED_FORMAT.encode() in head and JSON_FORMAT.encode() not in head


def _statements(path: Path) -> tuple[Signed, ...]:
    try:
        return read_signed(path, Kind.CURRENCY)
    except InputError as error:
        if error.reason is not Reason.PAYLOAD_TYPE_UNKNOWN:
            raise
    return read_signed(path, Kind.DENIAL)


def _of_bundle(place: str, bundle: Bundle) -> Saved:
    statement = bundle.outcome.signed if isinstance(bundle.outcome, Denied) else bundle.currency
    return Saved(
        place,
        statement,
        bundle.proof.checkpoint if bundle.proof else b"",
        Chained(_when(bundle, statement), bundle.delegations),
    )


def _when(bundle: Bundle, statement: Signed | None) -> int:
    """A time at which its chain has to hold: when the statement was signed, or from when on all its links count."""
    if statement is not None:
        said = Denial if isinstance(bundle.outcome, Denied) else Currency
        return said.parse(statement.payload).issued_at
    return max((Delegation.parse(link.payload).not_before for link in bundle.delegations), default=0)

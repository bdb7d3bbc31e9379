"""A saved verdict speaks of its own time, and only for whoever signed it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from idtrace.cli.judge import AGE_SECONDS_MAX, cautions

NOW = 1_780_000_000


def report(until_ms: int = 0) -> Any:
    return cast("Any", SimpleNamespace(body=SimpleNamespace(now_ms=NOW * 1000, until_ms=until_ms)))


@pytest.mark.parametrize(
    ("signed", "then", "after", "until_ms", "count"),
    [
        (True, False, 0, 0, 0),
        (False, False, 0, 0, 1),
        (True, False, AGE_SECONDS_MAX, 0, 0),
        (True, False, AGE_SECONDS_MAX + 1, 0, 1),
        (True, False, -AGE_SECONDS_MAX - 1, 0, 1),
        (True, True, AGE_SECONDS_MAX + 1, 0, 0),
        (True, False, 1, (NOW + 1) * 1000, 1),
        (True, False, 1, (NOW + 1) * 1000 + 1, 0),
        (False, True, 10**9, 1, 1),
        (False, False, 10**9, 1, 2),
    ],
)
def test_a_saved_verdict_is_leave_for_its_own_time_and_by_whom_it_is_signed(
    signed: bool, then: bool, after: int, until_ms: int, count: int
) -> None:
    assert len(cautions(report(until_ms), signed=signed, then=then, at=NOW + after)) == count

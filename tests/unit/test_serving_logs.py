"""What a node logs: a failure with its traceback, and nothing of what its variables held."""

from __future__ import annotations

import io
import sys

import pytest
import structlog

from idtrace.serving.logs import configure_logs


class Screen(io.StringIO):
    """Standard error as a person sees it, or as a collector reads it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def fail(restricted: str) -> None:
    raise ValueError(len(restricted))


SCREENS = 2


@pytest.mark.parametrize("terminal", [True, False])
def test_a_traceback_shows_where_and_not_what_was_in_the_variables(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    configure_logs()
    try:
        restricted = f"price-agreed-{SCREENS * 600}"
        try:
            fail(restricted)
        except ValueError:
            structlog.get_logger().exception("failed")
    finally:
        structlog.reset_defaults()
    assert "test_serving_logs.py" in screen.getvalue()
    assert "price-agreed-1200" not in screen.getvalue()

"""What holds for every test."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

# A busy machine is not a slow program: what must be fast is measured where it matters, never by one example.
hypothesis.settings.register_profile("idtrace", deadline=None)
hypothesis.settings.load_profile("idtrace")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, Any]:
    """Reports travel between test processes as UTF-8, which a failure that quotes half a surrogate pair is not."""
    return _encodable((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured (``record_property``), for whoever reads the end of the run."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                for name, measured in report.user_properties:
                    terminalreporter.write_line(f"{name}: {measured}")


def _encodable(data: Any) -> Any:
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(data, dict):
        return {key: _encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_encodable(value) for value in data)
    return data

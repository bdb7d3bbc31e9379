"""A page of metrics beside a continuous audit, in Prometheus' text format, served from a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from idtrace.audit import Grade
from idtrace.auditing.findings import LogReport
from idtrace.serving.http import application, serve_http

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_START_SECONDS: Final = 10.0


class AuditMetrics:
    """The figures of the last audit of each log, and how many audits there were. Written by one thread."""

    def __init__(self) -> None:
        self._page = b""
        self._runs = 0
        self._entries: dict[str, int] = {}

    def take(self, reports: Sequence[LogReport], now: int) -> None:
        """Make the page anew after an audit at a time (s)."""
        self._runs += 1
        lines = ["# TYPE idtrace_audit_runs_total counter", f"idtrace_audit_runs_total {self._runs}"]
        lines += ["# TYPE idtrace_audit_last_run_seconds gauge", f"idtrace_audit_last_run_seconds {now}"]
        for name, kind, values in self._families(reports):
            lines.append(f"# TYPE {name} {kind}")
            lines += (f"{name}{{{labels}}} {value}" for labels, value in values)
        self._page = ("\n".join(lines) + "\n").encode()

    def _families(self, reports: Sequence[LogReport]) -> list[tuple[str, str, list[tuple[str, float]]]]:
        for report in reports:
            self._entries[report.url] = self._entries.get(report.url, 0) + report.entries
        labels = [(f'url="{_label(one.url)}",origin="{_label(one.origin)}"', one) for one in reports]
        found = [
            (f'{label},grade="{grade}"', float(sum(notice.grade is grade for notice in report.notices)))
            for label, report in labels
            for grade in Grade
        ]
        return [
            ("idtrace_audit_outcome", "gauge", [(label, float(report.outcome)) for label, report in labels]),
            ("idtrace_audit_log_size", "gauge", [(label, float(report.size)) for label, report in labels]),
            ("idtrace_audit_duration_seconds", "gauge", [(label, report.seconds) for label, report in labels]),
            ("idtrace_audit_findings", "gauge", found),
            (
                "idtrace_audit_entries_total",
                "counter",
                [(label, float(self._entries[report.url])) for label, report in labels],
            ),
        ]

    @contextmanager
    def served(self, listen: str) -> Iterator[str]:
        """Serve the page at /metrics on host:port; yields the host:port that was bound.

        Raises:
            InputError: FIELD_MALFORMED where the address cannot be listened on.
        """
        bound: list[str] = []
        failed: list[BaseException] = []
        known, ends = threading.Event(), threading.Event()
        handles: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

        async def page(_request: Request) -> Response:
            return Response(self._page, media_type=_TYPE)

        def ready(address: str) -> None:
            bound.append(address)
            known.set()

        async def serve() -> None:
            stop = asyncio.Event()
            handles.append((asyncio.get_running_loop(), stop))
            app = application([Route("/metrics", page, methods=["GET"])])
            await serve_http(app, listen, stop=stop, on_ready=ready)

        def work() -> None:
            try:
                asyncio.run(serve())
            except Exception as error:  # noqa: BLE001 - it belongs to the thread that waits, which raises it
                failed.append(error)
            finally:
                ends.set()
                known.set()

        thread = threading.Thread(target=work, name="metrics", daemon=True)
        thread.start()
        known.wait(_START_SECONDS)
        if failed:
            raise failed[0]
        try:
            yield bound[0]
        finally:
            loop, stop = handles[0]
            if not ends.is_set():
                loop.call_soon_threadsafe(stop.set)
            thread.join(_START_SECONDS)


def _label(value: Any) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

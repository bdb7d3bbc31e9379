"""Capture jobs in a file of their own beside the node's store.

Nothing rests on them (``registry/capture_jobs.py``), so a row needs no fsync (WAL, synchronous NORMAL), and on a store
that several nodes share each node has the jobs of its own callers. A job that ran when the node died is found at the
next start and says so: what became of its events is told by sending them again, which changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import structlog

from idtrace.errors import InputError, Reason, RefusedError
from registry.capture_jobs import JOB_SECONDS_MAX, JOBS_MAX, PAGE_DEFAULT, PAGE_MAX, Job, Refusal

_LOG: Final = structlog.get_logger(__name__)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS job(
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL,
    finished_ms INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS job_created ON job(created_ms);
"""


class JobStore:
    """The file. Owned by one thread at a time; a call takes a fraction of a millisecond."""

    def __init__(self, path: Path, clock_ms: Callable[[], int], draw_name: Callable[[], str]) -> None:
        """Open the file, make it where there is none, and close the jobs that a dead node has left open.

        Raises:
            InputError: FIELD_MALFORMED where the file is no file of jobs.
        """
        self._clock_ms = clock_ms
        self._draw_name = draw_name
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            self._end_orphans()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(Reason.FIELD_MALFORMED, f"no file of capture jobs: {error}", field=str(path)) from None

    def begin(self, *, rollback: bool) -> Job:
        """A new job, which runs."""
        job = Job(self._draw_name(), self._clock_ms(), rollback)
        row = (job.name, job.created_ms, job.finished_ms, _body(job))
        try:
            self._db.execute("INSERT INTO job(name, created_ms, finished_ms, body) VALUES (?, ?, ?, ?)", row)
            self._forget()
        except sqlite3.Error as error:
            _unkept(job, error)
        return job

    def end(self, job: Job, *, events: int, captured: int, errors: Sequence[Refusal]) -> Job:
        """Keep how it ended."""
        ended = job.finished(self._clock_ms(), events=events, captured=captured, errors=errors)
        row = (ended.finished_ms, _body(ended), ended.name)
        try:
            self._db.execute("UPDATE job SET finished_ms = ?, body = ? WHERE name = ?", row)
        except sqlite3.Error as error:
            _unkept(job, error)
        return ended

    def get(self, name: str) -> Job:
        """A job by its name.

        Raises:
            RefusedError: JOB_UNKNOWN.
        """
        row = self._db.execute("SELECT body FROM job WHERE name = ?", (name,)).fetchone()
        if row is None:
            detail = f"there is no such capture job, or none any more: {JOBS_MAX:,} are kept, for 7 days"
            raise RefusedError(Reason.JOB_UNKNOWN, detail, field="job_id")
        return _job(row[0])

    def page(self, size: int = PAGE_DEFAULT, token: str = "") -> tuple[list[Job], str]:
        """Jobs, the latest first, and the token of the next page; "" where there is none.

        Raises:
            InputError: FIELD_MALFORMED: a size or a token that there is not.
        """
        if not 0 < size <= PAGE_MAX:
            raise InputError(Reason.FIELD_MALFORMED, f"a page has 1 to {PAGE_MAX} jobs", field="page_size")
        if token and not (token.isascii() and token.isdigit() and len(token) <= 18):
            raise InputError(Reason.FIELD_MALFORMED, "the token is not one of ours", field="page_token")
        below = int(token) if token else 2**63 - 1
        rows = self._db.execute(
            "SELECT number, body FROM job WHERE number < ? ORDER BY number DESC LIMIT ?", (below, size + 1)
        ).fetchall()
        following = str(rows[size - 1][0]) if len(rows) > size else ""
        return [_job(body) for _, body in rows[:size]], following

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _forget(self) -> None:
        oldest = self._clock_ms() - JOB_SECONDS_MAX * 1000
        self._db.execute("DELETE FROM job WHERE created_ms < ? AND finished_ms > 0", (oldest,))
        self._db.execute("DELETE FROM job WHERE number <= (SELECT max(number) FROM job) - ?", (JOBS_MAX,))

    def _end_orphans(self) -> None:
        detail = "the node ended while it ran; send the same events again, which tells what is kept and keeps the rest"
        left = Refusal(0, 2, str(Reason.OUTCOME_UNKNOWN), "", "", detail)
        for (body,) in self._db.execute("SELECT body FROM job WHERE finished_ms = 0").fetchall():
            job = _job(body)
            self.end(job, events=job.events, captured=job.captured, errors=[left])


def _unkept(job: Job, error: sqlite3.Error) -> None:
    """A full disk must not turn events that are durable into a failure: the caller has its answer, and no job later."""
    _LOG.warning("job not kept", job=job.name, error=str(error))


def _body(job: Job) -> str:
    return json.dumps(asdict(job), ensure_ascii=False, separators=(",", ":"))


def _job(body: str) -> Job:
    fields: dict[str, Any] = json.loads(body)
    return Job(**{**fields, "errors": tuple(Refusal(**one) for one in fields["errors"])})

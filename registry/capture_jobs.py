"""Capture jobs as EPCIS 2.0 knows them (section 12.6.1): how a capture went, for who asks later. Pure.

A job is a report about a call and no part of what is true: events are durable by the store's commit alone, and a node
that loses its jobs (``registry/job_store.py``) loses reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

# What a third-party tool looks back for after a long week-end; a site that captures once a minute has 10,000 in it.
JOBS_MAX: Final = 10_000
JOB_SECONDS_MAX: Final = 7 * 86_400
# What a person reads; the call itself was told all of them.
ERRORS_KEPT_MAX: Final = 100
PAGE_DEFAULT: Final = 30
PAGE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one event of a job is not kept: its number in what was sent, and the error's parts."""

    index: int
    code: int
    reason: str
    field: str
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """One capture: ``finished_ms`` is 0 while it runs; times are UTC milliseconds since the Unix epoch."""

    name: str
    created_ms: int
    rollback: bool
    finished_ms: int = 0
    success: bool = False
    events: int = 0
    captured: int = 0
    error_count: int = 0
    errors: tuple[Refusal, ...] = ()

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.finished_ms == 0

    def finished(self, at_ms: int, *, events: int, captured: int, errors: Sequence[Refusal]) -> Job:
        """The job at its end: a success if nothing was refused."""
        return replace(
            self,
            finished_ms=at_ms,
            success=not errors,
            events=events,
            captured=captured,
            error_count=len(errors),
            errors=tuple(errors[:ERRORS_KEPT_MAX]),
        )


class Jobs(Protocol):
    """Where jobs are kept: the last 10,000 of them, and each for 7 days. Calls take a fraction of a millisecond."""

    def begin(self, *, rollback: bool) -> Job:
        """A new job, which runs."""
        ...

    def end(self, job: Job, *, events: int, captured: int, errors: Sequence[Refusal]) -> Job:
        """Keep how it ended."""
        ...

    def get(self, name: str) -> Job:
        """A job by its name.

        Raises:
            RefusedError: JOB_UNKNOWN.
        """
        ...

    def page(self, size: int = PAGE_DEFAULT, token: str = "") -> tuple[list[Job], str]:
        """Jobs, the latest first, and the token of the next page; "" where there is none.

        Raises:
            InputError: FIELD_MALFORMED: a size or a token that there is not.
        """
        ...

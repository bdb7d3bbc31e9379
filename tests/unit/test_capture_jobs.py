"""Capture jobs: reports of captures, bounded in number, time and length, and honest about a node that died."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog.testing

from idtrace.errors import InputError, Reason, RefusedError
from registry import job_store
from registry.capture_jobs import ERRORS_KEPT_MAX, JOB_SECONDS_MAX, PAGE_MAX, Job, Refusal
from registry.job_store import JobStore


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(folder: Path, clock: Clock) -> JobStore:
    names = itertools.count(clock.ms)
    return JobStore(folder / "jobs.sqlite3", clock, lambda: f"job-{next(names)}")


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    with closing(opened(tmp_path, clock)) as store:
        yield store


def wrong(index: int = 0) -> Refusal:
    return Refusal(index, 3, "FIELD_MALFORMED", "event.bizStep", "vocabulary", "no such step")


def test_a_job_runs_until_it_ends_and_then_says_how_it_went(jobs: JobStore) -> None:
    job = jobs.begin(rollback=True)
    assert job.running
    assert jobs.get(job.name) == job
    ended = jobs.end(job, events=3, captured=2, errors=[wrong(2)])
    assert jobs.get(job.name) == ended == Job(job.name, job.created_ms, True, 1_003, False, 3, 2, 1, (wrong(2),))
    fine = jobs.end(jobs.begin(rollback=False), events=1, captured=1, errors=[])
    assert (fine.running, fine.success) == (False, True)


def test_a_list_of_errors_is_cut_and_says_how_many_there_were(jobs: JobStore) -> None:
    ended = jobs.end(jobs.begin(rollback=True), events=500, captured=0, errors=[wrong(n) for n in range(500)])
    assert (len(ended.errors), ended.error_count) == (ERRORS_KEPT_MAX, 500)


def test_pages_go_from_the_latest_to_the_first_without_gap_or_repetition(jobs: JobStore) -> None:
    names = [jobs.begin(rollback=True).name for _ in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page, token = jobs.page(3, token)
        seen += [job.name for job in page]
        if not token:
            break
    assert seen == names[::-1]
    assert jobs.page(7)[1] == ""


@pytest.mark.parametrize(("size", "token"), [(0, ""), (PAGE_MAX + 1, ""), (1, "x"), (1, "-1"), (1, "9" * 19), (1, "²")])
def test_a_page_that_there_is_not_is_refused(jobs: JobStore, size: int, token: str) -> None:
    with pytest.raises(InputError):
        jobs.page(size, token)


def test_old_and_too_many_jobs_go_and_an_unknown_one_is_said_to_be(
    jobs: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "JOBS_MAX", 5)
    names = [jobs.begin(rollback=True).name for _ in range(8)]
    assert [job.name for job in jobs.page()[0]] == names[:2:-1]
    last = jobs.end(jobs.get(names[-1]), events=0, captured=0, errors=[])
    clock.ms += JOB_SECONDS_MAX * 1_000 + 10
    jobs.begin(rollback=True)
    with pytest.raises(RefusedError) as gone:
        jobs.get(last.name)
    assert gone.value.reason is Reason.JOB_UNKNOWN


def test_a_job_whose_node_died_is_found_ended_and_unknown_at_the_next_start(tmp_path: Path, clock: Clock) -> None:
    with closing(opened(tmp_path, clock)) as before:
        done = before.end(before.begin(rollback=True), events=1, captured=1, errors=[])
        left = before.begin(rollback=False)
    clock.ms += 1_000
    with closing(opened(tmp_path, clock)) as after:
        found = after.get(left.name)
        assert (found.running, found.success) == (False, False)
        assert found.errors[0].reason == Reason.OUTCOME_UNKNOWN
        assert after.get(done.name) == done


def test_a_file_that_is_none_of_jobs_is_refused_with_its_name(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "jobs.sqlite3").write_bytes(b"something else, and long enough to be looked at" * 100)
    with pytest.raises(InputError) as refused:
        opened(tmp_path, clock)
    assert refused.value.field.endswith("jobs.sqlite3")


def test_a_disk_that_takes_nothing_leaves_the_caller_its_answer(tmp_path: Path, clock: Clock) -> None:
    store = JobStore(tmp_path / "jobs", clock, lambda: "a")
    store.close()  # whatever is written now fails
    with structlog.testing.capture_logs() as logs:
        job = store.begin(rollback=False)
        ended = store.end(job, events=1, captured=1, errors=[])
    assert (ended.events, ended.captured) == (1, 1)
    assert [(line["event"], line["job"]) for line in logs] == [("job not kept", "a")] * 2

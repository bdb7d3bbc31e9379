"""A short run of loadtest/changes.py: three resolver processes, twenty changes, each seen by all, and never unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.changes import ChangeKind, Plan, Report, measure, quantile
from tests.engines.redis import RedisServer

# A busy CI machine is slow, and a recall that takes five seconds there is not a sign of a broken stream.
SEEN_SECONDS_MAX = 5.0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_change_is_seen_by_every_resolver_and_stays_seen(tmp_path: Path, redis_server: RedisServer) -> None:
    plan = Plan(resolvers=3, changes=20, redis=redis_server.url, asked_per_second=10.0)
    report = await measure(plan, tmp_path)
    assert report.went_back == []
    assert report.unseen == 0
    assert {kind: len(taken) for kind, taken in report.seconds.items()} == dict.fromkeys(ChangeKind, 15)
    assert max(max(taken) for taken in report.seconds.values()) < SEEN_SECONDS_MAX


def test_what_is_late_or_goes_back_is_no_good_report() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0], 0.99) == 1.0
    assert Report().good
    late = Report()
    late.seconds[ChangeKind.RECALL] += [0.1] * 50 + [1.0]
    assert not late.good
    assert not Report(went_back=["one"]).good
    assert not Report(unseen=1).good

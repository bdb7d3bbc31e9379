"""Auditors as programs of their own against a node, its log and its witnesses on real ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from idtrace.delegation import Role, ZoneKey
from tests.core_fixtures import signer
from tests.engines.process import free_port
from tests.integration.test_logged_node import SECOND, ZONE, zone_keys
from tests.logged_site import WAIT_SECONDS, Site, site, size_of
from tests.nodes import make_record

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as running:
        yield running


async def rotated(here: Site) -> None:
    """The zone's record key is another from its third delegation on, and the new one has signed a record."""
    keys = [key for key in zone_keys() if Role.RECORD not in key.roles]
    new = ZoneKey(signer(SECOND).public_key, frozenset({Role.RECORD}))
    await here.nodes.delegate(ZONE, (here.proxy.address,), node_key_zone=ZONE, keys=(*keys, new))
    await here.nodes.until_adopted(here.node, ZONE, version=3)
    await here.nodes.submit(make_record(f"{ZONE}/BY-NEW", by=signer(SECOND)), "register-by-new")


def test_an_auditor_that_is_started_anew_goes_on_over_a_rotation_and_reads_only_what_has_come(here: Site) -> None:
    for n in range(20):
        here.register(f"{ZONE}/N-{n}")
    size = here.log_size()
    here.until_witnessed()
    given = ("--policy", here.folder / "policy", "--state", here.folder / "seen", "--json")
    first = here.audit(*given)
    assert (first.code, first.json["logs"][0]["entries"]) == (0, size), first.said
    here.call(rotated(here))
    here.until_witnessed()
    second = here.audit(*given)
    (log,) = second.json["logs"]
    assert (second.code, log["entries"], log["seen_size"], log["findings"]) == (0, 2, size, []), second.said
    assert log["identifiers"] == 21
    assert sorted(log["cosigned"]) == ["w1", "w2", "w3"]
    third = here.audit(*given)
    assert (third.code, third.json["logs"][0]["entries"]) == (0, 2), (
        "what is saved is renewed after an eighth, not each time"
    )
    alone = here.audit("--json")
    assert (alone.code, alone.json["logs"][0]["entries"]) == (0, size + 2), "without a folder all is read, and the same"


def test_new_keys_of_a_zone_are_witnessed_and_published_before_anybody_registers_anything(here: Site) -> None:
    assert size_of(here.until_published(2)) == 2
    assert here.audit("--policy", here.folder / "policy").code == 0


def test_a_watching_auditor_shows_figures_that_grow_with_the_log(here: Site) -> None:
    here.register(f"{ZONE}/A")
    here.until_witnessed()
    address = f"127.0.0.1:{free_port()}"
    given = [
        ZONE,
        "--root",
        here.root,
        "--node",
        here.node.endpoint,
        "--log",
        here.log,
        "--state",
        here.folder / "seen",
    ]
    command = [sys.executable, "-m", "idtrace", "audit", *map(str, given), "--watch", "0.2", "--metrics", address]
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
    ) as watching:
        try:
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["outcome"] == "consistent"
            here.register(f"{ZONE}/B")
            size = here.log_size()
            here.until_witnessed()
            end = time.monotonic() + WAIT_SECONDS
            while f"}} {float(size)}\n" not in (page := figures(address)):
                assert time.monotonic() < end, page
                time.sleep(0.1)
        finally:
            watching.terminate()
    assert "idtrace_audit_outcome{" in page
    totals = [line for line in page.splitlines() if line.startswith("idtrace_audit_entries_total{")]
    assert totals[0].endswith(f" {float(size)}"), "each entry was replayed once"


def figures(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        return str(answer.read().decode())

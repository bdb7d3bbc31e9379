"""A simulated chain as files: an EPCIS document a party, what records would say, and the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from idtrace.cli.files import replace_file
from idtrace.epcis.write import document_json
from idtrace.party import format_party
from idtrace.recall import format_recall
from idtrace.simulation.model import EXPECTED, Chain, Dose

# A capture takes some thousand events at once and refuses longer documents.
EVENTS_A_DOCUMENT: Final = 1_000


def write_chain(out: Path, chain: Chain) -> None:
    """Write ``out/chain-0007/``: ``88.118.8-0.json`` … to capture, ``records.json``, ``truth.json``."""
    folder = out / f"chain-{chain.number:04d}"
    folder.mkdir(parents=True, exist_ok=True)
    by_party: dict[str, list[Any]] = {}
    for entry in chain.entries:
        by_party.setdefault(entry.observed.party, []).append(entry.observed.event)
    for party, events in by_party.items():
        for first in range(0, len(events), EVENTS_A_DOCUMENT):
            document = document_json(events[first : first + EVENTS_A_DOCUMENT], chain.now_ms)
            _write(folder / f"{party}-{first // EVENTS_A_DOCUMENT}.json", document)
    _write(folder / "records.json", _records(chain))
    truth = {
        "seed": chain.seed,
        "chain": chain.number,
        "now_ms": chain.now_ms,
        "doses": [_truth(d) for d in chain.doses],
    }
    _write(folder / "truth.json", truth)


def _records(chain: Chain) -> dict[str, Any]:
    return {
        "product": {"identifier": chain.product.identifier, "value": json.loads(chain.product.payload())},
        "licences": {party.evidence: json.loads(format_party(party)) for party in chain.parties.values()},
        "recalls": [{"zone": recall.zone, "value": json.loads(format_recall(recall))} for recall in chain.recalls],
        "doses": [
            {
                "identifier": dose.identifier,
                "verdict": str(dose.answer.verdict),
                "status": str(dose.answer.status or ""),
                "lot": dose.lot,
                "expiry": dose.expiry,
                "class": chain.product.identifier if dose.has_product else "",
            }
            for dose in chain.doses
        ],
    }


def _truth(dose: Dose) -> dict[str, Any]:
    return {
        "identifier": dose.identifier,
        "uri": dose.uri,
        "faults": sorted(dose.faults),
        "expected": {str(fault): sorted(EXPECTED[fault]) for fault in sorted(dose.faults)},
        "traits": sorted(dose.traits),
    }


def _write(path: Path, body: Mapping[str, Any]) -> None:
    replace_file(path, (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode())

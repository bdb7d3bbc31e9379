"""What the demonstration registers: a generated manifest of dose packages, and the identifiers of EPCIS documents."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from idtrace.errors import InputError
from idtrace.scan import scan

MAKER: Final = "88.118.8"
# The maker's GTIN-14 and 7-digit drug code; the zones gs1.01.<gtin> and drug.<code> are delegated to the maker's node.
GTIN: Final = "06901234567892"
DRUG: Final = "8123456"
PACKAGES: Final = 10_000
# Every tenth package carries a GS1 DataMatrix, every hundredth a drug trace code: a real warehouse has all three.
GS1_EVERY: Final = 10
DRUG_EVERY: Final = 100
# Fields of an EPCIS 2.0 event that hold identifiers of things (EPCIS 2.0 §7.4).
_LISTS: Final = ("epcList", "childEPCs", "inputEPCList", "outputEPCList")
_QUANTITIES: Final = ("quantityList", "childQuantityList", "inputQuantityList", "outputQuantityList")
EPCIS_BYTES_MAX: Final = 4_194_304
SAMPLE: Final = Path(__file__).with_name("sample_epcis.json")


def code_of(number: int) -> str:
    """The scannable text on dose package ``number``."""
    if number % DRUG_EVERY == 0:
        return f"{DRUG}{number:013d}"
    if number % GS1_EVERY == 0:
        return f"(01){GTIN}(21)D{number:06d}"
    return f"{MAKER}/MMR-2026A-{number:06d}"


def write_manifest(path: Path, packages: int) -> None:
    """A CSV as a packing line would export it: one line a package, any scannable text as its identifier."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["identifier", "product", "lot", "expiry", "doses", "storage"])
        for number in range(1, packages + 1):
            lot = f"2026A{number // 2_500:02d}"
            writer.writerow([code_of(number), "MMR vaccine, live", lot, "2028-05-31", "1", "2-8 CEL"])


def write_epcis_manifest(path: Path, identifiers: dict[str, str]) -> None:
    """A CSV of identifiers found in EPCIS documents and the text that they were found as."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["identifier", "found_as"])
        writer.writerows(sorted(identifiers.items()))


def epcis_folder() -> Path | None:
    """Where EPCIS documents lie on this machine: IDTRACE_SHARED_DATA/epcis, or a folder beside the project."""
    named = os.environ.get("IDTRACE_SHARED_DATA", "")
    folders = [Path(named) / "epcis"] if named else [Path("..") / "shared" / "data" / "epcis"]
    return next((folder for folder in folders if folder.is_dir()), None)


def epcis_identifiers(folder: Path | None) -> tuple[dict[str, str], int, int]:
    """Identifiers of things in EPCIS documents: ``({identifier: text}, documents read, texts refused)``.

    Documents that must be refused (a folder named ``invalid``) are left out. Without a folder our own sample is read.
    """
    paths = [SAMPLE] if folder is None else sorted(p for p in folder.rglob("*.json") if "invalid" not in p.parts)
    found: dict[str, str] = {}
    refused: set[str] = set()
    for path in paths:
        if path.stat().st_size > EPCIS_BYTES_MAX:
            continue
        for text in _texts(json.loads(path.read_text("utf-8"))):
            try:
                found.setdefault(str(scan(text).identifier), text)
            except InputError:
                refused.add(text)
    return found, len(paths), len(refused)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name in _LISTS and isinstance(value, list):
                yield from (item for item in value if isinstance(item, str))
            elif name in _QUANTITIES and isinstance(value, list):
                yield from (item["epcClass"] for item in value if isinstance(item, dict) and "epcClass" in item)
            elif name == "parentID" and isinstance(value, str):
                yield value
            else:
                yield from _texts(value)

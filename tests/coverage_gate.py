"""What `make test` measured against what it must reach: `python tests/coverage_gate.py var/coverage.json`.

What is pure is easy to test, so no line and no branch of it goes untested; of all the rest at least nine lines in ten
are run. Which modules are pure stands once, in the import contracts ``core`` and ``decisions`` of pyproject.toml.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

OVERALL_PERCENT_MIN = 90.0
PURE_CONTRACTS = ("core", "decisions")


def pure_files(pyproject: str) -> list[str]:
    """Paths of the pure modules, as pyproject.toml names them."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    modules = [
        name for contract in contracts if contract["id"] in PURE_CONTRACTS for name in contract["source_modules"]
    ]
    assert modules, "the contracts of the pure modules have gone"
    root, paths = Path(__file__).parents[1], [Path(*name.split(".")) for name in sorted(modules)]
    inside = [file.relative_to(root) for path in paths for file in sorted((root / path).glob("**/*.py"))]
    alone = [path.with_suffix(".py") for path in paths if not (root / path).is_dir()]
    return [str(path) for path in sorted([*inside, *alone]) if path.name != "__init__.py"]


def shortfalls(report: dict[str, Any], pure: list[str]) -> list[str]:
    """One line for each way in which the report (``coverage json``, with branches) misses the mark."""
    assert report["meta"]["branch_coverage"], "branches were not measured"
    found: list[str] = []
    for path in pure:
        measured = report["files"].get(path)
        if measured is None or not measured["summary"]["num_statements"]:
            found.append(f"{path}: was not measured")
            continue
        if measured["missing_lines"]:
            found.append(f"{path}: pure, but nothing runs line {_ranges(measured['missing_lines'])}")
        # A negative target is the way out of the function; branches out of a missing line go without saying.
        jumps = [
            f"{start} to {'the end' if end < 0 else end}"
            for start, end in measured["missing_branches"]
            if start not in measured["missing_lines"]
        ]
        if jumps:
            found.append(f"{path}: pure, but nothing goes from line {', '.join(jumps)}")
    percent = report["totals"]["percent_covered"]
    if percent < OVERALL_PERCENT_MIN:
        least = sorted(report["files"].items(), key=lambda item: -len(item[1]["missing_lines"]))[:5]
        worst = ", ".join(f"{path} ({len(measured['missing_lines'])} lines)" for path, measured in least)
        found.append(
            f"overall: {percent:.1f} % of lines and branches, {OVERALL_PERCENT_MIN:.0f} % are asked for; {worst}"
        )
    return found


def _ranges(numbers: list[int]) -> str:
    """``3, 7-9``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def main() -> int:
    report = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    pure = pure_files((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    missed = shortfalls(report, pure)
    totals = report["totals"]
    short = {path for path in pure for line in missed if line.startswith(f"{path}: ")}
    sys.stdout.write(
        f"coverage: {totals['percent_covered']:.1f} % of {totals['num_statements']} lines and"
        f" {totals['num_branches']} branches; {len(pure)} pure modules, {len(short)} not covered whole\n"
    )
    for line in missed:
        sys.stdout.write(f"  {line}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

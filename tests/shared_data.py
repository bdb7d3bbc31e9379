"""Conformance data that others wrote: read where it lies, never copied into this repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def shared_data(name: str) -> Path:
    """Path of one file or folder of it (``gs1/lint-vectors.tsv``); skips the test where the data is absent."""
    path = Path(os.environ.get("IDTRACE_SHARED_DATA", _BESIDE_THE_REPOSITORY)) / name
    if not path.exists():
        pytest.skip(f"conformance data {name} is not here; IDTRACE_SHARED_DATA names its folder")
    return path

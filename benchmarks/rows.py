"""Rows: one JSON object per result, the same frame around the figures of every benchmark."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

__all__ = ["ROOT", "Row", "cpus", "make_row", "percentiles"]

Row = dict[str, object]

ROOT = Path(__file__).resolve().parent.parent


def make_row(benchmark: str, method: str, figures: Mapping[str, object], seconds: float) -> Row:
    """Frame the figures of one result.

    Parameters
    ----------
    benchmark, method
        What was measured, and which of the ways that are compared.
    figures
        The results by name.
    seconds
        How long the measured part took.
    """
    return {
        "benchmark": benchmark,
        "method": method,
        **figures,
        "seconds": round(seconds, 3),
        "commit": COMMIT,
        "cpus": cpus(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """The commit of the checkout, `-dirty` where files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


COMMIT = _commit()  # now: what runs is no newer than what is loaded


def cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def percentiles(seconds: list[float], *which: int) -> dict[str, float]:
    """Percentiles of some times, in milliseconds.

    >>> percentiles([0.001, 0.002, 0.003], 50, 90)
    {'p50_ms': 2.0, 'p90_ms': 2.8}
    """
    if not seconds:
        return {f"p{p}_ms": float("nan") for p in which}
    found = np.percentile(np.array(seconds) * 1000, which)
    return {f"p{p}_ms": round(float(ms), 3) for p, ms in zip(which, found, strict=True)}

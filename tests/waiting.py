"""Waiting for what other threads and processes do: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["runs", "until"]

PAUSE_SECONDS = 0.02  # between two looks: to look without a pause would slow down who is waited for


def until(
    condition: Callable[[], bool],
    seconds: float = 20.0,
    why: Callable[[], object] = lambda: "it did not come in time",
) -> None:
    """Return when a condition holds; fail when it does not in time, and tell `why`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(PAUSE_SECONDS)


def runs(process: int) -> bool:
    """Tell whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

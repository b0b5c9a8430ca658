"""Fixtures for replay tests: re-run a recorded log and say what must come out of it.

Installed with everlearn, pytest finds it by itself::

    def test_last_week(replay):
        result = replay("last-week.parquet")
        assert result.hit_rate(20) >= 0.35
        assert "item-7" in result.recommend("user-42", k=10)
        assert result.fingerprint == "0123456789abcdef"

Loading the plugin imports nothing but pytest; the learner is imported when `replay` is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from streams.replay import ReplayResult
    from streams.settings import Settings

__all__ = ["Replay", "replay"]


class Replay(Protocol):
    """What the fixture `replay` gives: a function that runs a log through a fresh engine."""

    def __call__(
        self,
        path: str | Path,
        *,
        dataset: str | None = None,
        settings: Settings | str | Path | None = None,
        stop_at: int | None = None,
        sample: int | None = None,
    ) -> ReplayResult:
        """Replay a recorded log, JSON lines, a data set or `kafka://host:port`."""


@pytest.fixture(scope="session")
def replay() -> Replay:
    """Run a log through a fresh engine, as `everlearn replay` does, and return the result."""

    def run(
        path: str | Path,
        *,
        dataset: str | None = None,
        settings: Settings | str | Path | None = None,
        stop_at: int | None = None,
        sample: int | None = None,
    ) -> ReplayResult:
        from streams.replay import replay_log

        return replay_log(path, dataset=dataset, settings=settings, stop_at=stop_at, sample=sample)

    return run

"""A world that a small sequential model learns in seconds: users who walk along a ring of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from learners.base import CLICK, Batch
from learners.deep.config import FineTuneConfig, SequenceConfig
from learners.deep.gate import GateConfig
from learners.deep.lesson import Lesson, Progress, Trained, hold
from learners.deep.memory import LifelongConfig
from tests.test_engine import batch_of, cut

__all__ = ["CONFIG", "batches", "hold_shuffled", "hold_with_nan", "walks"]

USERS, ITEMS, START = 80, 120, 1_700_000_000.0
Event = tuple[int, str, str, float]

CONFIG = LifelongConfig(
    # In four bits each, fewer numbers tell the items of so small a ring apart by chance.
    model=SequenceConfig(width=32, feed_forward=32, most_events=20),
    tuning=FineTuneConfig(batch=16, epochs_first=6, epochs=3, negatives=64, rate=1e-2, threads=1),
    gate=GateConfig(targets=200, verdicts=2),
    first_events=1500,
    every_events=1500,
    every_minutes=0.0,
    least_events=200,
    users=100,
    items=200,
    newest=400,
    reservoir=400,
    evaluate_one_in=1,
    hold_out_one_in=8,
    dedupe_events=8192,
)


def walks(
    n: int, *, turns_at: int | None = None, seed: int = 3, start: float = START
) -> list[Event]:
    """Return clicks, a second apart: each user goes 3 items on, after `turns_at` 7 items."""
    draw = np.random.default_rng(seed)
    place = draw.integers(ITEMS, size=USERS)
    events = []
    for i in range(n):
        user, stride = int(draw.integers(USERS)), 3 if turns_at is None or i < turns_at else 7
        lost = draw.random() < 0.2
        place[user] = draw.integers(ITEMS) if lost else (place[user] + stride) % ITEMS
        events.append((CLICK, f"u{user}", f"i{place[user]}", start + i))
    return events


def batches(events: Sequence[Event], size: int = 500, prefix: str = "e") -> list[Batch]:
    """Return events in batches, each with the position behind it."""
    whole = batch_of(events, prefix)
    return [
        replace(cut(whole, begin, begin + size), positions={"clicks/0": begin + size})
        for begin in range(0, len(events), size)
    ]


def hold_with_nan(lesson: Lesson, progress: Progress) -> Trained:
    """Hold a lesson that ends in weights of which one is no number."""
    trained = hold(lesson, progress)
    trained.arrays["step"][0] = np.nan
    return trained


def hold_shuffled(lesson: Lesson, progress: Progress) -> Trained:
    """Hold a lesson in which what came next was dealt out at random."""
    dealt = np.random.default_rng(1).permutation(lesson.new.item)
    return hold(replace(lesson, new=replace(lesson.new, item=dealt), parent=None), progress)

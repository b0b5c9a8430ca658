"""Candidates: the ones that reading every decayed count would keep."""

from __future__ import annotations

import numpy as np
import pytest

from learners.base import CLICK, EngineConfig
from learners.candidates import COLUMNS, PRESCORE, Asked, gather
from learners.engine import Engine
from learners.prescore import PRESCORE_POPULAR, PRESCORE_REPEAT, choose
from tests.test_engine import batch_of

MOST = 40


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine that has met a thousand items, few of them often, in two shops without a bridge."""
    generator = np.random.default_rng(4)
    user = generator.integers(0, 300, 12_000)
    item = (700 * generator.random(len(user)) ** 3).astype(int)
    item[user >= 200] = 700 + (300 * generator.random(int((user >= 200).sum())) ** 3).astype(int)
    engine = Engine(EngineConfig(users=400, items=1200, sessions=4096, dedupe_events=0))
    engine.learn(
        batch_of(
            [
                (CLICK, f"u{who}", f"i{what}", 1000.0 + 20.0 * at)
                for at, (who, what) in enumerate(zip(user.tolist(), item.tolist(), strict=True))
            ]
        )
    )
    return engine


@pytest.mark.parametrize("items", [[3], [702, 701], [950, 1, 400, 30, 950]])
def test_the_same_candidates_are_kept_as_if_every_count_were_read(
    engine: Engine, items: list[int]
) -> None:
    memory = engine.memory
    models, work = memory.models, memory.work
    rows = [memory.items.row(f"i{item}") for item in items]
    work.query[: len(rows)] = rows
    asked = Asked(len(rows), len(rows), engine.clock, -1, -1, 0)
    touched = gather(models, work, asked)
    assert touched > 2 * MOST
    weight, top = models.popularity.weight, models.popularity.top[:, 0] - 1
    peak = weight[top, np.arange(len(top))]
    met = work.item[:touched]
    expected = PRESCORE_POPULAR * (weight[met] / peak).sum(axis=1)
    for column in range(COLUMNS):
        if work.largest[column] > 0.0:
            expected += PRESCORE[column] * work.column[column, :touched] / work.largest[column]
    expected += PRESCORE_REPEAT * np.isin(met, rows)
    kept = choose(models, work, asked, touched, MOST)
    best = met[np.argsort(-expected, kind="stable")[:MOST]]
    assert kept == MOST
    assert sorted(work.chosen[:kept]) == sorted(best)

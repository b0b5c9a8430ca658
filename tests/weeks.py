"""Weeks of a small made-up shop, and ADER's protocol and V-SKNN over them in slow, plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks import vsknn
from benchmarks.ader_stream import Stream, make_stream

__all__ = ["ITEMS", "Click", "shop", "slow_cycles", "slow_scores", "stream_of", "write"]

ITEMS = 60


class Click(NamedTuple):
    period: int
    session: int
    item: int


def shop(periods: int = 4, sessions: int = 70, seed: int = 5) -> list[Click]:
    """Sessions one after the other, each a walk along a ring of items; the first period has all."""
    generator = np.random.default_rng(seed)
    clicks = [Click(0, -1 - item // 10, item) for item in range(ITEMS)]
    for number in range(periods * sessions):
        period, item = number // sessions, int(generator.integers(ITEMS))
        for _ in range(int(generator.integers(1, 7))):
            clicks.append(Click(period, number, item))
            item = (item + int(generator.integers(-1, 3))) % ITEMS
    return clicks


def stream_of(clicks: list[Click]) -> Stream:
    period, session, item = np.array(clicks).T
    n = len(clicks)
    return make_stream(
        period, session, item, np.arange(n, dtype=np.float64) * 600.0 + 1.0, np.ones(n, np.bool_)
    )


def write(clicks: list[Click], file: Path) -> Path:
    pl.DataFrame(clicks, schema=["period", "session", "item"], orient="row").write_parquet(file)
    return file


def slow_scores(
    learnt: list[tuple[int, int]], query: list[int], own: int, k: int, sample: int
) -> dict[int, np.float32]:
    """V-SKNN of (session, item) clicks in plain Python; the query's items are most recent first."""
    items: dict[int, list[int]] = defaultdict(list)
    holders: dict[int, list[int]] = defaultdict(list)
    latest = {}
    for number, (session, item) in enumerate(learnt):
        latest[session] = number
        if item not in items[session]:
            items[session].append(item)
            holders[item].append(session)
    where = {item: d for d, item in reversed(list(enumerate(query)))}
    weight = {item: np.float32(10 - d) / np.float32(10) for item, d in where.items() if d < 10}
    shared: dict[int, np.float32] = {}
    for item in dict.fromkeys(query):
        for session in reversed(holders[item]):
            if session != own and item in weight:
                shared[session] = shared.get(session, np.float32(0)) + weight[item]
    recent = sorted(shared, key=lambda session: -latest[session])[:sample]
    squares = sum(float(w) ** 2 for w in weight.values())
    similarity = {
        session: np.float32(float(shared[session]) / np.sqrt(squares * len(items[session])))
        for session in shared
        if session in recent
    }
    scores: dict[int, np.float32] = defaultdict(lambda: np.float32(0))
    for session in sorted(similarity, key=lambda session: -similarity[session])[:k]:
        nearest = min(where[item] for item in items[session] if item in where)
        for item in items[session]:
            scores[item] += similarity[session] / np.float32(nearest + 1)
    return dict(scores)


def slow_rank(scores: dict[int, np.float32], seen: set[int], item: int) -> float:
    values = np.array([scores.get(other, 0.0) for other in seen])
    own = scores.get(item, 0.0)
    return float((values > own + 1e-6).sum() + ((np.abs(values - own) <= 1e-6).sum() + 1) / 2)


def slow_cycles(clicks: list[Click], per_event: bool) -> Iterator[list[float]]:
    """Ranks of every cycle, as the protocol's text says it."""
    for period in range(1, clicks[-1].period + 1):
        learnt = [c for c in clicks if c.period < period]
        sessions: dict[int, list[int]] = defaultdict(list)
        ranks = []
        for click in (c for c in clicks if c.period == period):
            known = {c.item for c in learnt}
            before = sessions[click.session]
            if click.item in known and before:
                pairs = [(10_000 * c.period + c.session, c.item) for c in learnt]
                own = 10_000 * period + click.session
                scores = slow_scores(pairs, before[::-1], own, vsknn.K, vsknn.SAMPLE)
                ranks.append(slow_rank(scores, known, click.item))
            if per_event or click.item in known:
                before.append(click.item)
            if per_event:
                learnt.append(click)
        yield ranks

"""What an event and a query cost as the catalogue grows: the target is 1.5 times, first to last.

Each engine learns a stream in which every item is clicked several times (`visits`), until the store
of sessions is full. What a query has to look at is told by `items_met`: where that does not
grow, what does is waiting for memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.asking import query_figures, stage_microseconds
from benchmarks.rows import Row, make_row
from benchmarks.visits import BATCH, Visits, VisitsConfig
from learners.base import Batch, EngineConfig
from learners.engine import Engine
from streams.warmup import warm_up

__all__ = ["NEVER", "SHARE", "SIZES", "learn_figures", "run"]

SIZES = (10_000, 100_000, 1_000_000)
TARGET_RATIO = 1.5
NEVER = 2**62  # evaluate one event in so many
SHARE = EngineConfig().evaluate_one_in
CLICKS_AN_ITEM = 8
JUDGED = ("learn_us", "learn_tested_us", "kernel_us", "recommend_median_us")


def run(
    *,
    sizes: Sequence[int],
    users: int,
    least_events: int,
    queries: int,
    batches: int,
    runs: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield a row for each size of the catalogue.

    Parameters
    ----------
    sizes
        Items; ratios are to the first.
    users
        At every size the same.
    least_events
        Learnt before anything is timed, or eight for each item where that is more.
    queries
        Different users who are asked for.
    batches
        Of 1,000 events, timed without and with evaluation.
    runs
        Of the queries; the best counts.
    """
    warm_up(say)
    first: dict[str, float] = {}
    for size in sizes:
        started = time.perf_counter()
        figures: dict[str, object] = {"items": size, "users": users}
        figures |= _measure(size, users, least_events, queries, batches, runs, say)
        measured = {name: float(str(figures[name])) for name in JUDGED}
        first = first or measured
        ratios = {
            f"{name.removesuffix('_us')}_ratio_to_first": round(value / first[name], 3)
            for name, value in measured.items()
        }
        target = {"target_ratio": TARGET_RATIO}
        seconds = time.perf_counter() - started
        yield make_row("growth", f"{size}_items", {**figures, **ratios, **target}, seconds)


def _measure(
    size: int,
    users: int,
    least_events: int,
    queries: int,
    batches: int,
    runs: int,
    say: Callable[[str], None],
) -> dict[str, object]:
    warm = max(CLICKS_AN_ITEM * size, least_events)
    say(f"{size:,} items: learning {warm:,} events")
    engine = Engine(EngineConfig(users=users, items=size, evaluate_one_in=NEVER))
    events = warm + 2 * batches * BATCH
    stream = Visits(VisitsConfig(users=users, items=size, events=events))
    coming = stream.batches()
    while stream.events < warm:
        engine.learn(next(coming))
    say(f"{size:,} items: asking and learning")
    asked = stream.users_now(queries)
    known = [user for user in asked if engine.user(user) is not None]
    figures: dict[str, object] = {
        "events": stream.events,
        "items_clicked": len(engine.memory.items),
        **_clicks(engine),
        "queries": len(known),
        **learn_figures(engine, [next(coming) for _ in range(batches)]),
    }
    engine.config = replace(engine.config, evaluate_one_in=SHARE)
    tested = learn_figures(engine, list(coming))
    figures |= {name.replace("learn", "learn_tested"): value for name, value in tested.items()}
    figures |= stage_microseconds(engine, known, runs)
    figures |= query_figures(engine, known, runs)
    del engine
    gc.collect()
    return figures


def _clicks(engine: Engine) -> dict[str, float]:
    """Clicks of the item that has the fewest, of the middle one, and of the one with most."""
    counts = engine.memory.popular.arrays.item["events"]
    fewest, middle, most = np.percentile(counts[counts > 0], [0, 50, 100]).tolist()
    return {"clicks_fewest": fewest, "clicks_middle": middle, "clicks_most": most}


def learn_figures(engine: Engine, batches: Sequence[Batch]) -> dict[str, float]:
    """Microseconds of an event in each of some batches: their median, and the best."""
    each = []
    for batch in batches:
        started = time.perf_counter()
        engine.learn(batch)
        each.append(1e6 * (time.perf_counter() - started) / max(len(batch), 1))
    return {
        "learn_us": round(float(np.median(each)), 3),
        "learn_best_us": round(float(np.min(each)), 3),
    }

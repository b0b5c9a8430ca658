"""Items that nobody has clicked yet: what is foreseen of them with and without their entries.

Two streams whose catalogue is known before its use: MovieLens 100K with genres, where each film is
listed when it comes out, and the synthetic shop, which withdraws 30 % of its items at one moment
and puts new ones in their places; of the shop only what comes after that moment counts.

Every click and purchase from a user's second event on is a target, ranked just before it is learnt
by the blend, as the report of an engine does. A first click is on an item that nobody clicked or
bought before; a young item has fewer than 10 such events. `without_content` is the same engine with
`content_candidates` 0: it has the same features, but all of them are silent about entries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.asking import stage_microseconds
from benchmarks.rows import Row, make_row
from learners.base import PURCHASE, Batch, EngineConfig
from learners.engine import Engine
from learners.errors import DataError
from learners.evaluate import Prequential
from learners.prequential import Events, Tested
from learners.ranks import BLEND, CONTENT, LIST
from streams.datasets import load_dataset
from streams.shop import Shop, ShopConfig
from streams.warmup import warm_up

__all__ = ["METHODS", "STREAMS", "run"]

METHODS = {"with_content": EngineConfig().content_candidates, "without_content": 0}
STREAMS = ("ml-100k", "catalogue_shock")
YOUNG = 10  # events of an item
ASKED = 500  # users who are asked for when all is learnt
START = 1.7e9  # seconds; an event of the shop every other one
BATCH = 1_000


class _Ranks(Prequential):
    """The figures of an engine, and each target's rank by the blend and by content alone."""

    def __init__(self, items: int) -> None:
        super().__init__(items)
        self.kept: list[NDArray[np.float64]] = []

    def record_all(self, tested: Tested, events: Events, events_before: int) -> None:
        super().record_all(tested, events, events_before)
        ranks = tested.rank[:, [BLEND, CONTENT]]
        self.kept.append(np.where(tested.valid[:, None], ranks, np.nan))


def run(
    path: Path | None,
    *,
    config: EngineConfig,
    shop: ShopConfig,
    events: int,
    streams: Sequence[str] = STREAMS,
    methods: Sequence[str] = tuple(METHODS),
    runs: int = 5,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield a row for each stream and method.

    Parameters
    ----------
    path
        `ml-100k.parquet`, its catalogue beside it; without it, of the folder `EVERLEARN_DATA`.
    config
        The engine's constants; all events are ranked whatever it says.
    shop
        The shop, whose catalogue changes at `drift_at`.
    events
        Events of the shop.
    runs
        Of the queries that are timed; the best counts.

    Raises
    ------
    DataError
        The file is missing, or is not that data set.
    """
    warm_up(say)
    for stream in streams:
        films = stream == "ml-100k"
        batches = _films(path or _in_data()) if films else _shop(shop, events)
        begin = 0 if films else shop.drift_at
        for method in methods:
            say(f"{stream}, {method}")
            started = time.perf_counter()
            told = replace(config, evaluate_one_in=1, content_candidates=METHODS[method])
            figures = _measure(told, batches(), begin, runs)
            yield make_row(
                "coldstart", method, {"stream": stream, **figures}, time.perf_counter() - started
            )


def _in_data() -> Path:
    folder = os.environ.get("EVERLEARN_DATA")
    if folder:
        return Path(folder) / "ml-100k.parquet"
    raise DataError("which ml-100k.parquet? name it, or set EVERLEARN_DATA to the folder with it")


def _films(path: Path) -> Callable[[], Iterator[Batch]]:
    dataset = load_dataset("ml-100k", path, "release")
    return lambda: dataset.batches(size=BATCH)


def _shop(config: ShopConfig, events: int) -> Callable[[], Iterator[Batch]]:
    def batches() -> Iterator[Batch]:
        shop = Shop(config)
        opening = shop.step(np.zeros(0))
        yield replace(opening, catalogue=shop.catalogue(START)).batch()
        while shop.events < events:
            n = min(BATCH, events - shop.events)
            yield shop.step(START + 2.0 * (shop.events + np.arange(n, dtype=np.float64))).batch()

    return batches


def _measure(
    config: EngineConfig, batches: Iterator[Batch], begin: int, runs: int
) -> dict[str, object]:
    """Learn a stream; return the figures of its targets from event `begin` on."""
    engine = Engine(config)
    ranks = engine.evaluation = _Ranks(config.items)
    met: dict[str, int] = {}
    before: list[int] = []
    users: dict[str, None] = {}
    for batch in batches:
        engine.learn(batch)
        for place in np.flatnonzero(batch.kind <= PURCHASE).tolist():
            item = batch.item[place]
            before.append(met.get(item, 0))
            met[item] = before[-1] + 1
            users[batch.user[place]] = None
    rank = np.concatenate(ranks.kept)[begin:]
    clicks = np.array(before)[begin:]
    tested = ~np.isnan(rank[:, 0])
    groups = {
        "": tested,
        "_first_click": tested & (clicks == 0),
        "_young": tested & (clicks < YOUNG),
    }
    figures: dict[str, object] = {}
    for name, group in groups.items():
        hits = rank[group] <= LIST
        n = max(int(group.sum()), 1)
        figures[f"hr@{LIST}{name}"] = round(float(hits[:, 0].sum()) / n, 4)
        figures[f"content_hr@{LIST}{name}"] = round(float(hits[:, 1].sum()) / n, 4)
        figures[f"n{name}"] = int(group.sum())
    first = rank[groups["_first_click"]][:, 0]
    figures["candidates_first_click"] = round(float(np.isfinite(first).mean()), 4)
    seen = engine.memory.seen
    asked = list(users)[-ASKED:]
    return {
        **figures,
        f"coverage@{LIST}": round(
            engine.evaluation.metrics(seen=seen)["blend"][f"coverage@{LIST}"], 4
        ),
        "microseconds_per_query": stage_microseconds(engine, asked, runs)["kernel_us"],
        "events": len(before),
        "items": seen,
        "from_event": begin,
    }

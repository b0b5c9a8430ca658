"""What the parts of the engine take: a query and its stages, an event, who waits, what stops.

All in one process, without Kafka: the shop of `data`, everybody and everything met, then a history.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import xxhash

from benchmarks.asking import query_figures, stage_microseconds
from benchmarks.data import LONG_AGO, STEP_SECONDS, Crowd, lead_in
from benchmarks.growth import NEVER, SHARE, learn_figures
from benchmarks.rows import Row, make_row
from benchmarks.visits import BATCH
from learners.base import Batch, EngineConfig
from learners.checkpoint import CheckpointStore
from learners.engine import Engine
from streams.events import Click
from streams.shop_events import user_name
from streams.warmup import warm_up

__all__ = ["run"]

ASK_EVERY_SECONDS = 0.002
MOST_WAIT_SECONDS = 30.0
SWITCH_SECONDS = 0.0001  # as a node sets it


def run(
    *,
    crowd: Crowd,
    history: int,
    queries: int,
    batches: int,
    runs: int,
    asked: int,
    captures: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield the rows `query`, `learn`, `wait` and `checkpoint`.

    Parameters
    ----------
    crowd
        Users and items.
    history
        Events learnt first, besides one for each user and item.
    queries, runs
        Different users who are asked for, and how often; the best run counts.
    batches
        Of 1,000 events, timed at each share of evaluation.
    asked
        Queries beside unbroken learning, one every 2 ms.
    captures
        Checkpoints beside unbroken learning.
    """
    warm_up(say)
    engine = Engine(EngineConfig(users=crowd.users, items=crowd.items))
    coming = _batches(crowd)
    warm = -(-(crowd.lead_in + history) // BATCH)
    say(f"learning {warm * BATCH:,} events")
    for batch in islice(coming, warm):
        engine.learn(batch)
    users = [user_name(user) for user in np.random.default_rng(7).permutation(crowd.users)]
    users = users[:queries]
    size: dict[str, object] = {"users": crowd.users, "items": crowd.items}
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        "query": lambda: _query(engine, users, runs),
        "learn": lambda: _learn(engine, coming, batches),
        "wait": lambda: _wait(engine, coming, users, asked),
        "checkpoint": lambda: _checkpoints(engine, coming, captures),
    }
    for name, job in jobs.items():
        say(name)
        started = time.perf_counter()
        figures = {**size, "events": sum(engine.learnt.values()), **job()}
        yield make_row("kernels", name, figures, time.perf_counter() - started)


def _batches(crowd: Crowd) -> Iterator[Batch]:
    """The lead-in and then the shop without end, 1,000 events at a time."""
    first = lead_in(crowd)
    while events := list(islice(first, BATCH)):
        yield _batch_of([event for event in events if isinstance(event, Click)])
    shop = crowd.open_shop("bench")
    opened = LONG_AGO + crowd.lead_in * STEP_SECONDS
    while True:
        times = opened + (shop.events + np.arange(BATCH)) * STEP_SECONDS
        yield shop.step(np.asarray(times, np.float64)).batch()


def _batch_of(clicks: Sequence[Click]) -> Batch:
    n = len(clicks)
    ids = (xxhash.xxh3_64_intdigest(click.event_id.encode()) for click in clicks)
    return Batch(
        kind=np.zeros(n, np.uint8),
        user=[click.user for click in clicks],
        item=[click.item for click in clicks],
        session=[""] * n,
        timestamp=np.array([click.timestamp for click in clicks]),
        event_hash=np.fromiter(ids, np.uint64, n),
        log=np.zeros(n, np.int32),
        logs=["first/0"],
    )


def _query(engine: Engine, users: Sequence[str], runs: int) -> dict[str, float]:
    """A scored query: the kernel, its stages, and `Engine.recommend`."""
    return {
        "queries": len(users),
        **stage_microseconds(engine, users, runs),
        **query_figures(engine, users, runs),
    }


def _learn(engine: Engine, coming: Iterator[Batch], batches: int) -> dict[str, float]:
    """An event that is learnt only, one in a node's mixture, one that is tested and learnt."""
    shares = {"learn": NEVER, f"learn_tested_in_{SHARE}": SHARE, "test_and_learn": 1}
    figures: dict[str, float] = {}
    usual = engine.config
    for name, one_in in shares.items():
        engine.config = replace(usual, evaluate_one_in=one_in)
        learnt = learn_figures(engine, list(islice(coming, batches)))
        figures |= {each.replace("learn", name, 1): value for each, value in learnt.items()}
    engine.config = usual
    return figures


class _Busy:
    """A thread that learns without a break; its batches are made beforehand, and go round."""

    def __init__(self, engine: Engine, batches: Sequence[Batch]) -> None:
        self.engine = engine
        self.batches = batches
        self.learnt = 0
        self._rounds = 0
        self._enough = threading.Event()
        self._learner = ThreadPoolExecutor(1)
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()
        self._next()

    def _next(self) -> None:
        """Learn a batch and queue for the next one, so that other jobs get between."""
        batch = self.batches[self._rounds % len(self.batches)]
        salt = np.uint64(self._rounds // len(self.batches) * 0x9E3779B97F4A7C15 % 2**64)
        self.learnt += self.engine.learn(replace(batch, event_hash=batch.event_hash ^ salt))
        self._rounds += 1
        if not self._enough.is_set():
            self._learner.submit(self._next)

    def between(self, job: Callable[[], object]) -> float:
        """Run a job between two batches; return the seconds for which it stopped learning."""

        def timed() -> float:
            started = time.perf_counter()
            job()
            return time.perf_counter() - started

        return self._learner.submit(timed).result()

    def stop(self) -> None:
        """Let the thread end, and put back what was set for it."""
        self._enough.set()
        self._learner.shutdown(wait=True)
        gc.unfreeze()
        sys.setswitchinterval(self._switch)


def _wait(
    engine: Engine, coming: Iterator[Batch], users: Sequence[str], asked: int
) -> dict[str, float]:
    """How long an answer takes beside unbroken learning, asked for every 2 ms at the most."""
    busy = _Busy(engine, list(islice(coming, 50)))
    seconds = []
    began, learnt = time.perf_counter(), busy.learnt
    try:
        for i in count():
            late = time.perf_counter() - began > MOST_WAIT_SECONDS
            if i >= asked and (late or busy.learnt > learnt):  # beside what was learnt, that is
                break
            time.sleep(ASK_EVERY_SECONDS)
            started = time.perf_counter()
            engine.recommend(users[i % len(users)], k=10)
            seconds.append(time.perf_counter() - started)
    finally:
        learnt, passed = busy.learnt - learnt, time.perf_counter() - began
        busy.stop()
    each = 1e3 * np.array(seconds)
    return {
        "asked": len(seconds),
        "median_ms": round(float(np.median(each)), 3),
        "p99_ms": round(float(np.percentile(each, 99)), 3),
        "longest_ms": round(float(each.max()), 3),
        "events_per_second": round(learnt / passed),
        "learn_us": round(1e6 * passed / max(learnt, 1), 2),
    }


def _checkpoints(engine: Engine, coming: Iterator[Batch], captures: int) -> dict[str, float]:
    """How long taking checkpoints stops learning: the first, which finds the memory, and others."""
    busy = _Busy(engine, list(islice(coming, 50)))
    stopped, size = [], 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = CheckpointStore(Path(folder))
            for _ in range(captures + 1):
                cleared = busy.between(engine.memory.clear_marks)
                store.copy_ahead(engine)
                stopped.append(cleared + busy.between(lambda: store.capture(engine)))
            busy.stop()
            written = store.write(store.capture(engine))
            size = (written / "state.safetensors").stat().st_size
    finally:
        busy.stop()
    later = 1e3 * np.array(stopped[1:])
    return {
        "captures": captures,
        "state_bytes": size,
        "stops_first_ms": round(1e3 * stopped[0], 2),
        "stops_median_ms": round(float(np.median(later)), 2),
        "stops_longest_ms": round(float(later.max()), 2),
    }

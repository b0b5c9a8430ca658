"""Asking the kernels alone, many users in one call, so that no figure has Python's share in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learners.blend import score as score_candidates
from learners.candidates import gather
from learners.engine import Engine
from learners.features import describe
from learners.handle import Handle, state_of
from learners.jit import jit_counted
from learners.prequential import ask_user
from learners.prescore import choose

__all__ = ["STAGES", "query_figures", "stage_microseconds"]

STAGES = ("gather", "choose", "features", "score")  # of a scored query, in this order


@jit_counted
def _ask_all(
    handle: Handle,
    users: NDArray[np.int64],
    now: float,
    most: int,
    stages: int,
) -> int:
    """Go through the first `stages` of a query of each user row; return how many items it met."""
    state = state_of(handle)
    history, models, blend, work = state.history, state.models, state.blend, state.work
    met = 0
    for i in range(len(users)):
        user = users[i]
        asked = ask_user(history, work, user, now, int(history.head[user].session_length))
        touched = gather(models, work, asked)
        met += touched
        if stages < 2:
            continue
        kept = choose(models, work, asked, touched, most)
        if stages < 3:
            continue
        describe(models, work, asked, kept)
        if stages < 4:
            continue
        score_candidates(blend, work.feature, kept, work.hidden, work.score)
    return met


def stage_microseconds(engine: Engine, users: Sequence[str], runs: int) -> dict[str, float]:
    """Microseconds of each stage of a scored query, of all together, and how many items it meets.

    A stage is the best run that goes so far less the best that ends before it; the runs of all
    stages take turns, so that a moment's disturbance is nobody's alone.
    """
    memory = engine.memory
    rows = np.array([memory.users.row(user) for user in users])

    def ask(stages: int) -> int:
        return _ask_all(
            memory.handle,
            rows,
            engine.clock,
            engine.config.candidates,
            stages,
        )

    met = ask(len(STAGES))  # compiles, or loads what was compiled
    best = np.full(len(STAGES), np.inf)
    for _ in range(runs):
        for stage in range(len(STAGES)):
            started = time.perf_counter()
            ask(stage + 1)
            best[stage] = min(best[stage], time.perf_counter() - started)
    until = [0.0, *(1e6 * best / len(rows)).tolist()]
    each = {
        f"{name}_us": round(after - before, 2)
        for name, before, after in zip(STAGES, until, until[1:], strict=False)
    }
    return {"kernel_us": round(until[-1], 2), **each, "items_met": round(met / len(rows), 1)}


def query_figures(engine: Engine, users: Sequence[str], runs: int) -> dict[str, float]:
    """`Engine.recommend` for each user in turn: the median, and the mean of the best run."""
    seconds = np.empty((runs, len(users)))
    for run in seconds:
        for i, user in enumerate(users):
            started = time.perf_counter()
            engine.recommend(user, k=10)
            run[i] = time.perf_counter() - started
    best = seconds[seconds.sum(axis=1).argmin()]
    return {
        "recommend_median_us": round(1e6 * float(np.median(best)), 2),
        "recommend_mean_us": round(1e6 * float(best.mean()), 2),
        "recommend_p99_us": round(1e6 * float(np.percentile(best, 99)), 2),
    }

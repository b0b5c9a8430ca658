"""From sources to candidates: gather what any source names, keep the best, describe each.

Every source fills a column; a hand-set prescore over the columns keeps about 100 candidates; the
features of each are what the blend learns from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners import neighbours, transitions
from learners.history import MOST_QUERY
from learners.jit import jit
from learners.neighbours import NeighboursState, kth_largest
from learners.popularity import PopularityState
from learners.sessions import Sessions
from learners.transitions import TransitionsState

__all__ = [
    "COLUMNS",
    "FEATURES",
    "Asked",
    "Models",
    "Workspace",
    "choose",
    "describe",
    "gather",
    "make_workspace",
]

COLUMNS = 5
KNN, FORWARD_SLOW, FORWARD_FAST, BACKWARD, FORWARD_LAST = range(COLUMNS)
PRESCORE = np.array([1.0, 0.3, 0.3, 0.1, 0.2])  # of each column's share of its maximum
PRESCORE_POPULAR = 0.02
PRESCORE_REPEAT = 0.05
POPULAR = 30  # of each half-life's top list
EVIDENCE = np.array([KNN, FORWARD_SLOW, FORWARD_LAST])  # columns whose sum itself says something
FEATURES = 2 * COLUMNS + len(EVIDENCE) + 4 + 2 + 6 + 4
MOST_TOUCHED = 8192
SHARE_FLOOR = 3e-4
SHARE_SHIFT = 8.1  # -ln(SHARE_FLOOR), so that a share of nothing is 0


class Models(NamedTuple):
    """What a query reads."""

    sessions: Sessions
    neighbours: NeighboursState
    transitions: TransitionsState
    popularity: PopularityState


class Workspace(NamedTuple):
    """Working memory of one query; `slot` is zero between queries."""

    knn: neighbours.Scratch
    query: NDArray[np.int32]  # (MOST_QUERY,) item rows, most recent first
    query_kind: NDArray[np.uint8]  # (MOST_QUERY,)
    slot: NDArray[np.int32]  # (items,) 1 + place among the touched
    item: NDArray[np.int32]  # (MOST_TOUCHED,)
    column: NDArray[np.float64]  # (MOST_TOUCHED, COLUMNS)
    prescore: NDArray[np.float64]  # (MOST_TOUCHED,)
    value: NDArray[np.float64]  # (MOST_TOUCHED,) copies for the selection
    largest: NDArray[np.float64]  # (COLUMNS,)
    total: NDArray[np.float64]  # (COLUMNS,)
    candidate: NDArray[np.int32]  # (most,) places among the touched
    feature: NDArray[np.float32]  # (most, FEATURES)
    hidden: NDArray[np.float32]  # (most, units)
    score: NDArray[np.float32]  # (most,)


class Asked(NamedTuple):
    """One query, its items in `Workspace.query`."""

    items: int  # how many
    in_session: int  # how many of them are of the running session
    now: float  # seconds
    own: int  # number of the running session, -1 for none


def make_workspace(
    items: int, sessions: int, ring_slots: int, hidden_units: int, most_candidates: int
) -> Workspace:
    """Return working memory for queries of up to `most_candidates` candidates."""
    return Workspace(
        knn=neighbours.make_scratch(items, sessions, ring_slots),
        query=np.zeros(MOST_QUERY, np.int32),
        query_kind=np.zeros(MOST_QUERY, np.uint8),
        slot=np.zeros(items, np.int32),
        item=np.zeros(MOST_TOUCHED, np.int32),
        column=np.zeros((MOST_TOUCHED, COLUMNS)),
        prescore=np.zeros(MOST_TOUCHED),
        value=np.zeros(MOST_TOUCHED),
        largest=np.zeros(COLUMNS),
        total=np.zeros(COLUMNS),
        candidate=np.zeros(most_candidates, np.int32),
        feature=np.zeros((most_candidates, FEATURES), np.float32),
        hidden=np.zeros((most_candidates, hidden_units), np.float32),
        score=np.zeros(most_candidates, np.float32),
    )


@jit
def _touch(work: Workspace, touched: int, item: int) -> int:
    """Make sure an item has a place; return how many are touched now."""
    if work.slot[item] == 0 and touched < len(work.item):
        work.item[touched] = item
        work.column[touched, :] = 0.0
        touched += 1
        work.slot[item] = touched
    return touched


@jit
def _gather_transitions(models: Models, work: Workspace, asked: Asked, touched: int) -> int:
    state = models.transitions
    found = 0
    for i in range(asked.items):
        x = work.query[i]
        repeated = x < 0
        for j in range(i):
            repeated = repeated or work.query[j] == x
        if repeated:
            continue
        if found == transitions.QUERY_ITEMS:
            break
        found += 1
        nearness = 1.0 / (1.0 + i)
        table = state.forward
        age = max(asked.now - table.touched[x], 0.0)
        slow = 2.0 ** (-age / state.half_life[0])
        fast = 2.0 ** (-age / state.half_life[1])
        start = table.rows.start[x]
        for entry in range(start, start + table.rows.held[x]):
            touched = _touch(work, touched, table.item[entry])
            place = work.slot[table.item[entry]] - 1
            if place >= 0:
                weight = slow * table.slow[entry]
                work.column[place, FORWARD_SLOW] += nearness * weight
                work.column[place, FORWARD_FAST] += nearness * fast * table.fast[entry]
                if i == 0:
                    work.column[place, FORWARD_LAST] = weight
        table = state.backward
        age = max(asked.now - table.touched[x], 0.0)
        slow = nearness * 2.0 ** (-age / state.half_life[0])
        start = table.rows.start[x]
        for entry in range(start, start + table.rows.held[x]):
            touched = _touch(work, touched, table.item[entry])
            place = work.slot[table.item[entry]] - 1
            if place >= 0:
                work.column[place, BACKWARD] += slow * table.slow[entry]
    return touched


@jit
def gather(models: Models, work: Workspace, asked: Asked) -> int:
    """Let every source name and score items; return how many were touched.

    Afterwards `work.item[:m]` and `work.column[:m]` hold them, `work.largest` and `work.total`
    each column's maximum and sum, and `work.slot` is zero again.
    """
    knn = work.knn
    voted = neighbours.votes(
        models.neighbours, models.sessions, knn, work.query, asked.items, asked.now, asked.own
    )
    touched = 0
    for i in range(voted):
        touched = _touch(work, touched, knn.item[i])
        work.column[touched - 1, KNN] = knn.vote[i]
    touched = _gather_transitions(models, work, asked, touched)
    for i in range(asked.items):
        if work.query[i] >= 0:
            touched = _touch(work, touched, work.query[i])
    top = models.popularity.top
    for life in range(top.shape[0]):
        for place in range(POPULAR):
            if top[life, place] > 0:
                touched = _touch(work, touched, top[life, place] - 1)
    work.largest[:] = 0.0
    work.total[:] = 0.0
    for i in range(touched):
        work.slot[work.item[i]] = 0
        for column in range(COLUMNS):
            value = work.column[i, column]
            work.total[column] += value
            work.largest[column] = max(work.largest[column], value)
    return touched


@jit
def choose(models: Models, work: Workspace, asked: Asked, touched: int, most: int) -> int:
    """Keep the `most` touched items of the best prescore; return how many were kept."""
    popular = models.popularity
    lives = len(popular.half_life)
    peak = np.ones(lives)
    for life in range(lives):
        if popular.top[life, 0] > 0:
            peak[life] = max(popular.weight[popular.top[life, 0] - 1, life], 1e-300)
    for i in range(touched):
        item = work.item[i]
        score = 0.0
        for column in range(COLUMNS):
            if work.column[i, column] > 0.0:
                score += PRESCORE[column] * work.column[i, column] / work.largest[column]
        for life in range(lives):
            score += PRESCORE_POPULAR * popular.weight[item, life] / peak[life]
        for j in range(asked.items):
            if work.query[j] == item:
                score += PRESCORE_REPEAT
                break
        work.prescore[i] = score
        work.value[i] = score
    least = -1.0
    if touched > most:
        least = kth_largest(work.value, touched, most)
    kept = 0
    for i in range(touched):
        if work.prescore[i] >= least and kept < most:
            work.candidate[kept] = i
            kept += 1
    return kept


@jit
def _describe_scores(work: Workspace, place: int, x: NDArray[np.float32]) -> int:
    f = 0
    for column in range(COLUMNS):
        score = work.column[place, column]
        if score > 0.0:
            x[f] = score / work.largest[column]
            x[f + 1] = (
                np.log(score / work.total[column] + SHARE_FLOOR) + SHARE_SHIFT
            ) / SHARE_SHIFT
        else:
            x[f] = 0.0
            x[f + 1] = 0.0
        f += 2
    for column in EVIDENCE:
        score = work.column[place, column]
        x[f] = 0.5 * np.log(1.0 + score) if score > 0.0 else 0.0
        f += 1
    return f


@jit
def _describe_repeats(
    work: Workspace, asked: Asked, item: int, f: int, x: NDArray[np.float32]
) -> int:
    """In the session, its last item, nearness, how often; before the session; bought."""
    x[f : f + 6] = 0.0
    often = 0
    for j in range(asked.items):
        if work.query[j] != item:
            continue
        if work.query_kind[j] == 1:
            x[f + 5] = 1.0
        if j >= asked.in_session:
            x[f + 4] = 1.0
            continue
        if often == 0:
            x[f] = 1.0
            x[f + 1] = 1.0 if j == 0 else 0.0
            x[f + 2] = np.exp(-j / 3.0)
        often += 1
    x[f + 3] = np.log(1.0 + often)
    return f + 6


@jit
def describe(models: Models, work: Workspace, asked: Asked, kept: int) -> None:
    """Write the features of the `kept` candidates into `work.feature` (kept, FEATURES)."""
    popular = models.popularity
    lives = len(popular.half_life)
    decay = np.empty(lives)
    for life in range(lives):
        age = (asked.now - popular.reference[life]) / popular.half_life[life]
        decay[life] = 2.0 ** -min(max(age, -1000.0), 1000.0)
    short = np.float32(1.0 / max(asked.in_session, 1))
    for c in range(kept):
        place = work.candidate[c]
        item = work.item[place]
        x = work.feature[c]
        f = _describe_scores(work, place, x)
        for life in range(lives):
            x[f] = 0.2 * np.log(1.0 + popular.weight[item, life] * decay[life])
            f += 1
        x[f] = 0.3 * np.log(1.0 + max(asked.now - popular.first[item], 0.0) / 3600.0)
        x[f + 1] = 0.3 * np.log(1.0 + max(asked.now - popular.last[item], 0.0) / 600.0)
        f = _describe_repeats(work, asked, item, f + 2, x)
        x[f] = short
        x[f + 1] = short * x[2 * KNN + 1]
        x[f + 2] = short * x[2 * FORWARD_LAST + 1]
        x[f + 3] = short * x[2 * COLUMNS + len(EVIDENCE) + 4 + 2]

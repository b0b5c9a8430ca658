"""From sources to candidates: gather what any source names, keep the best, describe each.

Every source fills a column; a hand-set prescore over the columns keeps about 100 candidates; the
features of each are what the blend learns from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.selection import kth_largest
from learners.sources import neighbours, transitions
from learners.sources.popularity import PopularityState
from learners.sources.rings import NeighboursState
from learners.sources.transitions import TransitionsState
from learners.store.history import MOST_QUERY
from learners.store.rows import Records
from learners.store.sessions import Sessions

__all__ = [
    "COLUMNS",
    "FEATURES",
    "Asked",
    "Models",
    "Workspace",
    "choose",
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
def _touch(
    slot: NDArray[np.int32],
    items: NDArray[np.int32],
    column: NDArray[np.float64],
    touched: int,
    item: int,
) -> int:
    """Make sure an item has a place; return how many are touched now."""
    if slot[item] == 0 and touched < len(items):
        items[touched] = item
        for c in range(COLUMNS):
            column[touched, c] = 0.0
        touched += 1
        slot[item] = touched
    return touched


@jit
def _gather_forward(
    entry: Records,
    head: Any,
    nearness: float,
    decay: tuple[float, float],
    slot: NDArray[np.int32],
    items: NDArray[np.int32],
    column: NDArray[np.float64],
    touched: int,
) -> int:
    """Add one query item's forward transitions; those of the last item count apart as well."""
    for i in range(head.start, head.start + head.held):
        item = entry[i].item
        touched = _touch(slot, items, column, touched, item)
        place = slot[item] - 1
        if place >= 0:
            weight = decay[0] * entry[i].slow
            column[place, FORWARD_SLOW] += nearness * weight
            column[place, FORWARD_FAST] += nearness * decay[1] * entry[i].fast
            if nearness == 1.0:
                column[place, FORWARD_LAST] = weight
    return touched


@jit
def _gather_backward(
    entry: Records,
    head: Any,
    weight: float,
    slot: NDArray[np.int32],
    items: NDArray[np.int32],
    column: NDArray[np.float64],
    touched: int,
) -> int:
    """Add one query item's backward transitions."""
    for i in range(head.start, head.start + head.held):
        item = entry[i].item
        touched = _touch(slot, items, column, touched, item)
        place = slot[item] - 1
        if place >= 0:
            column[place, BACKWARD] += weight * entry[i].slow
    return touched


@jit
def _gather_transitions(
    state: TransitionsState, work: Workspace, asked: Asked, touched: int
) -> int:
    slot, items, column, query = work.slot, work.item, work.column, work.query
    forward, backward = state.forward.entry, state.backward.entry
    forward_row, backward_row = state.forward.rows.head, state.backward.rows.head
    half_life = state.half_life
    found = 0
    for i in range(asked.items):
        x = query[i]
        repeated = x < 0
        for j in range(i):
            repeated = repeated or query[j] == x
        if repeated:
            continue
        if found == transitions.QUERY_ITEMS:
            break
        found += 1
        nearness = 1.0 / (1.0 + i)
        head = forward_row[x]
        decay = transitions.decay(half_life, asked.now - head.time)
        touched = _gather_forward(forward, head, nearness, decay, slot, items, column, touched)
        head = backward_row[x]
        weight = nearness * transitions.decay(half_life, asked.now - head.time)[0]
        touched = _gather_backward(backward, head, weight, slot, items, column, touched)
    return touched


@jit
def gather(models: Models, work: Workspace, asked: Asked) -> int:
    """Let every source name and score items; return how many were touched.

    Afterwards `work.item[:m]` and `work.column[:m]` hold them, `work.largest` and `work.total`
    each column's maximum and sum, and `work.slot` is zero again.
    """
    slot, items, column, query = work.slot, work.item, work.column, work.query
    voted = neighbours.votes(
        models.neighbours, models.sessions, work.knn, query, asked.items, asked.now, asked.own
    )
    named, vote = work.knn.item, work.knn.vote
    touched = 0
    for i in range(voted):
        touched = _touch(slot, items, column, touched, named[i])
        column[touched - 1, KNN] = vote[i]
    touched = _gather_transitions(models.transitions, work, asked, touched)
    for i in range(asked.items):
        if query[i] >= 0:
            touched = _touch(slot, items, column, touched, query[i])
    top = models.popularity.top
    for life in range(top.shape[0]):
        for place in range(POPULAR):
            if top[life, place] > 0:
                touched = _touch(slot, items, column, touched, top[life, place] - 1)
    for i in range(touched):
        slot[items[i]] = 0
    for c in range(COLUMNS):
        total = largest = 0.0
        for i in range(touched):
            total += column[i, c]
            largest = max(largest, column[i, c])
        work.total[c] = total
        work.largest[c] = largest
    return touched


@jit
def choose(models: Models, work: Workspace, asked: Asked, touched: int, most: int) -> int:
    """Keep the `most` touched items of the best prescore; return how many were kept."""
    weight, top = models.popularity.weight, models.popularity.top
    items, column, query, largest = work.item, work.column, work.query, work.largest
    prescore, value, candidate = work.prescore, work.value, work.candidate
    lives = top.shape[0]
    share = np.empty(COLUMNS)
    for c in range(COLUMNS):
        share[c] = PRESCORE[c] / max(largest[c], 1e-300)
    popular = np.zeros(lives)
    for life in range(lives):
        if top[life, 0] > 0:
            popular[life] = PRESCORE_POPULAR / max(weight[top[life, 0] - 1, life], 1e-300)
    for i in range(touched):
        item = items[i]
        score = 0.0
        for c in range(COLUMNS):
            score += share[c] * column[i, c]
        for life in range(lives):
            score += popular[life] * weight[item, life]
        for j in range(asked.items):
            if query[j] == item:
                score += PRESCORE_REPEAT
                break
        prescore[i] = score
        value[i] = score
    least = kth_largest(value, touched, most) if touched > most else -1.0
    kept = 0
    for i in range(touched):
        if prescore[i] >= least and kept < most:
            candidate[kept] = i
            kept += 1
    return kept

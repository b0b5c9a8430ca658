"""Gather what any source names: every source fills a column.

A hand-set score over the columns keeps about 100 candidates (`prescore`); the features of each
(`features`) are what the blend learns from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.deep.served.source import ITEMS, NAMED, DeepState, look_for
from learners.jit import LINE, jit, prefetch
from learners.lanes import empty_rows
from learners.nearness import NEARNESSES
from learners.outcomes import OutcomesState
from learners.sources import content, neighbours, transitions
from learners.sources.factors import FactorsState
from learners.sources.popularity import PopularityState
from learners.sources.rings import NeighboursState
from learners.sources.shelves import ContentState
from learners.sources.transitions import TransitionsState
from learners.store.history import MOST_QUERY
from learners.store.rows import Records
from learners.store.sessions import Sessions
from learners.vector import exp_of, find, largest_of, total_of

__all__ = [
    "COLUMNS",
    "FEATURES",
    "Asked",
    "Models",
    "Workspace",
    "first_weights",
    "gather",
    "gather_transitions",
    "latest",
    "make_workspace",
]

COLUMNS = 7
KNN, FORWARD_SLOW, FORWARD_FAST, BACKWARD, FORWARD_LAST, CONTENT, DEEP = range(COLUMNS)
# Of each column's share of its maximum.
PRESCORE = np.array([1.0, 0.3, 0.3, 0.1, 0.2, 1.0, 0.3], np.float32)
FIRST_SCALE = np.float32(3.0)  # of the first weights: a share is part of a softmax
TINY = np.float32(1e-30)  # what is divided by where a column is empty
POPULAR = 30  # of each half-life's top list
EVIDENCE = np.array([KNN, FORWARD_SLOW, FORWARD_LAST])  # columns whose sum itself says something
HALF_LIVES = len(EngineConfig().popularity_half_lives_seconds)
FEATURES = 2 * COLUMNS + len(EVIDENCE) + 2 + NEARNESSES + 3 + 2 + HALF_LIVES + 2 + 6 + 5

PARTS = ("share", "neighbours", "transitions", "popularity", "content", "deep")  # each at most 1
ANSWER = np.dtype([("row", np.int64), *((part, np.float64) for part in PARTS)])


def first_weights() -> NDArray[np.float32]:
    """Return the weights of the features with which the blend begins: it ranks as the prescore."""
    weights = np.zeros(FEATURES, np.float32)
    weights[: 2 * COLUMNS : 2] = FIRST_SCALE * PRESCORE
    return weights


class Models(NamedTuple):
    """What a query reads."""

    sessions: Sessions
    neighbours: NeighboursState
    transitions: TransitionsState
    popularity: PopularityState
    factors: FactorsState
    content: ContentState
    outcomes: OutcomesState
    deep: DeepState


class Workspace(NamedTuple):
    """Working memory of one query, with room for all T items that the sources can name at once.

    `slot` is zero between queries. The neighbours vote into the first column.
    """

    knn: neighbours.Scratch
    content: content.Scratch
    query: NDArray[np.int32]  # (MOST_QUERY,) item rows, most recent first
    query_kind: NDArray[np.uint8]  # (MOST_QUERY,)
    query_time: NDArray[np.float64]  # (MOST_QUERY,) seconds, NaN where it is not known
    distinct: NDArray[np.int32]  # (MOST_QUERY,) places of distinct items in `query`
    slot: NDArray[np.int32]  # (items,) 1 + place among the touched
    item: NDArray[np.int32]  # (T,)
    column: NDArray[np.float32]  # (COLUMNS, T)
    prescore: NDArray[np.float32]  # (T,)
    value: NDArray[np.float32]  # (T,) one score of each
    popular: NDArray[np.float64]  # (HALF_LIVES,) what one click counts at each half-life
    listed: NDArray[np.int32]  # (1 + n,) how many, then places of what stands in top lists
    contender: NDArray[np.int32]  # (touched,) places that may still become candidates
    touched: NDArray[np.int64]  # (1,) entries of `column` that are not zero
    largest: NDArray[np.float32]  # (COLUMNS,)
    total: NDArray[np.float32]  # (COLUMNS,)
    candidate: NDArray[np.int32]  # (most,) places among the touched
    chosen: NDArray[np.int32]  # (most,) their item rows
    wanted: NDArray[np.float32]  # (1, lanes.WIDTH) what the factorisation looks for
    factor: NDArray[np.float32]  # (most,) its score of each candidate
    similarity: NDArray[np.float32]  # (most,) to the last items' entries
    deep: NDArray[np.float32]  # (most,) the deep model's score, -inf for none
    feature: NDArray[np.float32]  # (FEATURES, most)
    hidden: NDArray[np.float32]  # (most, units)
    score: NDArray[np.float32]  # (most,)
    best: NDArray[np.int32]  # (most,) places of an answer's items
    answer: Records  # (most,) ANSWER, best first


class Asked(NamedTuple):
    """One query, its items in `Workspace.query`."""

    items: int  # how many
    in_session: int  # how many of them are of the running session
    now: float  # seconds
    own: int  # number of the running session, -1 for none
    user: int  # row, -1 for nobody's
    version: int  # of the user's history


def make_workspace(
    items: int,
    sessions: int,
    ring_slots: int,
    neighbour_sessions: int,
    transition_slots: int,
    hidden_units: int,
    most_candidates: int,
) -> Workspace:
    """Return working memory for queries of up to `most_candidates` candidates."""
    touched = neighbours.most_votes(neighbour_sessions)
    touched += 2 * transitions.QUERY_ITEMS * transition_slots + MOST_QUERY + HALF_LIVES * POPULAR
    touched += content.MOST_NAMED + NAMED
    touched += (LINE - touched) % (2 * LINE)  # rows that begin in different cache sets
    most = most_candidates + LINE
    slot, item = np.zeros(items, np.int32), np.zeros(touched, np.int32)
    column = np.zeros((COLUMNS, touched), np.float32)
    return Workspace(
        knn=neighbours.make_scratch(items, sessions, ring_slots, slot, item, column[KNN]),
        content=content.make_scratch(items),
        query=np.zeros(MOST_QUERY, np.int32),
        query_kind=np.zeros(MOST_QUERY, np.uint8),
        query_time=np.full(MOST_QUERY, np.nan),
        distinct=np.zeros(MOST_QUERY, np.int32),
        slot=slot,
        item=item,
        column=column,
        prescore=np.zeros(touched, np.float32),
        value=np.zeros(touched, np.float32),
        popular=np.zeros(HALF_LIVES),
        listed=np.zeros(1 + HALF_LIVES * POPULAR, np.int32),
        contender=np.zeros(touched + 1, np.int32),
        touched=np.zeros(1, np.int64),
        largest=np.zeros(COLUMNS, np.float32),
        total=np.zeros(COLUMNS, np.float32),
        candidate=np.zeros(most_candidates, np.int32),
        chosen=np.zeros(most_candidates, np.int32),
        wanted=empty_rows(1),
        factor=np.zeros(most_candidates, np.float32),
        similarity=np.zeros(most_candidates, np.float32),
        deep=np.zeros(most, np.float32),
        feature=np.zeros((FEATURES, most), np.float32),
        hidden=np.zeros((most, hidden_units), np.float32),
        score=np.zeros(most, np.float32),
        best=np.zeros(most, np.int32),
        answer=np.zeros(most, ANSWER),
    )


@jit
def _touch(slot: NDArray[np.int32], items: NDArray[np.int32], touched: int, item: int) -> int:
    """Make sure an item has a place; return how many are touched now.

    Whether it has one already cannot be foreseen, so there is no branch to be mispredicted.
    """
    place = slot[item]
    items[touched] = item
    slot[item] = place if place > 0 else touched + 1
    return touched + int(place == 0)


@jit
def _gather_row(
    table: transitions.Table,
    row: int,
    nearness: float,
    slow_column: int,
    fast_column: int,
    work: Workspace,
    touched: int,
) -> int:
    """Add one query item's transitions, as they are kept, to a column each."""
    slot, items, to_slow, to_fast = (
        work.slot,
        work.item,
        work.column[slow_column],
        work.column[fast_column],
    )
    named, slow, fast = table.item, table.slow, table.fast
    near = np.float32(nearness)
    head = table.rows.head[row]
    for i in range(head.start, head.start + head.held):
        touched = _touch(slot, items, touched, named[i])
        place = slot[named[i]] - 1
        to_slow[place] += near * slow[i]
        if slow_column != fast_column:
            to_fast[place] += near * fast[i]
    return touched


@jit
def _distinct(work: Workspace, asked: Asked) -> int:
    """Note the places of the latest distinct query items in `work.distinct`; return how many."""
    query, distinct = work.query, work.distinct
    found = 0
    for i in range(asked.items):
        if query[i] >= 0 and find(query, 0, i, query[i]) < 0 and found < transitions.QUERY_ITEMS:
            distinct[found] = i
            found += 1
    return found


@jit
def gather_transitions(models: Models, work: Workspace, asked: Asked, touched: int) -> int:
    """Add the transitions of the latest distinct query items; the last one's count apart, too."""
    state, query, column = models.transitions, work.query, work.column
    forward, backward = state.forward, state.backward
    found = _distinct(work, asked)
    for i in range(found):
        if i + 1 < found:
            transitions.prefetch_row(forward, query[work.distinct[i + 1]])
            transitions.prefetch_row(backward, query[work.distinct[i + 1]])
        place = work.distinct[i]
        x, near = query[place], 1.0 / (1.0 + place)
        touched = _gather_row(forward, x, near, FORWARD_SLOW, FORWARD_FAST, work, touched)
        if place == 0:
            for j in range(touched):
                column[FORWARD_LAST, j] = column[FORWARD_SLOW, j]
        touched = _gather_row(backward, x, near, BACKWARD, BACKWARD, work, touched)
    decay_slow, decay_fast = transitions.decay(state, max(asked.now, state.reference[0]))
    slow, fast = np.float32(decay_slow), np.float32(decay_fast)
    for j in range(touched):
        column[FORWARD_SLOW, j] *= slow
        column[FORWARD_FAST, j] *= fast
        column[BACKWARD, j] *= slow
        column[FORWARD_LAST, j] *= slow
    return touched


@jit
def latest(asked: Asked) -> int:
    """Return how many items say what is looked for just now: the session's, or all without one."""
    return asked.in_session if asked.in_session > 0 else asked.items


@jit
def _gather_content(models: Models, work: Workspace, asked: Asked, touched: int) -> int:
    """Add the items whose catalogue entries are most like those of the last items."""
    if not content.look_for(models.content, work.content, work.query, latest(asked)):
        return touched
    named, score = work.content.named, work.content.score
    for i in range(content.name(models.content, work.content)):
        touched = _touch(work.slot, work.item, touched, named[i])
        work.column[CONTENT, work.slot[named[i]] - 1] = score[i]
    return touched


@jit
def _gather_deep(models: Models, work: Workspace, asked: Asked, touched: int) -> int:
    """Add the items nearest to what the deep model makes of the query."""
    deep, share = models.deep, work.value
    if deep.book[ITEMS] == 0:
        return touched
    query, kind, time = work.query, work.query_kind, work.query_time
    found = look_for(deep, query, kind, time, asked.items, asked.user, asked.version)
    for i in range(found):
        share[i] = deep.score[i] - deep.score[0]
    exp_of(share, found)
    for i in range(found):
        item = deep.item[deep.named[i]] - 1
        if item >= 0:
            touched = _touch(work.slot, work.item, touched, item)
            work.column[DEEP, work.slot[item] - 1] = share[i]
    return touched


@jit
def gather(models: Models, work: Workspace, asked: Asked) -> int:
    """Let every source name and score items; return how many were touched.

    Afterwards `work.item[:m]` and `work.column[:, :m]` hold them, `work.largest` and `work.total`
    each column's maximum and sum, and `work.slot` is zero again.
    """
    slot, items, column, query = work.slot, work.item, work.column, work.query
    column[:, : work.touched[0]] = 0.0
    for i in range(asked.items):
        if query[i] >= 0:
            prefetch(models.transitions.forward.rows.head, query[i])
            prefetch(models.transitions.backward.rows.head, query[i])
    touched = neighbours.votes(
        models.neighbours, models.sessions, work.knn, query, asked.items, asked.now, asked.own
    )
    touched = gather_transitions(models, work, asked, touched)
    for i in range(asked.items):
        if query[i] >= 0:
            touched = _touch(slot, items, touched, query[i])
    top, listed = models.popularity.top, work.listed
    listed[0] = 0
    for life in range(top.shape[0]):
        for place in range(POPULAR):
            if top[life, place] > 0:
                touched = _touch(slot, items, touched, top[life, place] - 1)
                listed[0] += 1
                listed[listed[0]] = slot[top[life, place] - 1] - 1
    touched = _gather_content(models, work, asked, touched)
    touched = _gather_deep(models, work, asked, touched)
    for i in range(touched):
        slot[items[i]] = 0
    work.touched[0] = touched
    for c in range(COLUMNS):
        work.total[c] = total_of(column[c], touched)
        work.largest[c] = largest_of(column[c], touched)
    return touched

r"""Session kNN, kept up to date click by click: sessions like this one say what comes next.

The family of V-SKNN (Ludewig, Jannach 2018), STAN (Garg et al. 2019) and VMIS-kNN (Kersbergen et
al. 2022). Each item has a ring of the latest sessions that hold it. A query item at distance d
from the end gives every session s of its ring

.. math:: S(s) \mathrel{+}= e^{-d/a} \ln(1 + N/c_i)^{p}

and :math:`sim(s) = S(s)\,|s|^{-v}\,2^{-(t-t_s)/T}`. The k most similar sessions vote for their
items with :math:`sim(s)\,e^{-d/e}\ln(1+N/c_j)^{r}`, less the further item j stands in s from the
latest query item found there: :math:`e^{-(j-j_0)/f}` after it, :math:`e^{-(j_0-j)/b}` before.
c counts sessions with an item, N all sessions; `Weighing` holds the constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig, Interactions, Query, Source, no_pause
from learners.jit import jit, prefetch
from learners.selection import keep_best
from learners.sources.rings import (
    MATCHED,
    SCORED,
    WRAP,
    NeighboursState,
    Weighing,
    learn_one,
    make_neighbours,
)
from learners.store.history import MOST_QUERY
from learners.store.rows import refill, release
from learners.store.sessions import SESSION_LENGTH, Sessions, make_sessions, open_session
from learners.vector import log_of

__all__ = [
    "QUERY_ITEMS",
    "Neighbours",
    "Scratch",
    "make_scratch",
    "most_votes",
    "votes",
]

QUERY_ITEMS = 12  # distinct query items that look for neighbours
AHEAD = 8  # sessions that are fetched while others vote


class Scratch(NamedTuple):
    """Working memory of one query; zero between queries."""

    place: NDArray[np.uint8]  # (items,) 1 + distance from the end of a query item
    similarity: NDArray[np.float32]  # (sessions,)
    found: NDArray[np.int32]  # (n,) slots of the sessions met
    value: NDArray[np.float32]  # (n,) their similarities
    best: NDArray[np.int32]  # (n,) places of the most similar
    slot: NDArray[np.int32]  # (items,) 1 + place among the items voted for
    item: NDArray[np.int32]  # (votes,) the items voted for
    vote: NDArray[np.float32]  # (votes,) zero between queries
    idf: NDArray[np.float32]  # (votes,) of the items voted for


def most_votes(k: int) -> int:
    """Return how many distinct items k neighbours may vote for, and one more."""
    return k * SESSION_LENGTH + 1


def make_scratch(
    items: int,
    sessions: int,
    slots_a_row: int,
    slot: NDArray[np.int32],
    item: NDArray[np.int32],
    vote: NDArray[np.float32],
) -> Scratch:
    """Return working memory for queries; whoever goes on where the votes end gives its arrays."""
    found = QUERY_ITEMS * slots_a_row + 1
    return Scratch(
        np.zeros(items, np.uint8),
        np.zeros(sessions, np.float32),
        np.zeros(found, np.int32),
        np.zeros(found, np.float32),
        np.zeros(found, np.int32),
        slot,
        item,
        vote,
        np.zeros(len(item), np.float32),
    )


@jit
def _find(
    state: NeighboursState,
    sessions: Sessions,
    scratch: Scratch,
    query: NDArray[np.int32],
    n: int,
    own: int,
) -> int:
    """Sum S over the sessions that share items with the query; return how many were met."""
    place, similarity, met = scratch.place, scratch.similarity, scratch.found
    ring, rows = state.session, state.rows.head
    near, power = state.query_weight, state.idf_power[MATCHED]
    capacity = len(similarity)
    begun = sessions.begun[0]
    last = begun % capacity
    own_age = begun - own if own >= 0 else capacity + 1
    total = float(begun)
    found = distinct = 0
    for d in range(n):
        item = query[d]
        if item < 0 or place[item] > 0:
            continue
        if distinct == QUERY_ITEMS:
            break
        distinct += 1
        place[item] = d + 1
        head = rows[item]
        if head.met == 0:
            continue
        idf = np.log(1.0 + total / head.met)
        weight = np.float32(near[d] * idf**power)
        for i in range(head.start, head.start + min(head.held, np.int64(head.room))):
            age = (begun - np.int64(ring[i])) & WRAP
            if age > capacity or age == own_age:
                continue
            slot = last - age if age <= last else last - age + capacity
            met[found] = slot
            found += similarity[slot] == 0.0
            similarity[slot] += weight
    return found


@jit
def _choose(sessions: Sessions, k: int, scratch: Scratch, found: int) -> int:
    """Weigh the sessions met by length and age and keep the k most similar, first in `found`."""
    weight, similarity, met = sessions.weight, scratch.similarity, scratch.found
    value = scratch.value
    for i in range(found):
        slot = met[i]
        value[i] = similarity[slot] * weight[slot]
        similarity[slot] = 0.0
    kept = keep_best(value, found, k, scratch.best)
    for i in range(kept):  # places rise, so nothing is overwritten that is still wanted
        met[i] = met[scratch.best[i]]
        value[i] = value[scratch.best[i]]
    return kept


@jit
def _prefetch_session(sessions: Sessions, slot: int) -> None:
    prefetch(sessions.head, slot)
    prefetch(sessions.item, slot * SESSION_LENGTH)
    prefetch(sessions.item, slot * SESSION_LENGTH + SESSION_LENGTH - 1)


@jit
def _vote(state: NeighboursState, sessions: Sessions, scratch: Scratch, kept: int) -> int:
    """Let the kept sessions vote; return how many items were voted for."""
    stored, heads, where = sessions.item, sessions.head, scratch.place
    met, value, slots = scratch.found, scratch.value, scratch.slot
    named, vote, rows = scratch.item, scratch.vote, state.rows.head
    near, step = state.vote_weight, state.step_weight
    voted = 0
    for i in range(min(kept, AHEAD)):
        _prefetch_session(sessions, met[i])
    for i in range(kept):
        if i + AHEAD < kept:
            _prefetch_session(sessions, met[i + AHEAD])
        session = met[i]
        nearest = 0
        origin = 0
        for place in range(heads[session].length):
            row = stored[session, place] - 1
            if row >= 0 and where[row] > 0 and (nearest == 0 or where[row] < nearest):
                nearest = where[row]
                origin = place
        if nearest == 0:
            continue
        similarity = value[i] * near[nearest - 1]
        for place in range(heads[session].length):
            row = stored[session, place] - 1
            if row < 0:
                continue
            prefetch(rows, row)
            named[voted] = row
            at = slots[row] if slots[row] > 0 else voted + 1
            voted += at > voted
            slots[row] = at
            vote[at - 1] += similarity * step[place - origin + SESSION_LENGTH - 1]
    return voted


@jit
def votes(
    state: NeighboursState,
    sessions: Sessions,
    scratch: Scratch,
    query: NDArray[np.int32],
    n: int,
    now: float,
    own: int,
) -> int:
    """Score items for the `n` items of a query (most recent first).

    Leaves `scratch.item[:m]`, `scratch.vote[:m]` and the `scratch.slot` of those items and returns
    m; `own` is the number of the asking session, which is left out, or -1.
    """
    found = _find(state, sessions, scratch, query, n, own)
    kept = _choose(sessions, state.most[1], scratch, found)
    voted = _vote(state, sessions, scratch, kept)
    age = (now - state.reference[0]) / state.half_life[0]
    decay = np.float32(2.0 ** -min(max(age, 0.0), 1000.0))
    named, vote, idf = scratch.item, scratch.vote, scratch.idf
    place, rows = scratch.place, state.rows.head
    total = np.float32(sessions.begun[0])
    for i in range(voted):
        idf[i] = np.float32(1.0) + total / np.float32(max(rows[named[i]].met, 1))
    log_of(idf, voted)
    power = np.float32(state.idf_power[SCORED])
    if power != 1.0:
        for i in range(voted):
            idf[i] = idf[i] ** power
    for i in range(voted):
        vote[i] *= decay * idf[i]
    for d in range(n):
        if query[d] >= 0:
            place[query[d]] = 0
    return voted


@jit
def _learn(state: NeighboursState, sessions: Sessions, events: Interactions) -> None:
    for i in range(len(events.item)):
        number = events.session[i]
        while sessions.begun[0] <= number:
            open_session(sessions, -1)
        learn_one(state, sessions, number, events.item[i], events.time[i])


@jit
def _forget(state: NeighboursState, sessions: Sessions, gone: NDArray[np.bool_]) -> None:
    for row in range(len(gone)):
        if gone[row]:
            release(state.rows, state.session, row)
    stored = sessions.item
    for slot in range(min(sessions.begun[0], stored.shape[0])):
        for place in range(stored.shape[1]):
            if stored[slot, place] > 0 and gone[stored[slot, place] - 1]:
                stored[slot, place] = 0


class Neighbours(Source):
    """Session kNN as a source, with the store of recent sessions it searches.

    Examples
    --------
    >>> from learners.checks import interactions
    >>> neighbours = Neighbours(items=10, sessions=16)
    >>> neighbours.learn(interactions([(0, 3), (0, 5), (1, 3), (1, 5)]))
    >>> neighbours.score(Query(np.array([3], np.int32), now=4.0), n_items=6).nonzero()[0]
    array([3, 5])
    """

    name = "neighbours"

    def __init__(
        self,
        items: int,
        sessions: int = 262_144,
        slots_a_row: int = 256,
        k: int = 150,
        half_life_seconds: float = 30 * 86400.0,
        weighing: Weighing | None = None,
    ) -> None:
        weighing = weighing or Weighing.of(EngineConfig())
        self.sessions = make_sessions(sessions)
        self.arrays = make_neighbours(items, slots_a_row, k, half_life_seconds, weighing)
        votes = most_votes(k)
        slot, item, vote = np.zeros(items, np.int32), np.zeros(votes, np.int32), np.zeros(votes)
        self._scratch = make_scratch(
            items, sessions, slots_a_row, slot, item, vote.astype(np.float32)
        )

    def learn(self, interactions: Interactions) -> None:
        _learn(self.arrays, self.sessions, interactions)

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        items = np.where(query.items < n_items, query.items, -1).astype(np.int32)[:MOST_QUERY]
        scratch = self._scratch
        n = len(items)
        voted = votes(self.arrays, self.sessions, scratch, items, n, query.now, query.session)
        named = scratch.item[:voted]
        out = np.zeros(len(scratch.place))
        out[named] = scratch.vote[:voted]
        scratch.slot[named] = 0
        scratch.vote[:voted] = 0.0
        return out[:n_items]

    def state(self) -> dict[str, NDArray[np.generic]]:
        arrays, sessions = self.arrays, self.sessions
        used = np.flatnonzero(arrays.rows.head["met"])
        begun = min(int(sessions.begun[0]), len(sessions.head))
        return {
            "row": arrays.rows.head[: int(used[-1]) + 1 if len(used) else 0],
            "ring": arrays.session[: int(arrays.rows.top[0])],
            "free": arrays.rows.free,
            "top": arrays.rows.top,
            "reference": arrays.reference,
            "session.head": sessions.head[:begun],
            "session.weight": sessions.weight[:begun],
            "session.item": sessions.item[:begun],
            "session.begun": sessions.begun,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        refill(self.arrays.rows.head, state["row"])
        refill(self.arrays.session, state["ring"])
        refill(self.sessions.head, state["session.head"])
        refill(self.sessions.weight, state["session.weight"])
        refill(self.sessions.item, state["session.item"])
        self.arrays.rows.free[:] = state["free"]
        self.arrays.rows.top[:] = state["top"]
        self.arrays.reference[:] = state["reference"]
        self.sessions.begun[:] = state["session.begun"]

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        gone = np.zeros(len(self.arrays.rows.head), np.bool_)
        gone[rows] = True
        _forget(self.arrays, self.sessions, gone)

r"""Time-decayed counts at several half-lives: what is trending, and the answer to a cold start.

An event at time t adds :math:`2^{(t - r)/h}`, with r a reference time common to all items, so all
counts decay together and their order changes only where an event lands. That keeps the top list
exact at the cost of one comparison an event. r moves on long before a sum can overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source, no_pause
from learners.jit import jit, jit_counted
from learners.store.rows import Records, refill
from learners.vector import find

__all__ = ["TOP", "Popularity", "PopularityState", "learn_one", "make_popularity", "mean_rank"]

TOP = 50  # length of the exact top list; at least twice the longest evaluated list (see mean_rank)
REBASE_AFTER = 400.0  # half-lives; 2^400 is far from the largest float64


ITEM = np.dtype(
    [
        ("events", np.int64),  # clicks and purchases ever
        ("bought", np.int64),  # purchases ever
        ("first", np.float64),  # seconds
        ("last", np.float64),  # seconds
    ],
    align=True,
)


class PopularityState(NamedTuple):
    """Counts of all items at P half-lives."""

    weight: NDArray[np.float64]  # (items, P) relative to `reference`
    item: Records  # (items,) ITEM
    half_life: NDArray[np.float64]  # (P,) seconds
    reference: NDArray[np.float64]  # (P,) seconds
    top: NDArray[np.int32]  # (P, TOP) item row + 1, best first
    seen: NDArray[np.int64]  # (1,) items with an event


def make_popularity(items: int, half_lives_seconds: tuple[float, ...]) -> PopularityState:
    """Return empty counts."""
    lives = len(half_lives_seconds)
    return PopularityState(
        np.zeros((items, lives)),
        np.zeros(items, ITEM),
        np.array(half_lives_seconds, np.float64),
        np.zeros(lives),
        np.zeros((lives, TOP), np.int32),
        np.zeros(1, np.int64),
    )


@jit
def _rise(weights: NDArray[np.float64], top: NDArray[np.int32], life: int, item: int) -> None:
    """Put an item whose count has just grown at its place in the top list."""
    weight = weights[item, life]
    tail = top[life, TOP - 1]
    if tail > 0 and tail != item + 1 and weights[tail - 1, life] >= weight:
        return
    place = 0
    while place < TOP - 1 and top[life, place] != item + 1 and top[life, place] != 0:
        place += 1
    while place > 0 and weights[top[life, place - 1] - 1, life] < weight:
        top[life, place] = top[life, place - 1]
        place -= 1
    top[life, place] = item + 1


@jit_counted
def _rebase(state: PopularityState, life: int, time: float) -> None:
    factor = 2.0 ** (-min((time - state.reference[life]) / state.half_life[life], 1000.0))
    state.weight[:, life] *= factor
    state.reference[life] = time


@jit
def learn_one(state: PopularityState, item: int, kind: int, time: float) -> None:
    """Count one click or purchase."""
    facts = state.item[item]
    if facts.events == 0:
        facts.first = time
        state.seen[0] += 1
    facts.events += 1
    facts.bought += kind
    facts.last = max(facts.last, time)
    weight, top, reference = state.weight, state.top, state.reference
    for life in range(len(reference)):
        if reference[life] == 0.0:
            reference[life] = time
        age = (time - reference[life]) / state.half_life[life]
        if age > REBASE_AFTER:
            _rebase(state, life, time)
            age = 0.0
        weight[item, life] += 2.0 ** max(age, -1000.0)
        _rise(weight, top, life, item)


@jit
def mean_rank(state: PopularityState, life: int, item: int) -> float:
    """Return an item's rank by decayed count, ties at their mean rank; infinity beyond TOP.

    The top list alone is exact for lists up to TOP / 2: an item outside it, or tied with its
    last entry, has at least TOP items at or above it, so its mean rank is above TOP / 2.
    """
    top = state.top[life]
    if find(top, 0, TOP, item + 1) < 0:
        return np.inf
    weight = state.weight[item, life]
    above = equal = 0
    for place in range(TOP):
        other = top[place] - 1
        if other < 0:
            break
        above += state.weight[other, life] > weight
        equal += state.weight[other, life] == weight
    return above + (equal + 1) / 2


@jit
def _learn(state: PopularityState, events: Interactions) -> None:
    for i in range(len(events.item)):
        learn_one(state, events.item[i], events.kind[i], events.time[i])


class Popularity(Source):
    """Decayed counts as a source; it scores by one of the half-lives.

    Examples
    --------
    >>> from learners.checks import interactions
    >>> popularity = Popularity(items=10)
    >>> popularity.learn(interactions([(0, 3), (1, 3), (2, 5)]))
    >>> popularity.score(Query(np.array([5], np.int32), now=2.0), n_items=6).argmax()
    np.int64(3)
    """

    name = "popularity"

    def __init__(
        self,
        items: int,
        half_lives_seconds: tuple[float, ...] = (3600.0, 21600.0, 172800.0, 1209600.0),
        scored_life: int = 2,
    ) -> None:
        self.scored_life = scored_life
        self.arrays = make_popularity(items, half_lives_seconds)

    @property
    def used(self) -> int:
        """Return one more than the last row with an event."""
        rows = np.flatnonzero(self.arrays.item["events"])
        return int(rows[-1]) + 1 if len(rows) else 0

    def learn(self, interactions: Interactions) -> None:
        _learn(self.arrays, interactions)

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        life = self.scored_life
        age = query.now - self.arrays.reference[life]
        decay = 2.0 ** -np.clip(age / self.arrays.half_life[life], 0, 1000)
        return np.asarray(self.arrays.weight[:n_items, life] * decay)

    def state(self) -> dict[str, NDArray[np.generic]]:
        n = self.used
        arrays = self.arrays
        return {
            "weight": arrays.weight[:n],
            "item": arrays.item[:n],
            "reference": arrays.reference,
            "top": arrays.top,
            "seen": arrays.seen,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        for name, array in state.items():
            refill(getattr(self.arrays, name), array)

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        arrays = self.arrays
        arrays.seen[0] -= int(np.count_nonzero(arrays.item["events"][rows]))
        arrays.weight[rows] = 0.0
        arrays.item[rows] = np.zeros(1, ITEM)[0]
        known = np.flatnonzero(arrays.item["events"])
        for life in range(len(arrays.half_life)):
            weight = arrays.weight[known, life]
            least = np.partition(weight, -TOP)[-TOP] if len(known) > TOP else 0.0
            best = known[weight >= least]
            best = best[np.argsort(-arrays.weight[best, life], kind="stable")[:TOP]]
            arrays.top[life] = 0
            arrays.top[life, : len(best)] = best + 1

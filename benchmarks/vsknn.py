r"""V-SKNN, the nearest-neighbour peer, as published and untuned; plain numba, one click at a time.

Ludewig, Jannach: Evaluation of session-based recommendation algorithms (UMUAI 28, 2018). A query
item at distance d from the end (of repeats the last one counts) weighs
:math:`w_d = \max(1 - d/10, 0)`, the linear decay of the authors' code. Of all sessions that share
an item of some weight with the query, the `SAMPLE` with the latest clicks are compared,

.. math:: sim(s) = \frac{\sum_{d: q_d \in s} w_d}{\sqrt{\sum_d w_d^2}\sqrt{|s|}}

over distinct items; the `K` most similar give each of their items :math:`sim(s)/(1 + d)` with the
smallest d found in s. No idf, no decay with age. Of sessions that tie for the last place those stay
that hold the latest query item, the ones newest in it first.

To be a fair peer in speed, too, it keeps its index click by click instead of building it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.ader_stream import Part
from learners.frozen import Clicks, sorted_best
from learners.jit import jit
from learners.ranks import LIST
from learners.selection import keep_best

__all__ = ["SAMPLE", "VSKNN", "K", "learn", "make_index", "make_scratch", "votes"]

K = 100  # neighbours, and
SAMPLE = 500  # recent sessions compared: the defaults that the authors' code documents
WEIGHT = np.array([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0], np.float32) / np.float32(10)  # by distance


class Index(NamedTuple):
    """Which sessions hold an item, and which items a session, each once, oldest first."""

    of_item: NDArray[np.int64]  # (items + 1,) where an item's sessions begin
    sessions_held: NDArray[np.int64]  # (items,)
    session: NDArray[np.int32]
    of_session: NDArray[np.int64]  # (sessions + 1,) where a session's items begin
    items_held: NDArray[np.int64]  # (sessions,)
    item: NDArray[np.int32]
    latest: NDArray[np.float32]  # (sessions,) number of the latest click; exact up to 2^24
    clicks: NDArray[np.int64]  # (1,)
    seen: NDArray[np.int64]  # (1,) items met


class Scratch(NamedTuple):
    """Working memory of one query; `where`, `similarity` and `vote` are zero between queries."""

    query: NDArray[np.int32]  # (clicks,) items, most recent first
    where: NDArray[np.int32]  # (items,) 1 + distance from the end of a query item
    similarity: NDArray[np.float32]  # (sessions,)
    met: NDArray[np.int32]  # (sessions,)
    value: NDArray[np.float32]  # (sessions,)
    place: NDArray[np.int32]  # (sessions,)
    vote: NDArray[np.float32]  # (items,)
    named: NDArray[np.int32]  # (items + 1,) voted for
    score: NDArray[np.float32]  # (items,) of `named`


def make_index(session: NDArray[np.int32], item: NDArray[np.int32]) -> Index:
    """Return an empty index with exactly the room that these clicks will need."""
    of_item = np.concatenate([[0], np.bincount(item).cumsum()])
    of_session = np.concatenate([[0], np.bincount(session).cumsum()])
    return Index(
        of_item,
        np.zeros(len(of_item) - 1, np.int64),
        np.zeros(len(item), np.int32),
        of_session,
        np.zeros(len(of_session) - 1, np.int64),
        np.zeros(len(item), np.int32),
        np.zeros(len(of_session) - 1, np.float32),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )


def make_scratch(index: Index) -> Scratch:
    """Return working memory for queries."""
    items, sessions = len(index.sessions_held), len(index.items_held)
    longest = int(np.diff(index.of_session).max())
    return Scratch(
        np.zeros(longest, np.int32),
        np.zeros(items, np.int32),
        np.zeros(sessions, np.float32),
        np.zeros(sessions, np.int32),
        np.zeros(sessions, np.float32),
        np.zeros(sessions, np.int32),
        np.zeros(items, np.float32),
        np.zeros(items + 1, np.int32),
        np.zeros(items, np.float32),
    )


@jit
def learn(index: Index, session: NDArray[np.int32], item: NDArray[np.int32]) -> None:
    """Learn clicks in their order."""
    for i in range(len(item)):
        s, x = session[i], item[i]
        index.clicks[0] += 1
        index.latest[s] = index.clicks[0]
        begin, held = index.of_session[s], index.items_held[s]
        known = False
        for place in range(begin, begin + held):
            known = known or index.item[place] == x
        if known:
            continue
        index.item[begin + held] = x
        index.items_held[s] = held + 1
        index.seen[0] += index.sessions_held[x] == 0
        index.session[index.of_item[x] + index.sessions_held[x]] = s
        index.sessions_held[x] += 1


@jit
def _find(index: Index, scratch: Scratch, n: int, own: int) -> int:
    """Sum the weights of shared items over the sessions; return how many were met."""
    query, where, similarity, met = scratch.query, scratch.where, scratch.similarity, scratch.met
    session = index.session
    found = 0
    for d in range(n):
        x = query[d]
        if where[x] > 0:
            continue
        where[x] = d + 1
        weight = WEIGHT[min(d, len(WEIGHT) - 1)]
        if weight == 0.0:
            continue
        begin = index.of_item[x]
        for place in range(begin + index.sessions_held[x] - 1, begin - 1, -1):
            s = session[place]
            if s == own:
                continue
            met[found] = s
            found += similarity[s] == 0.0
            similarity[s] += weight
    return found


@jit
def _choose(index: Index, scratch: Scratch, found: int, n: int, k: int, sample: int) -> int:
    """Keep the k most similar of the `sample` sessions of the latest clicks, first in `met`."""
    met, value, places = scratch.met, scratch.value, scratch.place
    similarity, query, where = scratch.similarity, scratch.query, scratch.where
    for i in range(found):
        value[i] = index.latest[met[i]]
    compared = keep_best(value, found, sample, places)
    squares = 0.0
    for d in range(n):
        if where[query[d]] == d + 1:
            squares += WEIGHT[min(d, len(WEIGHT) - 1)] ** 2
    for i in range(compared):
        s = met[places[i]]
        value[i] = similarity[s] / np.sqrt(squares * index.items_held[s])
    for i in range(found):
        similarity[met[i]] = 0.0
    for i in range(compared):  # places rise, so nothing is overwritten that is still wanted
        met[i] = met[places[i]]
    kept = keep_best(value, compared, k, places)
    for i in range(kept):
        met[i] = met[places[i]]
        value[i] = value[places[i]]
    return kept


@jit
def votes(index: Index, scratch: Scratch, n: int, own: int, k: int, sample: int) -> int:
    """Score items for the n of `scratch.query`; leaves `named[:m]`, `score[:m]` and returns m.

    `own` is the asking session, which is left out.
    """
    kept = _choose(index, scratch, _find(index, scratch, n, own), n, k, sample)
    met, value, where = scratch.met, scratch.value, scratch.where
    vote, named, score, item = scratch.vote, scratch.named, scratch.score, index.item
    voted = 0
    for i in range(kept):
        begin = index.of_session[met[i]]
        end = begin + index.items_held[met[i]]
        nearest = n
        for place in range(begin, end):
            if where[item[place]] > 0:
                nearest = min(nearest, where[item[place]])
        part = value[i] / np.float32(nearest)
        for place in range(begin, end):
            x = item[place]
            named[voted] = x
            voted += vote[x] == 0.0
            vote[x] += part
    for i in range(voted):
        score[i] = vote[named[i]]
        vote[named[i]] = 0.0
    for d in range(n):
        where[scratch.query[d]] = 0
    return voted


@jit
def _ask_before(scratch: Scratch, clicks: Clicks, place: int) -> int:
    """Write the session before a click, most recent first; return its length."""
    n = 0
    before = clicks.previous[place]
    while before >= 0:
        scratch.query[n] = clicks.item[before]
        n += 1
        before = clicks.previous[before]
    return n


@jit
def _rank(
    index: Index, scratch: Scratch, clicks: Clicks, session: NDArray[np.int32], place: int
) -> float:
    """Mean rank of a click's item among all met; those without a vote tie at 0."""
    n = _ask_before(scratch, clicks, place)
    voted = votes(index, scratch, n, session[place], K, SAMPLE)
    named, scores = scratch.named, scratch.score
    score = np.float32(0.0)
    for i in range(voted):
        if named[i] == clicks.item[place]:
            score = scores[i]
    above = equal = 0
    for i in range(voted):
        above += scores[i] > score
        equal += scores[i] == score
    if score == 0.0:
        equal = index.seen[0] - voted
    return above + (equal + 1) / 2


@jit
def _test(
    index: Index,
    scratch: Scratch,
    clicks: Clicks,
    session: NDArray[np.int32],
    targets: NDArray[np.int64],
    ranks: NDArray[np.float64],
) -> None:
    for t in range(len(targets)):
        ranks[t, 0] = _rank(index, scratch, clicks, session, targets[t])


@jit
def _test_then_learn(
    index: Index,
    scratch: Scratch,
    clicks: Clicks,
    session: NDArray[np.int32],
    begin: int,
    tested: NDArray[np.bool_],
    ranks: NDArray[np.float64],
) -> None:
    for i in range(len(tested)):
        place = begin + i
        if tested[i]:
            ranks[i, 0] = _rank(index, scratch, clicks, session, place)
        learn(index, session[place : place + 1], clicks.item[place : place + 1])


@jit
def _list_best(
    index: Index,
    scratch: Scratch,
    clicks: Clicks,
    session: NDArray[np.int32],
    targets: NDArray[np.int64],
    best: NDArray[np.int32],
) -> None:
    best[:] = -1
    for t in range(len(targets)):
        n = _ask_before(scratch, clicks, targets[t])
        voted = votes(index, scratch, n, session[targets[t]], K, SAMPLE)
        sorted_best(scratch.score, scratch.named, voted, best[t])


class VSKNN:
    """V-SKNN as a contestant of the protocol (`benchmarks.ader_protocol`)."""

    methods = ("vsknn",)
    trains = False
    constants: Mapping[str, object] = {"k": K, "sample": SAMPLE}

    def __init__(self, stream: Part) -> None:
        self.stream = stream
        self.index = make_index(stream.session, stream.clicks.item)
        self.scratch = make_scratch(self.index)

    def learn(self, begin: int, end: int) -> None:
        """Index a run of the stream's clicks."""
        learn(self.index, self.stream.session[begin:end], self.stream.clicks.item[begin:end])

    def test(self, part: Part, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rank the targets, learning nothing; (m, 1)."""
        ranks = np.empty((len(targets), 1))
        _test(self.index, self.scratch, part.clicks, part.session, targets, ranks)
        return ranks

    def end_test(self) -> None:
        """Learn nothing from queries."""

    def test_then_learn(self, begin: int, tested: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Rank each tested click of a run from `begin` on, then index it; (n, 1)."""
        stream = self.stream
        ranks = np.full((len(tested), 1), np.inf)
        _test_then_learn(
            self.index, self.scratch, stream.clicks, stream.session, begin, tested, ranks
        )
        return ranks

    def can_answer(self, method: str) -> bool:
        """Tell whether a method can be asked alone."""
        return method in self.methods

    def answer(self, method: str, part: Part, targets: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the best item rows for the session before each target; (m, LIST)."""
        best = np.empty((len(targets), LIST), np.int32)
        _list_best(self.index, self.scratch, part.clicks, part.session, targets, best)
        return best

"""Where an item stands in the list of each source, and in the blend's.

Those that name items rank all that were seen; the blend, the factorisation, the content and the
deep model rank the candidates. Ties count at their mean rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.candidates import BACKWARD, FORWARD_SLOW, KNN, Models, Workspace
from learners.jit import jit
from learners.selection import kth_largest
from learners.sources import popularity, shelves, transitions
from learners.vector import find

__all__ = [
    "LIST",
    "SCORED_LIFE",
    "SOURCES",
    "Ranking",
    "note_ranks",
    "score_neighbours",
    "score_transitions",
    "source_rank",
]

SOURCES = ("blend", "neighbours", "transitions", "popularity", "factors", "content", "deep")
BLEND, NEIGHBOURS, TRANSITIONS, POPULARITY, FACTORS, CONTENT, DEEP = range(7)
LIST = 20  # length of the lists whose coverage is counted
SCORED_LIFE = 2  # the half-life by which popularity is judged as a source


class Ranking(NamedTuple):
    """Items and their scores, in no order; the first n count."""

    item: NDArray[np.int32]
    score: NDArray[np.float32]
    n: int


@jit
def score_neighbours(work: Workspace, touched: int) -> None:
    """Write what neighbours as a source say of each touched item into `work.value`."""
    column, value = work.column, work.value
    for i in range(touched):
        value[i] = column[KNN, i]


@jit
def score_transitions(work: Workspace, touched: int) -> None:
    """Write what transitions as a source say of each touched item into `work.value`."""
    column, value, share = work.column, work.value, np.float32(transitions.BACKWARD_SHARE)
    for i in range(touched):
        value[i] = column[FORWARD_SLOW, i] + share * column[BACKWARD, i]


@jit
def source_rank(work: Workspace, source: int, touched: int, item: int, seen: int) -> float:
    """Rank of an item by one source among all `seen` items; those it says nothing of tie at 0.

    Leaves the scores in `work.value`.
    """
    items, value = work.item, work.value
    if source == NEIGHBOURS:
        score_neighbours(work, touched)
    else:
        score_transitions(work, touched)
    place = find(items, 0, touched, item)
    score = value[place] if place >= 0 else np.float32(0.0)
    above = equal = positive = 0
    for i in range(touched):
        positive += value[i] > 0.0
        above += value[i] > score
        equal += value[i] == score
    if score == 0.0:
        equal = seen - positive
    return above + (equal + 1) / 2


@jit
def _cover(work: Workspace, covered: NDArray[np.uint8], touched: int) -> None:
    """Mark the LIST best items by the scores that `source_rank` left in `work.value`."""
    items, value = work.item, work.value
    least = kth_largest(value, touched, LIST) if touched > LIST else np.float32(0.0)
    for i in range(touched):
        covered[items[i]] |= value[i] >= least and value[i] > 0.0


@jit
def _rank_in(ranking: Ranking, item: int, covered: NDArray[np.uint8]) -> float:
    """Mean rank of an item in a ranking, a miss where it is not in it; marks its LIST best."""
    items, score, n = ranking.item, ranking.score, ranking.n
    least = kth_largest(score, n, LIST) if n > LIST else np.float32(-np.inf)
    for i in range(n):
        covered[items[i]] |= score[i] >= least and score[i] > -np.inf
    place = find(items, 0, n, item)
    if place < 0 or not np.isfinite(score[place]):
        return np.inf
    above = equal = 0
    for i in range(n):
        above += score[i] > score[place]
        equal += score[i] == score[place]
    return above + (equal + 1) / 2


@jit
def note_ranks(
    models: Models,
    work: Workspace,
    touched: int,
    kept: int,
    final: Ranking,
    item: int,
    ranks: NDArray[np.float64],
    covered: NDArray[np.uint8],
) -> int:
    """Note where each source ranks an item, and where the `final` ranking does, the blend's.

    Fills `ranks` (sources,) and marks the lists in `covered` (sources, items); returns the item's
    place among the candidates, -1 where it is none.
    """
    chosen = work.chosen
    popular, listed = models.popularity, models.content
    seen = popular.seen[0] + listed.book[shelves.FRESH]
    ranks[BLEND] = _rank_in(final, item, covered[BLEND])
    ranks[FACTORS] = _rank_in(Ranking(chosen, work.factor, kept), item, covered[FACTORS])
    ranks[CONTENT] = np.inf
    if work.content.tokens[0] > 0:
        similarity = work.similarity
        for c in range(kept):
            similarity[c] = similarity[c] if similarity[c] > 0.0 else -np.inf
        ranks[CONTENT] = _rank_in(Ranking(chosen, similarity, kept), item, covered[CONTENT])
    ranks[DEEP] = _rank_in(Ranking(chosen, work.deep, kept), item, covered[DEEP])
    for source in (NEIGHBOURS, TRANSITIONS):
        ranks[source] = source_rank(work, source, touched, item, seen)
        _cover(work, covered[source], touched)
    ranks[POPULARITY] = popularity.mean_rank(popular, SCORED_LIFE, item)
    for place in range(LIST):
        if popular.top[SCORED_LIFE, place] > 0:
            covered[POPULARITY, popular.top[SCORED_LIFE, place] - 1] = 1
    if popular.item[item].events == 0 and listed.status[item] == 0:
        ranks[:] = np.inf
    return find(chosen, 0, kept, item)

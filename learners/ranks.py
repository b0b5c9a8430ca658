"""Where an item stands in the list of each source, and in the blend's.

Those that name items rank all that were seen; the blend, the factorisation and the content rank the
candidates. Ties count at their mean rank.
"""

from __future__ import annotations

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
    "note_ranks",
    "score_neighbours",
    "score_transitions",
    "source_rank",
]

SOURCES = ("blend", "neighbours", "transitions", "popularity", "factors", "content")
BLEND, NEIGHBOURS, TRANSITIONS, POPULARITY, FACTORS, CONTENT = range(6)
LIST = 20  # length of the lists whose coverage is counted
SCORED_LIFE = 2  # the half-life by which popularity is judged as a source


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
def _candidate_rank(
    work: Workspace,
    score: NDArray[np.float32],
    kept: int,
    covered: NDArray[np.uint8],
    target: int,
) -> float:
    """Rank of a candidate among the candidates; a miss where it is none."""
    chosen = work.chosen
    least = kth_largest(score, kept, LIST) if kept > LIST else np.float32(-np.inf)
    for c in range(kept):
        covered[chosen[c]] |= score[c] >= least and score[c] > -np.inf
    if target < 0 or not np.isfinite(score[target]):
        return np.inf
    above = equal = 0
    for c in range(kept):
        above += score[c] > score[target]
        equal += score[c] == score[target]
    return above + (equal + 1) / 2


@jit
def note_ranks(
    models: Models,
    work: Workspace,
    touched: int,
    kept: int,
    item: int,
    ranks: NDArray[np.float64],
    covered: NDArray[np.uint8],
) -> int:
    """Note where each source, and the blend that has just scored, rank an item.

    Where purchases or value are an objective, the blend's place is left to the caller. Fills
    `ranks` (sources,) and marks the lists in `covered` (sources, items); returns the item's place
    among the candidates, -1 where it is none.
    """
    target = find(work.chosen, 0, kept, item)
    popular, listed = models.popularity, models.content
    seen = popular.seen[0] + listed.book[shelves.FRESH]
    if models.outcomes.on[0] == 0:  # else the final ranking is another one
        ranks[BLEND] = _candidate_rank(work, work.score, kept, covered[BLEND], target)
    ranks[FACTORS] = _candidate_rank(work, work.factor, kept, covered[FACTORS], target)
    ranks[CONTENT] = np.inf
    if work.content.tokens[0] > 0:
        similarity = work.similarity
        for c in range(kept):
            similarity[c] = similarity[c] if similarity[c] > 0.0 else -np.inf
        ranks[CONTENT] = _candidate_rank(work, similarity, kept, covered[CONTENT], target)
    for source in (NEIGHBOURS, TRANSITIONS):
        ranks[source] = source_rank(work, source, touched, item, seen)
        _cover(work, covered[source], touched)
    ranks[POPULARITY] = popularity.mean_rank(popular, SCORED_LIFE, item)
    for place in range(LIST):
        if popular.top[SCORED_LIFE, place] > 0:
            covered[POPULARITY, popular.top[SCORED_LIFE, place] - 1] = 1
    if popular.item[item].events == 0 and listed.status[item] == 0:
        ranks[:] = np.inf
    return target

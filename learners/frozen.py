"""Ask about sessions without learning them: how well does a state foresee what comes much later?

A test period is asked at the state that was learnt before it. Only the workspace changes, and a
second blend, if wished: it learns from each query just as it stands, while the first one ranks
them all. So a blend can be trained at exactly the staleness it is then used at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners import blend as scorer
from learners.base import CLICK
from learners.blend import Blend
from learners.candidates import Asked, Models, Workspace, gather, gather_transitions
from learners.features import score_factors
from learners.handle import Handle, state_of
from learners.jit import jit, jit_counted
from learners.prequential import rank
from learners.prescore import choose
from learners.ranks import (
    BLEND,
    FACTORS,
    LIST,
    NEIGHBOURS,
    POPULARITY,
    SCORED_LIFE,
    TRANSITIONS,
    Ranking,
    note_ranks,
    score_neighbours,
    score_transitions,
)
from learners.selection import best_places
from learners.sources import neighbours
from learners.store.history import MOST_QUERY

__all__ = ["LISTING", "Clicks", "gather_one", "list_best", "sorted_best", "test_frozen"]

LISTING = (BLEND, NEIGHBOURS, TRANSITIONS, POPULARITY, FACTORS)  # sources that `list_best` can ask


class Clicks(NamedTuple):
    """Clicks in time order; each knows the one before it in its session."""

    item: NDArray[np.int32]  # (n,) rows
    time: NDArray[np.float64]  # (n,) seconds
    previous: NDArray[np.int32]  # (n,) place of the session's click before, -1 for none


@jit
def _ask_before(work: Workspace, clicks: Clicks, place: int) -> Asked:
    """Write the session before a click into the workspace, as it would ask just then."""
    query, previous, item = work.query, clicks.previous, clicks.item
    n = 0
    before = previous[place]
    while before >= 0 and n < MOST_QUERY:
        query[n], work.query_time[n] = item[before], clicks.time[before]
        n += 1
        before = previous[before]
    work.query_kind[:n] = CLICK
    return Asked(n, n, clicks.time[place], -1, -1, 0)


@jit_counted
def test_frozen(
    handle: Handle,
    learner: Blend,
    clicks: Clicks,
    targets: NDArray[np.int64],
    most: int,
    ranks: NDArray[np.float64],
    covered: NDArray[np.uint8],
) -> None:
    """Rank the items of some clicks, given the session before each; learn none of them.

    Parameters
    ----------
    handle : Handle
        What was learnt, and working memory.
    learner : Blend
        Learns from each query, in order; the scores are those of what was learnt all along.
    clicks : Clicks
        The test's sessions; every item has a row.
    targets : (m,)
        Places of the clicks to foresee.
    most : int
        Candidates of a query.
    ranks : (m, sources)
        Is filled: mean rank of the true item, infinity where it is a miss.
    covered : (sources, items)
        Marks of the items in a list of `LIST`.
    """
    state = state_of(handle)
    models, blend, work = state.models, state.blend, state.work
    for t in range(len(targets)):
        asked = _ask_before(work, clicks, targets[t])
        touched = gather(models, work, asked)
        kept = rank(models, blend, work, asked, touched, most)
        final = Ranking(work.chosen, work.score, kept)
        item = clicks.item[targets[t]]
        target = note_ranks(models, work, touched, kept, final, item, ranks[t], covered)
        if target >= 0:
            scorer.score(learner, work.feature, kept, work.hidden, work.score)
            scorer.learn_one(learner, work.feature, kept, work.hidden, work.score, target)


@jit_counted
def sorted_best(
    value: NDArray[np.float32], item: NDArray[np.int32], n: int, best: NDArray[np.int32]
) -> int:
    """Write the items of the best of n values, best first; return how many `best` (k,) holds."""
    places = np.empty(len(best), np.int32)
    kept = best_places(value, n, len(best), places)
    for i in range(kept):
        best[i] = item[places[i]]
    return kept


@jit
def gather_one(models: Models, work: Workspace, asked: Asked, source: int) -> int:
    """Let one source alone name and score items, into `work.value`; return how many."""
    slot, items, column = work.slot, work.item, work.column
    column[:, : work.touched[0]] = 0.0
    if source == NEIGHBOURS:
        touched = neighbours.votes(
            models.neighbours,
            models.sessions,
            work.knn,
            work.query,
            asked.items,
            asked.now,
            asked.own,
        )
        score_neighbours(work, touched)
    else:
        touched = gather_transitions(models, work, asked, 0)
        score_transitions(work, touched)
    for i in range(touched):
        slot[items[i]] = 0
    work.touched[0] = touched
    return touched


@jit_counted
def list_best(
    handle: Handle,
    clicks: Clicks,
    targets: NDArray[np.int64],
    most: int,
    source: int,
    best: NDArray[np.int32],
) -> None:
    """Answer the session before each target with the list of one source, or of the blend.

    It does what an answer takes and nothing else, to be timed; `best` (m, LIST) is filled with item
    rows, best first, -1 behind the end. `source` is one of `LISTING`.
    """
    state = state_of(handle)
    models, blend, work = state.models, state.blend, state.work
    best[:] = -1
    for t in range(len(targets)):
        asked = _ask_before(work, clicks, targets[t])
        if source == BLEND:
            kept = rank(models, blend, work, asked, gather(models, work, asked), most)
            sorted_best(work.score, work.chosen, kept, best[t])
        elif source == FACTORS:
            kept = choose(models, work, asked, gather(models, work, asked), most)
            score_factors(models, work, asked, kept)
            sorted_best(work.factor, work.chosen, kept, best[t])
        elif source == POPULARITY:
            for place in range(LIST):
                best[t, place] = models.popularity.top[SCORED_LIFE, place] - 1
        else:
            touched = gather_one(models, work, asked, source)
            sorted_best(work.value, work.item, touched, best[t])

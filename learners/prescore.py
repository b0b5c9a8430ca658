"""From all that is named to the candidates: a hand-set score over the columns keeps about 100.

What is popular counts as well, by the decayed counts of an item. To read them is to wait for
memory, for each of a thousand items that a query meets; but the counts of those outside the top
lists are no larger than the last one there. So they are read only where this may still carry an
item among the best: the same ones are kept as if all were read.
"""

from __future__ import annotations

import numpy as np

from learners.candidates import (
    COLUMNS,
    POPULAR,
    PRESCORE,
    TINY,
    Asked,
    Models,
    Workspace,
)
from learners.jit import jit, prefetch
from learners.selection import keep_best, kth_largest
from learners.vector import find

__all__ = ["choose"]

PRESCORE_POPULAR = 0.02  # of its share of the largest count at each half-life
PRESCORE_REPEAT = np.float32(0.05)
ROUNDING = np.float32(1e-6)
AHEAD = 16  # records that are asked for before their turn


@jit
def _prescore_named(work: Workspace, asked: Asked, touched: int) -> None:
    """Add up what the sources say, and whether the item was met before."""
    items, column, query, prescore = work.item, work.column, work.query, work.prescore
    prescore[:touched] = 0.0
    for c in range(COLUMNS):
        share = PRESCORE[c] / max(work.largest[c], TINY)
        for i in range(touched):
            prescore[i] += share * column[c, i]
    for j in range(asked.items):
        place = find(items, 0, touched, query[j])
        if place >= 0 and find(query, 0, j, query[j]) < 0:
            prescore[place] += PRESCORE_REPEAT


@jit
def _contenders(models: Models, work: Workspace, touched: int, most: int) -> int:
    """Note the places that what is popular may carry among the best; return how many."""
    weight, top = models.popularity.weight, models.popularity.top
    popular, prescore, contender = work.popular, work.prescore, work.contender
    most_more = ROUNDING
    for life in range(top.shape[0]):
        if top[life, 0] > 0:
            popular[life] = PRESCORE_POPULAR / max(weight[top[life, 0] - 1, life], 1e-300)
        if top[life, POPULAR - 1] > 0:
            most_more += np.float32(popular[life] * weight[top[life, POPULAR - 1] - 1, life])
    more = work.value
    more[:touched] = most_more
    for i in range(work.listed[0]):
        more[work.listed[i + 1]] = np.inf
    least = kth_largest(prescore, touched, most)
    found = 0
    for i in range(touched):
        contender[found] = i
        found += prescore[i] + more[i] >= least
    return found


@jit
def _add_popularity(models: Models, work: Workspace, found: int) -> None:
    weight = models.popularity.weight
    items, popular, contender = work.item, work.popular, work.contender
    lives = weight.shape[1]
    for i in range(found):
        if i + AHEAD < found:
            prefetch(weight, items[contender[i + AHEAD]] * lives)
        well_known = 0.0
        for life in range(lives):
            well_known += popular[life] * weight[items[contender[i]], life]
        work.prescore[contender[i]] += np.float32(well_known)


@jit
def choose(models: Models, work: Workspace, asked: Asked, touched: int, most: int) -> int:
    """Keep the `most` touched items of the best prescore; return how many were kept."""
    candidate = work.candidate
    facts, item, chosen = models.popularity.item, work.item, work.chosen
    kept = touched
    if touched > most:
        _prescore_named(work, asked, touched)
        _add_popularity(models, work, _contenders(models, work, touched, most))
        kept = keep_best(work.prescore, touched, most, candidate)
    else:
        for i in range(touched):
            candidate[i] = i
    for c in range(kept):
        chosen[c] = item[candidate[c]]
        prefetch(facts, chosen[c])
    return kept

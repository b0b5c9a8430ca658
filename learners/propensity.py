"""Drawing some items by their chances: systematic sampling, in which each has a known propensity.

Of n items, x on average are to be drawn, none twice, in proportion to given chances. Madow (1949,
"On the theory of systematic sampling, II") lays their propensities end to end on a line of length x
and draws those that the ticks u, u + 1, ... fall on, with u even from 0 up to 1: each item is drawn
with exactly its propensity, and the number of items is x rounded down or up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit, jit_brief_counted

__all__ = ["draw", "inclusion"]

TINY = 1e-12
SURE = np.inf  # the chance of an item that is drawn for certain

Floats = NDArray[np.float64]


@jit
def inclusion(chance: Floats, wanted: float) -> None:
    """Make chances (n,) the propensities of items that are drawn `wanted` at a time by them.

    In proportion to the chances, but none above 1; all that have a chance where they are too few.

    >>> chance = np.array([6.0, 1.0, 1.0, 0.0])
    >>> inclusion(chance, 2.0)
    >>> chance.tolist()
    [1.0, 0.5, 0.5, 0.0]
    """
    left, total = wanted, chance.sum()
    above = total > 0.0
    while above:
        scale = left / total
        above = False
        for i in range(len(chance)):
            if 0.0 < chance[i] < SURE and chance[i] * scale >= 1.0:
                left, total = left - 1.0, total - chance[i]
                chance[i] = SURE
                above = True
        above = above and left > 0.0 and total > TINY
    scale = max(left, 0.0) / total if total > TINY else 0.0
    for i in range(len(chance)):
        chance[i] = 1.0 if chance[i] == SURE else min(chance[i] * scale, 1.0)


@jit_brief_counted
def draw(
    pool: Floats,
    hidden: NDArray[np.bool_],
    seen: NDArray[np.int32],
    listed: NDArray[np.int64],
    categories: NDArray[np.int64],
    personal: float,
    wanted: float,
    u: float,
    drawn: NDArray[np.int64],
    propensity: Floats,
) -> int:
    """Draw different items of the pool by systematic sampling; return how many.

    Parameters
    ----------
    pool : (4, n)
        Rows (rising), numbers of categories, chances among all, chances within the category.
    hidden : (items,)
        Rows that may not be shown.
    seen : (m,)
        Rows that this user has seen.
    listed : (b,)
        Places in the pool of items that the answer names in any case.
    categories : (c,)
        Numbers of the categories that are wanted.
    personal
        Share of the draws that is for them.
    wanted, u
        How many are drawn on average, and a number from 0 up to 1 that decides which.
    drawn, propensity : (at least `wanted`,)
        Places in the pool, and the chance that each had; filled.
    """
    row, category, among_all, within = pool[0], pool[1], pool[2], pool[3]
    n = len(row)
    chance = np.empty(n)
    for i in range(n):
        chance[i] = (1.0 - personal) * among_all[i]
        for c in range(len(categories)):
            if category[i] == categories[c]:
                chance[i] += personal / len(categories) * within[i]
        if hidden[int(row[i])]:
            chance[i] = 0.0
    for s in range(len(seen)):
        place = np.searchsorted(row, np.float64(seen[s]))
        if place < n and row[place] == seen[s]:
            chance[place] = 0.0
    for b in range(len(listed)):
        chance[listed[b]] = 0.0
    inclusion(chance, wanted)
    count, reached = 0, 0.0
    for i in range(n):
        reached += chance[i]
        if reached > count + u and count < len(drawn):
            drawn[count], propensity[count] = i, chance[i]
            count += 1
    return count

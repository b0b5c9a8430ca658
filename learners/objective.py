r"""The final ranking: what an answer is to bring, clicks, purchases or value.

A candidate x counts :math:`p(x) (w_c + w_p P(b|x) + w_v P(b|x) E[v|x] / \bar v)`: its share of the
blend's softmax, the probability that who clicks it will buy it, and what such a purchase brings, as
a share of the mean. What the user has clicked and not bought may have left the candidates, or
nearly: for purchases and value, it counts as much as the candidate of rank `FLOOR` at least.
With clicks as the whole objective this module is not asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.outcomes import OutcomesState, probability
from learners.past import base_rate, describe_item, value_of
from learners.selection import kth_largest
from learners.vector import find

__all__ = ["order"]

FLOOR = 10


@jit
def _shares(outcomes: OutcomesState, score: NDArray[np.float32], kept: int) -> float:
    """Write the softmax of the scores; return the share that something met counts at least."""
    share = outcomes.final_score
    largest = score[0] if kept > 0 else np.float32(0.0)
    for c in range(kept):
        largest = max(largest, score[c])
    total = 0.0
    for c in range(kept):
        share[c] = np.exp(score[c] - largest)
        total += share[c]
    for c in range(kept):
        share[c] /= np.float32(total)
    if kept == 0:
        return 1.0
    return float(kth_largest(share, kept, min(FLOOR, kept)))


@jit
def _add_past(
    outcomes: OutcomesState, n: int, hidden: NDArray[np.bool_], excluded: NDArray[np.int32]
) -> int:
    """Add what the past has met and the candidates lack; return how many there are now."""
    past, item, share = outcomes.past, outcomes.final_item, outcomes.final_score
    for back in range(past.size[0]):
        row = past.item[back]
        if row < 0 or find(item, 0, n, row) >= 0 or find(excluded, 0, len(excluded), row) >= 0:
            continue
        if len(hidden) == 0 or not hidden[row]:
            item[n] = row
            share[n] = 0.0
            n += 1
    return n


@jit
def order(
    outcomes: OutcomesState,
    chosen: NDArray[np.int32],
    score: NDArray[np.float32],
    kept: int,
    now: float,
    hidden: NDArray[np.bool_],
    excluded: NDArray[np.int32],
) -> int:
    """Score the candidates by the objective; return how many there are with those added.

    `outcomes.past` is that of the user; `outcomes.final_item` and `final_score` are filled, the
    first `kept` places those of the candidates. Items in `hidden` (items,) or `excluded` are not
    added; `hidden` may be empty.
    """
    books, past, feature = outcomes.books, outcomes.past, outcomes.feature
    item, final = outcomes.final_item, outcomes.final_score
    floor = _shares(outcomes, score, kept)
    for c in range(kept):
        item[c] = chosen[c]
    n = _add_past(outcomes, kept, hidden, excluded)
    click, purchase, value = outcomes.objective[0], outcomes.objective[1], outcomes.objective[2]
    base = base_rate(books)
    for c in range(n):
        share = float(final[c])
        met = describe_item(books, past, item[c], now, base, feature)
        later = share if not met else max(share, floor)
        bought = probability(outcomes, feature, base)
        worth = purchase + value * value_of(books, item[c]) if value > 0.0 else purchase
        final[c] = np.float32(click * share + later * bought * worth)
    return n

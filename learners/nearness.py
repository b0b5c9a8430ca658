"""How near candidates stand to the last two items, in the spaces that the factorisation has learnt.

Its own score looks from a whole session at an item. Two items whose rows point the same way are
bought for the same reason, or by the same people: what the one is to a session, the other is too.
That is told apart for both kinds of rows (E, as part of a query; O, as an answer), as cosines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.lanes import WIDTH, dot, prefetch_row
from learners.sources.factors import FactorsState

__all__ = ["NEARNESSES", "describe_nearness"]

NEARNESSES = 4  # features
AHEAD = 8  # rows that are asked for before their turn
SMALL = np.float32(1e-9)  # of a row of zeros
ONE, ZERO = np.float32(1.0), np.float32(0.0)


@jit
def _inverse_norm(vectors: NDArray[np.float32], row: int) -> np.float32:
    return np.float32(ONE / np.sqrt(dot(vectors, row * WIDTH, vectors, row * WIDTH) + SMALL))


@jit
def _cosines(
    vectors: NDArray[np.float32],
    plane: int,
    other: int,
    inverse: NDArray[np.float32],
    chosen: NDArray[np.int32],
    kept: int,
    out: NDArray[np.float32],
) -> None:
    """Write the cosine of each candidate's row with that of another item, 0 without one."""
    items = vectors.shape[1]
    row = plane * items + max(other, 0)
    scale = _inverse_norm(vectors, row) if other >= 0 else ZERO
    for k in range(kept):
        product = dot(vectors, row * WIDTH, vectors, (plane * items + chosen[k]) * WIDTH)
        out[k] = scale * inverse[k] * product


@jit
def describe_nearness(
    state: FactorsState,
    query: NDArray[np.int32],
    n: int,
    chosen: NDArray[np.int32],
    kept: int,
    inverse: NDArray[np.float32],
    feature: NDArray[np.float32],
    f: int,
) -> int:
    """Write `NEARNESSES` features of the first `kept` candidates, from row `f` of `feature` on.

    They are the cosines of E with the last and the second last of the `n` items of `query`, then
    those of O; `inverse` (n,) is working memory. Returns the next row.
    """
    vectors = state.vectors
    items = vectors.shape[1]
    last = int(query[0]) if n > 0 else -1
    before = int(query[1]) if n > 1 else -1
    for plane in range(2):
        for k in range(kept):
            if k + AHEAD < kept:
                prefetch_row(vectors, plane * items + chosen[k + AHEAD])
            inverse[k] = _inverse_norm(vectors, plane * items + chosen[k])
        _cosines(vectors, plane, last, inverse, chosen, kept, feature[f + 2 * plane])
        _cosines(vectors, plane, before, inverse, chosen, kept, feature[f + 2 * plane + 1])
    return f + NEARNESSES

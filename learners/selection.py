"""The k best of many, without sorting the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["best_places", "keep_best", "kth_largest"]

SIGN = np.int32(31)
LOWEST, HIGHEST = -(2**31), 2**31 - 1


@jit
def _at_least(bits: NDArray[np.int32], n: int, key: int) -> int:
    """Count the values whose key, an integer in the order of the floats, is at least `key`."""
    least = np.int32(key)
    count = np.int32(0)
    for i in range(n):
        negative = bits[i] >> SIGN
        count += np.int32(bits[i] ^ (negative & np.int32(0x7FFFFFFF)) >= least)
    return int(count)


@jit
def _least_from(bits: NDArray[np.int32], n: int, key: int) -> int:
    """Return the smallest key that is at least `key`; there is one."""
    first, least = np.int32(key), np.int32(HIGHEST)
    for i in range(n):
        negative = bits[i] >> SIGN
        mine = np.int32(bits[i] ^ (negative & np.int32(0x7FFFFFFF)))
        least = min(least, mine if mine >= first else np.int32(HIGHEST))
    return int(least)


@jit
def kth_largest(values: NDArray[np.float32], n: int, k: int) -> np.float32:
    """Return the k-th largest of the first n values, 1 <= k <= n, none of them NaN.

    Bisection over the floats' bits until k values are left: a dozen counts, each of them vector
    code without a branch, are faster than quickselect's mispredicted branches.
    """
    bits = values.view(np.int32)
    low, high = LOWEST, HIGHEST  # at least k values have the key `low` or a larger one
    while low < high:
        middle = low + (high - low + 1) // 2
        count = _at_least(bits, n, middle)
        if count == k:
            low = high = _least_from(bits, n, middle)
        elif count > k:
            low = middle
        else:
            high = middle - 1
    key = np.int32(low)
    return np.int32(key ^ ((key >> SIGN) & np.int32(0x7FFFFFFF))).view(np.float32)


@jit
def keep_best(values: NDArray[np.float32], n: int, k: int, places: NDArray[np.int32]) -> int:
    """Write the places of the k best of the first n values, rising; return how many there are.

    Of those that tie for the last places, the first ones are kept.
    """
    least = kth_largest(values, n, k) if n > k else np.float32(-np.inf)
    above = 0
    for i in range(n):
        above += values[i] > least
    ties = k - above
    kept = 0
    for i in range(n):
        tied = values[i] == least
        if values[i] > least or (tied and ties > 0):
            ties -= tied
            places[kept] = i
            kept += 1
    return kept


@jit
def best_places(values: NDArray[np.float32], n: int, k: int, places: NDArray[np.int32]) -> int:
    """Write the places of the k best of the first n values, best first; return how many."""
    kept = keep_best(values, n, k, places)
    for i in range(kept):
        at, place = i, places[i]
        while at > 0 and values[places[at - 1]] < values[place]:
            places[at] = places[at - 1]
            at -= 1
        places[at] = place
    return kept

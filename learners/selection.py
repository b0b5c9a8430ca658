"""The k best of many, without sorting them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["kth_largest"]


@jit
def kth_largest(values: NDArray[np.float64], n: int, k: int) -> float:
    """Return the k-th largest of the first n values; reorders them (Hoare's quickselect)."""
    low, high, want = 0, n - 1, k - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return float(values[want])

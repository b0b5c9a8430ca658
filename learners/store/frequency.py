"""Whether an item has been met often enough to be given a row: a sketch of counts by hash.

One count of a byte for each of a few hashes an id, raised at each event, so a count is never too
small; the smallest of an id's counts (Count-Min, Cormode and Muthukrishnan 2005, section 3). After
as many events as there are rows for items, all are halved, so that it is lately that counts
(TinyLFU's reset, Einziger, Friedman and Manes 2017, section 3.3); those of the catalogue's items
stay. Whether an event is let through depends on the events before it alone, not on who has a row:
an item that is met more seldom than that is no longer learnt, either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import ITEM
from learners.jit import jit_brief

__all__ = ["KEPT_OUT", "Frequency", "let_through", "make_frequency"]

HASHES = 4
COUNTS_AN_ITEM = 16
MOST, LISTED = 254, 255  # of a click; of an item of the catalogue, for good
MET, KEPT_OUT = range(2)  # of `book`: events since counts were halved; events not let through


class Frequency(NamedTuple):
    """Counts by hash; there are none where every item is let through at once."""

    counts: NDArray[np.uint8]  # (n,) n a power of 2
    book: NDArray[np.int64]  # (2,) MET, KEPT_OUT


def make_frequency(items: int, admit_after: int) -> Frequency:
    """Return counts for so many rows of items."""
    n = 1 << (COUNTS_AN_ITEM * items - 1).bit_length() if admit_after > 1 else 1
    return Frequency(np.zeros(n, np.uint8), np.zeros(2, np.int64))


@jit_brief
def let_through(
    frequency: Frequency,
    keys: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    admit_after: int,
    through: NDArray[np.bool_],
) -> None:
    """Mark the events whose item is met for the `admit_after`-th time, or later; (n,) each.

    `keys` are hashes of the items' ids. An item of the catalogue is let through from its entry on.
    """
    count, book = frequency.counts, frequency.book
    mask = np.uint64(len(count) - 1)
    for i in range(len(keys)):
        listed = kinds[i] == ITEM
        least = LISTED
        for part in range(HASHES):
            slot = (keys[i] >> np.uint64(16 * part)) * np.uint64(0x9E3779B97F4A7C15)
            slot = (slot >> np.uint64(20)) & mask
            met = LISTED if listed or count[slot] == LISTED else min(int(count[slot]) + 1, MOST)
            count[slot] = met
            least = min(least, met)
        through[i] = least >= admit_after
        book[KEPT_OUT] += not through[i]
        book[MET] += 1
        if book[MET] >= len(count) // COUNTS_AN_ITEM:
            book[MET] = 0
            for k in range(len(count)):
                count[k] = LISTED if count[k] == LISTED else count[k] // 2

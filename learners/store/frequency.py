"""Whether an item has been met often enough to be given a row: a sketch of counts by hash.

One count of a byte for each of a few hashes an id, raised at each event, so a count is never too
small; the smallest of an id's counts (Count-Min, Cormode and Muthukrishnan 2005, section 3). When
as many events as there are counts have been met, all are halved, so that it is lately that counts
(TinyLFU's reset, Einziger, Friedman and Manes 2017, section 3.3). Whether an event is let through
depends on the events before it alone, not on who has a row.
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
MOST = 255
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

    `keys` are hashes of the items' ids. An item of the catalogue is let through from then on.
    """
    count, book = frequency.counts, frequency.book
    mask = np.uint64(len(count) - 1)
    for i in range(len(keys)):
        listed = kinds[i] == ITEM
        least = MOST
        for part in range(HASHES):
            slot = (keys[i] >> np.uint64(16 * part)) * np.uint64(0x9E3779B97F4A7C15)
            slot = (slot >> np.uint64(20)) & mask
            met = MOST if listed else min(int(count[slot]) + 1, MOST)
            count[slot] = met
            least = min(least, met)
        through[i] = least >= admit_after
        book[KEPT_OUT] += not through[i]
        book[MET] += 1
        if book[MET] >= len(count):
            book[MET] = 0
            for slot_ in range(len(count)):
                count[slot_] = (count[slot_] + 1) // 2

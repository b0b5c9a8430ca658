"""All the chance in the factorisation: negatives from a ring of events, a new row's first numbers.

One generator, read at any place, gives both: they follow from the seed and from how much was drawn,
whatever the capacity and the batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.lanes import WIDTH
from learners.store.rows import refill

__all__ = [
    "FIRST_SUM",
    "HELD",
    "LATER",
    "NEGATIVES",
    "NOW",
    "append",
    "begin_row",
    "count",
    "draw",
    "forget",
]

NEGATIVES = 32
NONE = np.int32(-1)
FIRST_SUM = np.float32(1e-8)  # of squared gradients; a sum of 0 is of a row that is not in use
SPREAD = 0.1  # standard deviation of a new row's numbers
# Of `book`; numbers drawn, events in the ring, place of the next.
SEED, DRAWN, HELD, NEXT = range(4)
NOW, LATER = range(2)  # rows of `slot`: negatives of this step, of the next one

# The generator is splitmix64 (Steele, Lea and Flood 2014), read at any place without a state.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S16, S27, S30, S31, S32, S48 = np.array([16, 27, 30, 31, 32, 48], np.uint64)
LOW_16, LOW_32 = np.uint64(2**16 - 1), np.uint64(2**32 - 1)
# Four numbers of 16 bits add up to nearly a normal distribution, the same on every machine.
SUM_MEAN, SUM_SCALE = 4 * 65535 / 2, SPREAD / (65536 / np.sqrt(3.0))


@jit
def _mixed(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> S30)) * MIX_1
    z = (z ^ (z >> S27)) * MIX_2
    return np.uint64(z ^ (z >> S31))


@jit
def begin_row(
    vectors: NDArray[np.float32], sums: NDArray[np.float32], book: NDArray[np.uint64], row: int
) -> None:
    """Take a row into use: its first numbers follow from the seed and the row alone."""
    for plane in range(2):
        first = _mixed(book[SEED]) + np.uint64((2 * row + plane) * WIDTH) * GOLDEN
        for column in range(WIDTH):
            z = _mixed(first + np.uint64(column) * GOLDEN)
            four = (z & LOW_16) + ((z >> S16) & LOW_16) + ((z >> S32) & LOW_16) + (z >> S48)
            vectors[plane, row, column] = (np.float64(four) - SUM_MEAN) * SUM_SCALE
        sums[plane, row] = FIRST_SUM


@jit
def draw(ring: NDArray[np.int32], book: NDArray[np.uint64], slot: NDArray[np.int32]) -> None:
    """Draw the negatives of the next step; -1 where the ring holds no event."""
    held = book[HELD]
    key = _mixed(book[SEED] + GOLDEN) + book[DRAWN] * GOLDEN
    book[DRAWN] += np.uint64(NEGATIVES // 2)
    for i in range(NEGATIVES // 2):
        z = _mixed(key + np.uint64(i) * GOLDEN)
        first, second = ((z >> S32) * held) >> S32, ((z & LOW_32) * held) >> S32
        slot[LATER, 2 * i] = ring[first] if held else NONE
        slot[LATER, 2 * i + 1] = ring[second] if held else NONE


@jit
def append(
    ring: NDArray[np.int32], often: NDArray[np.int32], book: NDArray[np.uint64], item: int
) -> None:
    """Put an event into the ring, in place of the oldest where it is full."""
    at = np.int64(book[NEXT])
    if np.int64(book[HELD]) == len(ring):
        often[ring[at]] -= 1
    else:
        book[HELD] += np.uint64(1)
    ring[at] = item
    often[item] += 1
    book[NEXT] = np.uint64(at + 1 if at + 1 < len(ring) else 0)


def count(ring: NDArray[np.int32], often: NDArray[np.int32], book: NDArray[np.uint64]) -> None:
    """Count anew how often each item is in the ring."""
    often[:] = np.bincount(ring[: int(book[HELD])], minlength=len(often))


def forget(
    ring: NDArray[np.int32],
    often: NDArray[np.int32],
    book: NDArray[np.uint64],
    upcoming: NDArray[np.int32],
    rows: NDArray[np.int64],
) -> None:
    """Take some items out of the ring and of the negatives drawn already."""
    upcoming[np.isin(upcoming, rows)] = NONE
    held = int(book[HELD])
    if held == len(ring):
        ring[:] = np.roll(ring, -int(book[NEXT]))  # the oldest first
    kept = ring[:held][~np.isin(ring[:held], rows)]
    refill(ring, kept)
    book[[HELD, NEXT]] = len(kept), len(kept) % len(ring)
    count(ring, often, book)

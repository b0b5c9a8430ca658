"""Which row an id has: a hash table outside of Python's objects, looked up a batch at a time.

A dictionary of a million strings is larger than the caches, and each look-up waits for two or three
misses while it holds the interpreter. Here an id is its 128-bit hash (xxh3), at which no two of a
billion ids meet by chance, and a batch's misses are waited for together. Open addressing with
linear probing; a removed entry is closed by moving those behind it up, so nothing ever has to be
built anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit, jit_brief, prefetch
from learners.store.xxh3 import hash_128

__all__ = ["Index", "fill", "insert", "look_up", "make_index", "remove", "row_of"]

AHEAD = 8  # look-ups whose first cache line is asked for before their turn


class Index(NamedTuple):
    """Open addressing by hash; at most half of the slots are ever in use."""

    key: NDArray[np.uint64]  # (slots, 2)
    row: NDArray[np.int32]  # (slots,) row + 1, 0 for an empty slot


def make_index(capacity: int) -> Index:
    """Return an empty index with room for `capacity` ids."""
    slots = 1 << (2 * max(capacity, 1) - 1).bit_length()
    return Index(np.zeros((slots, 2), np.uint64), np.zeros(slots, np.int32))


@jit
def _slot(index: Index, low: np.uint64, high: np.uint64) -> int:
    """Return the slot of a key, or the empty one where it belongs."""
    key, row = index.key, index.row
    mask = len(row) - 1
    slot = np.int64(low) & mask
    while row[slot] != 0 and (key[slot, 0] != low or key[slot, 1] != high):
        slot = (slot + 1) & mask
    return int(slot)


@jit_brief
def look_up(index: Index, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> int:
    """Write the rows of hashes (n, 2) into `rows` (n,), -1 for unknown; return how many are."""
    key, row = index.key, index.row
    mask = len(row) - 1
    n = len(rows)
    unknown = 0
    for i in range(n):
        if i + AHEAD < n:
            slot = np.int64(hashes[i + AHEAD, 0]) & mask
            prefetch(key, int(2 * slot))
            prefetch(row, int(slot))
        rows[i] = row[_slot(index, hashes[i, 0], hashes[i, 1])] - 1
        unknown += rows[i] < 0
    return unknown


@jit_brief
def row_of(index: Index, name: NDArray[np.uint8]) -> int:
    """Return the row of an id, given as its bytes, at most `MOST_BYTES`; -1 when unknown."""
    low, high = hash_128(name, 0, len(name))
    return int(index.row[_slot(index, low, high)] - 1)


@jit_brief
def insert(index: Index, low: np.uint64, high: np.uint64, row: int) -> None:
    """Give a hash, low and high half, its row."""
    slot = _slot(index, low, high)
    index.key[slot, 0] = low
    index.key[slot, 1] = high
    index.row[slot] = row + 1


@jit
def fill(index: Index, hashes: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
    """Give hashes (n, 2) their rows (n,)."""
    for i in range(len(rows)):
        insert(index, hashes[i, 0], hashes[i, 1], rows[i])


@jit_brief
def remove(index: Index, hashes: NDArray[np.uint64]) -> None:
    """Take hashes (n, 2) out."""
    key, row = index.key, index.row
    mask = len(row) - 1
    for i in range(len(hashes)):
        hole = _slot(index, hashes[i, 0], hashes[i, 1])
        slot = hole
        while row[slot] != 0:
            slot = (slot + 1) & mask
            home = np.int64(key[slot, 0]) & mask
            # An entry may fill the hole unless its home lies behind it, up to where it stands.
            if row[slot] != 0 and (slot - home) & mask >= (slot - hole) & mask:
                key[hole, 0] = key[slot, 0]
                key[hole, 1] = key[slot, 1]
                row[hole] = row[slot]
                hole = slot
        row[hole] = 0

"""Which row an id has: a hash table outside of Python's objects, looked up a batch at a time.

A dictionary of a million strings is larger than the caches, and each look-up waits for two or three
misses while it holds the interpreter. Here a slot is 32 bits of the id's hash (xxh3) and its row;
the id itself, which stands in the rows' texts (`strings`), is compared. A batch's misses are waited
for together. Open addressing with linear probing; a removed entry is closed by moving those behind
it up, so nothing ever has to be built anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit, jit_brief, prefetch
from learners.store.strings import BLOCK_BYTES, SIZE_BITS, Heap, fits, put
from learners.store.xxh3 import MOST_BYTES, hash_64

__all__ = ["Index", "enter", "fill", "hash_of", "look_up", "make_slots", "remove", "row_of"]

TOGETHER = 32  # look-ups whose cache lines are asked for before the first of them goes on
HASH, ROW = range(2)


class Index(NamedTuple):
    """Open addressing by hash; at most half of the slots are ever in use."""

    slot: NDArray[np.uint32]  # (slots, 2) HASH, ROW: row + 1, 0 for an empty slot
    place: NDArray[np.int64]  # (rows,) `Heap.place`
    data: NDArray[np.uint8]  # (bytes,) `Heap.data`


def make_slots(capacity: int) -> NDArray[np.uint32]:
    """Return the empty slots of an index with room for `capacity` ids."""
    return np.zeros((1 << (2 * max(capacity, 1) - 1).bit_length(), 2), np.uint32)


@jit
def hash_of(data: NDArray[np.uint8], start: int, stop: int) -> np.uint32:
    """Return the hash of `data[start:stop]`; beyond `MOST_BYTES`, of its first and last ones."""
    n = min(stop - start, MOST_BYTES)
    h = hash_64(data, start, start + n)
    if stop - start > n:
        h ^= hash_64(data, stop - n, stop) + np.uint64(stop - start)
    return np.uint32(h)


@jit
def _is(index: Index, row: int, data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Tell whether a row's id is `data[start:stop]`."""
    place, mine = index.place[row], index.data
    size = stop - start
    if place & ((1 << SIZE_BITS) - 1) != size:
        return False
    at = (place >> SIZE_BITS) * BLOCK_BYTES
    differs = np.uint8(0)
    for i in range(size):
        differs |= mine[at + i] ^ data[start + i]
    return bool(differs == 0)


@jit
def _slot(index: Index, h: np.uint32, data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Return the slot of an id, or the empty one where it belongs."""
    slots = index.slot
    mask = len(slots) - 1
    slot = np.int64(h) & mask
    while slots[slot, ROW] != 0:
        if slots[slot, HASH] == h and _is(index, slots[slot, ROW] - 1, data, start, stop):
            break
        slot = (slot + 1) & mask
    return int(slot)


@jit
def _likely(slots: NDArray[np.uint32], h: np.uint32) -> int:
    """Return the first row whose id has a hash, -1 without one."""
    mask = len(slots) - 1
    slot = np.int64(h) & mask
    while slots[slot, ROW] != 0 and slots[slot, HASH] != h:
        slot = (slot + 1) & mask
    return int(np.int64(slots[slot, ROW]) - 1)


@jit_brief
def look_up(
    index: Index,
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    hashes: NDArray[np.uint32],
    rows: NDArray[np.int32],
) -> int:
    """Write hashes and rows (n,) of the ids `data[start[i]:stop[i]]`, -1 for unknown.

    Returns how many are unknown.
    """
    slots, place = index.slot, index.place
    mask = len(slots) - 1
    n, unknown = len(rows), 0
    for first in range(0, n, TOGETHER):
        last = min(first + TOGETHER, n)
        for i in range(first, last):
            hashes[i] = hash_of(data, start[i], stop[i])
            prefetch(slots, int(2 * (np.int64(hashes[i]) & mask)))
        for i in range(first, last):
            rows[i] = _likely(slots, hashes[i])
            if rows[i] >= 0:
                prefetch(place, rows[i])
        for i in range(first, last):
            if rows[i] >= 0:
                prefetch(index.data, (place[rows[i]] >> SIZE_BITS) * BLOCK_BYTES)
        for i in range(first, last):
            if rows[i] >= 0:
                rows[i] = np.int64(slots[_slot(index, hashes[i], data, start[i], stop[i]), ROW]) - 1
            unknown += rows[i] < 0
    return unknown


@jit_brief
def row_of(index: Index, name: NDArray[np.uint8]) -> int:
    """Return the row of an id, given as its bytes; -1 when unknown."""
    slot = _slot(index, hash_of(name, 0, len(name)), name, 0, len(name))
    return int(np.int64(index.slot[slot, ROW]) - 1)


@jit_brief
def enter(
    index: Index,
    heap: Heap,
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    hashes: NDArray[np.uint32],
    rows: NDArray[np.int32],
    new: NDArray[np.int64],
) -> int:
    """Give the ids whose row is -1 the rows of `new`, in order; return how many were used.

    Stops at an id for which the heap has no room.
    """
    slots = index.slot
    used = 0
    for i in range(len(rows)):
        if rows[i] < 0:
            slot = _slot(index, hashes[i], data, start[i], stop[i])
            if slots[slot, ROW] == 0:
                if not fits(heap, stop[i] - start[i]):
                    return used
                put(heap, new[used], data, start[i], stop[i])
                slots[slot, HASH] = hashes[i]
                slots[slot, ROW] = new[used] + 1
                used += 1
            rows[i] = np.int64(slots[slot, ROW]) - 1
    return used


@jit
def _hash_of_row(index: Index, row: int) -> np.uint32:
    start = (index.place[row] >> SIZE_BITS) * BLOCK_BYTES
    return hash_of(index.data, start, start + (index.place[row] & ((1 << SIZE_BITS) - 1)))


@jit
def fill(index: Index, rows: NDArray[np.int64]) -> None:
    """Enter rows (n,) that have their ids."""
    slots = index.slot
    mask = len(slots) - 1
    for row in rows:
        h = _hash_of_row(index, row)
        slot = np.int64(h) & mask
        while slots[slot, ROW] != 0:
            slot = (slot + 1) & mask
        slots[slot, HASH] = h
        slots[slot, ROW] = row + 1


@jit_brief
def remove(index: Index, rows: NDArray[np.int64]) -> None:
    """Take rows (n,) out, while they have their ids."""
    slots = index.slot
    mask = len(slots) - 1
    for row in rows:
        hole = np.int64(_hash_of_row(index, row)) & mask
        while slots[hole, ROW] != row + 1:
            hole = (hole + 1) & mask
        slot = hole
        while slots[slot, ROW] != 0:
            slot = (slot + 1) & mask
            home = np.int64(slots[slot, HASH]) & mask
            # An entry may fill the hole unless its home lies behind it, up to where it stands.
            if slots[slot, ROW] != 0 and (slot - home) & mask >= (slot - hole) & mask:
                slots[hole, HASH] = slots[slot, HASH]
                slots[hole, ROW] = slots[slot, ROW]
                hole = slot
        slots[hole, ROW] = 0

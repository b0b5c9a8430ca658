"""Rows that grow inside one pool: many short lists, a few long ones, no allocation per event.

A row owns a block of 2^c slots of the pool; when it is full it moves to a block twice as large
and its old block goes to the free list of its size. `link` is a 32-bit column of the pool: a free
block keeps the place of the next one in its first slot.

What belongs to one row stands together in one record, here and in the other stores: the arrays
are far larger than the caches, and each record costs one miss where separate columns cost many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["Records", "Rows", "copy_changed", "make_rows", "refill", "release", "reserve", "settle"]

Records = NDArray[Any]  # a structured array; its dtype stands beside the class that holds it

FIRST_ROOM = 4
ROW = np.dtype(
    [
        ("start", np.int64),  # first slot of the block
        ("held", np.int64),  # entries ever appended (a ring) or held (a list)
        ("time", np.float64),  # for the rows' owner: a time in seconds
        ("room", np.int32),  # slots of the block
        ("met", np.int32),  # for the rows' owner: a count
    ],
    align=True,
)


class Rows(NamedTuple):
    """Where each row stands in the pool; all zero when empty."""

    head: Records  # (rows,) ROW
    free: NDArray[np.int64]  # (32,) per size class: 1 + start of a free block, 0 for none
    top: NDArray[np.int64]  # (1,) slots handed out so far


def make_rows(rows: int) -> Rows:
    """Return empty rows."""
    return Rows(np.zeros(rows, ROW), np.zeros(32, np.int64), np.zeros(1, np.int64))


@jit
def _size_class(room: int) -> int:
    size_class = 0
    while (1 << size_class) < room:
        size_class += 1
    return size_class


@jit
def reserve(rows: Rows, link: NDArray[Any], row: int) -> int:
    """Find a block of twice a row's room; return its start, or -1 when the pool has none.

    The caller copies the entries over and then calls `settle`.
    """
    room = max(2 * rows.head[row].room, FIRST_ROOM)
    size_class = _size_class(room)
    head = rows.free[size_class]
    if head > 0:
        rows.free[size_class] = link[head - 1]
        return int(head - 1)
    start = rows.top[0]
    if start + room > len(link):
        return -1
    rows.top[0] = start + room
    return int(start)


@jit
def _free(rows: Rows, link: NDArray[Any], row: int) -> None:
    if rows.head[row].room > 0:
        size_class = _size_class(rows.head[row].room)
        link[rows.head[row].start] = rows.free[size_class]
        rows.free[size_class] = rows.head[row].start + 1


@jit
def settle(rows: Rows, link: NDArray[Any], row: int, start: int) -> None:
    """Move a row into the block that `reserve` found."""
    _free(rows, link, row)
    rows.head[row].start = start
    rows.head[row].room = max(2 * rows.head[row].room, FIRST_ROOM)


@jit
def release(rows: Rows, link: NDArray[Any], row: int) -> None:
    """Give a row's block back; the row is empty afterwards."""
    _free(rows, link, row)
    rows.head[row].start = 0
    rows.head[row].room = 0
    rows.head[row].held = 0
    rows.head[row].met = 0
    rows.head[row].time = 0.0


@jit
def copy_changed(
    source: NDArray[np.uint8], changed: NDArray[np.uint8], target: NDArray[np.uint8]
) -> None:
    """Copy the rows of bytes (n, w) that are marked in `changed` (n,) to `target` (n, w)."""
    for row in range(len(source)):
        if changed[row]:
            target[row] = source[row]


def refill(mine: NDArray[Any], stored: NDArray[Any]) -> None:
    """Set an array to a stored run of its first entries, and the rest to zero.

    A structured array may come back from disk as bytes, (n, ..., bytes of an entry).
    """
    if stored.dtype != mine.dtype:
        stored = np.ascontiguousarray(stored).view(mine.dtype)[..., 0]
    mine[len(stored) :] = np.zeros(1, mine.dtype)[0]
    mine[: len(stored)] = stored

"""Rows that grow inside one pool: many short lists, a few long ones, no allocation per event.

A row owns a block of 2^c slots of the pool; when it is full it moves to a block twice as large
and its old block goes to the free list of its size. `link` is any int32 column of the pool: a
free block keeps the place of the next one in its first slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["Rows", "make_rows", "release", "reserve", "settle"]

FIRST_ROOM = 4


class Rows(NamedTuple):
    """Where each row stands in the pool; all zero when empty."""

    start: NDArray[np.int64]  # (rows,) first slot of the block
    room: NDArray[np.int32]  # (rows,) slots of the block
    held: NDArray[np.int64]  # (rows,) entries ever appended (a ring) or held (a list)
    free: NDArray[np.int64]  # (32,) per size class: 1 + start of a free block, 0 for none
    top: NDArray[np.int64]  # (1,) slots handed out so far


def make_rows(rows: int) -> Rows:
    """Return empty rows."""
    return Rows(
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.int64),
        np.zeros(32, np.int64),
        np.zeros(1, np.int64),
    )


@jit
def _size_class(room: int) -> int:
    size_class = 0
    while (1 << size_class) < room:
        size_class += 1
    return size_class


@jit
def reserve(rows: Rows, link: NDArray[np.int32], row: int) -> int:
    """Find a block of twice a row's room; return its start, or -1 when the pool has none.

    The caller copies the entries over and then calls `settle`.
    """
    room = max(2 * rows.room[row], FIRST_ROOM)
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
def _free(rows: Rows, link: NDArray[np.int32], row: int) -> None:
    if rows.room[row] > 0:
        size_class = _size_class(rows.room[row])
        link[rows.start[row]] = rows.free[size_class]
        rows.free[size_class] = rows.start[row] + 1


@jit
def settle(rows: Rows, link: NDArray[np.int32], row: int, start: int) -> None:
    """Move a row into the block that `reserve` found."""
    _free(rows, link, row)
    rows.start[row] = start
    rows.room[row] = max(2 * rows.room[row], FIRST_ROOM)


@jit
def release(rows: Rows, link: NDArray[np.int32], row: int) -> None:
    """Give a row's block back; the row is empty afterwards."""
    _free(rows, link, row)
    rows.start[row] = 0
    rows.room[row] = 0
    rows.held[row] = 0

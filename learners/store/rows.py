"""Rows that grow inside one pool: many short lists, a few long ones, no allocation per event.

A row owns a block of 2^c slots of the pool; when it is full it moves to a block twice as large
and its old block goes to the free list of its size. `link` is a 32-bit column of the pool: a free
block keeps the place of the next one in its first slot.

Where all slots are taken, a row may still grow to its fair share, slots / rows: larger free blocks
are split, and when there is none, the next row in turn that has more than its share gives half of
its block. There is one wherever a row has nothing, so what is new is never shut out.

What belongs to one row stands together in one record, here and in the other stores: the arrays
are far larger than the caches, and each record costs one miss where separate columns cost many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = [
    "Records",
    "Rows",
    "copy_changed",
    "giver",
    "halve",
    "make_rows",
    "refill",
    "release",
    "reserve",
    "settle",
]

Records = NDArray[Any]  # a structured array; its dtype stands beside the class that holds it

FIRST_ROOM = 4
ASKED_TO_GIVE = 32  # rows that are looked at; the next attempt looks at those after them
ROW = np.dtype(
    [
        ("start", np.int64),  # first slot of the block
        ("held", np.int64),  # entries ever appended (a ring) or held (a list)
        ("room", np.int32),  # slots of the block
        ("met", np.int32),  # for the rows' owner: a count
    ],
    align=True,
)


class Rows(NamedTuple):
    """Where each row stands in the pool; all zero when empty."""

    head: Records  # (rows,) ROW
    free: NDArray[np.int64]  # (32,) per size class: 1 + start of a free block, 0 for none
    top: NDArray[np.int64]  # (2,) slots handed out so far; the row whose turn it is to give


def make_rows(rows: int) -> Rows:
    """Return empty rows."""
    return Rows(np.zeros(rows, ROW), np.zeros(32, np.int64), np.zeros(2, np.int64))


@jit
def _size_class(room: int) -> int:
    size_class = 0
    while (1 << size_class) < room:
        size_class += 1
    return size_class


@jit
def _is_fair(rows: Rows, link: NDArray[Any], room: int) -> bool:
    """Tell whether every row could have so many slots."""
    return room * len(rows.head) <= len(link)


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
    if start + room <= len(link):
        rows.top[0] = start + room
        return int(start)
    return _split(rows, link, size_class) if _is_fair(rows, link, room) else -1


@jit
def _split(rows: Rows, link: NDArray[Any], size_class: int) -> int:
    """Take a block out of a larger free one; return its start, or -1 where there is none."""
    larger = size_class + 1
    while larger < len(rows.free) and rows.free[larger] == 0:
        larger += 1
    if larger == len(rows.free):
        return -1
    start = rows.free[larger] - 1
    rows.free[larger] = link[start]
    while larger > size_class:
        larger -= 1
        half = start + (1 << larger)
        link[half] = rows.free[larger]
        rows.free[larger] = half + 1
    return int(start)


@jit
def giver(rows: Rows, link: NDArray[Any], row: int) -> int:
    """Return the row that should give half of its block so that `row` can grow, or -1 for none."""
    if _is_fair(rows, link, max(2 * rows.head[row].room, FIRST_ROOM)):
        for _ in range(ASKED_TO_GIVE):
            other = rows.top[1]
            rows.top[1] = other + 1 if other + 1 < len(rows.head) else 0
            if not _is_fair(rows, link, rows.head[other].room):
                return int(other)
    return -1


@jit
def halve(rows: Rows, link: NDArray[Any], row: int) -> None:
    """Put the upper half of a row's block on the free list; what is kept stands in the lower."""
    head = rows.head[row]
    head.room //= 2
    size_class = _size_class(head.room)
    half = head.start + head.room
    link[half] = rows.free[size_class]
    rows.free[size_class] = half + 1


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


@jit
def copy_changed(
    source: NDArray[np.uint8], changed: NDArray[np.uint8], target: NDArray[np.uint8]
) -> None:
    """Copy the rows of bytes (n, w) that are marked in `changed` (n,) to `target` (n, w)."""
    for row in range(len(source)):
        if changed[row]:
            for i in range(source.shape[1]):
                target[row, i] = source[row, i]


def refill(mine: NDArray[Any], stored: NDArray[Any]) -> None:
    """Set an array to a stored run of its first entries, and the rest to zero.

    A structured array may come back from disk as bytes, (n, ..., bytes of an entry).
    """
    if stored.dtype != mine.dtype:
        stored = np.ascontiguousarray(stored).view(mine.dtype)[..., 0]
    mine[len(stored) :] = np.zeros(1, mine.dtype)[0]
    mine[: len(stored)] = stored

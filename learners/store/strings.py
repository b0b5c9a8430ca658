"""Short texts by row, as bytes in one buffer: no Python object for each.

A text owns a run of blocks of 16 bytes. A run that is given up is blanked, goes to the free list of
its size, its first word keeping the next one's place, and is handed out again. So nothing is ever
moved, and what was erased is gone. The buffer is reserved for texts of the longest usual size; the
system backs it with memory as it fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit, jit_brief
from learners.store.rows import refill
from learners.store.texts import Texts

__all__ = ["BLOCK_BYTES", "NAMED", "SIZE_BITS", "Heap", "Strings", "fits", "put"]

BLOCK_BYTES = 16
WORDS = BLOCK_BYTES // 8
EXACT = 64  # blocks; longer runs are powers of two
SIZES = EXACT + 32
SIZE_BITS = 32
NAMED = 32_768  # texts that are kept as Python's strings, as answers name the same ones again
MOST = (1 << SIZE_BITS) - 1


class Heap(NamedTuple):
    """The buffer and what stands where."""

    data: NDArray[np.uint8]  # (bytes,)
    word: NDArray[np.int64]  # (bytes / 8,) the same memory
    place: NDArray[np.int64]  # (rows,) 2^32 times the first block, plus the bytes; 0 for no text
    free: NDArray[np.int64]  # (SIZES,) per size: 1 + the first block of a free run, 0 for none
    top: NDArray[np.int64]  # (1,) blocks handed out so far


@jit
def _blocks(size: int) -> int:
    """Return the blocks of a run that holds so many bytes."""
    blocks = (size + BLOCK_BYTES - 1) // BLOCK_BYTES
    if blocks <= EXACT:
        return blocks
    run = EXACT
    while run < blocks:
        run *= 2
    return run


@jit
def _size_class(blocks: int) -> int:
    size_class = min(blocks, EXACT)
    while blocks > EXACT:
        blocks //= 2
        size_class += 1
    return size_class


@jit
def _drop(heap: Heap, row: int) -> None:
    """Blank a row's text, if it has one, and give its run back."""
    size = heap.place[row] & MOST
    if size > 0:
        blocks, at = _blocks(size), heap.place[row] >> SIZE_BITS
        heap.word[WORDS * at : WORDS * (at + blocks)] = 0
        size_class = _size_class(blocks)
        heap.word[WORDS * at] = heap.free[size_class]
        heap.free[size_class] = at + 1
        heap.place[row] = 0


@jit
def fits(heap: Heap, size: int) -> bool:
    """Tell whether the buffer has room for one more text, whatever its free runs."""
    return BLOCK_BYTES * (int(heap.top[0]) + _blocks(size)) <= len(heap.data)


@jit
def put(heap: Heap, row: int, data: NDArray[np.uint8], start: int, stop: int) -> None:
    """Make `data[start:stop]`, which `fits`, a row's text."""
    _drop(heap, row)
    size = stop - start
    if size == 0:
        return
    blocks = _blocks(size)
    size_class = _size_class(blocks)
    at = heap.free[size_class] - 1
    if at >= 0:
        heap.free[size_class] = heap.word[WORDS * at]
        heap.word[WORDS * at] = 0
    else:
        at = heap.top[0]
        heap.top[0] = at + blocks
    target = heap.data
    for i in range(size):
        target[BLOCK_BYTES * at + i] = data[start + i]
    heap.place[row] = at << SIZE_BITS | size


@jit_brief
def _put_one(heap: Heap, row: int, data: NDArray[np.uint8]) -> None:
    put(heap, row, data, 0, len(data))


@jit_brief
def _drop_all(heap: Heap, rows: NDArray[np.int64]) -> None:
    for row in rows:
        _drop(heap, row)


class Strings:
    """Texts of up to `rows` rows; "" where there is none.

    Examples
    --------
    >>> strings = Strings(rows=4, usual_bytes=128)
    >>> strings.put(2, "Käse".encode())
    >>> strings[2], strings.raw(2), strings[3]
    ('Käse', b'K\\xc3\\xa4se', '')
    """

    def __init__(self, rows: int, usual_bytes: int) -> None:
        self.heap = _make_heap(
            rows * usual_bytes, np.zeros(rows, np.int64), np.zeros(SIZES, np.int64)
        )
        self._view = self.heap.data.data
        self._named: dict[int, str] = {}

    def __getitem__(self, row: int) -> str:
        text = self._named.get(row)
        if text is None:
            text = self._read(row)
            if len(self._named) == NAMED:
                self._named.clear()
            if text:
                self._named[row] = text
        return text

    def _read(self, row: int) -> str:
        place = self.heap.place.item(row)
        start = (place >> SIZE_BITS) * BLOCK_BYTES
        return str(self._view[start : start + (place & MOST)], "utf-8", "surrogatepass")

    def raw(self, row: int) -> bytes:
        """Return a row's text as bytes."""
        place = self.heap.place.item(row)
        start = (place >> SIZE_BITS) * BLOCK_BYTES
        return bytes(self._view[start : start + (place & MOST)])

    def texts(self, rows: NDArray[np.integer]) -> Texts:
        """Return the texts of some rows as a column, until one of them changes."""
        place = self.heap.place[rows]
        start = (place >> SIZE_BITS) * BLOCK_BYTES
        return Texts(self.heap.data, start, start + (place & MOST))

    def put(self, row: int, raw: bytes) -> None:
        """Make `raw` a row's text."""
        if not fits(self.heap, len(raw)):
            self.extend(len(raw))
        self._named.pop(row, None)
        _put_one(self.heap, row, np.frombuffer(raw, np.uint8))

    def extend(self, size: int) -> None:
        """Make the buffer at least twice as large, with room for a text of `size` bytes."""
        self._extend(2 * (len(self.heap.data) + size + BLOCK_BYTES))

    def _extend(self, size: int) -> None:
        old = self.heap
        heap = _make_heap(size, old.place, old.free, int(old.top[0]))
        used = BLOCK_BYTES * int(old.top[0])
        heap.data[:used] = old.data[:used]
        self._view = heap.data.data
        self.heap = heap

    def free(self, rows: NDArray[np.int64]) -> None:
        """Forget the texts of some rows."""
        self._named.clear()
        _drop_all(self.heap, rows)

    def state(self, rows: int) -> dict[str, NDArray[np.generic]]:
        """Return the buffer's used part, and where the texts of the first rows stand."""
        heap = self.heap
        return {
            "text": heap.data[: BLOCK_BYTES * int(heap.top[0])],
            "place": heap.place[:rows],
            "blocks": heap.free,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the texts that gave this state."""
        text = state["text"]
        self._named.clear()
        if len(text) > len(self.heap.data):
            self._extend(len(text))
        refill(self.heap.data, text)
        refill(self.heap.place, state["place"])
        self.heap.free[:] = state["blocks"]
        self.heap.top[0] = len(text) // BLOCK_BYTES


def _make_heap(size: int, place: NDArray[np.int64], free: NDArray[np.int64], top: int = 0) -> Heap:
    data = np.zeros(-(-size // BLOCK_BYTES) * BLOCK_BYTES, np.uint8)
    return Heap(data, data.view(np.int64), place, free, np.array([top], np.int64))

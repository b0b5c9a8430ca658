"""Ids outside, rows inside: a vocabulary of bounded capacity that evicts by age.

A full vocabulary gives up the eighth of its rows that were seen longest ago, in one go, so that
everything that refers to them is swept once (`Engine` tells the sources) and the rows are reused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.store.index import Index, enter, fill, look_up, make_slots, remove, row_of
from learners.store.strings import Strings
from learners.store.texts import Texts
from learners.store.xxh3 import MOST_BYTES

__all__ = ["Vocabulary"]

EVICTED_SHARE = 8


class Vocabulary:
    """A bounded map from ids to rows.

    Examples
    --------
    >>> vocabulary = Vocabulary(capacity=4)
    >>> vocabulary.assign(["a", "b", "a"])
    array([0, 1, 0], dtype=int32)
    >>> vocabulary.row("b"), vocabulary.row("z"), vocabulary.ids[1]
    (1, -1, 'b')
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ids = Strings(capacity, MOST_BYTES)  # by row
        self.last_seen = np.zeros(capacity, np.int64)  # the event count then
        self._slots = make_slots(capacity)
        self._used = 0
        self._free: list[int] = []

    def __len__(self) -> int:
        return self._used - len(self._free)

    @property
    def used(self) -> int:
        """Rows ever handed out: every row in use is below it."""
        return self._used

    @property
    def unused(self) -> list[int]:
        """Rows below `used` that no id has."""
        return self._free

    @property
    def _index(self) -> Index:
        return Index(self._slots, self.ids.heap.place, self.ids.heap.data)

    def row(self, name: str) -> int:
        """Return an id's row, -1 when unknown."""
        raw = name.encode("utf-8", "surrogatepass")
        return row_of(self._index, np.frombuffer(raw, np.uint8))

    def rows(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Return the rows of `names` (n,), -1 where unknown."""
        return self._look_up(Texts.of(names))[0]

    def _look_up(self, names: Texts) -> tuple[NDArray[np.int32], NDArray[np.uint32], int]:
        """Return rows (n,), hashes (n,), and how many are unknown."""
        rows, hashes = np.empty(len(names), np.int32), np.empty(len(names), np.uint32)
        unknown = look_up(self._index, names.data, names.start, names.stop, hashes, rows)
        return rows, hashes, unknown

    def room(self, names: Sequence[str]) -> int:
        """Return how many of `names`, from the first, can be assigned before rows run out."""
        left = self.capacity - len(self)
        if len(names) <= left:
            return len(names)
        new: set[str] = set()
        rows = self.rows(names)
        for place in np.flatnonzero(rows < 0).tolist():
            if names[place] not in new:
                if len(new) == left:
                    return int(place)
                new.add(names[place])
        return len(names)

    def assign(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Return the rows of `names` (n,), handing out new ones in order; there must be room."""
        texts = Texts.of(names)
        rows, hashes, unknown = self._look_up(texts)
        if unknown:
            reused = self._free[: -unknown - 1 : -1]
            fresh = np.arange(self._used, self._used + unknown)
            new = np.concatenate([np.array(reused, np.int64), fresh])
            taken = self._enter(texts, hashes, rows, new)
            self._used += max(taken - len(reused), 0)
            del self._free[len(self._free) - min(taken, len(reused)) :]
        return rows

    def _enter(
        self,
        texts: Texts,
        hashes: NDArray[np.uint32],
        rows: NDArray[np.int32],
        new: NDArray[np.int64],
    ) -> int:
        """Give the ids without a row those of `new`; return how many were used."""
        columns = texts.data, texts.start, texts.stop
        taken = 0
        while True:
            taken += enter(self._index, self.ids.heap, *columns, hashes, rows, new[taken:])
            if (rows >= 0).all():
                return taken
            self.ids.extend(int((texts.stop - texts.start).max()))

    def oldest(self) -> NDArray[np.int64]:
        """Return the rows to give up when full: the eighth that was seen longest ago."""
        count = max(1, len(self) // EVICTED_SHARE)
        used = np.delete(np.arange(self.used), self._free)
        seen = self.last_seen[used]
        latest = np.partition(seen, count - 1)[count - 1]
        before, then = used[seen < latest], used[seen == latest]
        return np.sort(np.concatenate([before, then[: count - len(before)]]))

    def free(self, rows: NDArray[np.int64]) -> None:
        """Forget rows; they are handed out again."""
        remove(self._index, rows)
        self.ids.free(rows)
        self.last_seen[rows] = 0
        self._free.extend(rows.tolist())

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the ids by row, the free rows, and when rows were seen."""
        return {
            **self.ids.state(self._used),
            "free": np.array(self._free, np.int64),
            "last_seen": self.last_seen[: self._used],
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the vocabulary that gave this state."""
        self.ids.load_state(state)
        self._used = len(state["place"])
        self._free = [int(row) for row in state["free"]]
        self._slots[:] = 0
        fill(self._index, np.delete(np.arange(self._used), self._free))
        self.last_seen[:] = 0
        self.last_seen[: self._used] = state["last_seen"]

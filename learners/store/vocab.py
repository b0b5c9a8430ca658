"""Ids outside, rows inside: a vocabulary of bounded capacity that evicts by age.

A full vocabulary gives up the eighth of its rows that were seen longest ago, in one go, so that
everything that refers to them is swept once (`Engine` tells the sources) and the rows are reused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import Deferred
from learners.store.encoding import encode_list
from learners.store.index import fill, insert, look_up, make_index, remove, row_of
from learners.store.texts import hashes_128
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
        self.ids: list[str] = []  # by row; "" for a free row
        self.last_seen = np.zeros(capacity, np.int64)  # the event count then
        self.index = make_index(capacity)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.ids) - len(self._free)

    @property
    def used(self) -> int:
        """Rows ever handed out: every row in use is below it."""
        return len(self.ids)

    @property
    def unused(self) -> list[int]:
        """Rows below `used` that no id has."""
        return self._free

    def row(self, name: str) -> int:
        """Return an id's row, -1 when unknown."""
        raw = name.encode("utf-8", "surrogatepass")
        if len(raw) <= MOST_BYTES:
            row = row_of(self.index, np.frombuffer(raw, np.uint8))
        else:
            row = int(self._look_up([name])[0])
        return row if row >= 0 and self.ids[row] == name else -1

    def _look_up(self, names: Sequence[str]) -> NDArray[np.int32]:
        rows = np.empty(len(names), np.int32)
        look_up(self.index, hashes_128(names), rows)
        return rows

    def room(self, names: Sequence[str]) -> int:
        """Return how many of `names`, from the first, can be assigned before rows run out."""
        left = self.capacity - len(self)
        if len(names) <= left:
            return len(names)
        new: set[str] = set()
        for place in np.flatnonzero(self._look_up(names) < 0).tolist():
            if names[place] not in new:
                if len(new) == left:
                    return int(place)
                new.add(names[place])
        return len(names)

    def assign(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Return the rows of `names` (n,), handing out new ones in order; there must be room."""
        hashes, rows = hashes_128(names), np.empty(len(names), np.int32)
        if look_up(self.index, hashes, rows):
            new: dict[str, int] = {}
            for place in np.flatnonzero(rows < 0).tolist():
                name = names[place]
                if name not in new:
                    new[name] = self._add(name, hashes[place])
                rows[place] = new[name]
        return rows

    def _add(self, name: str, key: NDArray[np.uint64]) -> int:
        if self._free:
            row = self._free[-1]
            self.ids[row] = name
            self._free.pop()  # not before: a free row is one that nobody lists
        else:
            row = len(self.ids)
            self.ids.append(name)
        insert(self.index, key[0], key[1], row)  # last: from now on others find it
        return row

    def oldest(self) -> NDArray[np.int64]:
        """Return the rows to give up when full: the eighth that was seen longest ago."""
        count = max(1, len(self) // EVICTED_SHARE)
        used = np.delete(np.arange(self.used), self._free)
        seen = self.last_seen[used]
        latest = np.partition(seen, count - 1)[count - 1]
        before, then = used[seen < latest], used[seen == latest]
        return np.sort(np.concatenate([before, then[: count - len(before)]]))

    def free(self, rows: Iterable[int]) -> None:
        """Forget rows; they are handed out again."""
        rows = list(rows)
        remove(self.index, hashes_128([self.ids[row] for row in rows]))
        for row in rows:
            self.ids[row] = ""
            self.last_seen[row] = 0
            self._free.append(row)

    def state(self) -> dict[str, NDArray[np.generic] | Deferred]:
        """Return the ids by row as JSON, the free rows, and when rows were seen."""
        ids = self.ids.copy()
        return {
            "ids": lambda: encode_list(ids),
            "free": np.array(self._free, np.int64),
            "last_seen": self.last_seen[: self.used],
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the vocabulary that gave this state."""
        self.ids = msgspec.json.decode(state["ids"].tobytes(), type=list[str])
        self._free = [int(row) for row in state["free"]]
        self.index.row[:] = 0
        rows = np.delete(np.arange(len(self.ids)), self._free)
        fill(self.index, hashes_128([self.ids[row] for row in rows]), rows)
        self.last_seen[:] = 0
        self.last_seen[: self.used] = state["last_seen"]

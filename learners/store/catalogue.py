"""What `item` events say of items: category, price, title, and whether they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry
from learners.store.strings import Strings

__all__ = ["Catalogue"]

USUAL_BYTES = 128  # of an entry: so much is reserved
Packed = tuple[str | None, float | None, str | None, float | None, bool | None, bool]
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Packed).decode


class Catalogue:
    """Entries by item row; an event is the whole entry, as the compacted topic keeps only the last.

    An entry is kept packed, as MessagePack, and made anew for whoever asks.

    Examples
    --------
    >>> catalogue = Catalogue(items=8)
    >>> catalogue.update(3, CatalogueEntry(title="Herb knife", price=12.0, available=False))
    >>> catalogue.entry(3).title, catalogue.hidden.nonzero()[0]
    ('Herb knife', array([3]))
    """

    def __init__(self, items: int) -> None:
        self.entries = Strings(items, USUAL_BYTES)
        self.hidden = np.zeros(items, np.bool_)  # rows that no answer may name
        self.version = 0  # counts changes

    def update(self, row: int, entry: CatalogueEntry) -> None:
        """Enter what an event says."""
        said = (entry.category, entry.price, entry.title, entry.created, entry.available)
        self.entries.put(row, _pack((*said, entry.deleted)))
        self.hidden[row] = entry.deleted or entry.available is False
        self.version += 1

    def entry(self, row: int) -> CatalogueEntry | None:
        """Return what is said of a row, `None` where that is nothing."""
        raw = self.entries.raw(row) if row >= 0 else b""
        return CatalogueEntry(*_unpack(raw)) if raw else None

    def update_all(self, rows: Iterable[int], entries: Iterable[CatalogueEntry]) -> None:
        """Enter what some events say, in their order."""
        for row, entry in zip(rows, entries, strict=True):
            self.update(int(row), entry)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Drop the entries of rows that are given up."""
        self.entries.free(rows)
        self.hidden[rows] = False
        self.version += 1

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all entries, and which rows are hidden."""
        listed = np.flatnonzero(self.entries.heap.place)
        rows = int(listed[-1]) + 1 if len(listed) else 0
        return {**self.entries.state(rows), "hidden": self.hidden[:rows].view(np.uint8)}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the catalogue that gave this state."""
        self.entries.load_state(state)
        self.hidden[:] = False
        self.hidden[: len(state["hidden"])] = state["hidden"]

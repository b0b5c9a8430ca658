"""What `item` events say of items: category, price, title, and whether they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry, Deferred
from learners.store.encoding import encode_list

__all__ = ["Catalogue"]


class Catalogue:
    """Entries by item row; an event is the whole entry, as the compacted topic keeps only the last.

    Examples
    --------
    >>> catalogue = Catalogue(items=8)
    >>> catalogue.update(3, CatalogueEntry(title="Herb knife", price=12.0, available=False))
    >>> catalogue.entries[3].title, catalogue.hidden.nonzero()[0]
    ('Herb knife', array([3]))
    """

    def __init__(self, items: int) -> None:
        self.entries: dict[int, CatalogueEntry] = {}
        self.hidden = np.zeros(items, np.bool_)  # rows that no answer may name
        self._version = 0
        self._encoded = (-1, np.empty(0, np.uint8))  # version, all entries as JSON

    def update(self, row: int, entry: CatalogueEntry) -> None:
        """Enter what an event says."""
        self.entries[row] = entry
        self.hidden[row] = entry.deleted or entry.available is False
        self._version += 1

    def forget(self, rows: Iterable[int]) -> None:
        """Drop the entries of rows that are given up."""
        for row in rows:
            self.entries.pop(int(row), None)
            self.hidden[row] = False
        self._version += 1

    def state(self) -> dict[str, NDArray[np.generic] | Deferred]:
        """Return all entries as JSON, in the order of their rows."""
        version = self._version
        if self._encoded[0] == version:
            return {"json": self._encoded[1]}
        entries = self.entries.copy()

        def encode() -> NDArray[np.uint8]:
            encoded = encode_list(sorted(entries.items()))
            self._encoded = (version, encoded)
            return encoded

        return {"json": encode}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the catalogue that gave this state."""
        pairs = msgspec.json.decode(state["json"].tobytes(), type=list[tuple[int, CatalogueEntry]])
        self.entries.clear()
        self.hidden[:] = False
        for row, entry in pairs:
            self.update(row, entry)

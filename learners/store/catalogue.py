"""What `item` events say of items: category, price, title, and whether they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry, Deferred

__all__ = ["Catalogue"]


class Catalogue:
    """Entries by item row; an event overwrites the fields that it names.

    Examples
    --------
    >>> catalogue = Catalogue(items=8)
    >>> catalogue.update(3, CatalogueEntry(title="Herb knife", price=12.0))
    >>> catalogue.update(3, CatalogueEntry(available=False))
    >>> catalogue.entries[3].title, catalogue.hidden.nonzero()[0]
    ('Herb knife', array([3]))
    """

    def __init__(self, items: int) -> None:
        self.entries: dict[int, CatalogueEntry] = {}
        self.hidden = np.zeros(items, np.bool_)  # rows that no answer may name

    def update(self, row: int, entry: CatalogueEntry) -> None:
        """Enter what an event says."""
        said = {name: value for name, value in asdict(entry).items() if value is not None}
        merged = replace(self.entries.get(row, CatalogueEntry()), **said)
        self.entries[row] = merged
        self.hidden[row] = merged.deleted or merged.available is False

    def forget(self, rows: Iterable[int]) -> None:
        """Drop the entries of rows that are given up."""
        for row in rows:
            self.entries.pop(int(row), None)
            self.hidden[row] = False

    def state(self) -> dict[str, NDArray[np.generic] | Deferred]:
        """Return all entries as JSON, in the order of their rows."""
        entries = self.entries.copy()
        return {
            "json": lambda: np.frombuffer(msgspec.json.encode(sorted(entries.items())), np.uint8)
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the catalogue that gave this state."""
        pairs = msgspec.json.decode(state["json"].tobytes(), type=list[tuple[int, CatalogueEntry]])
        self.entries.clear()
        self.hidden[:] = False
        for row, entry in pairs:
            self.update(row, entry)

"""What `item` events say of items: category, price, title, and whether they can be had."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry
from learners.store.strings import BLOCK_BYTES, SIZE_BITS, Strings

__all__ = ["Catalogue", "Told"]

Told = Mapping[int, str | None]  # number of a click or purchase -> category of its item by then

USUAL_BYTES = 128  # of an entry: so much is reserved
Packed = tuple[str | None, float | None, str | None, float | None, bool | None, bool]
FIELDS = b"\x96"  # which begins a packed entry: an array of six
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
        self.hidden[row] = entry.hidden
        self.version += 1

    def entry(self, row: int) -> CatalogueEntry | None:
        """Return what is said of a row, `None` where that is nothing."""
        raw = self.entries.raw(row) if row >= 0 else b""
        return CatalogueEntry(*_unpack(raw)) if raw else None

    def take(
        self,
        rows: NDArray[np.int32],
        acts: NDArray[np.bool_],
        entries: Iterable[CatalogueEntry],
        asked: NDArray[np.bool_],
    ) -> Told:
        """Go through events in order: enter what they say, note what is asked about meanwhile.

        Parameters
        ----------
        rows : (n,)
            The item of each.
        acts : (n,)
            Whether it is a click or a purchase, rather than an entry.
        entries : iterable
            What the others say, in their order.
        asked : (n,)
            Clicks and purchases whose category will be asked for.

        Returns
        -------
        Told
            The numbers count from 0, and are those of items that an event among these tells of. The
            others' category is what `category` says.
        """
        then: dict[int, str | None] = {}
        left, number = iter(entries), np.cumsum(acts) - 1
        told = np.isin(rows, rows[~acts]) & (asked | ~acts)
        for i in np.flatnonzero(told).tolist():
            if acts[i]:
                then[int(number[i])] = self.category(int(rows[i]))
            else:
                self.update(int(rows[i]), next(left))
        return then

    def category(self, row: int) -> str | None:
        """Return the category of an item row, where one is told."""
        raw = self.entries.raw(row)
        return _unpack(raw)[0] if raw else None

    def rows_of(self, categories: Collection[str]) -> NDArray[np.int64]:
        """Return the item rows of some categories, which stand first in what is packed."""
        heap = self.entries.heap
        rows = np.flatnonzero(heap.place)
        start = BLOCK_BYTES * (heap.place[rows] >> SIZE_BITS)
        size = heap.place[rows] & ((1 << SIZE_BITS) - 1)
        found = np.zeros(len(rows), np.bool_)
        for category in categories:
            first = np.frombuffer(FIELDS + _pack(category), np.uint8)
            same = np.flatnonzero(size >= len(first))
            for place, byte in enumerate(first):  # each leaves fewer of them
                same = same[heap.data[start[same] + place] == byte]
            found[same] = True
        return rows[found]

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

"""Taking events in: what is new of a batch, with rows for its items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK, IMPRESSION, ITEM, PURCHASE, Batch, CatalogueEntry
from learners.deep.memory import Books, Memory
from learners.store.texts import Texts, keys_64

__all__ = ["Act", "Intake"]


class Act(NamedTuple):
    """Something a user did."""

    user: int  # hash of the id
    row: int  # of the item, -1 for none
    kind: int
    time: float  # seconds UTC
    session: int  # hash of the event's own, 0 for none
    ask: bool  # whether it is to be foreseen


class Intake:
    """Makes acts of events.

    Parameters
    ----------
    books, memory
        What was learnt before, and what is kept of it.
    evaluate_one_in
        Share of clicks that are to be foreseen, chosen by their ids.
    met
        Is told rows that items have got, and their ids.
    gone
        Is told rows that items have lost.
    """

    def __init__(
        self,
        books: Books,
        memory: Memory,
        evaluate_one_in: int,
        met: Callable[[NDArray[np.int32], Sequence[str]], None],
        gone: Callable[[NDArray[np.int64]], None],
    ) -> None:
        self.books, self.memory = books, memory
        self._evaluate_one_in = np.uint64(evaluate_one_in)
        self._met, self._gone = met, gone

    def acts(self, batch: Batch) -> Iterator[Act]:
        """Yield what is new: clicks, purchases and erasures, in order; list items between them.

        Each is to be learnt before the next is asked for: then there may have to be room for more.
        """
        fresh = self.books.admit(batch)
        fresh = fresh[batch.kind[fresh] != IMPRESSION]
        lists = batch.kind[fresh] == ITEM
        for run in np.split(fresh, np.flatnonzero(np.diff(lists)) + 1):
            if len(run) and batch.kind[run[0]] == ITEM:
                self._list(batch, run)
            else:
                yield from self._acts(batch, run)

    def _list(self, batch: Batch, run: NDArray[np.int64]) -> None:
        """Take in what is said of items; those that can be had get rows while there is room."""
        items, names = self.memory.items, Texts.of(batch.item).take(run)
        entries = [batch.catalogue.get(place, CatalogueEntry()) for place in run.tolist()]
        offered = names.take(np.flatnonzero([not entry.hidden for entry in entries]))
        items.assign(offered[: items.room(offered)])
        rows = items.rows(names)
        self._meet(np.unique(rows[rows >= 0]))
        for row, entry in zip(rows.tolist(), entries, strict=True):
            if row >= 0:
                self.memory.listed.put(row, entry)

    def _acts(self, batch: Batch, left: NDArray[np.int64]) -> Iterator[Act]:
        while len(left):
            named = left[batch.kind[left] <= PURCHASE]
            items = Texts.of(batch.item).take(named)
            room = self.memory.items.room(items)
            if room == 0 and len(named):  # all before has been learnt by now
                self._gone(self.memory.evict_items())
                continue
            acts = left if room == len(named) else left[left < named[room]]
            left = left[len(acts) :]
            kinds = batch.kind[acts]
            rows = np.full(len(acts), -1, np.int32)
            rows[kinds <= PURCHASE] = self._rows_of(items[:room])
            users = keys_64(Texts.of(batch.user).take(acts))
            asked = (batch.event_hash[acts] % self._evaluate_one_in == 0) & (kinds == CLICK)
            sessions = keys_64(Texts.of(batch.session).take(acts))
            columns = users, rows, kinds, batch.timestamp[acts], sessions, asked
            yield from map(Act, *(column.tolist() for column in columns))

    def _rows_of(self, items: Texts) -> NDArray[np.int32]:
        rows, new = self.memory.rows_of(items)
        self._meet(new)
        return rows

    def _meet(self, rows: NDArray[np.int32]) -> None:
        if len(rows):
            self._met(rows, [self.memory.items.ids[row] for row in rows.tolist()])

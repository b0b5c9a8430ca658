"""A snapshot as an engine serves it: made beside the answers, then put in between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import SequenceConfig
from learners.deep.served.index import Index, build
from learners.deep.served.source import forget_users, make_deep
from learners.deep.served.weights import Weights, make_weights, no_weights
from learners.errors import SnapshotError
from learners.store.texts import Texts
from learners.store.vocab import Vocabulary

__all__ = ["Deep", "Snapshot"]


class Snapshot(Protocol):
    """A version of the deep model, as `learners.deep.registry` keeps it."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def arrays(self) -> Mapping[str, NDArray[np.float32]]:
        """A model's arrays by name."""

    @property
    def items(self) -> Sequence[str]:
        """Ids of the rows of its table."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The values of its `SequenceConfig`."""


class Deep:
    """A snapshot in the rows of an engine; without one, it knows no item.

    To make one takes a second for 50,000 items, to change the one that an engine serves takes
    milliseconds: `learners.engine.Engine.serve`.

    Parameters
    ----------
    items : int
        Rows of the engine.
    snapshot : Snapshot, optional
        What is to be served.

    Raises
    ------
    SnapshotError
        Its parts do not fit together, or have numbers that are none.
    """

    def __init__(self, items: int, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot.id if snapshot else ""
        names = self._names = Texts.of(snapshot.items if snapshot else ())
        self._asked_for = np.zeros(items, np.bool_)  # rows of the engine whose id was looked up
        self._ids = Vocabulary(max(len(names), 1))
        self._ids.assign(names)
        index, order, weights = _parts_of(snapshot) if snapshot else _NOTHING
        self._place = np.argsort(order)  # of each row of the snapshot, in the index
        self.arrays = make_deep(index, weights, items)

    def begin(self, items: Vocabulary) -> None:
        """Find all items that an engine has now."""
        self.forget_items(np.arange(items.capacity))
        self._asked_for[: items.used] = True
        self._asked_for[items.unused] = False
        rows = items.rows(self._names)
        known = np.flatnonzero(rows >= 0)
        self.lead(rows[known], known)

    def learn_rows(self, rows: NDArray[np.int32], items: Vocabulary) -> None:
        """Find the items of some rows of the engine in the snapshot, where that is to be done."""
        if not self.snapshot or self._asked_for[rows].all():
            return
        fresh = np.unique(rows[~self._asked_for[rows]])
        self._asked_for[fresh] = True
        found = self._ids.rows([items.ids[row] for row in fresh.tolist()])
        self.lead(fresh[found >= 0], found[found >= 0])

    def lead(self, rows: NDArray[np.int32], found: NDArray[np.integer]) -> None:
        """Let item rows of the engine stand for rows of the snapshot, (n,) both."""
        place = self._place[found]
        self.arrays.item[place] = rows + 1
        self.arrays.place[rows] = place + 1

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        """Drop item rows, so that they can be given to other items."""
        arrays = self.arrays
        self._asked_for[rows] = False
        place = arrays.place[rows]
        arrays.item[place[place > 0] - 1] = 0
        arrays.place[rows] = 0
        forget_users(arrays, np.arange(len(arrays.memo.key)))

    def forget_users(self, rows: NDArray[np.int64]) -> None:
        """Drop what is kept of user rows."""
        forget_users(self.arrays, rows)


def _parts_of(snapshot: Snapshot) -> tuple[Index, NDArray[np.int64], Weights]:
    try:
        table, config = snapshot.arrays["table"], SequenceConfig(**snapshot.config)
        if table.shape != (len(set(snapshot.items)), config.width):
            names = len(set(snapshot.items))
            raise ValueError(f"its table is {table.shape}, of {names} items by {config.width}")
        numbers = [np.array([config.scale]), *snapshot.arrays.values()]
        if not all(np.isfinite(array).all() for array in numbers):
            raise ValueError("its weights are no numbers")
        weights = make_weights(config, snapshot.arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(
            f"snapshot {snapshot.id} cannot be served: {error}; promote another one"
        ) from error
    return *build(table), weights


_NOTHING = (*build(np.zeros((0, 16), np.float32)), no_weights())

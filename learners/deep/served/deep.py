"""A snapshot as an engine serves it: made beside the answers, then put in between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import SequenceConfig
from learners.deep.served.codes import codes_of
from learners.deep.served.index import Index, make_index
from learners.deep.served.products import BLOCK, whole
from learners.deep.served.source import forget_users, make_deep
from learners.deep.served.weights import Weights, make_weights, no_weights
from learners.errors import SnapshotError
from learners.store.texts import keys_64
from learners.store.vocab import Vocabulary

__all__ = ["Deep", "Snapshot"]


class Snapshot(Protocol):
    """A version of the deep model, as `learners.deep.registry` keeps it."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def arrays(self) -> Mapping[str, NDArray[np.generic]]:
        """A model's arrays by name, packed."""

    @property
    def items(self) -> Sequence[str]:
        """Ids of the rows of its table."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The values of its `SequenceConfig`."""


class Deep:
    """A snapshot in the rows of an engine; without one, it knows no item.

    To change the one that an engine serves takes milliseconds: `learners.engine.Engine.serve`.

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
        self._asked_for = np.zeros(items, np.bool_)  # rows of the engine whose id was looked up
        index, order, weights, by_key, keys = _parts_of(snapshot) if snapshot else _NOTHING
        self._keys = keys  # hashes of the snapshot's items, rising
        self._place = np.argsort(order)[by_key].astype(np.int32)  # of each in the index
        self.arrays = make_deep(index, weights, items)

    def begin(self, items: Vocabulary) -> None:
        """Find all items that an engine has now."""
        self.forget_items(np.arange(items.capacity))
        self._learn(np.setdiff1d(np.arange(items.used), items.unused), items)

    def learn_rows(self, rows: NDArray[np.int32], items: Vocabulary) -> None:
        """Find the items of some rows of the engine in the snapshot, where that is to be done."""
        if not self.snapshot or self._asked_for[rows].all():
            return
        self._learn(np.unique(rows[~self._asked_for[rows]]), items)

    def _learn(self, rows: NDArray[np.integer], items: Vocabulary) -> None:
        self._asked_for[rows] = True
        self.lead(rows, keys_64(items.ids.texts(rows)))

    def lead(self, rows: NDArray[np.integer], keys: NDArray[np.uint64]) -> None:
        """Let item rows of the engine stand for the snapshot's items, by hashes of their ids (n,).

        Those that the snapshot does not have stand for none.
        """
        if not len(self._keys):
            return
        at = np.searchsorted(self._keys[:-1], keys)  # the last one where it is beyond all
        same = self._keys[at] == keys
        place = self._place[at[same]]
        self.arrays.item[place] = rows[same] + 1
        self.arrays.place[rows[same]] = place + 1

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


_Parts = tuple[Index, NDArray[np.int64], Weights, NDArray[np.int64], NDArray[np.uint64]]


def _parts_of(snapshot: Snapshot) -> _Parts:
    try:
        config, arrays = SequenceConfig(**snapshot.config), snapshot.arrays
        keys = keys_64(snapshot.items)
        by_key = np.argsort(keys)
        keys = keys[by_key]
        index, order = _index_of(arrays, len(keys), config.width)
        if (keys[1:] == keys[:-1]).any():
            raise ValueError("two of its items have one id")
        with np.errstate(over="ignore"):  # what is beyond float32 is found below
            weights = make_weights(config, arrays)
        floats = [array for array in arrays.values() if array.dtype.kind == "f"]
        numbers = [weights.scale, weights.number, *floats]
        if not all(np.isfinite(array).all() for array in numbers):
            raise ValueError("its weights are no numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(
            f"snapshot {snapshot.id} cannot be served: {error}; promote another one"
        ) from error
    return index, order, weights, by_key, keys


def _index_of(
    arrays: Mapping[str, NDArray[np.generic]], items: int, width: int
) -> tuple[Index, NDArray[np.int64]]:
    code, cluster, centre = (arrays[name] for name in ("code", "cluster", "centre"))
    if width < 1:
        raise ValueError(f"its width is {width}")
    row_bytes = whole(width) // 2
    if (code.shape, cluster.shape) != ((items, row_bytes), (items,)):
        raise ValueError(f"its rows are {code.shape}, of {items} items by {row_bytes} bytes")
    if (
        centre.ndim != 2
        or centre.shape[1] != row_bytes
        or {code.dtype, centre.dtype} != {np.dtype(np.uint8)}
    ):
        raise ValueError(f"its centres are {centre.shape} of {centre.dtype}")
    if cluster.dtype.kind not in "iu":
        raise ValueError(f"its clusters are {cluster.dtype}")
    if items and not 0 <= cluster.min() <= cluster.max() < len(centre):
        raise ValueError(f"its items are in other than {len(centre)} clusters")
    return make_index(code, cluster, centre)  # type: ignore[arg-type]


def _nothing() -> _Parts:
    code, centre = codes_of(np.zeros((0, BLOCK), np.int8)), codes_of(np.zeros((1, BLOCK), np.int8))
    index, order = make_index(code, np.zeros(0, np.int32), centre)
    return index, order, no_weights(), np.zeros(0, np.int64), np.zeros(0, np.uint64)


_NOTHING = _nothing()

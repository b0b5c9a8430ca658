"""Histories as flat arrays: what the deep model learns from and is asked with.

The model sees an event as an item, a kind and the time since the event before, in `GAPS` buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GAPS", "KINDS", "Histories", "Padded", "batches", "gap_buckets", "windows"]

GAPS = 16
KINDS = 2  # of events that a history has: CLICK, PURCHASE
SORTED_AT_ONCE = 16  # batches whose sequences are sorted by length together


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Sequences of events, one after the other, each oldest first.

    The first `context` events of a sequence are only looked back at; each later one is a target.

    Examples
    --------
    >>> two = Histories.of([[3, 1, 2], [5]])
    >>> two.lengths, two.targets, two.take(np.array([1, 0])).item
    (array([3, 1]), 2, array([5, 3, 1, 2], dtype=int32))
    """

    item: NDArray[np.int32]  # (n,) rows
    kind: NDArray[np.uint8]  # (n,) CLICK or PURCHASE
    time: NDArray[np.float64]  # (n,) seconds, NaN where there is no clock
    start: NDArray[np.int64]  # (m + 1,) where each sequence begins, and where the last ends
    context: NDArray[np.int64] | None = None  # (m,) None: all 1

    @classmethod
    def of(cls, items: Sequence[Sequence[int]]) -> Histories:
        """Return clicks without a clock."""
        item = np.array([row for sequence in items for row in sequence], np.int32)
        start = np.cumsum([0, *map(len, items)])
        return cls(item, np.zeros(len(item), np.uint8), np.full(len(item), np.nan), start)

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events of each sequence; (m,)."""
        return np.diff(self.start)

    @property
    def looked_back(self) -> NDArray[np.int64]:
        """Events of each sequence that are no targets; (m,)."""
        return np.ones(len(self), np.int64) if self.context is None else self.context

    @property
    def targets(self) -> int:
        """How many events are to be foreseen."""
        return int(np.maximum(self.lengths - self.looked_back, 0).sum())

    def take(self, which: NDArray[np.int64]) -> Histories:
        """Return some sequences, in the order in which they are asked for."""
        return self.cut(self.start[which], self.lengths[which], self.looked_back[which])

    def cut(
        self, begin: NDArray[np.int64], length: NDArray[np.int64], context: NDArray[np.int64]
    ) -> Histories:
        """Return runs of events as sequences of their own."""
        start = np.concatenate([[0], np.cumsum(length)])
        places = np.arange(start[-1]) + np.repeat(begin - start[:-1], length)
        return Histories(self.item[places], self.kind[places], self.time[places], start, context)

    def trainable(self) -> Histories:
        """Return the sequences that have a target."""
        return self.take(np.flatnonzero(self.lengths > self.looked_back))

    def and_then(self, others: Histories) -> Histories:
        """Return these sequences, then the others."""
        return Histories(
            np.concatenate([self.item, others.item]),
            np.concatenate([self.kind, others.kind]),
            np.concatenate([self.time, others.time]),
            np.concatenate([self.start, self.start[-1] + others.start[1:]]),
            np.concatenate([self.looked_back, others.looked_back]),
        )


class Padded(NamedTuple):
    """Sequences as rows of equal length; behind a sequence's end its last event is repeated."""

    which: NDArray[np.int64]  # (B,) their numbers
    item: NDArray[np.int32]  # (B, T)
    kind: NDArray[np.uint8]  # (B, T)
    gap: NDArray[np.uint8]  # (B, T)
    target: NDArray[np.bool_]  # (B, T) whether the event is to be foreseen


def gap_buckets(time: NDArray[np.float64], start: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bucket of the time since the event before, (n,): 0 for a first, or no clock.

    Else 1 + log2(1 + minutes), whole numbers, at most `GAPS` - 1: that is 11 days and more.

    >>> gap_buckets(np.array([0.0, 30.0, 90.0, 1e9, np.nan, np.nan]), np.array([0, 4, 6]))
    array([ 0,  1,  2, 15,  0,  0], dtype=uint8)
    """
    minutes = np.maximum(np.diff(time, prepend=np.nan), 0.0) / 60.0
    if len(minutes):
        minutes[start[:-1][start[:-1] < len(minutes)]] = np.nan
    bucket = 1 + np.minimum(np.floor(np.log2(1.0 + minutes)), GAPS - 2)
    return np.asarray(np.nan_to_num(bucket, nan=0.0), np.uint8)


def windows(histories: Histories, most: int) -> Histories:
    """Cut long sequences so that no event looks back at more than `most` others; drop the idle.

    A window follows another half of `most` later, so every target looks back at half of `most` or
    more, where there is so much.

    >>> long = Histories.of([range(8)])
    >>> cut = windows(long, 4)
    >>> [cut.item[a:b].tolist() for a, b in zip(cut.start, cut.start[1:])], cut.context
    ([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7]], array([1, 3, 3]))
    """
    hop = max(most // 2, 1)
    more = np.maximum(-(-(histories.lengths - 1 - most) // hop), 0)  # windows after the first
    owner = np.repeat(np.arange(len(histories)), more + 1)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(more + 1) - more - 1, more + 1)
    begin = number * hop
    length = np.minimum(histories.lengths[owner] - begin, most + 1)
    met = np.where(number > 0, most - hop + 1, 1)  # targets of the window before, and what was then
    context = np.maximum(met, histories.looked_back[owner] - begin)
    return histories.cut(histories.start[owner] + begin, length, context).trainable()


def batches(
    histories: Histories, size: int, order: NDArray[np.int64] | None = None
) -> Iterator[Padded]:
    """Yield all sequences, in rows of `size`, those of like length together.

    Parameters
    ----------
    order
        Of the sequences (m,): some groups of rows are sorted by length, one after the other;
        without it, all are.
    """
    gap = gap_buckets(histories.time, histories.start)
    lengths, looked_back = histories.lengths, histories.looked_back
    group = size * SORTED_AT_ONCE if order is not None else max(len(histories), 1)
    order = np.arange(len(histories)) if order is None else order
    for first in range(0, len(order), group):
        some = order[first : first + group]
        some = some[np.argsort(lengths[some], kind="stable")]
        for begin in range(0, len(some), size):
            which = some[begin : begin + size]
            length = lengths[which][:, None]
            step = np.arange(length.max())
            place = histories.start[which][:, None] + np.minimum(step, length - 1)
            yield Padded(
                which,
                histories.item[place],
                histories.kind[place],
                gap[place],
                (step >= looked_back[which][:, None]) & (step < length),
            )

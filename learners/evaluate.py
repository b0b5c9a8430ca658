r"""Prequential evaluation: how well was each event foreseen just before it was learnt?

The protocol, everywhere the same:

- a target is each click, and apart from them each purchase, of a user from their second event on;
- before it is learnt, all items seen so far are ranked: those clicked, bought or listed in the
  catalogue; an item never seen is a miss, the first click of a listed one a hit where it ranked;
- nothing is filtered: items of the session and items already bought stay in the ranking;
- ties count at their mean rank, :math:`r = a + (e + 1)/2` with a items above, e equal (itself
  included); the blend, the factorisation and content rank the candidates only, a target that is
  none of them is a miss; where purchases or value are an objective, the blend's rank is that of the
  answer, which may hold items of the user's past besides;
- a session is the event's `session`, or is cut at `session_gap_seconds` of silence; a query is the
  session so far and, when that is shorter than `history.SHORT_QUERY`, the user's history before it.

With rank r of the one true item: HR@k is the share of :math:`r \le k`, MRR@k the mean of 1/r there,
NDCG@k the mean of :math:`1/\log_2(r + 1)` there (Järvelin, Kekäläinen 2002, with one relevant
item). Coverage@k is the share of seen items that were in any list of k.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import PURCHASE
from learners.jit import jit_brief, jit_brief_counted
from learners.prequential import Events, Tested
from learners.ranks import LIST, SOURCES

__all__ = ["Prequential"]

FIGURES = ("hr@10", "hr@20", "mrr@20", "ndcg@20")
HR10, HR20, MRR20, NDCG20 = range(4)
WINDOWS = 256  # at most, over all time; full, each pair becomes one
FADING = 2.0 ** (-1.0 / 2000.0)  # a target weighs half after 2,000 more


class Books(NamedTuple):
    """Sums of the figures; kinds are 0 click, 1 purchase."""

    total: NDArray[np.float64]  # (kinds, sources, figures)
    targets: NDArray[np.int64]  # (kinds,)
    faded: NDArray[np.float64]  # (sources, figures)
    faded_weight: NDArray[np.float64]  # (1,)
    window: NDArray[np.float64]  # (WINDOWS, sources) hits at 20
    window_end: NDArray[np.float64]  # (WINDOWS, 3) targets, events, time in seconds
    window_at: NDArray[np.int64]  # (2,) windows in use, targets of a full one


@jit_brief_counted
def _merge_windows(books: Books) -> None:
    for i in range(WINDOWS // 2):
        books.window[i] = books.window[2 * i] + books.window[2 * i + 1]
        books.window_end[i] = books.window_end[2 * i + 1]
        books.window_end[i, 0] += books.window_end[2 * i, 0]
    books.window[WINDOWS // 2 :] = 0.0
    books.window_end[WINDOWS // 2 :] = 0.0
    books.window_at[0] = WINDOWS // 2
    books.window_at[1] *= 2


@jit_brief_counted
def _record(
    books: Books,
    rank: NDArray[np.float64],
    valid: NDArray[np.bool_],
    kind: NDArray[np.uint8],
    time: NDArray[np.float64],
    events_before: int,
) -> None:
    figures = np.zeros(4)
    for i in range(len(valid)):
        if not valid[i]:
            continue
        at = max(books.window_at[0] - 1, 0)
        if books.window_at[0] == 0 or books.window_end[at, 0] >= books.window_at[1]:
            if books.window_at[0] == WINDOWS:
                _merge_windows(books)
            at = books.window_at[0]
            books.window_at[0] += 1
        books.window_end[at, 0] += 1
        books.window_end[at, 1] = events_before + i + 1
        books.window_end[at, 2] = time[i]
        books.targets[kind[i]] += 1
        books.faded_weight[0] = FADING * books.faded_weight[0] + 1.0
        for source in range(rank.shape[1]):
            r = rank[i, source]
            listed = r <= LIST
            figures[HR10] = r <= 10.0
            figures[HR20] = listed
            figures[MRR20] = 1.0 / r if listed else 0.0
            figures[NDCG20] = 1.0 / np.log2(r + 1.0) if listed else 0.0
            books.window[at, source] += figures[HR20]
            for f in range(4):
                books.total[kind[i], source, f] += figures[f]
                books.faded[source, f] = FADING * books.faded[source, f] + figures[f]


@jit_brief
def _record_value(
    books: NDArray[np.float64],
    rank: NDArray[np.float64],
    valid: NDArray[np.bool_],
    kind: NDArray[np.uint8],
    value: NDArray[np.float32],
) -> None:
    for i in range(len(valid)):
        if valid[i] and kind[i] == PURCHASE and value[i] > 0.0 and np.isfinite(value[i]):
            books[-1] += value[i]
            for source in range(rank.shape[1]):
                books[source] += value[i] * (rank[i, source] <= LIST)


class Prequential:
    """The figures of every source, over all time, recently, and in windows.

    Examples
    --------
    >>> books = Prequential(items=3)
    >>> rank = np.array([[1.0, 2.0, 15.0, np.inf, 4.0, np.inf, np.inf]])
    >>> books.record(rank, np.array([True]), np.array([0], np.uint8), np.array([9.0]), 0)
    >>> [round(figures["mrr@20"], 3) for figures in books.metrics(seen=3).values()]
    [1.0, 0.5, 0.067, 0.0, 0.25, 0.0, 0.0]
    """

    def __init__(self, items: int, first_window: int = 256) -> None:
        sources = len(SOURCES)
        self.covered = np.zeros((sources, items), np.uint8)
        self.value = np.zeros(sources + 1)  # of purchases that stood in each list of 20; of all
        self.books = Books(
            np.zeros((2, sources, len(FIGURES))),
            np.zeros(2, np.int64),
            np.zeros((sources, len(FIGURES))),
            np.zeros(1),
            np.zeros((WINDOWS, sources)),
            np.zeros((WINDOWS, 3)),
            np.array([0, first_window], np.int64),
        )

    def record(
        self,
        rank: NDArray[np.float64],
        valid: NDArray[np.bool_],
        kind: NDArray[np.uint8],
        time: NDArray[np.float64],
        events_before: int,
    ) -> None:
        """Enter ranks (n, sources) of the events that were tested, `valid` (n,)."""
        _record(self.books, rank, valid, kind, time, events_before)

    def record_all(self, tested: Tested, events: Events, events_before: int) -> None:
        """Enter what testing found of a run of events, and what the purchases among them paid."""
        self.record(tested.rank, tested.valid, events.kind, events.time, events_before)
        if tested.valid.any():
            _record_value(self.value, tested.rank, tested.valid, events.kind, events.value)

    def metrics(self, kind: int | None = None, seen: int = 0) -> dict[str, dict[str, float]]:
        """Return the figures by source, of one kind or of all targets (then with coverage).

        Those of purchases tell the share of their value that stood among 20, where it is told.
        """
        books = self.books
        total = books.total.sum(axis=0) if kind is None else books.total[kind]
        n = int(books.targets.sum() if kind is None else books.targets[kind])
        table = _table(total, n)
        for row, figures in zip(self.covered, table.values(), strict=True):
            if kind is None:
                figures[f"coverage@{LIST}"] = float(np.count_nonzero(row)) / max(seen, 1)
            figures["n"] = n
        if kind == PURCHASE and self.value[-1] > 0.0:
            for hits, figures in zip(self.value, table.values(), strict=False):
                figures["value_hr@20"] = float(hits / self.value[-1])
        return table

    def recent(self) -> dict[str, dict[str, float]]:
        """Return the faded figures by source."""
        return _table(self.books.faded, float(self.books.faded_weight[0]))

    def windows(self) -> dict[str, object]:
        """Return the hit rates at 20 over time, with the event counts and times of window ends."""
        used = int(self.books.window_at[0])
        end = self.books.window_end[:used]
        rates = self.books.window[:used] / np.maximum(end[:, :1], 1.0)
        return {
            "events": end[:, 1].astype(int).tolist(),
            "time": end[:, 2].tolist(),
            "hr@20": {source: rates[:, s].tolist() for s, source in enumerate(SOURCES)},
        }

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        """Take items out of the coverage."""
        self.covered[:, rows] = 0

    def state(self, items: int) -> dict[str, NDArray[np.generic]]:
        """Return the books and the coverage of the first `items` rows."""
        told = {"value": self.value} if self.value[-1] > 0.0 else {}
        covered = np.ascontiguousarray(self.covered[:, :items])
        return {**self.books._asdict(), "covered": covered, **told}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the evaluation that gave this state."""
        for name in Books._fields:
            getattr(self.books, name)[...] = state[name]
        self.value[:] = state.get("value", 0.0)
        covered = state["covered"]
        self.covered[:] = 0
        self.covered[:, : covered.shape[1]] = covered


def _table(total: NDArray[np.float64], n: float) -> dict[str, dict[str, float]]:
    return {
        source: {
            name: float(value) / max(n, 1e-12) for name, value in zip(FIGURES, row, strict=True)
        }
        for source, row in zip(SOURCES, total, strict=True)
    }

r"""The items nearest to a vector, without looking at all: an inverted file over clusters of rows.

Rows are stored cluster by cluster; a query looks only into the clusters whose centres are nearest
to it (Jégou, Douze and Schmid 2011, section IV; their codes are of products of parts, these are
of four bits a number). `learners.deep.packing` makes the clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.served.codes import (
    Codes,
    Direction,
    aim,
    dot_rows,
    make_direction,
    measure,
    numbers_of,
    prefetch_row,
)
from learners.jit import jit, jit_counted
from learners.lanes import TOGETHER
from learners.selection import best_places, kth_largest

__all__ = ["Index", "Search", "look", "make_index", "make_search", "nearest", "recall"]

LOOKED_INTO = 1 / 24  # of all clusters; at least `LEAST_CLUSTERS`
LEAST_CLUSTERS = 12
CROWD = 4  # times as many as are wanted are held before the others are dropped
AHEAD = 4  # rows of the next cluster that are asked for before their turn


class Index(NamedTuple):
    """Rows in the order of their clusters; cluster c is rows start[c] to start[c + 1]."""

    rows: Codes  # (n,)
    start: NDArray[np.int32]  # (C + 1,)
    centres: Codes  # (C,)
    probes: NDArray[np.int32]  # (1,) clusters that a query looks into


class Search(NamedTuple):
    """Working memory of one query."""

    centre: NDArray[np.float32]  # (C + TOGETHER,) products with the centres
    probed: NDArray[np.int32]  # (C,) the nearest clusters
    found: NDArray[np.float32]  # (m + TOGETHER,) products with their rows, at most m
    place: NDArray[np.int32]  # (m + TOGETHER,) which rows these are
    best: NDArray[np.int32]  # (m + TOGETHER,) the best places


def _codes(code: NDArray[np.uint8]) -> Codes:
    """Return directions with room for a whole block behind them."""
    n, row_bytes = code.shape
    room = np.zeros((n + TOGETHER, row_bytes), np.uint8)
    room[:n] = code
    codes = Codes(room, np.zeros(len(room), np.float32))
    measure(codes, n)
    return codes


def make_index(
    code: NDArray[np.uint8], cluster: NDArray[np.integer], centre: NDArray[np.uint8]
) -> tuple[Index, NDArray[np.int64]]:
    """Put codes of rows (n, W / 2) in the order of their clusters (n,), with centres (C, W / 2).

    Returns
    -------
    Index
    NDArray
        (n,) which row stands at each place of the index.
    """
    order = np.argsort(cluster, kind="stable")
    clusters = len(centre)
    start = np.searchsorted(cluster[order], np.arange(clusters + 1)).astype(np.int32)
    probes = min(max(LEAST_CLUSTERS, round(clusters * LOOKED_INTO)), clusters)
    rows, centres = _codes(code[order]), _codes(centre)
    return Index(rows, start, centres, np.array([probes], np.int32)), order


def make_search(index: Index) -> Search:
    """Return working memory for an index."""
    clusters, sizes = len(index.start) - 1, np.diff(index.start)
    n = int(np.sort(sizes)[-index.probes[0] :].sum()) + TOGETHER
    return Search(
        np.zeros(clusters + TOGETHER, np.float32),
        np.zeros(clusters, np.int32),
        np.zeros(n, np.float32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
    )


@jit
def _drop(search: Search, first: int, held: int, least: np.float32) -> int:
    """Drop what is below the least, from place `first` on; return how many are held then."""
    found, place, kept = search.found, search.place, first
    for i in range(first, held):
        value = found[i]  # read once: a store in between could have changed it
        found[kept], place[kept] = value, place[i]
        kept += value >= least
    return kept


@jit
def look(index: Index, search: Search, direction: Direction, k: int) -> int:
    """Find the k >= 1 rows with the largest products with a vector, or fewer; return how many.

    `search.best` holds their places in `search.place` and `search.found`, best first.
    """
    clusters, start, place = len(index.start) - 1, index.start, search.place
    dot_rows(index.centres, 0, clusters, direction, search.centre, 0)
    probes = best_places(search.centre, clusters, int(index.probes[0]), search.probed)
    held, least = 0, np.float32(-np.inf)
    for i in range(probes):
        begin, end = start[search.probed[i]], start[search.probed[i] + 1]
        if i + 1 < probes:
            for row in range(AHEAD):
                prefetch_row(index.rows, start[search.probed[i + 1]] + row)
        dot_rows(index.rows, begin, end, direction, search.found, held)
        for row in range(begin, end):
            place[held + row - begin] = row
        held = _drop(search, held, held + end - begin, least)
        if held >= CROWD * k:
            least = kth_largest(search.found, held, k)
            held = _drop(search, 0, held, least)
    return best_places(search.found, held, min(k, held), search.best) if held > 0 else 0


@jit_counted
def _nearest(
    index: Index, search: Search, direction: Direction, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    best = search.best[: look(index, search, direction, k)]
    return search.place[best], search.found[best]


def nearest(
    index: Index, search: Search, u: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return places in the index of the k nearest to u (D,), best first, and their products.

    Examples
    --------
    >>> from learners.deep.served.codes import codes_of
    >>> angle = np.arange(6) / 4
    >>> rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> code = codes_of(np.rint(7 * rows).astype(np.int8))
    >>> index, order = make_index(code, np.array([1, 1, 1, 0, 0, 0]), code[[4, 1]])
    >>> found, _ = nearest(index, make_search(index), rows[2].astype(np.float32), 3)
    >>> sorted(order[found].tolist())
    [1, 2, 3]
    """
    padded = np.zeros(2 * index.rows.code.shape[1], np.float32)
    padded[: len(u)] = u
    direction = make_direction(len(padded))
    aim(direction, padded)
    return _nearest(index, search, direction, k)


def recall(index: Index, queries: NDArray[np.float32], k: int) -> float:
    """Return which share of the true k nearest rows of each query (m, D) is found."""
    n = int(index.start[-1])
    rows = numbers_of(index.rows.code[:n], queries.shape[1]) * index.rows.scale[:n, None]
    search, kept, found = make_search(index), min(k, n), 0
    for u in queries:
        best = np.argpartition(-(rows @ u), kept - 1)[:kept]
        found += len(np.intersect1d(best, nearest(index, search, u, kept)[0]))
    return found / max(kept * len(queries), 1)

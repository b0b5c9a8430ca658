r"""The items nearest to a vector, without looking at all: an inverted file over clusters of rows.

Rows of length 1 are clustered by spherical k-means (Dhillon and Modha 2001) and stored cluster by
cluster; a query looks only into the clusters whose centres are nearest to it (Jégou, Douze and
Schmid 2011, section IV, without its codes: rows of 96 numbers fit into memory as they are). How
many of the true best it finds is measured when it is built (`recall`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.served.products import dot_rows, whole
from learners.jit import jit, jit_counted
from learners.lanes import TOGETHER
from learners.selection import best_places

__all__ = ["Index", "Search", "build", "look", "make_search", "nearest", "recall"]

ROUNDS = 5  # of k-means
ROWS_A_CLUSTER = 128
LOOKED_INTO = 1 / 24  # of all clusters; at least `LEAST_CLUSTERS`
LEAST_CLUSTERS = 12


class Index(NamedTuple):
    """Rows in the order of their clusters; cluster c is rows start[c] to start[c + 1]."""

    row: NDArray[np.float32]  # (n + TOGETHER, D) of length 1
    start: NDArray[np.int32]  # (C + 1,)
    centre: NDArray[np.float32]  # (C + TOGETHER, D)
    probes: NDArray[np.int32]  # (1,) clusters that a query looks into


class Search(NamedTuple):
    """Working memory of one query."""

    centre: NDArray[np.float32]  # (C + TOGETHER,) products with the centres
    probed: NDArray[np.int32]  # (C,) the nearest clusters
    found: NDArray[np.float32]  # (n + TOGETHER,) products with their rows
    place: NDArray[np.int32]  # (n + TOGETHER,) which rows these are
    best: NDArray[np.int32]  # (n,) the best places


def _padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows (n, D) with room for a whole block behind them, and with whole vectors."""
    padded = np.zeros((len(rows) + TOGETHER, whole(rows.shape[1])), np.float32)
    padded[: len(rows), : rows.shape[1]] = rows
    return padded


@jit_counted
def _assign(
    row: NDArray[np.float32], n: int, centre: NDArray[np.float32], clusters: int
) -> NDArray[np.int64]:
    """Return the cluster whose centre is nearest to each of the first n rows."""
    nearest = np.zeros(n, np.int64)
    product = np.zeros(clusters + TOGETHER, np.float32)
    for i in range(n):
        dot_rows(centre, 0, clusters, row[i], product)
        best = 0
        for c in range(clusters):
            best = c if product[c] > product[best] else best
        nearest[i] = best
    return nearest


@jit
def _scale(row: NDArray[np.float32], n: int) -> None:
    """Scale the first n rows to length 1, but for rows of zeros."""
    for i in range(n):
        square = 0.0
        for k in range(row.shape[1]):
            square += np.float64(row[i, k]) * np.float64(row[i, k])
        length = np.sqrt(square) if square > 0.0 else 1.0
        for k in range(row.shape[1]):
            row[i, k] /= length


@jit_counted
def _centres(
    row: NDArray[np.float32], nearest: NDArray[np.int64], centre: NDArray[np.float32], clusters: int
) -> None:
    """Make each centre the mean direction of its rows, as far as it has any."""
    sums = np.zeros_like(centre)
    for i in range(len(nearest)):
        for k in range(row.shape[1]):
            sums[nearest[i], k] += row[i, k]
    for c in range(clusters):
        if np.any(sums[c] != np.float32(0.0)):
            centre[c] = sums[c]
    _scale(centre, clusters)


def build(rows: NDArray[np.float32], seed: int = 0) -> tuple[Index, NDArray[np.int64]]:
    """Scale rows (n, D) to length 1 and cluster them; the same on every machine.

    Returns
    -------
    Index
    NDArray
        (n,) which row stands at each place of the index.

    Examples
    --------
    >>> angle = np.linspace(0.0, 1.5, 600) ** 2
    >>> rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    >>> index, order = build(rows)
    >>> order[nearest(index, make_search(index), rows[100], 3)[0]].tolist()
    [100, 99, 101]
    """
    n = len(rows)
    row = _padded(rows)
    _scale(row, n)
    clusters = max(n // ROWS_A_CLUSTER, 1)
    generator = np.random.default_rng(seed)
    first = generator.choice(n, clusters, replace=False) if n else np.zeros(0, np.int64)
    centre = _padded(row[first])
    cluster = np.zeros(n, np.int64)
    for _ in range(ROUNDS if clusters > 1 else 0):
        cluster = _assign(row, n, centre, clusters)
        _centres(row, cluster, centre, clusters)
    order = np.argsort(cluster, kind="stable")
    start = np.searchsorted(cluster[order], np.arange(clusters + 1)).astype(np.int32)
    row[:n] = row[order]
    probes = min(max(LEAST_CLUSTERS, round(clusters * LOOKED_INTO)), clusters)
    return Index(row, start, centre, np.array([probes], np.int32)), order


def make_search(index: Index) -> Search:
    """Return working memory for an index."""
    n, clusters = len(index.row), len(index.start) - 1
    return Search(
        np.zeros(clusters + TOGETHER, np.float32),
        np.zeros(clusters, np.int32),
        np.zeros(n, np.float32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
    )


@jit
def look(index: Index, search: Search, u: NDArray[np.float32], k: int) -> int:
    """Find the k rows with the largest products with u (D,), or fewer; return how many.

    `search.best` holds their places in `search.place` and `search.found`, best first.
    """
    clusters, place = len(index.start) - 1, search.place
    dot_rows(index.centre, 0, clusters, u, search.centre)
    probes = best_places(
        search.centre, clusters, min(int(index.probes[0]), clusters), search.probed
    )
    held = 0
    for i in range(probes):
        begin, end = index.start[search.probed[i]], index.start[search.probed[i] + 1]
        dot_rows(index.row, begin, end, u, search.found[held:])
        for row in range(begin, end):
            place[held + row - begin] = row
        held += end - begin
    return best_places(search.found, held, min(k, held), search.best) if held > 0 else 0


@jit_counted
def _nearest(
    index: Index, search: Search, u: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    best = search.best[: look(index, search, u, k)]
    return search.place[best], search.found[best]


def nearest(
    index: Index, search: Search, u: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return places in the index of the k nearest to u (D,), best first, and their products."""
    padded = np.zeros(index.row.shape[1], np.float32)
    padded[: len(u)] = u
    return _nearest(index, search, padded, k)


def recall(index: Index, queries: NDArray[np.float32], k: int) -> float:
    """Return which share of the true k nearest rows of each query (m, D) is found."""
    rows = index.row[: index.start[-1]]
    search, kept, found = make_search(index), min(k, len(rows)), 0
    for u in queries:
        padded = np.zeros(rows.shape[1], np.float32)
        padded[: len(u)] = u
        best = np.argpartition(-(rows @ padded), kept - 1)[:kept]
        found += len(np.intersect1d(best, _nearest(index, search, padded, kept)[0]))
    return found / max(kept * len(queries), 1)

"""The deep model as a source of candidates: a snapshot's items, by their rows in the engine.

A snapshot has rows of its own; here they stand in the order of its index, and two arrays lead from
the engine's rows to them and back. What is not in the snapshot yet says nothing: such an item has
no score, and such an event is left out of the history. The answer for a user's history is kept
until another event of theirs is learnt.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.histories import GAPS
from learners.deep.served.encoding import Bench, encode, make_bench
from learners.deep.served.index import Index, Search, look, make_search
from learners.deep.served.products import AHEAD, dot_row, prefetch_row, write_row
from learners.deep.served.weights import PLACES, Weights
from learners.jit import jit

__all__ = ["ITEMS", "NAMED", "DeepState", "forget_users", "look_for", "make_deep", "score_items"]

NAMED = 50  # items that an answer names
REMEMBERED = 1_024  # answers that are kept
ITEMS, FOUND = range(2)  # of `book`: of the snapshot; named for the last query
MINUTE = 60.0


class Memo(NamedTuple):
    """Answers kept by user; `key` is -1 where nothing is kept."""

    key: NDArray[np.int64]  # (REMEMBERED, 3) user row, events ever, events asked with
    user: NDArray[np.float32]  # (REMEMBERED, D)
    place: NDArray[np.int32]  # (REMEMBERED, NAMED)
    score: NDArray[np.float32]  # (REMEMBERED, NAMED)
    named: NDArray[np.int32]  # (REMEMBERED,)


class DeepState(NamedTuple):
    """A snapshot as kernels read it, with memory of one query; without one it has no items."""

    book: NDArray[np.int64]  # (2,) ITEMS, FOUND
    weights: Weights
    table: Index  # the items' rows
    item: NDArray[np.int32]  # (n,) 1 + the engine's row, by place in the index
    place: NDArray[np.int32]  # (engine's items,) 1 + place in the index
    bench: Bench
    search: Search
    memo: Memo
    named: NDArray[np.int32]  # (NAMED,) places of the items named for the query
    score: NDArray[np.float32]  # (NAMED,) their scores, best first


@jit
def _gap(seconds: float) -> int:
    """Return the bucket that `histories.gap_buckets` gives."""
    left, bucket = 1.0 + max(seconds, 0.0) / MINUTE, 1
    while left >= 2.0 and bucket < GAPS - 1:
        left *= 0.5
        bucket += 1
    return bucket


@jit
def _read(
    deep: DeepState,
    query: NDArray[np.int32],
    kind: NDArray[np.uint8],
    time: NDArray[np.float64],
    n: int,
) -> int:
    """Lay the latest known ones of n events, most recent first, on the bench; return how many."""
    bench = deep.bench
    known, before = 0, np.nan
    first, room = 0, min(len(bench.kind), deep.weights.shape[PLACES])
    while first < n and room > 0:
        room -= query[first] >= 0 and deep.place[query[first]] > 0
        first += 1
    for back in range(first - 1, -1, -1):
        place = deep.place[query[back]] - 1 if query[back] >= 0 else -1
        if place >= 0:
            write_row(deep.table.rows, place, bench.row[known])
            bench.kind[known] = kind[back]
            elapsed = time[back] - before
            bench.gap[known] = _gap(elapsed) if elapsed == elapsed else 0
            before = time[back]
            known += 1
    return known


@jit
def look_for(
    deep: DeepState,
    query: NDArray[np.int32],
    kind: NDArray[np.uint8],
    time: NDArray[np.float64],
    n: int,
    user: int,
    version: int,
) -> int:
    """Encode n events, most recent first, and find the items nearest; return how many.

    They are in `deep.named` and `deep.score`, and the user vector on the bench. `user` and
    `version` name the history, so that the same question is answered once; -1 for nobody's.
    """
    memo, bench, search = deep.memo, deep.bench, deep.search
    slot = user % len(memo.key) if user >= 0 else 0
    key = memo.key[slot]
    if user >= 0 and key[0] == user and key[1] == version and key[2] == n:
        for k in range(len(bench.user)):
            bench.user[k] = memo.user[slot, k]
        for i in range(memo.named[slot]):
            deep.named[i], deep.score[i] = memo.place[slot, i], memo.score[slot, i]
        deep.book[FOUND] = memo.named[slot]
        return int(memo.named[slot])
    known = _read(deep, query, kind, time, n)
    found = 0
    if known > 0:
        encode(deep.weights, bench, known)
        found = look(deep.table, search, bench.user, NAMED)
        for i in range(found):
            best = search.best[i]
            deep.named[i], deep.score[i] = search.place[best], search.found[best]
    if user >= 0:
        key[0], key[1], key[2] = user, version, n
        for k in range(len(bench.user)):
            memo.user[slot, k] = bench.user[k]
        for i in range(found):
            memo.place[slot, i], memo.score[slot, i] = deep.named[i], deep.score[i]
        memo.named[slot] = found
    deep.book[FOUND] = found
    return found


@jit
def score_items(
    deep: DeepState, items: NDArray[np.int32], n: int, out: NDArray[np.float32]
) -> None:
    """Write u.v of the first n item rows into `out` (n,), -inf where the snapshot has none.

    u is that of the last `look_for`; all are -inf if it has found nothing.
    """
    if deep.book[FOUND] == 0:
        out[:n] = -np.inf
        return
    rows, place = deep.table.rows, deep.place
    for i in range(n + AHEAD):
        if i < n:
            prefetch_row(rows, max(place[items[i]] - 1, 0))
        if i >= AHEAD:
            at = place[items[i - AHEAD]] - 1
            dot_row(rows, max(at, 0), deep.bench.user, out, i - AHEAD)
            if at < 0:
                out[i - AHEAD] = -np.inf


def make_deep(index: Index, weights: Weights, items: int) -> DeepState:
    """Return a snapshot that no row of an engine with so many items leads to."""
    width, n = index.rows.code.shape[1], int(index.start[-1])
    kept = REMEMBERED if n else 1
    memo = Memo(
        np.full((kept, 3), -1, np.int64),
        np.zeros((kept, width), np.float32),
        np.zeros((kept, NAMED), np.int32),
        np.zeros((kept, NAMED), np.float32),
        np.zeros(kept, np.int32),
    )
    return DeepState(
        np.array([n, 0]),
        weights,
        index,
        np.zeros(n, np.int32),
        np.zeros(items, np.int32),
        make_bench(weights),
        make_search(index),
        memo,
        np.zeros(NAMED, np.int32),
        np.zeros(NAMED, np.float32),
    )


def forget_users(deep: DeepState, rows: NDArray[np.int64]) -> None:
    """Drop what is kept of some users."""
    slots = rows % len(deep.memo.key)
    for array in deep.memo:
        array[slots] = 0
    deep.memo.key[slots] = -1

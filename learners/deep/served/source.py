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
from learners.deep.served.codes import (
    Direction,
    aim,
    dot_four,
    make_direction,
    prefetch_row,
    write_row,
)
from learners.deep.served.encoding import Bench, encode, make_bench
from learners.deep.served.index import Index, Search, look, make_search
from learners.deep.served.weights import PLACES, Weights
from learners.jit import jit
from learners.lanes import TOGETHER
from learners.vector import total_of

__all__ = ["ITEMS", "NAMED", "DeepState", "forget_users", "look_for", "make_deep", "score_items"]

NAMED = 50  # items that an answer names
REMEMBERED = 1_024  # answers that are kept
ITEMS, FOUND = range(2)  # of `book`: of the snapshot; named for the last query
MINUTE = 60.0
AHEAD = 8  # candidates whose rows are asked for before their turn


class Memo(NamedTuple):
    """Answers kept by user; `key` is -1 where nothing is kept."""

    key: NDArray[np.int64]  # (REMEMBERED, 3) user row, events ever, events asked with
    code: NDArray[np.int16]  # (REMEMBERED, D) the user vector, as `Direction` has it
    step: NDArray[np.float32]  # (REMEMBERED,)
    shift: NDArray[np.int32]  # (REMEMBERED,)
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
    user: Direction  # of the last query
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
    asker: int,
    version: int,
) -> int:
    """Encode n events, most recent first, and find the items nearest; return how many.

    They are in `deep.named` and `deep.score`, and the user vector in `deep.user`. `asker` and
    `version` name the history, so that the same question is answered once; -1 for nobody's.
    """
    memo, bench, user, search = deep.memo, deep.bench, deep.user, deep.search
    slot = asker % len(memo.key) if asker >= 0 else 0
    key = memo.key[slot]
    if asker >= 0 and key[0] == asker and key[1] == version and key[2] == n:
        for k in range(len(user.code)):
            user.code[k] = memo.code[slot, k]
        user.step[0], user.shift[0] = memo.step[slot], memo.shift[slot]
        for i in range(memo.named[slot]):
            deep.named[i], deep.score[i] = memo.place[slot, i], memo.score[slot, i]
        deep.book[FOUND] = memo.named[slot]
        return int(memo.named[slot])
    known = _read(deep, query, kind, time, n)
    found = 0
    if known > 0:
        encode(deep.weights, bench, known)
        if np.isfinite(total_of(bench.user, len(bench.user))):
            aim(user, bench.user)
            found = look(deep.table, search, user, NAMED)
        for i in range(found):
            best = search.best[i]
            deep.named[i], deep.score[i] = search.place[best], search.found[best]
    if asker >= 0:
        key[0], key[1], key[2] = asker, version, n
        for k in range(len(user.code)):
            memo.code[slot, k] = user.code[k]
        memo.step[slot], memo.shift[slot] = user.step[0], user.shift[0]
        for i in range(found):
            memo.place[slot, i], memo.score[slot, i] = deep.named[i], deep.score[i]
        memo.named[slot] = found
    deep.book[FOUND] = found
    return found


@jit
def _row(deep: DeepState, items: NDArray[np.int32], i: int, n: int) -> int:
    """Return where the row of an item stands, of the last one for those beyond n."""
    return int(max(deep.place[items[min(i, n - 1)]] - 1, 0))


@jit
def score_items(
    deep: DeepState, items: NDArray[np.int32], n: int, out: NDArray[np.float32]
) -> None:
    """Write u.v of the first n item rows into `out`, -inf where the snapshot has none.

    u is that of the last `look_for`; all are -inf if it has found nothing. There is room for three
    more.
    """
    if deep.book[FOUND] == 0:
        out[:n] = -np.inf
        return
    rows = deep.table.rows
    for i in range(min(n, AHEAD)):
        prefetch_row(rows, _row(deep, items, i, n))
    for i in range(0, n, TOGETHER):
        for ahead in range(i + AHEAD, min(i + AHEAD + TOGETHER, n)):
            prefetch_row(rows, _row(deep, items, ahead, n))
        a, b = _row(deep, items, i, n), _row(deep, items, i + 1, n)
        c, d = _row(deep, items, i + 2, n), _row(deep, items, i + 3, n)
        dot_four(rows, a, b, c, d, deep.user, out, i)
    for i in range(n):
        if deep.place[items[i]] == 0:
            out[i] = -np.inf


def make_deep(index: Index, weights: Weights, items: int) -> DeepState:
    """Return a snapshot that no row of an engine with so many items leads to."""
    width, n = 2 * index.rows.code.shape[1], int(index.start[-1])
    kept = REMEMBERED if n else 1
    memo = Memo(
        np.full((kept, 3), -1, np.int64),
        np.zeros((kept, width), np.int16),
        np.zeros(kept, np.float32),
        np.zeros(kept, np.int32),
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
        make_direction(width),
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

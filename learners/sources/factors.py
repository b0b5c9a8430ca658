r"""One-pass factorisation of sessions: items near the recent ones in a learnt space.

Every item has two rows of 48 numbers, E (as part of a query) and O (as an answer). A query of items
:math:`q_0, q_1, ...`, most recent first, is the vector
:math:`u = \sum_d 0.7^d E[q_d] / \sqrt{\sum_d 0.49^d}`, and an item scores u.O. On event y, u of the
items before it takes one step of softmax cross-entropy over y and 32 negatives, drawn from the ring
of the latest events; so it is a sampled softmax (Jean, Cho, Memisevic and Bengio 2015, section 3).
A negative that is y itself is left out, as it would teach to avoid what is right. Steps are by
Adagrad (Duchi, Hazan and Singer 2011) with one sum a row, the mean square of the row's gradients:
so no number moves further than a small multiple of the rate, whatever comes.

Negatives are drawn as often as they were met lately. With `correction` c, c ln(count in the ring)
is taken from each logit while learning (c = 1 is the sampled softmax's own, "logQ"): then scores
tell what is likely; without, what is likelier than elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source, no_pause
from learners.jit import jit
from learners.lanes import (
    WIDTH,
    add_scaled,
    dot,
    empty_rows,
    largest,
    prefetch_row,
    pull_rows,
    total,
)
from learners.sources.negatives import (
    FIRST_SUM,
    HELD,
    LATER,
    NEGATIVES,
    NOW,
    append,
    begin_row,
    count,
    draw,
    forget,
)
from learners.store.history import CONTEXT
from learners.store.rows import refill
from learners.vector import exp_of, log_of

__all__ = [
    "NEGATIVES",
    "Factors",
    "FactorsState",
    "learn_one",
    "make_factors",
    "prefetch_one",
    "query_vector",
    "scores_of",
]

AHEAD = 8  # rows that are asked for before their turn
NEARNESS = (0.7 ** np.arange(CONTEXT)).astype(np.float32)
ONE, ZERO = np.float32(1.0), np.float32(0.0)
ABSENT = np.float32(-1e30)  # the logit of what is no answer
MEAN = np.float32(1.0 / WIDTH)
ASKED, ANSWER = range(2)  # planes of `vectors` and `sums`: E and O
RATE, CORRECTION = range(2)  # of `constant`
SHARE, LENGTH, QUERY, PULL = range(4)  # rows of `work`


class FactorsState(NamedTuple):
    """Rows of all items and the ring of the latest events.

    `work` and `slot` are memory of one step: shares, steps' lengths, u, its gradient; rows of the
    negatives with y, those drawn next.
    """

    vectors: NDArray[np.float32]  # (2, items, WIDTH) E and O
    sums: NDArray[np.float32]  # (2, items) Adagrad's, 0 where a row is not in use
    often: NDArray[np.int32]  # (items,) how often in the ring
    ring: NDArray[np.int32]  # (R,) item rows
    book: NDArray[np.uint64]  # (4,) SEED, DRAWN, HELD, NEXT
    upcoming: NDArray[np.int32]  # (NEGATIVES,) negatives of the next step, -1 for none
    constant: NDArray[np.float32]  # (2,) RATE, CORRECTION
    work: NDArray[np.float32]  # (4, WIDTH) SHARE, LENGTH, QUERY, PULL
    slot: NDArray[np.int32]  # (2, WIDTH) NOW, LATER


def make_factors(
    items: int, recent: int = 50_000, seed: int = 1, rate: float = 0.1, correction: float = 0.0
) -> FactorsState:
    """Return rows for so many items, none in use, and a ring of `recent` events."""
    return FactorsState(
        empty_rows(2 * items).reshape(2, items, WIDTH),
        np.zeros((2, items), np.float32),
        np.zeros(items, np.int32),
        np.zeros(recent, np.int32),
        np.array([seed, 0, 0, 0], np.uint64),
        np.full(NEGATIVES, -1, np.int32),
        np.array([rate, correction], np.float32),
        empty_rows(4),
        np.zeros((2, WIDTH), np.int32),
    )


@jit
def _add_up(
    vectors: NDArray[np.float32],
    query: NDArray[np.int32],
    n: int,
    out: NDArray[np.float32],
    at: int,
) -> np.float32:
    """Write u into row `at` of `out`; return 1 / sqrt(sum 0.49^d)."""
    square = ZERO
    for d in range(n):
        square += NEARNESS[d] * NEARNESS[d] if query[d] >= 0 else ZERO
    scale = np.float32(ONE / np.sqrt(max(square, FIRST_SUM)))
    for k in range(WIDTH):
        out[at, k] = ZERO
    for d in range(n):
        if query[d] >= 0:
            weight = np.float32(NEARNESS[d] * scale)
            add_scaled(out, at * WIDTH, weight, vectors, query[d] * WIDTH)
    return scale


@jit
def query_vector(
    state: FactorsState, query: NDArray[np.int32], n: int, out: NDArray[np.float32]
) -> None:
    """Write u of the first n items of a query, most recent first, into `out` (1, WIDTH).

    At most `CONTEXT` of them count; rows below 0 say nothing.
    """
    _add_up(state.vectors, query, min(n, CONTEXT), out, 0)


@jit
def scores_of(
    state: FactorsState,
    u: NDArray[np.float32],
    items: NDArray[np.int32],
    n: int,
    out: NDArray[np.float32],
) -> None:
    """Write u.O of the first n item rows into `out` (n,); 0 for one that was never met."""
    vectors = state.vectors
    answers = vectors.shape[1]
    for i in range(min(AHEAD, n)):
        prefetch_row(vectors, answers + items[i])
    for i in range(n):
        if i + AHEAD < n:
            prefetch_row(vectors, answers + items[i + AHEAD])
        out[i] = dot(u, 0, vectors, (answers + items[i]) * WIDTH)


@jit
def prefetch_one(state: FactorsState, context: NDArray[np.int32], n: int, item: int) -> None:
    """Ask for the rows that `learn_one` will meet, some events before it is called.

    Those of the negatives are asked for by `learn_one` itself, an event ahead.
    """
    vectors = state.vectors
    prefetch_row(vectors, vectors.shape[1] + item)
    for d in range(min(n, CONTEXT)):
        if context[d] >= 0:
            prefetch_row(vectors, context[d])


@jit
def _logits(
    vectors: NDArray[np.float32],
    upcoming: NDArray[np.int32],
    work: NDArray[np.float32],
    slot: NDArray[np.int32],
    item: int,
) -> None:
    """Write u.O of the negatives and y, and ask for the next negatives' rows."""
    answers = vectors.shape[1]
    y = np.int32(item)
    for i in range(NEGATIVES):
        prefetch_row(vectors, answers + slot[LATER, i])
        absent = (upcoming[i] < 0) | (upcoming[i] == y)
        row = answers + (y if absent else upcoming[i])
        product = dot(work, QUERY * WIDTH, vectors, row * WIDTH)
        work[SHARE, i] = ABSENT if absent else product
        slot[NOW, i] = row
    for i in range(NEGATIVES):
        upcoming[i] = slot[LATER, i]
    slot[NOW, NEGATIVES] = answers + y
    work[SHARE, NEGATIVES] = dot(work, QUERY * WIDTH, vectors, (answers + y) * WIDTH)
    for i in range(NEGATIVES + 1, WIDTH):
        work[SHARE, i] = ABSENT


@jit
def _correct(
    often: NDArray[np.int32], work: NDArray[np.float32], slot: NDArray[np.int32], by: np.float32
) -> None:
    """Take the correction from each logit."""
    log_often = work[LENGTH]
    for i in range(NEGATIVES + 1):
        log_often[i] = np.float32(often[slot[NOW, i] - len(often)] + 1)
    log_of(log_often, NEGATIVES + 1)
    for i in range(NEGATIVES + 1):
        work[SHARE, i] -= by * log_often[i]


@jit
def _move_answers(
    vectors: NDArray[np.float32],
    sums: NDArray[np.float32],
    work: NDArray[np.float32],
    slot: NDArray[np.int32],
    rate: np.float32,
) -> None:
    """Turn logits into gradients, step the rows O along them, and write the gradient of u."""
    first = largest(work, SHARE * WIDTH)
    for i in range(WIDTH):
        work[SHARE, i] -= first
    exp_of(work[SHARE], WIDTH)
    of_total = ONE / total(work, SHARE * WIDTH)
    for i in range(WIDTH):
        work[SHARE, i] *= of_total
    work[SHARE, NEGATIVES] -= ONE
    square = dot(work, QUERY * WIDTH, work, QUERY * WIDTH) * MEAN
    answers = vectors.shape[1]
    for i in range(NEGATIVES + 1):
        row = slot[NOW, i] - answers
        sums[ANSWER, row] += work[SHARE, i] * work[SHARE, i] * square
        work[LENGTH, i] = sums[ANSWER, row]
    for i in range(NEGATIVES + 1):
        work[LENGTH, i] = rate * work[SHARE, i] / np.sqrt(work[LENGTH, i])
    pull_rows(vectors, slot, NEGATIVES + 1, work, SHARE, LENGTH, QUERY, PULL)


@jit
def learn_one(state: FactorsState, context: NDArray[np.int32], n: int, item: int) -> None:
    """Learn that `item` followed the `n` items of `context` (most recent first) in its session."""
    vectors, sums, book, work, slot = state.vectors, state.sums, state.book, state.work, state.slot
    ring, often, rate = state.ring, state.often, state.constant[RATE]
    n = min(n, CONTEXT)
    if sums[ASKED, item] == ZERO:
        begin_row(vectors, sums, book, item)
    known = 0
    for d in range(n):
        q = context[d]
        known += q >= 0
        if q >= 0 and sums[ASKED, q] == ZERO:
            begin_row(vectors, sums, book, q)
    if known > 0:
        draw(ring, book, slot)
        scale = _add_up(vectors, context, n, work, QUERY)
        _logits(vectors, state.upcoming, work, slot, item)
        if state.constant[CORRECTION] != ZERO:
            _correct(often, work, slot, state.constant[CORRECTION])
        _move_answers(vectors, sums, work, slot, rate)
        square = dot(work, PULL * WIDTH, work, PULL * WIDTH) * MEAN
        for d in range(n):
            q = context[d]
            if q >= 0:
                weight = NEARNESS[d] * scale
                sums[ASKED, q] += weight * weight * square
                length = -rate * weight / np.sqrt(sums[ASKED, q])
                add_scaled(vectors, q * WIDTH, np.float32(length), work, PULL * WIDTH)
    append(ring, often, book, item)


@jit
def _learn(state: FactorsState, events: Interactions) -> None:
    context = events.context
    n = len(events.item)
    for i in range(n):
        if i + 2 < n:
            prefetch_one(state, context[i + 2], context.shape[1], events.item[i + 2])
        learn_one(state, context[i], context.shape[1], events.item[i])


class Factors(Source):
    """The session factorisation as a source; it scores every item it has met.

    Examples
    --------
    >>> from learners.checks import interactions
    >>> factors = Factors(items=10)
    >>> pairs = [(s, i) for s in range(300) for i in ((1, 2) if s % 2 else (3, 4))]
    >>> factors.learn(interactions(pairs))
    >>> factors.score(Query(np.array([3], np.int32), now=0.0), n_items=10).argmax()
    np.int64(4)
    """

    name = "factors"

    def __init__(
        self,
        items: int,
        recent: int = 50_000,
        seed: int = 1,
        rate: float = 0.1,
        correction: float = 0.0,
    ) -> None:
        self.arrays = make_factors(items, recent, seed, rate, correction)

    @property
    def used(self) -> int:
        """Return one more than the last row in use."""
        rows = np.flatnonzero(self.arrays.sums[ASKED])
        return int(rows[-1]) + 1 if len(rows) else 0

    def learn(self, interactions: Interactions) -> None:
        _learn(self.arrays, interactions)

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        known = np.where(query.items < n_items, query.items, -1).astype(np.int32)
        u, out = empty_rows(1), np.empty(n_items, np.float32)
        query_vector(self.arrays, known, len(known), u)
        scores_of(self.arrays, u, np.arange(n_items, dtype=np.int32), n_items, out)
        return out.astype(np.float64)

    def state(self) -> dict[str, NDArray[np.generic]]:
        arrays, n = self.arrays, self.used
        return {
            "query": arrays.vectors[ASKED, :n],
            "answer": arrays.vectors[ANSWER, :n],
            "query_sum": arrays.sums[ASKED, :n],
            "answer_sum": arrays.sums[ANSWER, :n],
            "ring": arrays.ring[: int(arrays.book[HELD])],
            "book": arrays.book,
            "upcoming": arrays.upcoming,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        arrays = self.arrays
        for plane, name in ((ASKED, "query"), (ANSWER, "answer")):
            refill(arrays.vectors[plane], state[name])
            refill(arrays.sums[plane], state[f"{name}_sum"])
        for name in ("ring", "book", "upcoming"):
            refill(getattr(arrays, name), state[name])
        count(arrays.ring, arrays.often, arrays.book)

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        arrays = self.arrays
        arrays.vectors[:, rows] = 0.0
        arrays.sums[:, rows] = 0.0
        forget(arrays.ring, arrays.often, arrays.book, arrays.upcoming, rows)

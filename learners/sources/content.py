r"""Similarity of catalogue entries: what can be recommended before anybody has clicked it.

The last items of a query, :math:`q_0, q_1, ...` from the most recent on, say what is looked for: a
token gets :math:`p(t) = \sum_d 0.7^d w_t^2 / |q_d|` over the items with the token, and an item
scores :math:`\sum_{t} p(t) / |i| / \sum_d 0.7^d`: the mean cosine of their weights (Salton and
Buckley 1988), the latest items first. It names few items, the best of its lists (`shelves`) for the
tokens that tell most: four fifths of them fresh, as other sources find what was clicked; and it
scores whatever they name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry, Interactions, Query, Source, no_pause
from learners.jit import jit, prefetch
from learners.selection import keep_best
from learners.sources.shelves import (
    ContentState,
    Listing,
    drop_one,
    learn_one,
    list_until,
    make_content,
    reweigh,
)
from learners.sources.tokens import BUCKETS, TOKENS, tokens_of
from learners.store.history import CONTEXT
from learners.store.rows import ROW, refill

__all__ = [
    "MOST_NAMED",
    "NO_LISTING",
    "PACKED_BYTES",
    "Content",
    "Scratch",
    "listing_of",
    "look_for",
    "make_scratch",
    "name",
    "similarities",
]

AHEAD = 8  # items that are asked for before their turn
LOOKED_UP = 24  # tokens of a query whose lists are read
MOST_READ = 512  # items of their lists that are looked at, fresh or met
MOST_NAMED = 2 * MOST_READ
NEARNESS = (0.7 ** np.arange(CONTEXT)).astype(np.float32)
ONE, ZERO = np.float32(1.0), np.float32(0.0)


class Scratch(NamedTuple):
    """Working memory of one query; `place` is zero between queries, `profile` until the next."""

    profile: NDArray[np.float32]  # (BUCKETS,) p
    token: NDArray[np.int32]  # (n,) the tokens in it
    urge: NDArray[np.float32]  # (n,) how much each tells
    telling: NDArray[np.int32]  # (LOOKED_UP,) the best of them
    tokens: NDArray[np.int64]  # (1,) how many
    place: NDArray[np.uint16]  # (items,) 1 + place among the found
    found: NDArray[np.int32]  # (MOST_READ,) item rows
    value: NDArray[np.float32]  # (MOST_READ,)
    best: NDArray[np.int32]  # (MOST_READ,) places among the found
    named: NDArray[np.int32]  # (MOST_NAMED,) item rows
    score: NDArray[np.float32]  # (MOST_NAMED,)


def make_scratch(items: int) -> Scratch:
    """Return working memory."""
    tokens = CONTEXT * TOKENS
    return Scratch(
        np.zeros(BUCKETS, np.float32),
        np.zeros(tokens, np.int32),
        np.zeros(tokens, np.float32),
        np.zeros(LOOKED_UP, np.int32),
        np.zeros(1, np.int64),
        np.zeros(items, np.uint16),
        np.zeros(MOST_READ, np.int32),
        np.zeros(MOST_READ, np.float32),
        np.zeros(MOST_READ, np.int32),
        np.zeros(MOST_NAMED, np.int32),
        np.zeros(MOST_NAMED, np.float32),
    )


@jit
def look_for(state: ContentState, scratch: Scratch, query: NDArray[np.int32], n: int) -> bool:
    """Write into the profile what the first n items of a query are; tell whether that is anything.

    Most recent first; at most `CONTEXT` count, rows below 0 say nothing.
    """
    profile, known = scratch.profile, scratch.token
    for i in range(scratch.tokens[0]):
        profile[known[i]] = ZERO
    scratch.tokens[0] = 0
    if state.most[0] == 0 or state.book[0] == 0:
        return False
    weight, length, token = state.weight, state.length, state.token
    total, found = ZERO, 0
    for d in range(min(n, CONTEXT)):
        if query[d] >= 0 and length[query[d]] > ZERO:
            total += NEARNESS[d]
    for d in range(min(n, CONTEXT)):
        item = query[d]
        if item < 0 or length[item] == ZERO:
            continue
        near = np.float32(NEARNESS[d] / (length[item] * total))
        for i in range(TOKENS):
            t = token[item, i] - 1
            if t < 0:
                break
            if weight[t] == ZERO:
                continue
            if profile[t] == ZERO:
                known[found] = t
                found += 1
            profile[t] += near * weight[t] * weight[t]
    scratch.tokens[0] = found
    return found > 0


@jit
def similarities(
    state: ContentState,
    scratch: Scratch,
    items: NDArray[np.int32],
    n: int,
    out: NDArray[np.float32],
) -> None:
    """Write how similar the first n item rows are to what is looked for into `out` (n,)."""
    profile, token, length = scratch.profile, state.token, state.length
    for i in range(n):
        if i + AHEAD < n:
            prefetch(token, items[i + AHEAD] * TOKENS)
        out[i] = ZERO
        if length[items[i]] == ZERO:
            continue
        total = ZERO
        for k in range(TOKENS):
            t = token[items[i], k] - 1
            if t < 0:
                break
            total += profile[t]
        out[i] = total / length[items[i]]


@jit
def _telling(scratch: Scratch) -> int:
    """Write the tokens that tell most into `scratch.telling`, in that order; return how many."""
    profile, known, telling = scratch.profile, scratch.token, scratch.telling
    tokens = int(scratch.tokens[0])
    for i in range(tokens):
        scratch.urge[i] = profile[known[i]]
    kept = keep_best(scratch.urge, tokens, LOOKED_UP, scratch.best)
    for i in range(kept):
        t, at = known[scratch.best[i]], i
        while at > 0 and profile[telling[at - 1]] < profile[t]:
            telling[at] = telling[at - 1]
            at -= 1
        telling[at] = t
    return kept


@jit
def _read_lists(state: ContentState, scratch: Scratch, met: int, tokens: int) -> int:
    """Find items in the lists of the most telling tokens; return how many, scored."""
    profile, telling, place = scratch.profile, scratch.telling, scratch.place
    found, value, listed = scratch.found, scratch.value, state.item
    n = read = 0
    for i in range(tokens):
        t = telling[i]
        head = state.rows.head[2 * t + met]
        last = head.start + head.held - 1
        for slot in range(last, max(last - (MOST_READ - read), head.start - 1), -1):
            item = listed[slot]
            if place[item] == 0:
                found[n], value[n] = item, ZERO
                n += 1
                place[item] = n
            value[place[item] - 1] += profile[t]
        read += min(head.held, MOST_READ - read)
    for i in range(n):
        value[i] /= max(state.length[found[i]], np.float32(1e-6))
        place[found[i]] = 0
    return n


@jit
def name(state: ContentState, scratch: Scratch) -> int:
    """Name the items most similar to what `look_for` has noted; return how many.

    They are in `scratch.named`, with `scratch.score` by the tokens that led to them.
    """
    most, named, tokens = int(state.most[0]), 0, _telling(scratch)
    for met in range(2):
        n = _read_lists(state, scratch, met, tokens)
        room = most // 5 if met else most - most // 5
        kept = keep_best(scratch.value, n, min(room, n), scratch.best) if n and room else 0
        for i in range(kept):
            scratch.named[named] = scratch.found[scratch.best[i]]
            scratch.score[named] = scratch.value[scratch.best[i]]
            named += 1
    return named


@jit
def _learn(state: ContentState, items: NDArray[np.int32]) -> None:
    for i in range(len(items)):
        learn_one(state, items[i])


def listing_of(
    rows: NDArray[np.int32],
    entries: Sequence[CatalogueEntry],
    times: NDArray[np.float64],
    after: NDArray[np.int64],
) -> Listing:
    """Return item events as kernels read them; `after` tells how many clicks come before each."""
    return Listing(
        after,
        rows,
        np.array([tokens_of(entry) for entry in entries], np.int32).reshape(-1, TOKENS),
        times,
        np.array([entry.available is False for entry in entries], np.bool_),
        np.array([entry.deleted for entry in entries], np.bool_),
        np.array([entry.price or 0.0 for entry in entries], np.float64),
    )


NO_LISTING = listing_of(np.zeros(0, np.int32), [], np.zeros(0), np.zeros(0, np.int64))


@jit
def _forget(state: ContentState, rows: NDArray[np.int64]) -> None:
    for i in range(len(rows)):
        drop_one(state, rows[i])
        state.met[rows[i]] = 0
        state.since[rows[i]] = 0.0
    reweigh(state)


class Content(Source):
    """Content similarity as a source; it scores every item that was listed.

    Examples
    --------
    >>> content = Content(items=10)
    >>> tents, knife = CatalogueEntry(category="tents"), CatalogueEntry(category="knives")
    >>> content.list_items(np.array([2, 5, 7], np.int32), [tents, knife, tents], np.ones(3))
    >>> content.score(Query(np.array([7], np.int32), now=2.0), n_items=10).nonzero()[0]
    array([2, 7])
    """

    name = "content"

    def __init__(self, items: int, most: int = 30) -> None:
        self.arrays = make_content(items, most)
        self._scratch = make_scratch(items)

    @property
    def used(self) -> int:
        """Return one more than the last row that was clicked or listed."""
        rows = np.flatnonzero(self.arrays.met | self.arrays.status)
        return int(rows[-1]) + 1 if len(rows) else 0

    def learn(self, interactions: Interactions) -> None:
        _learn(self.arrays, interactions.item)

    def list_items(
        self,
        rows: NDArray[np.int32],
        entries: Sequence[CatalogueEntry],
        times: NDArray[np.float64],
    ) -> None:
        self.list_all(listing_of(rows, entries, times, np.zeros(len(rows), np.int64)))

    def list_all(self, listing: Listing) -> None:
        """Learn item events in their order."""
        list_until(self.arrays, listing, 0, int(listing.after.max(initial=0)))

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        known = np.where(query.items < n_items, query.items, -1).astype(np.int32)
        out = np.zeros(n_items, np.float32)
        if look_for(self.arrays, self._scratch, known, len(known)):
            every = np.arange(n_items, dtype=np.int32)
            similarities(self.arrays, self._scratch, every, n_items, out)
        return out.astype(np.float64)

    def state(self) -> dict[str, NDArray[np.generic]]:
        arrays, n = self.arrays, self.used
        tokens = np.flatnonzero(arrays.often).astype(np.int32)
        heads = arrays.rows.head
        used = np.flatnonzero(heads["room"]).astype(np.int32)
        return {
            **{key: getattr(arrays, key)[:n] for key in BY_ITEM},
            "known": tokens,
            **{key: getattr(arrays, key)[tokens] for key in BY_TOKEN},
            "list": used,
            "head": heads[used],
            "free": arrays.rows.free,
            "top": arrays.rows.top,
            "item": arrays.item[: int(arrays.rows.top[0])],
            "book": arrays.book,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        arrays = self.arrays
        for key in (*BY_ITEM, "item", "book"):
            refill(getattr(arrays, key), state[key])
        tables = [(key, getattr(arrays, key), "known") for key in BY_TOKEN]
        for key, table, places in [*tables, ("head", arrays.rows.head, "list")]:
            packed = np.zeros(len(state[key]), table.dtype)
            refill(packed, state[key])
            table[:] = np.zeros(1, table.dtype)[0]
            table[np.asarray(state[places], np.int64)] = packed
        arrays.rows.free[:] = state["free"]
        arrays.rows.top[:] = state["top"]

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        _forget(self.arrays, rows)


BY_TOKEN = ("often", "weight")
PACKED_BYTES = BUCKETS * (3 * 4 + 2 * (4 + ROW.itemsize))  # of a state's columns by token, at most
BY_ITEM = ("token", "length", "since", "status", "met")

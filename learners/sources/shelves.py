r"""The catalogue as content similarity reads it: tokens of items, and per token the newest items.

A token's weight is :math:`w = \ln((N + 1)/c)` with N items in the catalogue and c of them with the
token (the inverse document frequency of Spärck Jones 1972), but 0 where c is 1: it leads nowhere;
all weights and the items' lengths :math:`\sqrt{\sum w^2}` are renewed when N has changed by a
sixteenth. A token has two short lists of items: the fresh ones, that nobody has clicked or bought,
and those that were, in the order of their first click. Both are bounded and drop the item that came
in first. All is learnt at item events, and at an item's first click.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.sources.tokens import BUCKETS, TOKENS
from learners.store.rows import Rows, make_rows, release, reserve, settle

__all__ = [
    "FRESH",
    "LISTED",
    "ContentState",
    "Listing",
    "drop_one",
    "learn_one",
    "list_until",
    "make_content",
    "reweigh",
]

ROOM = np.array([128, 16])  # items of a token's lists: fresh, met
LISTED, FRESH, WEIGHED = range(3)  # of `book`: items listed, those nobody has clicked, N of weights
ON_SALE, HIDDEN = 1, 2  # bits of `status`; 0 where nothing is listed
POOL_SLOTS = 12  # an item; beyond, lists stop growing


class ContentState(NamedTuple):
    """What item events say, by item row and by token; all zero where nothing was said."""

    token: NDArray[np.int32]  # (items, TOKENS) 1 + token, 0 behind the last
    length: NDArray[np.float32]  # (items,) of its weights, 0 without tokens
    since: NDArray[np.float64]  # (items,) seconds, when it was listed first
    status: NDArray[np.uint8]  # (items,)
    met: NDArray[np.uint8]  # (items,) 1 once it was clicked or bought
    often: NDArray[np.int32]  # (BUCKETS,) c
    weight: NDArray[np.float32]  # (BUCKETS,) w
    rows: Rows  # 2 of each token: fresh, met
    item: NDArray[np.int32]  # (slots,) item rows
    book: NDArray[np.int64]  # (3,) LISTED, FRESH, WEIGHED
    most: NDArray[np.int64]  # (1,) candidates that a query names


class Listing(NamedTuple):
    """Item events in their order, and how many of a run's clicks and purchases come before each."""

    after: NDArray[np.int64]  # (m,) rising
    item: NDArray[np.int32]  # (m,) rows
    token: NDArray[np.int32]  # (m, TOKENS) padded with -1
    time: NDArray[np.float64]  # (m,) seconds
    hidden: NDArray[np.bool_]  # (m,) not to be had
    deleted: NDArray[np.bool_]  # (m,)
    price: NDArray[np.float64]  # (m,) 0 where none is told


def make_content(items: int, most: int) -> ContentState:
    """Return the state of an empty catalogue."""
    return ContentState(
        np.zeros((items, TOKENS), np.int32),
        np.zeros(items, np.float32),
        np.zeros(items),
        np.zeros(items, np.uint8),
        np.zeros(items, np.uint8),
        np.zeros(BUCKETS, np.int32),
        np.zeros(BUCKETS, np.float32),
        make_rows(2 * BUCKETS),
        np.zeros(max(POOL_SLOTS * items, 4 * int(ROOM[0])), np.int32),
        np.zeros(3, np.int64),
        np.array([most], np.int64),
    )


@jit
def _append(state: ContentState, row: int, item: int) -> None:
    """Put an item at the end of a list, in place of the first one where it cannot grow."""
    rows, items = state.rows, state.item
    head = rows.head[row]
    held = head.held
    if held == head.room and held < ROOM[row & 1]:
        old = head.start
        start = reserve(rows, items, row)
        if start >= 0:
            for i in range(held):
                items[start + i] = items[old + i]
            settle(rows, items, row, start)
    if head.room == 0:
        return
    if held == head.room:
        for i in range(head.start, head.start + held - 1):
            items[i] = items[i + 1]
        held -= 1
    items[head.start + held] = item
    head.held = held + 1


@jit
def _remove(state: ContentState, row: int, item: int) -> None:
    """Take an item out of a list, if it is there; an empty list gives its room back."""
    items = state.item
    head = state.rows.head[row]
    kept = head.start
    for i in range(head.start, head.start + head.held):
        items[kept] = items[i]
        kept += items[i] != item
    head.held = kept - head.start
    if head.held == 0:
        release(state.rows, items, row)


@jit
def _shelve(state: ContentState, item: int, met: int, put: bool) -> None:
    """Put an item into the lists of all its tokens, or take it out."""
    for i in range(TOKENS):
        token = state.token[item, i] - 1
        if token < 0:
            return
        if put:
            _append(state, 2 * token + met, item)
        else:
            _remove(state, 2 * token + met, item)


@jit
def _measure(state: ContentState, item: int) -> None:
    """Renew an item's length."""
    square = np.float32(0.0)
    for i in range(TOKENS):
        token = state.token[item, i] - 1
        if token < 0:
            break
        square += state.weight[token] * state.weight[token]
    state.length[item] = np.sqrt(square)


@jit
def reweigh(state: ContentState) -> None:
    """Renew all weights and lengths once the catalogue has grown or shrunk enough."""
    listed, weighed = state.book[LISTED], state.book[WEIGHED]
    if 16 * abs(listed - weighed) <= weighed and listed > 0:
        return
    state.book[WEIGHED] = listed
    for token in range(len(state.often)):
        often = state.often[token]
        state.weight[token] = np.log((listed + 1.0) / often) if often > 1 else 0.0
    for item in range(len(state.length)):
        if state.status[item] != 0:
            _measure(state, item)


@jit
def drop_one(state: ContentState, item: int) -> None:
    """Forget what is listed of an item."""
    status = state.status[item]
    if status == 0:
        return
    met = int(state.met[item])
    if status & HIDDEN == 0:
        _shelve(state, item, met, False)
    state.book[LISTED] -= 1
    state.book[FRESH] -= 1 - met
    for i in range(TOKENS):
        token = state.token[item, i] - 1
        if token < 0:
            break
        state.often[token] -= 1
        if state.often[token] < 2:
            state.weight[token] = 0.0
        state.token[item, i] = 0
    state.status[item] = 0
    state.length[item] = 0.0


@jit
def _list_one(
    state: ContentState, item: int, tokens: NDArray[np.int32], time: float, hidden: bool
) -> None:
    """Learn an item's entry; one that says what was known changes nothing.

    `tokens` (TOKENS,) are padded with -1; a `hidden` item is named to nobody, but still tells what
    those who clicked it like.
    """
    same = state.status[item] != 0 and (state.status[item] & HIDDEN != 0) == hidden
    for i in range(TOKENS):
        same = same and state.token[item, i] == tokens[i] + 1
    if same:
        return
    drop_one(state, item)
    met = int(state.met[item])
    state.book[LISTED] += 1
    state.book[FRESH] += 1 - met
    for i in range(TOKENS):
        token = tokens[i]
        state.token[item, i] = token + 1
        if token < 0:
            continue
        state.often[token] += 1
        if state.often[token] == 2:
            state.weight[token] = np.log((state.book[WEIGHED] + 2.0) / 2.0)
            for row in range(2 * token, 2 * token + 2):
                if state.rows.head[row].held > 0:  # the one other item
                    _measure(state, state.item[state.rows.head[row].start])
    state.status[item] = ON_SALE | (HIDDEN if hidden else 0)
    if state.since[item] == 0.0:
        state.since[item] = time
    _measure(state, item)
    if not hidden:
        _shelve(state, item, met, True)
    reweigh(state)


@jit
def list_until(state: ContentState, listing: Listing, first: int, after: int) -> int:
    """Learn item events from the `first` on that come before click `after`; return the next one."""
    k = first
    while k < len(listing.after) and listing.after[k] <= after:
        item = listing.item[k]
        if listing.deleted[k]:
            drop_one(state, item)
            reweigh(state)
        else:
            _list_one(state, item, listing.token[k], listing.time[k], listing.hidden[k])
        k += 1
    return k


@jit
def learn_one(state: ContentState, item: int) -> None:
    """Note that an item was clicked or bought: from the first time on it is no longer fresh."""
    if state.met[item] != 0:
        return
    state.met[item] = 1
    status = state.status[item]
    state.book[FRESH] -= status != 0
    if status & ON_SALE != 0 and status & HIDDEN == 0:
        _shelve(state, item, 0, False)
        _shelve(state, item, 1, True)

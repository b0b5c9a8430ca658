"""What the outcome of a click is told by: thirteen numbers of an item and of the user's past.

The past is the newest `REACH` events of the user, or an anonymous query. A click that is learnt and
a candidate that is ranked are described by the same kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import PURCHASE
from learners.jit import jit
from learners.sources.shelves import Listing
from learners.store.history import History

__all__ = [
    "FEATURES",
    "PRICE",
    "REACH",
    "Books",
    "Past",
    "base_rate",
    "describe_item",
    "make_books",
    "make_past",
    "note_event",
    "note_prices",
    "recall",
    "recall_query",
    "value_of",
]

REACH = 32  # newest events of a user that are looked at
FEATURES = (
    *("bought_rate", "popularity", "price"),  # of the item
    *("clicked", "clicks", "bought", "clicked_in_session", "nearness"),  # of it in the past
    *("within_day", "within_hour", "just_now", "session_length", "user_rate"),
)
PRIOR_EVENTS = 10.0  # of an item, bought at the base rate
PRIOR_PAST = 20.0  # of a user, likewise
PRIOR_CLICKS = 50.0  # of everybody, that one purchase comes with
PRIOR_PURCHASES = 2.0  # of an item, at its price in the catalogue or at the mean value
EVENTS, BOUGHT, VALUE, VALUED, TIME, PRICE = range(6)


class Past(NamedTuple):
    """The newest events before now, most recent first; working memory."""

    item: NDArray[np.int32]  # (REACH,) rows, -1 for none
    bought: NDArray[np.uint8]  # (REACH,) 1 for a purchase
    age: NDArray[np.float64]  # (REACH,) seconds
    size: NDArray[np.int64]  # (3,) events, those of the running session, purchases


class Books(NamedTuple):
    """Decayed counts of items and of all events; a price is what the catalogue says."""

    item: NDArray[np.float64]  # (items, 6) events, purchases, value, purchases of it, time, price
    total: NDArray[np.float64]  # (5,) the same, without a price
    half_life: NDArray[np.float64]  # (1,) seconds


def make_past() -> Past:
    """Return an empty past."""
    return Past(
        np.full(REACH, -1, np.int32),
        np.zeros(REACH, np.uint8),
        np.zeros(REACH),
        np.zeros(3, np.int64),
    )


def make_books(items: int, half_life_seconds: float) -> Books:
    """Return books in which nothing stands."""
    return Books(np.zeros((items, 6)), np.zeros(5), np.array([half_life_seconds]))


@jit
def recall(past: Past, history: History, user: int, now: float, in_session: int) -> None:
    """Take a user's past from their ring; the last `in_session` events are of the session."""
    event, head = history.event, history.head[user]
    length, total = event.shape[1], head.total
    n = min(REACH, min(total, length))
    purchases = 0
    for back in range(n):
        met = event[user, (total - 1 - back) % length]
        past.item[back] = (met.code >> 1) - 1
        past.bought[back] = met.code & 1
        past.age[back] = max(now - np.float64(met.time), 0.0)
        purchases += met.code & 1
    past.size[0], past.size[1], past.size[2] = n, min(in_session, n), purchases


@jit
def recall_query(past: Past, items: NDArray[np.int32], kinds: NDArray[np.uint8], n: int) -> None:
    """Take the past of somebody unknown from n items of a query: one session, of just now."""
    n = min(n, REACH)
    past.age[:n] = 0.0
    purchases = 0
    for back in range(n):
        past.item[back] = items[back]
        past.bought[back] = kinds[back] == PURCHASE
        purchases += past.bought[back]
    past.size[0], past.size[1], past.size[2] = n, n, purchases


@jit
def base_rate(books: Books) -> float:
    """Purchases for each event, smoothed."""
    total = books.total
    return float((total[BOUGHT] + 1.0) / (total[EVENTS] + PRIOR_CLICKS))


@jit
def value_of(books: Books, item: int) -> float:
    """Expected value of a purchase of an item, as a share of everybody's mean."""
    total, own = books.total, books.item[item]
    if total[VALUED] <= 0.0 or total[VALUE] <= 0.0:
        return 1.0
    mean = total[VALUE] / total[VALUED]
    prior = own[PRICE] if own[PRICE] > 0.0 else mean
    return float((own[VALUE] + PRIOR_PURCHASES * prior) / (own[VALUED] + PRIOR_PURCHASES) / mean)


@jit
def _decay(row: NDArray[np.float64], time: float, half_life: float) -> None:
    if time > row[TIME]:
        factor = 2.0 ** -min((time - row[TIME]) / half_life, 1000.0)
        for i in range(TIME):
            row[i] *= factor
        row[TIME] = time


@jit
def note_event(books: Books, item: int, bought: bool, value: float, time: float) -> None:
    """Enter an event; `value` is that of a purchase, NaN where it is not told."""
    for row in (books.item[item, :5], books.total):
        _decay(row, time, books.half_life[0])
        row[EVENTS] += 1.0
        if bought:
            row[BOUGHT] += 1.0
            if np.isfinite(value):
                row[VALUE] += value
                row[VALUED] += 1.0


@jit
def note_prices(books: Books, listing: Listing, first: int, stop: int) -> None:
    """Enter what some item events, in order, say that items cost; 0 where they do not."""
    for k in range(first, stop):
        books.item[listing.item[k], PRICE] = listing.price[k]


@jit
def describe_item(
    books: Books, past: Past, item: int, now: float, base: float, out: NDArray[np.float32]
) -> bool:
    """Write what tells the outcome of a click on an item now; tell if the past has met it.

    `out` is (FEATURES,); a decayed count is read as it would stand now.
    """
    own, half_life = books.item[item], books.half_life[0]
    decay = 2.0 ** -min(max(now - own[TIME], 0.0) / half_life, 1000.0)
    events, bought = decay * own[EVENTS], decay * own[BOUGHT]
    out[0] = np.log((bought / base + PRIOR_EVENTS) / (events + PRIOR_EVENTS))
    out[1] = np.log(1.0 + events)
    out[2] = np.log(1.0 + own[PRICE]) if own[PRICE] > 0.0 else 0.0
    out[3:11] = 0.0
    n, in_session = past.size[0], past.size[1]
    clicks = purchases = here = 0
    first = -1
    for back in range(n):
        if past.item[back] == item:
            first = back if first < 0 else first
            purchases += past.bought[back]
            clicks += 1 - past.bought[back]
            here += back < in_session and past.bought[back] == 0
    if first >= 0:
        age = past.age[first]
        out[3] = 1.0 if clicks > 0 else 0.0
        out[4] = np.log(max(clicks, 1))
        out[5] = 1.0 if purchases > 0 else 0.0
        out[6] = np.log(1.0 + here)
        out[7] = np.exp(-first / 5.0)
        out[8] = np.exp(-age / 86400.0)
        out[9] = np.exp(-age / 3600.0)
        out[10] = 1.0 if age < 120.0 else 0.0
    out[11] = np.log(1.0 + in_session)
    out[12] = np.log((past.size[2] / base + PRIOR_PAST) / (n + PRIOR_PAST))
    return bool(clicks > 0 and purchases == 0)

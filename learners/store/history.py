"""Users are their recent events: a ring of the last H per user, and the session they are in.

Nothing is learnt *per user*; a query is read off the ring. A zeroed ring is an empty
one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.store.rows import Records

__all__ = [
    "CONTEXT",
    "MOST_QUERY",
    "SHORT_QUERY",
    "History",
    "append",
    "begin",
    "forget_items",
    "make_history",
    "recent",
    "times_of",
    "under_way",
]

MOST_QUERY = 20  # events of the session that a query looks back over
SHORT_QUERY = 10  # a shorter session is filled up with the user's history before it
CONTEXT = 10  # events of the session that a learnt event is related to


HEAD = np.dtype(
    [
        ("session_key", np.uint64),  # hash of the event's own session, 0 for none
        ("session_number", np.int64),  # 1 + number in the store of sessions
        ("last", np.float64),  # time of the latest event, seconds
        ("total", np.int32),  # events ever
        ("session_length", np.int32),  # events of the session so far
    ],
    align=True,
)
EVENT = np.dtype(
    [
        ("code", np.int32),  # 2 * (item row + 1) + kind, 0 for none
        ("time", np.uint32),  # seconds
    ],
    align=True,
)


class History(NamedTuple):
    """The rings of all users; rows are users."""

    head: Records  # (users,) HEAD
    event: Records  # (users, H) EVENT
    changed: NDArray[np.uint8]  # (users,) 1 once a row has changed; whoever copies them clears it


def make_history(users: int, length: int) -> History:
    """Return empty rings."""
    return History(
        np.zeros(users, HEAD), np.zeros((users, length), EVENT), np.zeros(users, np.uint8)
    )


@jit
def begin(history: History, user: int, key: np.uint64, time: float, gap_seconds: float) -> bool:
    """Tell whether an event at `time` begins a new session, and if so forget the old one.

    A session is the event's own `session` (`key`), else it is cut at `gap_seconds` of silence.
    """
    head = history.head[user]
    if head.total > 0:
        if key != 0 or head.session_key != 0:
            new = key != head.session_key
        else:
            new = time - head.last > gap_seconds
        if not new:
            return False
    head.session_key = key
    head.session_length = 0
    head.session_number = 0
    return True


@jit
def append(history: History, user: int, item: int, kind: int, time: float) -> None:
    """Add an event to a user's ring and to the session they are in."""
    head = history.head[user]
    event = history.event[user, head.total % history.event.shape[1]]
    event.code = 2 * (item + 1) + kind
    event.time = np.uint32(time)
    head.total += 1
    head.session_length += 1
    head.last = max(head.last, time)
    history.changed[user] = 1


@jit
def under_way(history: History, user: int, now: float, gap_seconds: float) -> int:
    """Return the length of the session that somebody who asks is in.

    None lasts over a silence, one with a name of its own included: who comes back names another.
    """
    head = history.head[user]
    return int(head.session_length) if now - head.last <= gap_seconds else 0


@jit
def recent(
    history: History, user: int, items: NDArray[np.int32], kinds: NDArray[np.uint8], most: int
) -> int:
    """Write a user's latest item rows and kinds, most recent first; return how many."""
    event = history.event
    length = event.shape[1]
    total = history.head[user].total
    n = min(most, min(total, length))
    for back in range(n):
        code = event[user, (total - 1 - back) % length].code
        items[back] = (code >> 1) - 1
        kinds[back] = code & 1
    return int(n)


@jit
def times_of(history: History, user: int, times: NDArray[np.float64], n: int) -> None:
    """Write the times of a user's latest n events, most recent first."""
    event = history.event
    length, total = event.shape[1], history.head[user].total
    for back in range(n):
        times[back] = event[user, (total - 1 - back) % length].time


@jit
def forget_items(history: History, first: int, stop: int, gone: NDArray[np.bool_]) -> None:
    """Blank the item rows marked in `gone` (items,) in the rings of a run of users."""
    event, changed = history.event, history.changed
    for user in range(first, stop):
        for slot in range(event.shape[1]):
            row = (event[user, slot].code >> 1) - 1
            if row >= 0 and gone[row]:
                event[user, slot].code = 0
                changed[user] = 1

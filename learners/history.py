"""Users are their recent events: a ring of the last H per user, and the session they are in.

Nothing is learnt *per user*; a query is read off the ring. Items are kept as row + 1, so that a
zeroed array is an empty one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = [
    "CONTEXT",
    "MOST_QUERY",
    "SHORT_QUERY",
    "History",
    "append",
    "begin",
    "make_history",
    "recent",
]

MOST_QUERY = 20  # events of the session that a query looks back over
SHORT_QUERY = 10  # a shorter session is filled up with the user's history before it
CONTEXT = 10  # events of the session that a learnt event is related to


class History(NamedTuple):
    """The rings of all users; rows are users."""

    item: NDArray[np.int32]  # (users, H) item row + 1
    time: NDArray[np.uint32]  # (users, H) seconds
    kind: NDArray[np.uint8]  # (users, H)
    total: NDArray[np.int64]  # (users,) events ever
    session_key: NDArray[np.uint64]  # (users,) hash of the event's session, 0 for none
    session_length: NDArray[np.int32]  # (users,) events of the session so far
    session_number: NDArray[np.int64]  # (users,) 1 + number in the store of sessions
    last: NDArray[np.float64]  # (users,) time of the latest event, seconds


def make_history(users: int, length: int) -> History:
    """Return empty rings."""
    return History(
        np.zeros((users, length), np.int32),
        np.zeros((users, length), np.uint32),
        np.zeros((users, length), np.uint8),
        np.zeros(users, np.int64),
        np.zeros(users, np.uint64),
        np.zeros(users, np.int32),
        np.zeros(users, np.int64),
        np.zeros(users, np.float64),
    )


@jit
def begin(history: History, user: int, key: np.uint64, time: float, gap_seconds: float) -> bool:
    """Tell whether an event at `time` begins a new session, and if so forget the old one.

    A session is the event's own `session` (`key`), else it is cut at `gap_seconds` of silence.
    """
    if history.total[user] > 0:
        if key != 0 or history.session_key[user] != 0:
            new = key != history.session_key[user]
        else:
            new = time - history.last[user] > gap_seconds
        if not new:
            return False
    history.session_key[user] = key
    history.session_length[user] = 0
    history.session_number[user] = 0
    return True


@jit
def append(history: History, user: int, item: int, kind: int, time: float) -> None:
    """Add an event to a user's ring and to the session they are in."""
    slot = history.total[user] % history.item.shape[1]
    history.item[user, slot] = item + 1
    history.time[user, slot] = np.uint32(time)
    history.kind[user, slot] = kind
    history.total[user] += 1
    history.session_length[user] += 1
    history.last[user] = max(history.last[user], time)


@jit
def recent(history: History, user: int, items: NDArray[np.int32], most: int) -> int:
    """Write a user's latest item rows into `items`, most recent first; return how many."""
    length = history.item.shape[1]
    n = min(most, min(history.total[user], length))
    count = history.total[user]
    for back in range(n):
        items[back] = history.item[user, (count - 1 - back) % length] - 1
    return int(n)

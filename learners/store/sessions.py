"""The store of recent sessions: a ring of S, each the items of one session in their order.

Sessions are numbered as they begin; number n stands in slot n % S until number n + S takes it.
A session longer than a slot goes on in a new one. Items are kept as row + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.store.rows import Records

__all__ = [
    "SESSION_LENGTH",
    "Sessions",
    "add",
    "forget_owners",
    "make_sessions",
    "open_session",
]

SESSION_LENGTH = 20


HEAD = np.dtype(
    [
        ("time", np.float64),  # of the latest event, seconds
        ("owner", np.int32),  # user row + 1, 0 when nobody's
        ("length", np.int32),
    ],
    align=True,
)


class Sessions(NamedTuple):
    """Recent sessions; `begun[0]` is the number of the next one."""

    head: Records  # (S,) HEAD
    weight: NDArray[np.float32]  # (S,) what length and age make of it (`rings`)
    item: NDArray[np.int32]  # (S, SESSION_LENGTH) item row + 1
    begun: NDArray[np.int64]  # (1,)


def make_sessions(capacity: int) -> Sessions:
    """Return an empty store."""
    return Sessions(
        np.zeros(capacity, HEAD),
        np.zeros(capacity, np.float32),
        np.zeros((capacity, SESSION_LENGTH), np.int32),
        np.zeros(1, np.int64),
    )


@jit
def open_session(sessions: Sessions, owner: int) -> int:
    """Begin a session for a user row; return its number."""
    number = sessions.begun[0]
    slot = number % len(sessions.head)
    head = sessions.head[slot]
    head.owner = owner + 1
    head.length = 0
    head.time = 0.0
    sessions.weight[slot] = 0.0
    for place in range(SESSION_LENGTH):
        sessions.item[slot, place] = 0
    sessions.begun[0] = number + 1
    return int(number)


@jit
def add(sessions: Sessions, slot: int, item: int, time: float) -> bool:
    """Append an item to a session that has room; return False where it is in there already."""
    head = sessions.head[slot]
    head.time = max(head.time, time)
    stored = sessions.item
    for place in range(head.length):
        if stored[slot, place] == item + 1:
            return False
    stored[slot, head.length] = item + 1
    head.length += 1
    return True


def forget_owners(sessions: Sessions, users: NDArray[np.int64], erase: bool) -> None:
    """Unname the sessions of some user rows; with `erase`, empty them too."""
    mine = np.isin(sessions.head["owner"], users + 1)
    sessions.head["owner"][mine] = 0
    if erase:
        sessions.item[mine] = 0
        sessions.weight[mine] = 0.0
        sessions.head[mine] = np.zeros(1, HEAD)[0]

"""The store of recent sessions: a ring of S, each the items of one session in their order.

Sessions are numbered as they begin; number n stands in slot n % S until number n + S takes it.
A session longer than a slot goes on in a new one. Items are kept as row + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = [
    "SESSION_LENGTH",
    "Sessions",
    "add",
    "forget_owners",
    "holds",
    "make_sessions",
    "open_session",
]

SESSION_LENGTH = 20


class Sessions(NamedTuple):
    """Recent sessions; `begun[0]` is the number of the next one."""

    item: NDArray[np.int32]  # (S, SESSION_LENGTH) item row + 1
    length: NDArray[np.int32]  # (S,)
    time: NDArray[np.float64]  # (S,) time of the latest event, seconds
    owner: NDArray[np.int32]  # (S,) user row + 1, 0 when nobody's
    begun: NDArray[np.int64]  # (1,)


def make_sessions(capacity: int) -> Sessions:
    """Return an empty store."""
    return Sessions(
        np.zeros((capacity, SESSION_LENGTH), np.int32),
        np.zeros(capacity, np.int32),
        np.zeros(capacity, np.float64),
        np.zeros(capacity, np.int32),
        np.zeros(1, np.int64),
    )


@jit
def open_session(sessions: Sessions, owner: int) -> int:
    """Begin a session for a user row; return its number."""
    number = sessions.begun[0]
    slot = number % len(sessions.length)
    sessions.item[slot, :] = 0
    sessions.length[slot] = 0
    sessions.time[slot] = 0.0
    sessions.owner[slot] = owner + 1
    sessions.begun[0] = number + 1
    return int(number)


@jit
def add(sessions: Sessions, number: int, item: int, time: float) -> None:
    """Append an item to a session that has room."""
    slot = number % len(sessions.length)
    sessions.item[slot, sessions.length[slot]] = item + 1
    sessions.length[slot] += 1
    sessions.time[slot] = max(sessions.time[slot], time)


@jit
def holds(sessions: Sessions, number: int, item: int) -> bool:
    """Tell whether an item is in a session already."""
    slot = number % len(sessions.length)
    return bool((sessions.item[slot, : sessions.length[slot]] == item + 1).any())


def forget_owners(sessions: Sessions, users: NDArray[np.int64], erase: bool) -> None:
    """Unname the sessions of some user rows; with `erase`, empty them too."""
    mine = np.isin(sessions.owner, users + 1)
    sessions.owner[mine] = 0
    if erase:
        sessions.item[mine] = 0
        sessions.length[mine] = 0
        sessions.time[mine] = 0.0

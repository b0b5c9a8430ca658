"""The index that session kNN searches: per item, a ring of the latest sessions that hold it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit
from learners.store.rows import Rows, make_rows, reserve, settle
from learners.store.sessions import SESSION_LENGTH, Sessions, add

__all__ = ["WRAP", "NeighboursState", "learn_one", "make_neighbours"]

LENGTH_POWER = 0.2  # v
WRAP = 0xFFFFFFFF
REBASE_AFTER = 60.0  # half-lives; 2^60 is far from the largest float32

_LENGTH_WEIGHT = np.maximum(np.arange(SESSION_LENGTH + 1), 1.0) ** -LENGTH_POWER


class NeighboursState(NamedTuple):
    """Rings of session numbers per item; `met` of a row is c."""

    rows: Rows
    session: NDArray[np.uint32]  # (slots,) session numbers, modulo 2^32
    most: NDArray[np.int64]  # (2,) slots of a ring at most (a power of two), k
    half_life: NDArray[np.float64]  # (1,) T, seconds
    reference: NDArray[np.float64]  # (1,) r, seconds: a session weighs |s|^-v 2^((t_s - r)/T)


def make_neighbours(
    items: int, slots_a_row: int, k: int, half_life_seconds: float
) -> NeighboursState:
    """Return empty rings with room for an eighth of all slots."""
    return NeighboursState(
        make_rows(items),
        np.zeros(max(items * slots_a_row // 8, 4 * slots_a_row), np.uint32),
        np.array([slots_a_row, k], np.int64),
        np.array([half_life_seconds]),
        np.zeros(1),
    )


@jit
def _append(state: NeighboursState, item: int, number: int) -> None:
    """Note in an item's ring that session `number` holds it."""
    rows, ring = state.rows, state.session
    head = rows.head[item]
    head.met += 1
    held = head.held
    if held == head.room and held < state.most[0]:
        old = head.start
        start = reserve(rows, ring, item)
        if start >= 0:
            for i in range(held):
                ring[start + i] = ring[old + i]
            settle(rows, ring, item, start)
    if head.room > 0:
        ring[head.start + held % head.room] = np.uint32(number & WRAP)
        head.held = held + 1


@jit
def _rebase(state: NeighboursState, sessions: Sessions, time: float) -> None:
    age = (time - state.reference[0]) / state.half_life[0]
    sessions.weight[:] *= np.float32(2.0 ** -min(age, 1000.0))
    state.reference[0] = time


@jit
def learn_one(
    state: NeighboursState, sessions: Sessions, number: int, item: int, time: float
) -> None:
    """Learn that `item` was met in session `number`, which stands in the store.

    What does not fit into the session's slot any more is left out: the engine begins a new one.
    """
    slot = number % len(sessions.head)
    full = sessions.head[slot].length == SESSION_LENGTH
    if not full and add(sessions, slot, item, time):
        _append(state, item, number)
    if state.reference[0] == 0.0:
        state.reference[0] = time
    if time - state.reference[0] > REBASE_AFTER * state.half_life[0]:
        _rebase(state, sessions, time)
    head = sessions.head[slot]
    age = (head.time - state.reference[0]) / state.half_life[0]
    sessions.weight[slot] = _LENGTH_WEIGHT[head.length] * 2.0 ** max(age, -1000.0)

"""The index that session kNN searches: per item, a ring of the latest sessions that hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.jit import jit, jit_counted
from learners.store.history import MOST_QUERY
from learners.store.rows import Rows, giver, halve, make_rows, reserve, settle
from learners.store.sessions import SESSION_LENGTH, Sessions, add

__all__ = [
    "MATCHED",
    "SCORED",
    "WRAP",
    "NeighboursState",
    "Weighing",
    "learn_one",
    "make_neighbours",
]

WRAP = 0xFFFFFFFF
REBASE_AFTER = 60.0  # half-lives; 2^60 is far from the largest float32
MATCHED, SCORED = range(2)  # of `idf_power`


@dataclass(frozen=True, slots=True)
class Weighing:
    """How neighbours are weighed: the constants of the formulas in `neighbours`."""

    query_scale: float  # a
    idf_power: float  # p
    length_power: float  # v
    vote_scale: float  # e
    vote_idf_power: float  # r
    after_scale: float  # f
    before_scale: float  # b

    @classmethod
    def of(cls, config: EngineConfig) -> Weighing:
        """Return an engine's constants: its settings `neighbour_*`."""
        return cls(*(getattr(config, f"neighbour_{field.name}") for field in fields(cls)))


class NeighboursState(NamedTuple):
    """Rings of session numbers per item; `met` of a row is c."""

    rows: Rows
    session: NDArray[np.uint32]  # (slots,) session numbers, modulo 2^32
    most: NDArray[np.int64]  # (2,) slots of a ring at most (a power of two), k
    half_life: NDArray[np.float64]  # (1,) T, seconds
    reference: NDArray[np.float64]  # (1,) t_0, seconds: a session weighs |s|^-v 2^((t_s - t_0)/T)
    query_weight: NDArray[np.float64]  # (MOST_QUERY,) e^(-d/a)
    length_weight: NDArray[np.float64]  # (SESSION_LENGTH + 1,) |s|^-v
    vote_weight: NDArray[np.float32]  # (MOST_QUERY,) e^(-d/e)
    step_weight: NDArray[np.float32]  # by j - j_0, from -(SESSION_LENGTH - 1) on
    idf_power: NDArray[np.float64]  # (2,) p of MATCHED items, r of SCORED ones


def make_neighbours(
    items: int, slots_a_row: int, k: int, half_life_seconds: float, weighing: Weighing
) -> NeighboursState:
    """Return empty rings with room for an eighth of all slots."""
    steps, distances = np.arange(SESSION_LENGTH), np.arange(MOST_QUERY)
    before = np.exp(-steps[:0:-1] / weighing.before_scale)
    after = np.exp(-steps / weighing.after_scale)
    return NeighboursState(
        make_rows(items),
        np.zeros(max(items * slots_a_row // 8, 4 * slots_a_row), np.uint32),
        np.array([slots_a_row, k], np.int64),
        np.array([half_life_seconds]),
        np.zeros(1),
        np.array([math.exp(-d / weighing.query_scale) for d in range(MOST_QUERY)]),
        np.maximum(np.arange(SESSION_LENGTH + 1), 1.0) ** -weighing.length_power,
        np.exp(-distances / weighing.vote_scale).astype(np.float32),
        np.concatenate([before, after]).astype(np.float32),
        np.array([weighing.idf_power, weighing.vote_idf_power]),
    )


@jit_counted
def _give_half(state: NeighboursState, row: int) -> bool:
    """Let a row, if any, keep the newer half of its ring."""
    if row < 0:
        return False
    head, ring = state.rows.head[row], state.session
    room = np.int64(head.room)
    kept = min(head.held, room // 2)
    newest = np.empty(kept, np.uint32)
    for i in range(kept):
        newest[i] = ring[head.start + (head.held - kept + i) % room]
    for i in range(kept):
        ring[head.start + i] = newest[i]
    head.held = kept
    halve(state.rows, ring, row)
    return True


@jit
def _append(state: NeighboursState, item: int, number: int) -> None:
    """Note in an item's ring that session `number` holds it."""
    rows, ring = state.rows, state.session
    head = rows.head[item]
    head.met += 1
    held, room = head.held, np.int64(head.room)
    if held >= room and held & (room - 1) == 0 and room < state.most[0]:  # the oldest is first
        start = reserve(rows, ring, item)
        if start < 0 and _give_half(state, giver(rows, ring, item)):
            start = reserve(rows, ring, item)
        if start >= 0:
            old, held = head.start, room
            for i in range(held):
                ring[start + i] = ring[old + i]
            settle(rows, ring, item, start)
    if head.room > 0:
        ring[head.start + held % head.room] = np.uint32(number & WRAP)
        head.held = held + 1


@jit_counted
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
    sessions.weight[slot] = state.length_weight[head.length] * 2.0 ** max(age, -1000.0)

r"""What follows what: item to item, forward and backward, weighted by distance, at two half-lives.

On event y in a session, each earlier item x at distance d of at most `history.CONTEXT` adds
:math:`1/d` to F[x][y] and to B[y][x]. A row is decayed to the time of its own last event
whenever it is touched, so no sum is ever rebased and a straggler is merely worth less. A full
row gives up its smallest slow weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source
from learners.jit import jit
from learners.rows import Rows, make_rows, release, reserve, settle

__all__ = [
    "BACKWARD_SHARE",
    "QUERY_ITEMS",
    "Table",
    "Transitions",
    "TransitionsState",
    "learn_one",
    "make_transitions",
]

QUERY_ITEMS = 10  # distinct items of a query that are looked up
BACKWARD_SHARE = 0.5  # of a backward weight, where one score is wanted
FRESH = np.float32(1e-12)  # a decayed weight below this is nothing


class Table(NamedTuple):
    """Sparse rows of (item, slow weight, fast weight); rows are items."""

    rows: Rows
    item: NDArray[np.int32]  # (slots,)
    slow: NDArray[np.float32]  # (slots,)
    fast: NDArray[np.float32]  # (slots,)
    touched: NDArray[np.float64]  # (items,) the time a row's weights stand at, seconds


class TransitionsState(NamedTuple):
    """Both tables and their constants."""

    forward: Table
    backward: Table
    half_life: NDArray[np.float64]  # (2,) slow, fast; seconds
    most: NDArray[np.int64]  # (1,) slots of a row at most, a power of two


def _make_table(items: int, slots: int) -> Table:
    return Table(
        make_rows(items),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.float32),
        np.zeros(slots, np.float32),
        np.zeros(items),
    )


def make_transitions(
    items: int, half_lives_seconds: tuple[float, float], slots_a_row: int
) -> TransitionsState:
    """Return empty tables with room for half of all slots."""
    slots = max(items * slots_a_row // 2, 4 * slots_a_row)
    return TransitionsState(
        _make_table(items, slots),
        _make_table(items, slots),
        np.array(half_lives_seconds, np.float64),
        np.array([slots_a_row], np.int64),
    )


@jit
def _decay_row(table: Table, row: int, time: float, half_life: NDArray[np.float64]) -> None:
    elapsed = time - table.touched[row]
    if elapsed <= 0.0:
        return
    table.touched[row] = time
    slow = np.float32(2.0 ** (-elapsed / half_life[0]))
    fast = np.float32(2.0 ** (-elapsed / half_life[1]))
    start = table.rows.start[row]
    for slot in range(start, start + table.rows.held[row]):
        table.slow[slot] *= slow
        table.fast[slot] *= fast


@jit
def _free_slot(table: Table, row: int, most: int) -> int:
    """Return the slot for a new entry: the next one, one in a larger block, or the smallest's."""
    rows = table.rows
    count = rows.held[row]
    if count == rows.room[row] and count < most:
        old = rows.start[row]
        start = reserve(rows, table.item, row)
        if start >= 0:
            for i in range(count):
                table.item[start + i] = table.item[old + i]
                table.slow[start + i] = table.slow[old + i]
                table.fast[start + i] = table.fast[old + i]
            settle(rows, table.item, row, start)
    if count < rows.room[row]:
        rows.held[row] = count + 1
        return int(rows.start[row] + count)
    smallest = rows.start[row]
    for slot in range(rows.start[row] + 1, rows.start[row] + count):
        if table.slow[slot] < table.slow[smallest]:
            smallest = slot
    return int(smallest)


@jit
def _add(
    table: Table,
    row: int,
    item: int,
    weight: float,
    time: float,
    half_life: NDArray[np.float64],
    most: int,
) -> None:
    """Add to one entry of a row, the weight decayed to the row's time if the event is late."""
    late = max(table.touched[row] - time, 0.0)
    slow = np.float32(weight)
    fast = np.float32(weight)
    if late > 0.0:
        slow *= np.float32(2.0 ** (-late / half_life[0]))
        fast *= np.float32(2.0 ** (-late / half_life[1]))
    start = table.rows.start[row]
    for slot in range(start, start + table.rows.held[row]):
        if table.item[slot] == item:
            table.slow[slot] += slow
            table.fast[slot] += fast
            return
    slot = _free_slot(table, row, most)
    if slot < len(table.item) and table.rows.room[row] > 0:
        table.item[slot] = item
        table.slow[slot] = slow
        table.fast[slot] = fast


@jit
def learn_one(
    state: TransitionsState, context: NDArray[np.int32], n: int, item: int, time: float
) -> None:
    """Learn that `item` followed the `n` items of `context` (most recent first) in its session."""
    most = state.most[0]
    if n > 0:
        _decay_row(state.backward, item, time, state.half_life)
    for i in range(n):
        other = context[i]
        if other < 0 or other == item:
            continue
        weight = 1.0 / (i + 1)
        _decay_row(state.forward, other, time, state.half_life)
        _add(state.forward, other, item, weight, time, state.half_life, most)
        _add(state.backward, item, other, weight, time, state.half_life, most)


@jit
def _learn(state: TransitionsState, events: Interactions) -> None:
    for i in range(len(events.item)):
        n = 0
        while n < events.context.shape[1] and events.context[i, n] >= 0:
            n += 1
        learn_one(state, events.context[i], n, events.item[i], events.time[i])


@jit
def _score(
    state: TransitionsState, query: NDArray[np.int32], now: float, out: NDArray[np.float64]
) -> None:
    found = 0
    for i in range(len(query)):
        x = query[i]
        repeated = x < 0
        for j in range(i):
            repeated = repeated or query[j] == x
        if repeated or found == QUERY_ITEMS:
            continue
        found += 1
        for table, share in ((state.forward, 1.0), (state.backward, BACKWARD_SHARE)):
            age = max(now - table.touched[x], 0.0) / state.half_life[0]
            weight = share * 2.0**-age / (1.0 + i)
            start = table.rows.start[x]
            for slot in range(start, start + table.rows.held[x]):
                if table.item[slot] < len(out):
                    out[table.item[slot]] += weight * table.slow[slot]


@jit
def _forget(table: Table, gone: NDArray[np.bool_]) -> None:
    for row in range(len(gone)):
        if table.rows.room[row] == 0:
            continue
        if gone[row]:
            release(table.rows, table.item, row)
            table.touched[row] = 0.0
            continue
        kept = start = table.rows.start[row]
        for slot in range(start, start + table.rows.held[row]):
            if not gone[table.item[slot]]:
                table.item[kept] = table.item[slot]
                table.slow[kept] = table.slow[slot]
                table.fast[kept] = table.fast[slot]
                kept += 1
        table.rows.held[row] = kept - start


class Transitions(Source):
    """Forward plus half of backward transitions, at the slow half-life.

    Examples
    --------
    >>> from learners.checks import interactions
    >>> transitions = Transitions(items=10)
    >>> transitions.learn(interactions([(0, 3), (0, 5), (1, 3), (1, 5)]))
    >>> transitions.score(Query(np.array([3], np.int32), now=4.0), n_items=6).argmax()
    np.int64(5)
    """

    name = "transitions"

    def __init__(
        self,
        items: int,
        half_lives_seconds: tuple[float, float] = (30 * 86400.0, 3 * 86400.0),
        slots_a_row: int = 64,
    ) -> None:
        self.arrays = make_transitions(items, half_lives_seconds, slots_a_row)

    def learn(self, interactions: Interactions) -> None:
        _learn(self.arrays, interactions)

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        out = np.zeros(n_items)
        known = np.where(query.items < n_items, query.items, -1).astype(np.int32)
        _score(self.arrays, known, query.now, out)
        return out

    def state(self) -> dict[str, NDArray[np.generic]]:
        state: dict[str, NDArray[np.generic]] = {}
        for name, table in self._tables():
            used = np.flatnonzero(table.rows.room)
            n = int(used[-1]) + 1 if len(used) else 0
            top = int(table.rows.top[0])
            for column in ("start", "room", "held"):
                state[f"{name}.{column}"] = getattr(table.rows, column)[:n]
            state[f"{name}.touched"] = table.touched[:n]
            for column in ("item", "slow", "fast"):
                state[f"{name}.{column}"] = getattr(table, column)[:top]
            state[f"{name}.free"] = table.rows.free
            state[f"{name}.top"] = table.rows.top
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        for name, table in self._tables():
            for column in (*Rows._fields, "touched", "item", "slow", "fast"):
                array = state[f"{name}.{column}"]
                mine = getattr(table.rows if column in Rows._fields else table, column)
                mine[len(array) :] = 0
                mine[: len(array)] = array

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        gone = np.zeros(len(self.arrays.forward.touched), np.bool_)
        gone[rows] = True
        for _, table in self._tables():
            _forget(table, gone)

    def _tables(self) -> tuple[tuple[str, Table], tuple[str, Table]]:
        return ("forward", self.arrays.forward), ("backward", self.arrays.backward)

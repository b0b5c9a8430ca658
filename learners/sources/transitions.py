r"""What follows what: item to item, forward and backward, weighted by distance, at two half-lives.

On event y at time t in a session, each earlier item x at distance d of at most `history.CONTEXT`
adds :math:`2^{(t-r)/h}/d` to F[x][y] and to B[y][x], with r the row's own reference time; read at
time t, a weight counts :math:`2^{-(t-r)/h}`. So nothing is decayed until r is so long ago that a
sum might overflow, and then one row only; a straggler is merely worth less. A full row gives up its
smallest slow weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source
from learners.jit import jit
from learners.store.rows import Records, Rows, make_rows, refill, release, reserve, settle

__all__ = [
    "BACKWARD_SHARE",
    "QUERY_ITEMS",
    "Table",
    "Transitions",
    "TransitionsState",
    "decay",
    "learn_one",
    "make_transitions",
]

QUERY_ITEMS = 10  # distinct items of a query that are looked up
BACKWARD_SHARE = 0.5  # of a backward weight, where one score is wanted
REBASE_AFTER = 60.0  # half-lives; 2^60 is far from the largest float32


ENTRY = np.dtype([("item", np.int32), ("slow", np.float32), ("fast", np.float32)], align=True)


class Table(NamedTuple):
    """Sparse rows of entries; rows are items, `time` of a row is its reference r."""

    rows: Rows
    entry: Records  # (slots,) ENTRY


class TransitionsState(NamedTuple):
    """Both tables and their constants."""

    forward: Table
    backward: Table
    half_life: NDArray[np.float64]  # (2,) slow, fast; seconds
    most: NDArray[np.int64]  # (1,) slots of a row at most, a power of two


def _make_table(items: int, slots: int) -> Table:
    return Table(make_rows(items), np.zeros(slots, ENTRY))


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
def decay(half_life: NDArray[np.float64], age: float) -> tuple[float, float]:
    """Return what slow and fast weights count after `age` seconds; below 0, the inverse."""
    slow = min(max(-age / half_life[0], -1000.0), 1000.0)
    fast = min(max(-age / half_life[1], -1000.0), 1000.0)
    return 2.0**slow, 2.0**fast


@jit
def _weights(
    table: Table, row: int, time: float, half_life: NDArray[np.float64]
) -> tuple[float, float]:
    """Return what an event at `time` adds to a row's slow and fast weights."""
    head = table.rows.head[row]
    if head.held == 0:
        head.time = time
    age = time - head.time
    if age > REBASE_AFTER * half_life[1]:
        entry = table.entry
        slow, fast = decay(half_life, age)
        for slot in range(head.start, head.start + head.held):
            entry[slot].slow *= np.float32(slow)
            entry[slot].fast *= np.float32(fast)
        head.time = time
        age = 0.0
    return decay(half_life, -age)


@jit
def _free_slot(table: Table, row: int, most: int) -> int:
    """Return the slot for a new entry: the next one, one in a larger block, or the smallest's."""
    entry = table.entry
    head = table.rows.head[row]
    held = head.held
    if held == head.room and held < most:
        old = head.start
        start = reserve(table.rows, entry["item"], row)
        if start >= 0:
            for i in range(held):
                entry[start + i] = entry[old + i]
            settle(table.rows, entry["item"], row, start)
    if held < head.room:
        head.held = held + 1
        return int(head.start + held)
    if held == 0:
        return -1
    smallest = head.start
    for slot in range(head.start + 1, head.start + held):
        if entry[slot].slow < entry[smallest].slow:
            smallest = slot
    return int(smallest)


@jit
def _add(table: Table, row: int, item: int, slow: float, fast: float, most: int) -> None:
    """Add to one entry of a row."""
    entry = table.entry
    head = table.rows.head[row]
    for slot in range(head.start, head.start + head.held):
        if entry[slot].item == item:
            entry[slot].slow += np.float32(slow)
            entry[slot].fast += np.float32(fast)
            return
    slot = _free_slot(table, row, most)
    if slot >= 0:
        entry[slot].item = item
        entry[slot].slow = slow
        entry[slot].fast = fast


@jit
def learn_one(
    state: TransitionsState, context: NDArray[np.int32], n: int, item: int, time: float
) -> None:
    """Learn that `item` followed the `n` items of `context` (most recent first) in its session."""
    most = state.most[0]
    back_slow, back_fast = 0.0, 0.0
    for i in range(n):
        other = context[i]
        if other < 0 or other == item:
            continue
        if back_slow == 0.0:
            back_slow, back_fast = _weights(state.backward, item, time, state.half_life)
        slow, fast = _weights(state.forward, other, time, state.half_life)
        near = 1.0 / (i + 1)
        _add(state.forward, other, item, near * slow, near * fast, most)
        _add(state.backward, item, other, near * back_slow, near * back_fast, most)


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
            head, entry = table.rows.head[x], table.entry
            slow, _ = decay(state.half_life, now - head.time)
            weight = share * slow / (1.0 + i)
            for slot in range(head.start, head.start + head.held):
                if entry[slot].item < len(out):
                    out[entry[slot].item] += weight * entry[slot].slow


@jit
def _forget(table: Table, gone: NDArray[np.bool_]) -> None:
    entry = table.entry
    for row in range(len(gone)):
        head = table.rows.head[row]
        if gone[row]:
            release(table.rows, entry["item"], row)
            continue
        kept = head.start
        for slot in range(head.start, head.start + head.held):
            if not gone[entry[slot].item]:
                entry[kept] = entry[slot]
                kept += 1
        head.held = kept - head.start


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
            used = np.flatnonzero(table.rows.head["room"])
            n = int(used[-1]) + 1 if len(used) else 0
            state[f"{name}.row"] = table.rows.head[:n]
            state[f"{name}.entry"] = table.entry[: int(table.rows.top[0])]
            state[f"{name}.free"] = table.rows.free
            state[f"{name}.top"] = table.rows.top
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        for name, table in self._tables():
            refill(table.rows.head, state[f"{name}.row"])
            refill(table.entry, state[f"{name}.entry"])
            table.rows.free[:] = state[f"{name}.free"]
            table.rows.top[:] = state[f"{name}.top"]

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        gone = np.zeros(len(self.arrays.forward.rows.head), np.bool_)
        gone[rows] = True
        for _, table in self._tables():
            _forget(table, gone)

    def _tables(self) -> tuple[tuple[str, Table], tuple[str, Table]]:
        return ("forward", self.arrays.forward), ("backward", self.arrays.backward)

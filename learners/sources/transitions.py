r"""What follows what: item to item, forward and backward, weighted by distance, at two half-lives.

On event y at time t in a session, each earlier item x at distance d of at most `history.CONTEXT`
adds :math:`2^{(t-r)/h}/d` to F[x][y] and to B[y][x], with r a reference time common to all; read at
time t, a weight counts :math:`2^{-(t-r)/h}`. So nothing is decayed until r is so long ago that a
sum might overflow; a straggler is merely worth less. A full row gives up its smallest slow weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source, no_pause
from learners.jit import LINE, jit, jit_counted, prefetch
from learners.store.rows import (
    Rows,
    giver,
    halve,
    make_rows,
    refill,
    release,
    reserve,
    settle,
)
from learners.vector import find, smallest

__all__ = [
    "BACKWARD_SHARE",
    "QUERY_ITEMS",
    "Table",
    "Transitions",
    "TransitionsState",
    "decay",
    "learn_one",
    "make_transitions",
    "prefetch_row",
]

QUERY_ITEMS = 10  # distinct items of a query that are looked up
BACKWARD_SHARE = 0.5  # of a backward weight, where one score is wanted
REBASE_AFTER = 60.0  # half-lives; 2^60 is far from the largest float32
ROWS_AT_ONCE = 20_000  # swept before others may ask
COLUMNS = ("item", "slow", "fast")  # of an entry


class Table(NamedTuple):
    """Sparse rows of entries; rows are items. Columns, because a row is searched by one of them."""

    rows: Rows
    item: NDArray[np.int32]  # (slots,)
    slow: NDArray[np.float32]  # (slots,) relative to `reference`
    fast: NDArray[np.float32]  # (slots,)


class TransitionsState(NamedTuple):
    """Both tables and their constants."""

    forward: Table
    backward: Table
    half_life: NDArray[np.float64]  # (2,) slow, fast; seconds
    reference: NDArray[np.float64]  # (1,) r, seconds
    most: NDArray[np.int64]  # (1,) slots of a row at most, a power of two


def _make_table(items: int, slots: int) -> Table:
    return Table(
        make_rows(items),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.float32),
        np.zeros(slots, np.float32),
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
        np.zeros(1),
        np.array([slots_a_row], np.int64),
    )


@jit
def decay(state: TransitionsState, now: float) -> tuple[float, float]:
    """Return what slow and fast weights count at a time, in seconds; above 1 before the reference.

    Whoever asks about a time so early is told what counted at the reference.
    """
    age = now - state.reference[0]
    slow = min(max(-age / state.half_life[0], -1000.0), 1000.0)
    fast = min(max(-age / state.half_life[1], -1000.0), 1000.0)
    return 2.0**slow, 2.0**fast


@jit
def prefetch_row(table: Table, row: int) -> None:
    """Ask for a row's entries, some steps before they are read."""
    head = table.rows.head[row]
    for slot in range(head.start, head.start + head.held, LINE):
        prefetch(table.item, slot)
        prefetch(table.slow, slot)
        prefetch(table.fast, slot)


@jit_counted
def _rebase(state: TransitionsState, time: float) -> None:
    slow, fast = decay(state, time)
    for table in (state.forward, state.backward):
        used = table.rows.top[0]
        table.slow[:used] *= np.float32(slow)
        table.fast[:used] *= np.float32(fast)
    state.reference[0] = time


@jit
def _give_half(table: Table, row: int) -> bool:
    """Let a row, if any, keep the half of its entries that weigh most."""
    if row < 0:
        return False
    item, slow, fast = table.item, table.slow, table.fast
    head = table.rows.head[row]
    most = head.room // 2
    while head.held > most:
        least = smallest(slow, head.start, head.held)
        head.held -= 1
        last = head.start + head.held
        item[least], slow[least], fast[least] = item[last], slow[last], fast[last]
    halve(table.rows, item, row)
    return True


@jit
def _free_slot(table: Table, row: int, most: int) -> int:
    """Return the slot for a new entry: the next one, one in a larger block, or the smallest's."""
    item, slow, fast = table.item, table.slow, table.fast
    head = table.rows.head[row]
    held = head.held
    if held == head.room and held < most:
        start = reserve(table.rows, item, row)
        if start < 0 and _give_half(table, giver(table.rows, item, row)):
            start = reserve(table.rows, item, row)
        if start >= 0:
            old = head.start
            for i in range(held):
                item[start + i] = item[old + i]
                slow[start + i] = slow[old + i]
                fast[start + i] = fast[old + i]
            settle(table.rows, item, row, start)
    if held < head.room:
        head.held = held + 1
        return int(head.start + held)
    return smallest(slow, head.start, held) if held > 0 else -1


@jit
def _add(table: Table, row: int, item: int, slow: float, fast: float, most: int) -> None:
    """Add to one entry of a row."""
    head = table.rows.head[row]
    slot = find(table.item, head.start, head.held, item)
    if slot >= 0:
        table.slow[slot] += np.float32(slow)
        table.fast[slot] += np.float32(fast)
        return
    slot = _free_slot(table, row, most)
    if slot >= 0:
        table.item[slot] = item
        table.slow[slot] = slow
        table.fast[slot] = fast


@jit
def learn_one(
    state: TransitionsState, context: NDArray[np.int32], n: int, item: int, time: float
) -> None:
    """Learn that `item` followed the `n` items of `context` (most recent first) in its session."""
    most = state.most[0]
    if state.reference[0] == 0.0:
        state.reference[0] = time
    if time - state.reference[0] > REBASE_AFTER * min(state.half_life[0], state.half_life[1]):
        _rebase(state, time)
    slow, fast = decay(state, time)
    for i in range(n):
        if context[i] >= 0:
            prefetch_row(state.forward, context[i])
    for i in range(n):
        other = context[i]
        if other >= 0 and other != item:
            weight = 1.0 / (i + 1)
            _add(state.forward, other, item, weight / slow, weight / fast, most)
            _add(state.backward, item, other, weight / slow, weight / fast, most)


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
    slow, _ = decay(state, max(now, state.reference[0]))
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
            head, item = table.rows.head[x], table.item
            weight = share * slow / (1.0 + i)
            for slot in range(head.start, head.start + head.held):
                if item[slot] < len(out):
                    out[item[slot]] += weight * table.slow[slot]


@jit
def _forget(table: Table, first: int, stop: int, gone: NDArray[np.bool_]) -> None:
    """Release the rows of gone items in a run of rows, and take those items out of the others."""
    item, slow, fast = table.item, table.slow, table.fast
    for row in range(first, stop):
        head = table.rows.head[row]
        if gone[row]:
            release(table.rows, item, row)
            continue
        kept = head.start
        for slot in range(head.start, head.start + head.held):
            if not gone[item[slot]]:
                item[kept], slow[kept], fast[kept] = item[slot], slow[slot], fast[slot]
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
        state: dict[str, NDArray[np.generic]] = {"reference": self.arrays.reference}
        for name, table in self._tables():
            rows = np.flatnonzero(table.rows.head["room"])
            state[f"{name}.row"] = table.rows.head[: int(rows[-1]) + 1 if len(rows) else 0]
            used = int(table.rows.top[0])
            for column in COLUMNS:
                state[f"{name}.{column}"] = getattr(table, column)[:used]
            state[f"{name}.free"] = table.rows.free
            state[f"{name}.top"] = table.rows.top
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self.arrays.reference[:] = state["reference"]
        for name, table in self._tables():
            refill(table.rows.head, state[f"{name}.row"])
            for column in COLUMNS:
                refill(getattr(table, column), state[f"{name}.{column}"])
            table.rows.free[:] = state[f"{name}.free"]
            table.rows.top[:] = state[f"{name}.top"]

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        gone = np.zeros(len(self.arrays.forward.rows.head), np.bool_)
        gone[rows] = True
        for _, table in self._tables():
            for first in range(0, len(gone), ROWS_AT_ONCE):
                _forget(table, first, min(first + ROWS_AT_ONCE, len(gone)), gone)
                pause()

    def _tables(self) -> tuple[tuple[str, Table], tuple[str, Table]]:
        return ("forward", self.arrays.forward), ("backward", self.arrays.backward)

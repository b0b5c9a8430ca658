"""Trails: the newest events of each user, and which of them the deep model is still to be taught.

An event is handed out once as something to foresee; the events before it come along as context.
What a user would ask is read off the trail as a node reads it off its history: the session so far,
or more where that is short (`learners.prequential.ask_user`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.deep.histories import Histories
from learners.store.history import MOST_QUERY, SHORT_QUERY

__all__ = ["Taught", "Trails", "chained", "no_histories"]

CONTEXT = 12  # events of before that come along with new ones
SPARE = 14  # events that a trail holds beyond what is asked of it: room is made for so many at once

HEADS = ("held", "taught", "session", "in_session", "last")  # names of what `_heads` returns
Taught = tuple[NDArray[np.uint64], Histories]  # users (m,), and their sequences


def no_histories() -> Histories:
    """Return no sequences at all."""
    none = np.zeros(0, np.int64)
    return Histories(
        none.astype(np.int32), none.astype(np.uint8), np.zeros(0), np.zeros(1, int), none
    )


def chained(parts: Sequence[Histories]) -> Histories:
    """Return the sequences of all parts, one after the other; of at least one part."""
    ends = np.cumsum([len(part.item) for part in parts])
    return Histories(
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate(
            [
                [0],
                *(
                    part.start[1:] + end - len(part.item)
                    for part, end in zip(parts, ends, strict=True)
                ),
            ]
        ).astype(np.int64),
        np.concatenate([part.looked_back for part in parts]),
    )


class Trails:
    """The newest events of a bounded number of users; the longest silent makes room.

    Parameters
    ----------
    users : int
        Users followed at most.
    length : int
        Events of a user that can be asked for.
    gap_seconds : float
        Silence that ends a session where events name none.

    Examples
    --------
    >>> trails = Trails(users=10, length=50)
    >>> for item in (3, 1, 2):
    ...     trails.append(7, item, 0, 0.0)
    >>> users, histories = trails.hand_out()
    >>> users, histories.item, histories.targets
    (array([7], dtype=uint64), array([3, 1, 2], dtype=int32), 2)
    >>> trails.append(7, 5, 0, 0.0)
    >>> trails.hand_out()[1].targets
    1
    """

    def __init__(self, users: int, length: int, gap_seconds: float = 1800.0) -> None:
        self.length, self.gap_seconds = length, gap_seconds
        self._rows: dict[int, int] = {}  # by hash; the longest silent first
        most = length + SPARE
        self.item = np.zeros((users, most), np.int32)
        self.kind = np.zeros((users, most), np.uint8)
        self.time = np.zeros((users, most))
        self._held = np.zeros(users, np.int64)  # events of each trail
        self._taught = np.zeros(users, np.int64)  # those of them handed out
        self._session = np.zeros(users, np.uint64)  # hash of the latest event's, 0 for none
        self._in_session = np.zeros(users, np.int64)  # events of it so far
        self._last = np.zeros(users)  # time of the latest event, seconds
        self._waiting: list[tuple[int, Histories]] = []  # handed out early, as they were many

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, user: int, item: int, kind: int, time: float, session: int = 0) -> None:
        """Take an event of a user; both are known by the hashes of their ids."""
        row = self._rows.pop(user, -1)
        if row < 0:
            row = len(self._rows) if len(self._rows) < len(self._held) else self._evict()
        self._rows[user] = row
        if self._begins(row, session, time):
            self._session[row], self._in_session[row] = session, 0
        self._in_session[row] += 1
        place = int(self._held[row])
        self._last[row] = max(time, float(self._last[row])) if place else time
        if place == self.item.shape[1]:
            place = self._make_room(row)
        self.item[row, place] = item
        self.kind[row, place] = kind
        self.time[row, place] = time
        self._held[row] = place + 1
        if place + 1 - self._taught[row] > self.length - CONTEXT:
            self._hand_out_early(user, row)

    def _begins(self, row: int, session: int, time: float) -> bool:
        """Tell whether an event begins a session, as `learners.store.history.begin` does."""
        own = int(self._session[row])
        if session or own:
            return session != own
        return time - float(self._last[row]) > self.gap_seconds

    def question(self, user: int, time: float, session: int = 0) -> Histories | None:
        """Return what a node would ask with before an event, `None` where there is nothing."""
        row = self._rows.get(user, -1)
        begins = row < 0 or self._begins(row, session, time)
        so_far = 0 if begins else int(self._in_session[row])
        return self.of(user, max(min(so_far, MOST_QUERY), SHORT_QUERY))

    def of(self, user: int, most: int | None = None) -> Histories | None:
        """Return a copy of a user's newest events, `None` where there are none."""
        row = self._rows.get(user, -1)
        if row < 0:
            return None
        end = int(self._held[row])
        begin = max(end - min(most or self.length, self.length), 0)
        part = slice(begin, end)
        start = np.array([0, end - begin])
        return Histories(
            self.item[row, part].copy(),
            self.kind[row, part].copy(),
            self.time[row, part].copy(),
            start,
        )

    def hand_out(self) -> Taught:
        """Return what was not handed out yet, in the order in which users fell silent."""
        users = np.fromiter(self._rows, np.uint64, len(self._rows))
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        due = self._held[rows] > np.maximum(self._taught[rows], 1)
        early = [histories for _, histories in self._waiting]
        owners = np.array([user for user, _ in self._waiting], np.uint64)
        self._waiting = []
        together = chained([*early, self._take(rows[due])])
        return np.concatenate([owners, users[due]]), together

    def _take(self, rows: NDArray[np.int64]) -> Histories:
        """Return what is new in some trails, and note that it is handed out."""
        most = self.item.shape[1]
        taught, held = self._taught[rows], self._held[rows]
        begin = np.maximum(taught - CONTEXT, 0)
        flat = Histories(
            self.item.reshape(-1),
            self.kind.reshape(-1),
            self.time.reshape(-1),
            np.arange(len(self._held) + 1) * most,
        )
        cut = flat.cut(rows * most + begin, held - begin, np.maximum(taught - begin, 1))
        self._taught[rows] = held
        return cut

    def _make_room(self, row: int) -> int:
        """Drop a trail's oldest events, handed out before; return where the next one goes."""
        kept = self.length
        for array in (self.item, self.kind, self.time):
            array[row, :kept] = array[row, SPARE:].copy()
        self._held[row] = kept
        self._taught[row] -= SPARE
        return kept

    def _evict(self) -> int:
        user = next(iter(self._rows))
        row = self._rows.pop(user)
        if self._held[row] > max(self._taught[row], 1):
            self._hand_out_early(user, row)
        for array in self._heads():
            array[row] = 0
        return row

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.item, self.kind, self.time, *self._heads()

    def _heads(self) -> tuple[NDArray[Any], ...]:
        """Return what there is one number of for each trail."""
        return self._held, self._taught, self._session, self._in_session, self._last

    def _hand_out_early(self, user: int, row: int) -> None:
        self._waiting.append((user, self._take(np.array([row]))))

    def erase(self, user: int) -> None:
        """Forget a user."""
        self._waiting = [part for part in self._waiting if part[0] != user]
        row = self._rows.pop(user, -1)
        if row < 0:
            return
        last = len(self._rows)
        if row != last:  # rows stay without gaps: the last one moves
            mover = next(user for user, its in self._rows.items() if its == last)
            self._rows[mover] = row
            for array in self._arrays():
                array[row] = array[last]
        for array in self._arrays():
            array[last] = 0

    def forget_items(self, gone: NDArray[np.int64]) -> None:
        """Mark items that lose their rows: -1."""
        self.item[np.isin(self.item, gone)] = -1
        for _, histories in self._waiting:
            histories.item[np.isin(histories.item, gone)] = -1

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as named arrays, as long as what is kept."""
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        most = self.item.shape[1]
        held = self._held[rows]
        start = np.concatenate([[0], np.cumsum(held)])
        places = np.arange(start[-1]) + np.repeat(rows * most - start[:-1], held)
        early = chained([no_histories(), *(histories for _, histories in self._waiting)])
        return {
            "user": np.fromiter(self._rows, np.uint64, len(self._rows)),
            **{name: array[rows] for name, array in zip(HEADS, self._heads(), strict=True)},
            "item": self.item.reshape(-1)[places],
            "kind": self.kind.reshape(-1)[places],
            "time": self.time.reshape(-1)[places],
            "early_user": np.array([user for user, _ in self._waiting], np.uint64),
            "early_item": early.item,
            "early_kind": early.kind,
            "early_time": early.time,
            "early_start": early.start,
            "early_context": early.looked_back,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the trails that gave this state."""
        plain = {name: np.array(array) for name, array in state.items()}
        count, held = len(plain["user"]), plain["held"]
        if count > len(self._held):
            raise ValueError(f"the state is of {count} users, {len(self._held)} can be followed")
        self._rows = dict(zip(plain["user"].tolist(), range(count), strict=True))
        for name, array in zip(HEADS, self._heads(), strict=True):
            array[:] = 0
            array[:count] = plain[name]
        row = np.repeat(np.arange(count), held)
        column = np.arange(len(row)) - np.repeat(np.cumsum(held) - held, held)
        for name in ("item", "kind", "time"):
            getattr(self, name)[row, column] = plain[name]
        early = Histories(
            *(plain[f"early_{name}"] for name in ("item", "kind", "time", "start", "context"))
        )
        self._waiting = [
            (user, early.take(np.array([i]))) for i, user in enumerate(plain["early_user"].tolist())
        ]

"""What was shown in exploration slots, and what of it was clicked: all that exploration learns.

An impression names the items that it explored. Each counts as shown at once, and as clicked when
its user clicks or buys it within `WINDOW_SECONDS`; so a click that is still to come counts as none
until it is there. To wait with every miss until its window ends would count clicks before misses,
and make each new item look good. A node hears of its impressions a moment after the answer: a click
that was learnt first is found among the latest ones.

Items are known by their ids and users by hashes, not by rows, so the same events give the same
books however they were cut into batches and whatever was evicted meanwhile. Everything is bounded;
where nothing was ever explored, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from learners.base import ERASURE, PURCHASE, Batch
from learners.store.texts import Texts, keys_64
from learners.store.xxh3 import MOST_BYTES

__all__ = ["OBJECT_BYTES", "STATE_BYTES", "Explored"]

WINDOW_SECONDS = 1800.0  # of event time, from the impression to the click
MOST_ITEMS = 16_384  # whose counts are kept; those first shown longest ago make room
MOST_WAITING = 16_384  # shown and not clicked yet; the oldest count as misses for good
LATEST = 4_096  # clicks that an impression may come after, and impressions that may come again
MARKS = 1 << 18
# What Python holds of full books: an item with its counts, a user and an item that wait.
OBJECT_BYTES = MOST_ITEMS * 320 + MOST_WAITING * 320
# What is made of them for a checkpoint: ids, where they end and counts; pairs and times.
STATE_BYTES = MOST_ITEMS * (MOST_BYTES + 8 + 16) + MOST_WAITING * (16 + 8)


class Explored:
    """Counts by item: in how many exploration slots it was shown, in how many clicked.

    Examples
    --------
    >>> books = Explored()
    >>> books.show("ann", ["tent", "stove"], time=10.0)
    >>> books.show("bob", ["tent"], time=11.0)
    >>> books.answer("ann", "tent", time=12.0)
    >>> books.answer("ann", "tent", time=13.0)
    >>> books.counts
    {'tent': [2, 1], 'stove': [1, 0]}
    """

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}  # item -> [shown, clicked]
        self.waiting: dict[tuple[int, int], float] = {}  # hashes of user, item -> seconds, shown
        self.shown = 0  # in all
        self.clicked = 0
        self._latest = _Clicks(
            np.zeros(LATEST, np.uint64), np.zeros(LATEST, np.uint64), np.zeros(LATEST)
        )
        self._impressions = np.zeros(LATEST, np.uint64)  # ids of the latest that explored
        self._marks = np.zeros(MARKS, np.int32)  # how many that wait fall on each place

    def learn(self, batch: Batch, places: NDArray[np.int64]) -> None:
        """Learn the events at some places of a batch, in their order."""
        if not self.shown and not batch.explored:
            return
        kind = batch.kind[places]
        shows = np.intersect1d(places, list(batch.explored)).astype(np.int64).tolist()
        acts = places[kind <= PURCHASE]
        if not self.shown:  # nothing was explored before, so no click is noted before either
            acts = acts[acts > min(shows, default=len(batch))]
        clicks = self._latest.joined(batch, acts)
        may_answer = set(acts[self._may_answer(batch, shows, clicks)].tolist())
        for place in sorted([*shows, *places[kind == ERASURE].tolist(), *may_answer]):
            user, time = batch.user[place], float(batch.timestamp[place])
            before = int(np.searchsorted(acts, place))  # clicks of this batch
            if place in may_answer:
                self.answer(user, batch.item[place], time)
            elif place in batch.explored:
                if self._is_new(batch.event_hash[place]):
                    self.show(user, batch.explored[place], time)
                    for item in batch.explored[place]:
                        self._answer_early(user, item, time, clicks.part(before))
            else:
                self._forget(_key(user))
                clicks.part(before).forget(_key(user))
        self._latest = clicks.part(len(acts)).copy()

    def _may_answer(self, batch: Batch, shows: Sequence[int], clicks: _Clicks) -> NDArray[np.bool_]:
        """Tell of a batch's clicks which may be on something that waits, or comes in the batch."""
        coming = [(_key(batch.user[p]), _key(item)) for p in shows for item in batch.explored[p]]
        for pair in coming:
            self._mark(pair, 1)
        marks = (clicks.user[LATEST:] ^ clicks.item[LATEST:]) % np.uint64(MARKS)
        marked: NDArray[np.bool_] = self._marks[marks.astype(np.int64)] > 0
        for pair in coming:
            self._mark(pair, -1)
        return marked

    def _is_new(self, impression: np.uint64) -> bool:
        """Note the hash of an impression's id; tell whether it has not come before."""
        if (self._impressions == impression).any():
            return False
        self._impressions = np.append(self._impressions[1:], impression)
        return True

    def show(self, user: str, items: Sequence[str], time: float) -> None:
        """Count the items that were explored for a user, at a time in seconds."""
        for item in items:
            if item not in self.counts and len(self.counts) >= MOST_ITEMS:
                del self.counts[next(iter(self.counts))]
            self.counts.setdefault(item, [0, 0])[0] += 1
            self.shown += 1
            self._make_room(time)
            pair = _key(user), _key(item)
            if pair in self.waiting:
                self._drop(pair)
            self.waiting[pair] = time
            self._mark(pair, 1)

    def answer(self, user: str, item: str, time: float) -> None:
        """Count a click or purchase, if it answers an impression."""
        pair = _key(user), _key(item)
        shown = self.waiting.get(pair)
        if shown is None or not shown <= time <= shown + WINDOW_SECONDS:
            return
        self._drop(pair)
        self.clicked += 1
        if item in self.counts:
            self.counts[item][1] += 1

    def _answer_early(self, user: str, item: str, time: float, latest: _Clicks) -> None:
        """Count a click on an impression of this time that was learnt before it."""
        same = (latest.user == np.uint64(_key(user))) & (latest.item == np.uint64(_key(item)))
        early = latest.time[same & (latest.time >= time)]
        if len(early):
            self.answer(user, item, float(early[0]))

    def _make_room(self, time: float) -> None:
        """Let go of what waits for too long, and of the oldest where too much waits."""
        while self.waiting:
            oldest = next(iter(self.waiting))
            late = time - self.waiting[oldest] > WINDOW_SECONDS
            if not late and len(self.waiting) < MOST_WAITING:
                break
            self._drop(oldest)

    def _forget(self, user: int) -> None:
        """Drop what waits for an erased user; the counts of the items name nobody."""
        for pair in [pair for pair in self.waiting if pair[0] == user]:
            self._drop(pair)

    def _drop(self, pair: tuple[int, int]) -> None:
        del self.waiting[pair]
        self._mark(pair, -1)

    def _mark(self, pair: tuple[int, int], by: int) -> None:
        self._marks[(pair[0] ^ pair[1]) % MARKS] += by

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return counts, what waits, and the latest clicks and impressions, as arrays."""
        names, waiting = Texts.of(list(self.counts)), self.waiting
        return {
            "items": names.data,
            "items_end": names.stop,
            "counts": np.array(list(self.counts.values()), np.int64).reshape(-1, 2),
            "waiting": np.array(list(waiting), np.uint64).reshape(-1, 2),
            "waiting_since": np.array(list(waiting.values()), np.float64),
            "total": np.array([self.shown, self.clicked], np.int64),
            "impressions": self._impressions,
            **{f"click_{name}": column for name, column in self._latest._asdict().items()},
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the books that gave this state."""
        ends = np.array(state["items_end"], np.int64)
        names = Texts(np.array(state["items"], np.uint8), np.append(0, ends)[:-1], ends)
        pairs = [(int(user), int(item)) for user, item in state["waiting"]]
        self.counts = dict(zip(names, state["counts"].tolist(), strict=True))
        self.waiting = dict(zip(pairs, state["waiting_since"].tolist(), strict=True))
        self.shown, self.clicked = map(int, state["total"])
        self._impressions = np.array(state["impressions"])
        self._latest = _Clicks(*(np.array(state[f"click_{n}"]) for n in _Clicks._fields))
        self._marks[:] = 0
        for pair in pairs:
            self._mark(pair, 1)


class _Clicks(NamedTuple):
    """Clicks and purchases, the newest last."""

    user: NDArray[np.uint64]  # (n,) hashes
    item: NDArray[np.uint64]  # (n,)
    time: NDArray[np.float64]  # (n,) seconds

    def joined(self, batch: Batch, acts: NDArray[np.int64]) -> _Clicks:
        """Return these, and after them those of a batch."""
        return _Clicks(
            np.concatenate([self.user, keys_64(Texts.of(batch.user).take(acts))]),
            np.concatenate([self.item, keys_64(Texts.of(batch.item).take(acts))]),
            np.concatenate([self.time, batch.timestamp[acts]]),
        )

    def part(self, begin: int) -> _Clicks:
        """Return the `LATEST` from a place on, as views."""
        part = slice(begin, begin + LATEST)
        return _Clicks(self.user[part], self.item[part], self.time[part])

    def copy(self) -> _Clicks:
        """Return clicks that share nothing with these."""
        return _Clicks(self.user.copy(), self.item.copy(), self.time.copy())

    def forget(self, user: int) -> None:
        """Drop those of a user."""
        theirs = self.user == np.uint64(user)
        self.user[theirs] = 0
        self.item[theirs] = 0
        self.time[theirs] = 0.0


def _key(name: str) -> int:
    """Return the hash of an id, as `keys_64` does."""
    return xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))

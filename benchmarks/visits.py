"""Visits: a stream of clicks at any size, made fast, for benchmarks of the engine alone.

Some users are there at a time; each in turn clicks, and goes on to an item that follows the last
one for everybody, or to another: a popular one (Zipf's law with exponent 1), or the next of a round
in which every item has its turn. Who leaves makes room for the next of a round over all users.
Where more ids are asked for than a window holds, the window moves over them from the first event
to the last: tastes drift, new users and items come, old ones return now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from learners.base import PURCHASE, Batch

__all__ = ["BATCH", "Visits", "VisitsConfig"]

Numbers = NDArray[np.int64]

BATCH = 1_000  # events: one of each who is there
STEP_SECONDS = 0.01  # of event time between two events
START = 1_750_000_000.0  # seconds UTC
LEAVE = 0.2  # chance to leave after a click: five clicks a visit
FOLLOW = 0.6  # chance to go on to a follower
GROUP = 25  # items that follow each other
BUY = 0.03
RETURN = 0.1  # chance that who or what comes next is of any time before, where a window moves
STRIDE = 7_919  # prime: neighbours in rank are none in number


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitsConfig:
    """How many ids there are, and how many of them are in fashion at a time.

    `rounds` is the share of picks that go round, through every item alike; the rest go by
    popularity.
    """

    users: int
    items: int
    events: int
    user_window: int = 0  # 0: all of them
    item_window: int = 0
    rounds: float = 0.5
    seed: int = 1


class Visits:
    """A seeded stream of batches of `BATCH` events.

    >>> visits = Visits(VisitsConfig(users=500, items=100, events=3_000))
    >>> batches = list(visits.batches())
    >>> len(batches), len(batches[0]), len({user for b in batches for user in b.user})
    (3, 1000, 500)
    """

    def __init__(self, config: VisitsConfig) -> None:
        self.config = config
        self.users_window = config.user_window or config.users
        self.items_window = config.item_window or config.items
        size = min(BATCH, max(1, self.users_window // 2))
        self.events = 0
        self._rng = np.random.default_rng([config.seed, 5])
        self._entered = self._visits = self._picked = 0
        self._user = np.zeros(size, np.int64)
        self._visit = np.zeros(size, np.int64)
        self._current = np.full(size, -1)
        self._enter(np.arange(size))

    def batches(self) -> Iterator[Batch]:
        """All events of the stream, `BATCH` at a time; the last may be shorter."""
        while self.events < self.config.events:
            yield self._batch(min(BATCH, self.config.events - self.events))

    def users_now(self, n: int) -> list[str]:
        """Ids of n different users, or all that are in fashion now, in an order without meaning."""
        begin = self._begin(self.config.users, self.users_window)
        count = min(n, self.users_window)
        chosen = np.random.default_rng(7).permutation(self.users_window)[:count]
        return _names("u", begin + chosen)

    def _batch(self, n: int) -> Batch:
        parts = []
        left = n
        while left:
            parts.append(self._turn(min(left, len(self._user))))
            left -= len(parts[-1][0])
        user, item, visit = (np.concatenate(column) for column in zip(*parts, strict=True))
        number = self.events + np.arange(n)
        self.events += n
        kind = np.where(self._rng.random(n) < BUY, PURCHASE, 0).astype(np.uint8)
        ids = (xxhash.xxh3_64_intdigest(b"visits-%d" % i) for i in number.tolist())
        return Batch(
            kind=kind,
            user=_names("u", user),
            item=_names("i", item),
            session=_names("v", visit),
            timestamp=np.array(START + number * STEP_SECONDS, np.float64),
            event_hash=np.fromiter(ids, np.uint64, n),
            log=np.zeros(n, np.int32),
            logs=["visits/0"],
            positions={"visits/0": int(number[-1]) + 1},
        )

    def _turn(self, n: int) -> tuple[Numbers, Numbers, Numbers]:
        """Let n who are there click once each; return users, items and visits."""
        rng = self._rng
        turn = rng.permutation(len(self._user))[:n]
        before = self._current[turn]
        step = 1 + np.minimum(rng.geometric(0.6, n) - 1, 2)
        follower = before - before % GROUP + (before % GROUP + step) % GROUP
        follows = (before >= 0) & (rng.random(n) < FOLLOW) & (follower < self.config.items)
        item = follower
        item[~follows] = self._pick(n - int(follows.sum()))
        self._current[turn] = item
        users, visits = self._user[turn], self._visit[turn]
        self._enter(turn[rng.random(n) < LEAVE])
        return users, item, visits

    def _pick(self, n: int) -> Numbers:
        """Choose items without regard to the last one: popular ones, or the next of the round."""
        rng, window = self._rng, self.items_window
        rank = np.minimum(np.exp(rng.random(n) * np.log(window + 1.0)).astype(np.int64), window) - 1
        goes_round = rng.random(n) < self.config.rounds
        at = self._picked + np.cumsum(goes_round)
        self._picked += int(goes_round.sum())
        place = np.where(goes_round, at, rank) * STRIDE % window
        return self._of_now(place, self.config.items, window)

    def _enter(self, leaving: Numbers) -> None:
        """Replace those who leave by the next of the round over all users in fashion."""
        n = len(leaving)
        place = (self._entered + np.arange(n)) * STRIDE % self.users_window
        self._entered += n
        self._user[leaving] = self._of_now(place, self.config.users, self.users_window)
        self._visit[leaving] = self._visits + np.arange(n)
        self._visits += n
        self._current[leaving] = -1

    def _of_now(self, place: Numbers, ids: int, window: int) -> Numbers:
        """Turn places of the window into numbers; some become any that has been in fashion."""
        begin = self._begin(ids, window)
        if window == ids:
            return place
        returns = self._rng.random(len(place)) < RETURN
        return np.where(returns, self._rng.integers(begin + window, size=len(place)), begin + place)

    def _begin(self, ids: int, window: int) -> int:
        return int((ids - window) * min(self.events / max(self.config.events, 1), 1.0))


def _names(letter: str, numbers: Numbers) -> list[str]:
    return [f"{letter}-{number:09d}" for number in numbers.tolist()]

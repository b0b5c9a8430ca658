"""The replay buffer: older sequences that the trainer rehearses.

The newest sequences are kept whole; what falls out of that window goes into a reservoir, where
every older sequence has the same chance to be (Vitter: Random sampling with a reservoir, 1985).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learners.deep.histories import Histories

__all__ = ["ReplayBuffer"]

# splitmix64 (Steele, Lea and Flood 2014), read at any place without a state
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31 = np.array([27, 30, 31], np.uint64)
NEXT, OLDER, SEED = range(3)  # of `book`: slot of the window that comes next; what has left it


class ReplayBuffer:
    """A window of the newest sequences and a reservoir of older ones.

    Memory is all taken at once. A sequence longer than `longest` keeps its newest events.

    Parameters
    ----------
    newest, reservoir : int
        Sequences of either, at least 1.
    longest : int
        Events of a sequence.
    seed : int
        Decides, with the number of sequences that came before, what stays in the reservoir.

    Examples
    --------
    >>> buffer = ReplayBuffer(newest=2, reservoir=2, seed=1)
    >>> buffer.add(np.array([7, 8, 7], np.uint64), Histories.of([[1, 2], [3, 4], [5, 6]]))
    >>> len(buffer), buffer.erase(7), len(buffer)
    (3, 2, 1)
    >>> buffer.sample(5, np.random.default_rng(1)).item
    array([3, 4], dtype=int32)
    """

    def __init__(self, *, newest: int, reservoir: int, longest: int = 51, seed: int = 1) -> None:
        slots = newest + reservoir
        self.newest, self.reservoir, self.longest = newest, reservoir, longest
        self.book = np.array([0, 0, seed], np.uint64)
        # The window's slots, a ring, then the reservoir's; one of length 0 is empty.
        self.user = np.zeros(slots, np.uint64)
        self.length = np.zeros(slots, np.int64)
        self.context = np.zeros(slots, np.int64)
        self.item = np.zeros((slots, longest), np.int32)
        self.kind = np.zeros((slots, longest), np.uint8)
        self.time = np.zeros((slots, longest))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.length))

    def add(self, users: NDArray[np.uint64], histories: Histories) -> None:
        """Take sequences in, in the order in which they ended; `users` (m,) are hashes of ids."""
        begin = np.maximum(histories.lengths - self.longest, 0)
        context = np.maximum(histories.looked_back - begin, 1)
        kept = histories.cut(histories.start[:-1] + begin, histories.lengths - begin, context)
        filled = np.flatnonzero(kept.lengths)
        for first in range(0, len(filled), self.newest):
            which = filled[first : first + self.newest]
            slots = (int(self.book[NEXT]) + np.arange(len(which))) % self.newest
            self._retire(slots[self.length[slots] > 0])
            self._write(slots, users[which], kept.take(which))
            self.book[NEXT] = (slots[-1] + 1) % self.newest

    def _write(
        self, slots: NDArray[np.int64], users: NDArray[np.uint64], histories: Histories
    ) -> None:
        self._clear(slots)
        self.user[slots], self.length[slots] = users, histories.lengths
        self.context[slots] = histories.looked_back
        row = np.repeat(slots, histories.lengths)
        column = np.arange(len(row)) - np.repeat(histories.start[:-1], histories.lengths)
        self.item[row, column] = histories.item
        self.kind[row, column] = histories.kind
        self.time[row, column] = histories.time

    def _retire(self, slots: NDArray[np.int64]) -> None:
        """Move what leaves the window into the reservoir, where it is chosen."""
        before = int(self.book[OLDER])
        number = np.arange(before, before + len(slots), dtype=np.uint64)
        place = np.where(
            number < self.reservoir,
            number,
            _mixed(self.book[SEED:], number) % (number + np.uint64(1)),
        )
        chosen = place < self.reservoir
        target = self.newest + place[chosen].astype(np.int64)
        for array in self._slots():
            array[target] = array[slots[chosen]]  # where two have one place, the later has it
        self.book[OLDER] += np.uint64(len(slots))

    def sample(self, n: int, generator: np.random.Generator) -> Histories:
        """Draw n different sequences; all that were ever added have the same chance.

        There are fewer where fewer are kept.
        """
        held = np.flatnonzero(self.length)
        stands_for = max(int(self.book[OLDER]) / self.reservoir, 1.0)
        # The smallest of exponential variates: a weighted draw without replacement
        # (Efraimidis and Spirakis 2006).
        key = generator.exponential(size=len(held)) / np.where(held < self.newest, 1.0, stands_for)
        return self._read(held[np.sort(np.argsort(key, kind="stable")[:n])])

    def erase(self, user: int) -> int:
        """Forget all sequences of a user; return how many there were."""
        slots = np.flatnonzero((self.user == np.uint64(user)) & (self.length > 0))
        self._clear(slots)
        return len(slots)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as named arrays, as long as what is kept."""
        kept = self._read(np.arange(len(self.length)))
        return {
            "book": self.book.copy(),
            "user": self.user.copy(),
            "length": self.length.copy(),
            "context": self.context.copy(),
            "item": kept.item,
            "kind": kept.kind,
            "time": kept.time,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the buffer that gave this state; it was made with the same numbers."""
        if state["user"].shape != self.user.shape:
            raise ValueError(
                f"the state is of {len(state['user'])} sequences, this buffer holds "
                f"{len(self.user)}: make it with the same newest and reservoir"
            )
        self._clear(np.arange(len(self.user)))
        start = np.concatenate([[0], np.cumsum(state["length"])])
        arrays = (state["item"], state["kind"], state["time"], start, state["context"])
        self._write(np.arange(len(self.user)), state["user"], Histories(*arrays))  # type: ignore[arg-type]
        self.book[:] = state["book"]

    def _read(self, slots: NDArray[np.int64]) -> Histories:
        flat = Histories(
            self.item.reshape(-1),
            self.kind.reshape(-1),
            self.time.reshape(-1),
            np.arange(len(self.length) + 1) * self.longest,
        )
        return flat.cut(flat.start[slots], self.length[slots], self.context[slots])

    def _clear(self, slots: NDArray[np.int64]) -> None:
        for array in self._slots():
            array[slots] = 0

    def _slots(self) -> tuple[NDArray[np.generic], ...]:
        return self.user, self.length, self.context, self.item, self.kind, self.time


def _mixed(seed: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a random number for each number; the seed is (1,), as arrays may overflow."""
    z = number * GOLDEN + seed * MIX_1
    z = (z ^ (z >> S30)) * MIX_1
    z = (z ^ (z >> S27)) * MIX_2
    return np.asarray(z ^ (z >> S31))

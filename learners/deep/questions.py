"""Questions: what a user had done, and what the user did next; models are judged by their answers.

A question is asked before anybody learns its answer. Ranks count from 1 among all items that the
model knows; equal scores share their mean rank; an item that the model does not know is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK
from learners.deep.histories import Histories
from learners.deep.trails import no_histories

__all__ = ["Asked", "Encoder", "Pupil", "Questions", "Sample", "in_rows_of", "ranks_by_count"]

ASKED_AT_ONCE = 256

Asked = tuple[int, int, int, Histories]  # user, answer, events learnt then, what was before


class Encoder(Protocol):
    """What turns histories into vectors: `learners.deep.sequence.SequenceModel`."""

    def vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Return u of each history's end, (m, HEADS, D)."""


class Questions(NamedTuple):
    """Histories, and the item that came next; items are rows of the trainer's vocabulary."""

    user: NDArray[np.uint64]  # (n,) hashes
    item: NDArray[np.int32]  # (n,) the answers
    number: NDArray[np.int64]  # (n,) events learnt when the answer came
    before: Histories  # n of them

    @classmethod
    def none(cls) -> Questions:
        """Return no questions."""
        empty = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int64)
        return cls(*empty, no_histories())

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: NDArray[np.int64]) -> Questions:
        """Return some of them."""
        return Questions(
            self.user[which], self.item[which], self.number[which], self.before.take(which)
        )

    def and_then(self, others: Questions) -> Questions:
        """Return these and others."""
        return Questions(
            np.concatenate([self.user, others.user]),
            np.concatenate([self.item, others.item]),
            np.concatenate([self.number, others.number]),
            self.before.and_then(others.before),
        )

    def without(self, user: int) -> Questions:
        """Return those of everybody else."""
        return self.take(np.flatnonzero(self.user != np.uint64(user)))

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> Questions:
        """Return questions that came one by one."""
        if not asked:
            return cls.none()
        users, items, numbers, before = zip(*asked, strict=True)
        lengths = [len(one.item) for one in before]
        together = Histories(
            np.concatenate([one.item for one in before]),
            np.concatenate([one.kind for one in before]),
            np.concatenate([one.time for one in before]),
            np.cumsum([0, *lengths]),
            np.ones(len(before), np.int64),
        )
        numbered = np.array(items, np.int32), np.array(numbers, np.int64)
        return cls(np.array(users, np.uint64), *numbered, together)

    def one_by_one(self) -> list[Asked]:
        """Return them as they were asked."""
        ends = zip(self.before.start[:-1].tolist(), self.before.start[1:].tolist(), strict=True)
        histories = [
            Histories(
                self.before.item[a:b],
                self.before.kind[a:b],
                self.before.time[a:b],
                np.array([0, b - a]),
            )
            for a, b in ends
        ]
        told = self.user.tolist(), self.item.tolist(), self.number.tolist()
        return list(zip(*told, histories, strict=True))

    def state(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return them as named arrays."""
        return {
            f"{prefix}_user": self.user,
            f"{prefix}_answer": self.item,
            f"{prefix}_number": self.number,
            f"{prefix}_item": self.before.item,
            f"{prefix}_kind": self.before.kind,
            f"{prefix}_time": self.before.time,
            f"{prefix}_start": self.before.start,
        }

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, NDArray[np.generic]]) -> Questions:
        """Return the questions that gave this state."""
        names = ("item", "kind", "time", "start")
        part = {name: np.array(state[f"{prefix}_{name}"]) for name in names}
        before = Histories(**part, context=np.ones(len(part["start"]) - 1, np.int64))
        user, item, number = (
            np.array(state[f"{prefix}_{name}"]) for name in ("user", "answer", "number")
        )
        return cls(user, item, number, before)


class Sample:
    """A fair sample of all questions ever put to it (Vitter 1985), of bounded size.

    Parameters
    ----------
    size : int
        Questions kept at most.
    seed : int
        Decides, with how many came before, which stay.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.met = 0
        self._kept: list[Asked] = []

    def add(self, asked: Asked) -> None:
        """Take a question in, perhaps."""
        place = self.met
        if self.met >= self.size:
            place = int(np.random.default_rng([self.seed, self.met]).integers(self.met + 1))
        self.met += 1
        if place < len(self._kept):
            self._kept[place] = asked
        elif place < self.size:
            self._kept.append(asked)

    def until(self, number: int) -> Questions:
        """Return the questions whose answers came within the first so many events."""
        return Questions.of([asked for asked in self._kept if asked[2] <= number])

    def erase(self, user: int) -> None:
        """Forget a user's questions."""
        self._kept = [asked for asked in self._kept if asked[0] != user]

    def forget_items(self, gone: NDArray[np.int64]) -> None:
        """Drop the questions about items that lose their rows."""
        lost = set(gone.tolist())
        self._kept = [
            asked for asked in self._kept if not lost.intersection([asked[1], *asked[3].item])
        ]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return it as named arrays."""
        return {"met": np.array([self.met]), **Questions.of(self._kept).state("kept")}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the sample that gave this state."""
        self.met = int(state["met"][0])
        self._kept = Questions.from_state("kept", state).one_by_one()


def in_rows_of(histories: Histories, row_of: NDArray[np.int32]) -> Histories:
    """Return histories in another vocabulary; events whose item has no row there are left out.

    >>> two = Histories.of([[0, 1, 2], [1]])
    >>> other = in_rows_of(two, np.array([5, -1, 4], np.int32))
    >>> other.item, other.start
    (array([5, 4], dtype=int32), array([0, 2, 2]))
    """
    inside = (histories.item >= 0) & (histories.item < len(row_of))
    rows = np.where(inside, row_of[np.where(inside, histories.item, 0)], -1)
    kept = rows >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    start = before[histories.start]
    seen = histories.start[:-1] + np.minimum(histories.looked_back, histories.lengths)
    context = np.maximum(before[seen] - start[:-1], 1)
    return Histories(
        rows[kept].astype(np.int32), histories.kind[kept], histories.time[kept], start, context
    )


def ranks_by_count(counts: NDArray[np.int64], questions: Questions) -> NDArray[np.float64]:
    """Return the rank of each answer among items by how often they came, (n,)."""
    ordered = np.sort(counts)
    inside = (questions.item >= 0) & (questions.item < len(counts))
    own = counts[np.where(inside, questions.item, 0)]
    above = len(ordered) - np.searchsorted(ordered, own, side="right")
    level = len(ordered) - above - np.searchsorted(ordered, own, side="left")
    return np.where(inside & (own > 0), above + (level + 1) / 2, np.inf)


@dataclass(slots=True)
class Pupil:
    """A snapshot in the trainer's hands.

    Its items lose their rows of the vocabulary and come back; `away` are those without one.
    """

    id: str
    config: dict[str, Any]  # of the model
    encoder: Encoder
    table: NDArray[np.float32]  # (items, D) of length 1
    items: list[str]  # by row of the table
    events: int  # clicks and purchases that had come when it was trained
    row_of: NDArray[np.int32]  # row of the table by row of the vocabulary, -1 for none
    away: dict[str, int]  # row of the table by id, of items that are not in the vocabulary
    taught: int  # rows of the table that were trained; the rest are like them

    def forget_items(self, gone: NDArray[np.int64]) -> None:
        """Let go of items that lose their rows of the vocabulary."""
        lost = self.row_of[gone]
        self.away |= {self.items[row]: row for row in lost[lost >= 0].tolist()}
        self.row_of[gone] = -1

    def meet_items(self, rows: NDArray[np.int32], names: Sequence[str]) -> None:
        """Find items that have got rows of the vocabulary, (n,) both."""
        for row, name in zip(rows.tolist(), names, strict=True) if self.away else ():
            if name in self.away:
                self.row_of[row] = self.away.pop(name)

    def ranks(self, questions: Questions) -> NDArray[np.float64]:
        """Return the rank of each answer, (n,): inf for a miss, NaN where scores are no numbers."""
        found = np.full(len(questions), np.inf)
        before = in_rows_of(questions.before, self.row_of)
        inside = (questions.item >= 0) & (questions.item < len(self.row_of))
        answer = np.where(inside, self.row_of[np.where(inside, questions.item, 0)], -1)
        asked = np.flatnonzero((answer >= 0) & (before.lengths > 0))
        for begin in range(0, len(asked), ASKED_AT_ONCE):
            which = asked[begin : begin + ASKED_AT_ONCE]
            users = self.encoder.vectors(before.take(which))[:, CLICK]  # (n, D)
            scores = users @ self.table.T  # (n, items)
            own = scores[np.arange(len(which)), answer[which]][:, None]
            rank = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
            found[which] = np.where(np.isfinite(scores).all(axis=1), rank, np.nan)
        return found

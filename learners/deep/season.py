"""A season: from the moment a model is cut off from what comes, until the verdict on it.

Whatever comes after the cut, neither champion nor challenger has learnt. The first questions of it
judge them, always the same ones however long the training took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.deep.gate import GateConfig, Paired, Verdict, judge
from learners.deep.lesson import Lesson
from learners.deep.memory import Books
from learners.deep.questions import Pupil, Questions, Sample, ranks_by_count
from learners.deep.service import erased_at

__all__ = ["Cut", "Season"]


class Cut(msgspec.Struct, frozen=True):
    """Where a lesson ends, for the manifest."""

    number: int
    events: int  # clicks and purchases that had come
    parent: str | None
    time_from: float  # seconds UTC
    time_until: float
    positions: dict[str, int]  # every record before these was learnt
    config: dict[str, Any]  # of the model
    tuning: dict[str, Any]
    replace: bool = False  # the champion has to go
    erased: dict[str, float] = {}  # since: times of the `first` and the `latest`, seconds UTC
    challenger: str = ""  # what came of it

    @classmethod
    def of(cls, lesson: Lesson, books: Books, replace: bool) -> Cut:
        """Cut off a lesson here."""
        new = lesson.new
        return cls(
            number=books.cuts,
            events=books.events,
            parent=lesson.parent.id if lesson.parent else None,
            time_from=float(new.time.min()),
            time_until=float(new.time.max()),
            positions=dict(books.positions),
            config=asdict(lesson.model),
            tuning=asdict(lesson.tuning),
            replace=replace,
        )

    def manifest(self) -> dict[str, Any]:
        """Return what a snapshot's manifest tells of it."""
        own = ("replace", "erased", "challenger")
        told = {name: getattr(self, name) for name in self.__struct_fields__ if name not in own}
        erased = {"erased": self.erased} if self.erased else {}
        return {**told, **erased, "seed": self.tuning["seed"]}


@dataclass(slots=True)
class Season:
    """Questions since a cut, and how the champion answered them."""

    cut: Cut
    counts: NDArray[np.int64]  # how often items came lately, by row: who has to be beaten at first
    questions: Questions = field(default_factory=Questions.none)
    champion: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # ranks
    challenger: Pupil | None = None
    verdicts: int = 0

    @property
    def name(self) -> str:
        """Id of the challenger; empty while there is none."""
        return self.challenger.id if self.challenger else self.cut.challenger

    def add(
        self,
        questions: Questions,
        ranks: NDArray[np.float64] | None,
        champion: Pupil | None,
        gate: GateConfig,
    ) -> None:
        """Take questions in, as far as the gate may need them; `ranks` are the champion's."""
        ranks = self._ranks(champion, questions) if ranks is None else ranks
        room = max(gate.targets * gate.verdicts - len(self.questions), 0)
        some = questions.take(np.arange(min(room, len(questions))))
        self.questions = self.questions.and_then(some)
        self.champion = np.concatenate([self.champion, ranks[:room]])

    def again(self, champion: Pupil | None) -> None:
        """Let another champion answer everything so far."""
        self.champion = self._ranks(champion, self.questions)

    def _ranks(self, champion: Pupil | None, questions: Questions) -> NDArray[np.float64]:
        if champion is None:
            return ranks_by_count(self.counts, questions)
        return champion.ranks(questions)

    def verdict(self, champion: Pupil | None, old: Sample, gate: GateConfig) -> Verdict | None:
        """Judge the challenger, if enough questions have come since the last time."""
        enough = gate.targets * (self.verdicts + 1)
        if self.challenger is None or len(self.questions) < enough:
            return None
        self.verdicts += 1
        asked = self.questions.take(np.arange(enough))
        following = Paired(asked.user, self.champion[:enough], self.challenger.ranks(asked))
        aged = old.until(champion.events) if champion else Questions.none()
        before = champion.ranks(aged) if champion else np.zeros(0)
        both = Paired(aged.user, before, self.challenger.ranks(aged))
        return judge(following, both, gate, verdict=self.verdicts, replace=self.cut.replace)

    def erase(self, user: int, time: float) -> None:
        """Forget a user; the lesson under way may have been cut with them."""
        self.champion = self.champion[self.questions.user != np.uint64(user)]
        self.questions = self.questions.without(user)
        self.cut = msgspec.structs.replace(self.cut, erased=erased_at(self.cut.erased, time))

    def forget_items(self, gone: NDArray[np.int64]) -> None:
        """Mark items that lose their rows: -1."""
        for item in (self.questions.item, self.questions.before.item):
            item[np.isin(item, gone)] = -1
        self.counts[gone] = 0
        if self.challenger is not None:
            self.challenger.forget_items(gone)

    def meet_items(self, rows: NDArray[np.int32], names: Sequence[str]) -> None:
        """Find items that have got rows, (n,) both."""
        if self.challenger is not None:
            self.challenger.meet_items(rows, names)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return it as named arrays; the challenger is in the registry."""
        cut = msgspec.structs.replace(self.cut, challenger=self.name)
        return {
            "cut": np.frombuffer(msgspec.json.encode(cut), np.uint8),
            "counts": self.counts,
            "champion": self.champion,
            "verdicts": np.array([self.verdicts]),
            **self.questions.state("asked"),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Season:
        """Return the season that gave this state."""
        return cls(
            msgspec.json.decode(state["cut"].tobytes(), type=Cut),
            np.array(state["counts"]),
            Questions.from_state("asked", state),
            np.array(state["champion"]),
            None,
            int(state["verdicts"][0]),
        )

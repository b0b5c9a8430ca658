"""Lifelong learning of the deep model, as one state machine over batches of events.

It follows users, keeps older sequences to rehearse, cuts a lesson when one is due, lets it be held
(here, or beside on another thread), asks champion and challenger what comes next, and promotes,
discards or rolls back. A replay drives it from a file, the trainer from Kafka. With the same log,
settings and `at_once`, the same lessons are cut at the same events and give the same weights.

The registry is the truth about who serves: whoever moves the aliases, this follows. What the state
holds and the registry does not, or the other way round, is what a kill left between two writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from learners.base import ERASURE, Batch
from learners.deep.gate import LIST
from learners.deep.intake import Act, Intake
from learners.deep.lesson import Lesson, Progress, Trained, at_once, hold, lesson_of
from learners.deep.memory import Books, Happening, LifelongConfig, Memory, joined, parted
from learners.deep.questions import Pupil, Questions
from learners.deep.registry import Registry
from learners.deep.season import Cut, Season
from learners.deep.service import InService
from learners.errors import SnapshotError

__all__ = ["Lifelong"]

BLOCK = 256  # questions that are asked together

Submit = Callable[[Callable[[], Trained]], "Future[Trained]"]


class Lifelong:
    """What learns, judges and puts into service.

    Parameters
    ----------
    config
        Model, schedule, gate, capacities.
    registry
        Where snapshots are kept; who serves is what it says.
    submit
        Runs a lesson, here by default; whoever runs it beside calls `look` now and then.
    hold
        How a lesson is held.
    progress
        Is told steps done, and of how many; it may raise to end a lesson.

    Attributes
    ----------
    books, memory, service : Books, Memory, InService
        What was learnt from where; what is kept of it; who serves.
    season : Season or None
        The lesson under way or the challenger under judgement.
    """

    def __init__(
        self,
        config: LifelongConfig,
        registry: Registry,
        *,
        submit: Submit = at_once,
        hold: Callable[[Lesson, Progress], Trained] = hold,
        progress: Progress = lambda done, of: None,
    ) -> None:
        self.config = config
        self.registry = registry
        self.books = Books(config.dedupe_events)
        self.memory = Memory(config)
        self.service = InService(registry, self.memory.items, config.gate, config.retire_days)
        self.season: Season | None = None
        self.training: Future[Trained] | None = None
        self._intake = Intake(
            self.books, self.memory, config.evaluate_one_in, self._meet_items, self._forget_items
        )
        self._problem = ""
        self._submit, self._hold, self._progress = submit, hold, progress
        self._told: list[Happening] = []

    @property
    def champion(self) -> Pupil | None:
        """Who serves."""
        return self.service.champion

    @property
    def positions(self) -> dict[str, int]:
        """Next offset by partition label."""
        return self.books.positions

    @property
    def watermarks(self) -> dict[str, float]:
        """Running maximum of record times by partition label, seconds UTC."""
        return self.books.watermarks

    def learn(self, batch: Batch) -> list[Happening]:
        """Learn a batch in order; return what happened, oldest first."""
        self._follow()
        for act in self._intake.acts(batch):
            if act.kind == ERASURE:
                self._erase(act.user, act.time)
            else:
                self._act(act)
        self.books.close(batch)
        self._retire()
        return self._telling()

    def look(self) -> list[Happening]:
        """Take in what others have done: a lesson that has ended, aliases that were moved."""
        self._follow()
        if self.season is not None:
            self._judge(self.season)  # before: one is judged when whoever asks has heard of it
        elif self.books.again:
            self._begin("again")
        if self.training is not None and self.training.done():
            self._adopt(self.training)
        return self._telling()

    def _telling(self) -> list[Happening]:
        told, self._told = self._told, []
        return told

    def _tell(
        self, what: str, snapshot: str | None = None, why: str = "", **figures: object
    ) -> None:
        books = self.books
        self._told.append(Happening(what, snapshot, books.events, books.clock, why, figures))

    def _meet_items(self, rows: NDArray[np.int32], names: Sequence[str]) -> None:
        self.service.meet_items(rows, names)
        if self.season is not None:
            self.season.meet_items(rows, names)

    def _forget_items(self, gone: NDArray[np.int64]) -> None:
        self.service.forget_items(gone)
        if self.season is not None:
            self.season.forget_items(gone)

    def _act(self, act: Act) -> None:
        memory, books, user = self.memory, self.books, act.user
        books.events += 1
        books.clock = max(books.clock, act.time)
        memory.items.last_seen[act.row] = books.events
        asks = act.ask and bool(self.champion or self.season)
        asks = asks and not self.service.has_learnt(books.events, act.time)
        if asks and (before := memory.trails.question(user, act.time, act.session)):
            memory.asked.append((user, act.row, books.events, before))
            if memory.holds_out(user):
                memory.old.add(memory.asked[-1])
            if len(memory.asked) == BLOCK:
                self._close_block()
        memory.trails.append(user, act.row, act.kind, act.time, act.session)
        if self.season is None and (why := books.why_due(self.config)):
            self._begin(why)

    def _erase(self, user: int, time: float) -> None:
        """Forget a user, here and now."""
        self.memory.erase(user)
        self.service.erase(user, time)
        if self.season is not None:
            self.season.erase(user, time)

    def _retire(self) -> None:
        """Retire what was trained before an erasure, in time; begin a lesson without the erased."""
        clock = self.books.clock
        if self.service.has_to_go(clock):
            self.books.due = True
        for id, why in self.service.retire(clock).items():
            self._tell("retired", id, why)

    # Questions: test, then learn

    def _close_block(self) -> None:
        questions, self.memory.asked = Questions.of(self.memory.asked), []
        if not len(questions):
            return
        champion, ranks = self.champion, None
        if champion is not None:
            ranks = champion.ranks(questions)
            self._look_at_hits(questions, ranks)
        if self.season is not None:
            ranks = ranks if champion is self.champion else None
            self.season.add(questions, ranks, self.champion, self.config.gate)
            self._judge(self.season)

    def _look_at_hits(self, questions: Questions, ranks: NDArray[np.float64]) -> None:
        """Feed the drift detector, and compare with the champion before this one."""
        for hit in (ranks <= LIST).tolist():
            if (fall := self.books.hits.update(hit)) and self.config.at_alarms:
                self.books.due = True
                self._tell("alarm", None, fall[0], before=fall[1], after=fall[2])
        if (figures := self.service.compare(questions, ranks)) is not None:
            self._roll_back(figures)

    def _roll_back(self, figures: Mapping[str, float]) -> None:
        worse = self.champion.id if self.champion else None
        try:
            back = self.registry.rollback("live it was worse than the champion before it")
        except SnapshotError as error:
            self._tell("problem", worse, str(error))
            return
        self._tell("rolled_back", worse, f"{back} serves again", **figures)
        self._follow()

    # Lessons

    def _begin(self, why: str) -> None:
        """Cut a lesson off from what comes, and have it held."""
        self._close_block()
        books, memory = self.books, self.memory
        if self.season is not None:  # closing the block may have led to another
            return
        books.cut()
        memory.hand_out(books.events)
        new = memory.fresh.trainable()
        if not len(new):
            return
        tuning = replace(self.config.tuning, seed=self.config.tuning.seed + books.cuts)
        older = deepcopy(memory.buffer) if len(memory.buffer) else None
        lesson = lesson_of(
            self.champion, memory.items, memory.listed, new, older, self.config.model, tuning
        )
        cut = Cut.of(lesson, books, replace=self.service.has_to_go(books.clock))
        met = new.item[new.item >= 0]
        self.season = Season(cut, np.bincount(met, minlength=memory.items.capacity))
        if why == "asked":
            why = "erasure" if cut.replace else "alarm"
        self._tell("begun", None, why, sequences=len(new), targets=new.targets)
        self.training = self._submit(lambda: self._hold(lesson, self._progress))
        if self._submit is at_once:
            self._adopt(self.training)

    def _adopt(self, training: Future[Trained]) -> None:
        """Write what a lesson gave as a snapshot, and let it be judged."""
        season, self.training = self.season, None
        if season is None:
            return
        if (error := training.exception()) is not None:
            self.season = None
            self._tell("failed", None, repr(error))
            return
        trained = training.result()
        told = {"items": len(trained.items), "taught": trained.taught, "training": trained.figures}
        try:
            id = self.registry.write(trained.arrays, trained.items, season.cut.manifest() | told)
            self._tell("born", id, "", **trained.figures)
            if self.registry.problem:
                self._tell("problem", None, self.registry.problem)
            self.service.await_end(season.cut.erased)
            if not all(np.isfinite(array).all() for array in trained.arrays.values()):
                self._discard(id, "its weights are no finite numbers")
                return
            season.challenger = self.service.read(id)
        except SnapshotError as error:
            self.season = None
            self._tell("failed", None, str(error))

    @property
    def _challenger(self) -> Pupil | None:
        return self.season.challenger if self.season else None

    def _judge(self, season: Season) -> None:
        verdict = season.verdict(self.champion, self.memory.old, self.config.gate)
        if verdict is None or season.challenger is None:
            return
        id = season.challenger.id
        figures = {name: round(value, 5) for name, value in verdict.figures.items()}
        told = {"decision": verdict.decision, "reason": verdict.reason, **figures}
        try:
            self.registry.annotate(id, gate={**told, "verdicts": season.verdicts})
            if verdict.decision == "discard":
                self._discard(id, verdict.reason, **figures)
            elif verdict.decision == "promote":
                self.registry.promote(id)
                self._tell("promoted", id, verdict.reason, **figures)
                self._follow()
            else:
                self._tell("trial", id, verdict.reason, **figures)
        except SnapshotError as error:  # somebody has damaged or removed it
            self.season = None
            self._tell("problem", id, str(error))

    def _discard(self, id: str, why: str, **figures: object) -> None:
        self.registry.discard(id, why)
        self.season = None
        self._tell("discarded", id, why, **figures)

    def _follow(self) -> None:
        """Let those serve whom the registry names."""
        changed = self.service.follow([self._challenger])
        if self.service.problem not in ("", self._problem):
            self._tell("problem", None, self.service.problem)
        self._problem = self.service.problem
        if not changed:
            return
        self.books.hits.begin()
        champion = self.champion
        if champion is not None:
            self.memory.let_go(champion.events)
        if self._challenger is not None and self._challenger is champion:
            self.season = None
        elif self.season is not None:
            self.season.again(champion)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all of it as named arrays; models are in the registry."""
        own = {"books": self.books.state(), "service": self.service.state()}
        season = {"season": self.season.state()} if self.season else {}
        return joined({**self.memory.state(), **own, **season})

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what gave this state; a lesson that was under way is begun anew."""
        parts = parted(state)
        self.memory.load_state(parts)
        self.books.load_state(parts["books"])
        same = self.service.load_state(parts["service"])
        if self.champion is not None:
            self.memory.let_go(self.champion.events)
        try:
            self._take_up(Season.from_state(parts["season"]) if "season" in parts else None, same)
        except SnapshotError as error:
            self.season, self.books.again = None, True
            self._tell("problem", None, str(error))

    def _take_up(self, season: Season | None, same: bool) -> None:
        """Go on with a challenger; one that was not noted may have learnt what is to judge it."""
        there = self.registry.alias("challenger")
        if season and season.name and season.name == there:
            season.challenger = self.service.read(there)
            self.season = season
            if not same:
                season.again(self.champion)
            return
        if there is not None:
            self.registry.discard(there, "the trainer ended before it had noted it")
        if there is not None or (season and not season.name):
            self.books.again = True

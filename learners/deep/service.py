"""Who serves: the champion and the one before it, how they do live, and when they have to go.

The registry is the truth; whoever moves its aliases, this follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.deep.gate import GateConfig, Paired, is_worse
from learners.deep.lesson import pupil_of
from learners.deep.questions import Pupil, Questions
from learners.deep.refusals import Refusals
from learners.deep.registry import Alias, Registry
from learners.errors import SnapshotError
from learners.store.vocab import Vocabulary

__all__ = ["InService", "erased_at"]

WINDOWS = 4  # of the gate's targets: how far back a champion is compared
DAY = 86400.0
BEFORE = "trained before an erasure"
DAMAGED = "damaged, so that nobody can tell what it was trained on"
OVERDUE = "it may have been trained before an erasure whose time is over"
STAYS = ("foreign", "unreadable")  # states in which a snapshot is not deleted
REFUSED = ("damaged", *STAYS)
FOLLOW = ("aliases", "champion", "previous")  # what may fail, in following
RETIRE, MARK = "retire", "mark"  # and else

NONE = np.zeros(0, np.uint64), np.zeros(0), np.zeros(0)


def erased_at(erased: Mapping[str, float], time: float) -> dict[str, float]:
    """Return the times of the first and the latest erasure, with another one."""
    another = {"first": time, "latest": time}
    return _joined(erased or another, another)


def _joined(some: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {
        "first": min(some["first"], others["first"]),
        "latest": max(some["latest"], others["latest"]),
    }


class InService:
    """The champion and the one before it.

    Parameters
    ----------
    registry
        Says who serves.
    items
        The trainer's vocabulary.
    gate
        How far back, and how sure, a champion is compared with the one before it.
    retire_days
        Days after an erasure in which a snapshot that was trained before it is retired.

    Attributes
    ----------
    champion, previous : Pupil or None
        As they were read.
    problem : str
        What cannot be done with the registry, as long as it cannot; else empty.
    """

    def __init__(
        self, registry: Registry, items: Vocabulary, gate: GateConfig, retire_days: float
    ) -> None:
        self.registry, self.items, self.gate = registry, items, gate
        self.retire_seconds = retire_days * DAY
        self._refusals = Refusals(registry)
        self.champion: Pupil | None = None
        self.previous: Pupil | None = None
        self._problems: dict[str, str] = {}  # by what cannot be done
        self.retire_at = np.inf  # seconds UTC: when the next snapshot has to be retired
        self._unmarked: dict[str, dict[str, float]] = {}  # snapshots that cannot tell erasures yet
        self._look_through = False  # manifests, as they may tell of an earlier time
        self._user, self._before, self._now = NONE
        self._seen = 0  # questions since the last comparison
        self._until = -np.inf  # seconds UTC: the latest event that the champion has learnt

    @property
    def problem(self) -> str:
        return "; ".join(dict.fromkeys(self._problems.values()))

    def follow(self, known: Sequence[Pupil | None] = ()) -> bool:
        """Let those serve whom the registry names; tell whether the champion is another.

        A champion that cannot be read does not serve: then all stays as it is, or where nobody
        serves, the one before it does, as in a node. `problem` says why.
        """
        held = [pupil for pupil in (*known, self.champion, self.previous) if pupil]
        for name in FOLLOW:
            self._problems.pop(name, None)
        try:
            serving = self.champion.id if self.champion else ""
            aliases = self.registry.aliases(serving=serving)
        except SnapshotError as error:
            self._problems["aliases"] = str(error)
            return False
        champion = self._pupil("champion", aliases["champion"], held)
        refused = champion is None and aliases["champion"] is not None
        if refused and self.champion is not None:
            return False
        previous = self._pupil("previous", aliases["previous"], held)
        if refused:
            champion, previous = previous, None
        changed = champion is not self.champion
        if changed or previous is not self.previous:
            self.champion, self.previous = champion, previous
            self._user, self._before, self._now = NONE
            self._seen = 0
        if changed:
            self._until = self._learnt_until(champion)
        return changed

    def _learnt_until(self, champion: Pupil | None) -> float:
        try:
            told = self.registry.manifest(champion.id) if champion else {}
        except SnapshotError:
            return np.inf
        return float(told.get("time_until", -np.inf))

    def has_learnt(self, number: int, time: float) -> bool:
        """Tell whether the champion may have learnt what is to be foreseen.

        So it is while a trainer without a state reads what the one before it had read.

        Parameters
        ----------
        number, time
            Of the event: how many have come with it, and when, in seconds UTC.
        """
        champion = self.champion
        return champion is not None and number <= champion.events and time <= self._until

    def _pupil(self, name: Alias, id: str | None, held: Sequence[Pupil]) -> Pupil | None:
        for pupil in held:
            if pupil.id == id:
                return pupil
        try:
            return self.read(id) if id else None
        except SnapshotError as error:
            self._problems[name] = str(error)
            return None

    def read(self, id: str) -> Pupil:
        """Make a snapshot ready to be asked.

        Raises
        ------
        SnapshotError
            It is refused, or what is in it is no such model.
        """
        return self._refusals.read(id, lambda told: pupil_of(told, self.items))

    def forget_items(self, gone: NDArray[np.int64]) -> None:
        """Let go of items that lose their rows."""
        for pupil in filter(None, (self.champion, self.previous)):
            pupil.forget_items(gone)

    def meet_items(self, rows: NDArray[np.int32], names: Sequence[str]) -> None:
        """Find items that have got rows, (n,) both."""
        for pupil in filter(None, (self.champion, self.previous)):
            pupil.meet_items(rows, names)

    # Live

    def compare(self, questions: Questions, ranks: NDArray[np.float64]) -> dict[str, float] | None:
        """Let the one before answer the same questions; return both's figures if it did better.

        Parameters
        ----------
        questions, ranks
            What came, and the champion's ranks (n,).
        """
        if self.previous is None:
            return None
        last = slice(-WINDOWS * self.gate.targets, None)
        self._user = np.concatenate([self._user, questions.user])[last]
        self._before = np.concatenate([self._before, self.previous.ranks(questions)])[last]
        self._now = np.concatenate([self._now, ranks])[last]
        self._seen += len(questions)
        if self._seen < self.gate.targets:
            return None
        self._seen = 0
        live = Paired(self._user, self._before, self._now)
        if not is_worse(live, self.gate):
            return None
        figures = live.figures().items()
        return {
            name.replace("champion", "before").replace("challenger", "now"): value
            for name, value in figures
        }

    # Erasures

    def erase(self, user: int, time: float) -> None:
        """Forget a user's answers, and note in every snapshot that it was trained before that."""
        others = self._user != np.uint64(user)
        self._user, self._before, self._now = (
            array[others] for array in (self._user, self._before, self._now)
        )
        erased = {"first": time, "latest": time}
        for id in self.registry.ids():
            self._unmarked[id] = _joined(self._unmarked.get(id, erased), erased)
            self.await_end(erased)
        self._mark()

    def _mark(self) -> None:
        """Tell erasures in the manifests of what was trained before, as soon as they are sound."""
        self._problems.pop(MARK, None)
        try:
            there = set(self.registry.ids())
        except SnapshotError as error:
            self._problems[MARK] = str(error)
            return
        for id, erased in list(self._unmarked.items()):
            try:
                if id in there:
                    told = self.registry.manifest(id).get("erased", erased)
                    self.registry.annotate(id, erased=_joined(told, erased))
                del self._unmarked[id]
            except SnapshotError as error:
                self._problems[MARK] = str(error)

    def await_end(self, erased: Mapping[str, float]) -> None:
        """Note that there is a snapshot which was trained before these erasures."""
        if erased:
            self.retire_at = min(self.retire_at, erased["first"] + self.retire_seconds)

    def has_to_go(self, clock: float) -> bool:
        """Tell whether the champion was trained before an erasure, and half its time is over."""
        if self.champion is None or clock < self.retire_at - self.retire_seconds / 2:
            return False
        try:
            first = self.registry.manifest(self.champion.id).get("erased", {}).get("first", np.inf)
        except SnapshotError:
            return False
        return bool(clock >= first + self.retire_seconds / 2)

    def retire(self, clock: float) -> dict[str, str]:
        """Delete what was trained before an erasure and is over its time; return ids and why.

        Nobody can tell what a damaged one was trained on: it goes with the first that has to. One
        that the disk does not give now, or of another format, stays, and is looked at again.
        """
        if self._unmarked:
            self._mark()
        if clock < self.retire_at and not self._look_through:
            return {}
        self._problems.pop(RETIRE, None)
        try:
            listed = self.registry.manifests()
        except SnapshotError as error:
            self._problems[RETIRE] = str(error)
            return {}
        earliest, gone = self.retire_at, {}
        self.retire_at, self._look_through = np.inf, False
        for told in listed:
            refused = told["state"] if told["state"] in REFUSED else ""
            mark = told.get("erased") or self._unmarked.get(str(told["id"]), {})
            first = mark.get("first", np.inf)
            until = earliest if refused else first + self.retire_seconds
            if until > clock:
                self.retire_at = min(self.retire_at, until)
                self._look_through |= refused == "unreadable"
            elif refused in STAYS:
                self._problems[RETIRE] = f"{told['problem']}; {OVERDUE}"
                again = earliest if refused == "unreadable" else clock + DAY
                self.retire_at = min(self.retire_at, again)
            elif (named := self._delete(str(told["id"]), clock)) is not None:
                why = DAMAGED if refused else BEFORE
                gone[str(told["id"])] = f"{why}; it was the {named}" if named else why
        return gone

    def _delete(self, id: str, clock: float) -> str | None:
        """Delete a snapshot; return the aliases that named it, `None` where it cannot be."""
        try:
            return self.registry.retire(id)
        except SnapshotError as error:
            self._problems[RETIRE] = str(error)
            self.retire_at = min(self.retire_at, clock + DAY)
            return None

    # State

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what is to be kept as named arrays; models are in the registry."""
        name = self.champion.id if self.champion else ""
        return {
            "champion": np.frombuffer(name.encode(), np.uint8),
            "user": self._user,
            "before": self._before,
            "now": self._now,
            "counts": np.array([self._seen, self.retire_at]),
            "unmarked": np.frombuffer(msgspec.json.encode(self._unmarked), np.uint8),
        }

    def load_state(self, state: Mapping[str, Any]) -> bool:
        """Become what gave this state; tell whether the champion is the same by now."""
        self.follow()
        self.retire_at, self._look_through = float(state["counts"][1]), True
        self._unmarked = msgspec.json.decode(state["unmarked"].tobytes())
        own = self.champion.id if self.champion else ""
        same = bool(state["champion"].tobytes().decode() == own)
        if same:
            self._user, self._before, self._now = (
                np.array(state[name]) for name in ("user", "before", "now")
            )
            self._seen = int(state["counts"][0])
        return same

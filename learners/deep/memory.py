"""What lifelong learning keeps: the users it follows, what is to be taught, what is rehearsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import Batch
from learners.deep.config import FineTuneConfig, SequenceConfig
from learners.deep.gate import GateConfig
from learners.deep.histories import Histories
from learners.deep.likeness import Listed
from learners.deep.questions import Asked, Questions, Sample
from learners.deep.rehearsal import ReplayBuffer
from learners.deep.trails import Trails, no_histories
from learners.drift import HitStream
from learners.store.ledger import admit, make_ledger, with_room
from learners.store.texts import Texts
from learners.store.vocab import Vocabulary

__all__ = ["Books", "Happening", "LifelongConfig", "Memory", "joined", "parted"]

OLD_QUESTIONS = 2_000

State = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LifelongConfig:
    """Model, schedule, gate and capacities."""

    model: SequenceConfig = field(default_factory=SequenceConfig)
    tuning: FineTuneConfig = field(default_factory=FineTuneConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    first_events: int = 20_000  # clicks and purchases before the first lesson
    every_events: int = 50_000  # between two lessons
    every_minutes: float = 60.0  # of event time; 0: never
    least_events: int = 1_000  # before an alarm or the time begins a lesson
    at_alarms: bool = True
    users: int = 200_000
    items: int = 200_000
    newest: int = 50_000  # sequences
    reservoir: int = 50_000
    session_gap_seconds: float = 1800.0  # as nodes have it: models are judged by their questions
    evaluate_one_in: int = 8
    hold_out_one_in: int = 64  # users
    retire_days: float = 30.0
    dedupe_events: int = 262_144


class Happening(NamedTuple):
    """Something that happened: `what` is one of the words below.

    begun, born, trial, promoted, discarded, rolled_back, retired (of lessons and snapshots);
    alarm (hits have become rarer), failed (a lesson), problem (with the registry).
    """

    what: str
    snapshot: str | None
    events: int  # clicks and purchases learnt until then
    time: float  # of the latest of them, seconds UTC
    why: str
    figures: dict[str, Any]


class _Book(msgspec.Struct):
    """The plain values of `Books`."""

    events: int = 0
    clock: float = 0.0
    cuts: int = 0
    cut_events: int = 0
    cut_time: float = 0.0
    due: bool = False
    again: bool = False
    positions: dict[str, int] = {}
    watermarks: dict[str, float] = {}
    rejected: dict[str, int] = {}
    logs: list[str] = []


class Books:
    """What was learnt from where, each event once, and when the next lesson is due.

    Attributes
    ----------
    events : int
        Clicks and purchases learnt.
    clock : float
        Time of the latest of them, seconds UTC.
    hits : HitStream
        Whether the champion foresaw what came.
    """

    def __init__(self, dedupe_events: int) -> None:
        self.known = make_ledger(dedupe_events)
        self.hits = HitStream()
        self._load(_Book())

    def _load(self, book: _Book) -> None:
        for name in book.__struct_fields__:
            setattr(self, name, getattr(book, name))

    events: int
    clock: float
    cuts: int  # lessons
    cut_events: int
    cut_time: float
    due: bool  # whether a lesson is to begin before its time
    again: bool  # whether one was cut short, and is to begin anew
    positions: dict[str, int]
    watermarks: dict[str, float]
    rejected: dict[str, int]
    logs: list[str]

    def admit(self, batch: Batch) -> NDArray[np.int64]:
        """Return the places of events that are new."""
        for name in batch.logs:
            if name not in self.logs:
                self.logs.append(name)
                self.known = with_room(self.known, len(self.logs))
        number = np.array([self.logs.index(name) for name in batch.logs], np.int32)
        fresh = np.empty(len(batch), np.bool_)
        admit(self.known, batch.event_hash, batch.kind, number[batch.log], fresh)
        return np.flatnonzero(fresh)

    def close(self, batch: Batch) -> None:
        """Note that all of a batch was learnt."""
        self.positions.update(batch.positions)
        self.watermarks.update(batch.watermarks)
        for reason, count in batch.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count

    def why_due(self, config: LifelongConfig) -> str:
        """Say why a lesson is due; nothing if none is.

        `again` (the one before was cut short), `events` (enough have come), `asked` (an alarm or an
        erasure wants it) or `minutes` (of event time have gone by).
        """
        since = self.events - self.cut_events
        every = config.every_events if self.cuts else config.first_events
        if self.again:
            return "again"
        if since >= every:
            return "events"
        if since < config.least_events or not self.cuts:
            return ""
        if self.due:
            return "asked"
        minutes = (self.clock - self.cut_time) / 60.0
        return "minutes" if 0.0 < config.every_minutes <= minutes else ""

    def cut(self) -> None:
        """Note that a lesson ends here."""
        self.cuts, self.cut_events, self.cut_time = self.cuts + 1, self.events, self.clock
        self.due = self.again = False

    def ledger(self) -> dict[str, dict[str, int]]:
        """Return count, xor and sum (modulo 2^64) of the event-id hashes learnt per partition."""
        return {
            name: dict(zip(("count", "xor", "sum"), map(int, self.known.total[i]), strict=True))
            for i, name in enumerate(self.logs)
        }

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return them as named arrays."""
        told = {name: getattr(self, name) for name in _Book.__struct_fields__}
        return {
            "book": np.frombuffer(msgspec.json.encode(_Book(**told)), np.uint8),
            "known": self.known.known.copy(),
            "filled": self.known.filled.copy(),
            "total": self.known.total.copy(),
            "hits": np.frombuffer(bytes(self.hits.hits), np.uint8),
        }

    def load_state(self, state: State) -> None:
        """Become the books that gave this state."""
        self._load(msgspec.json.decode(state["book"].tobytes(), type=_Book))
        self.known = with_room(self.known, len(state["total"]))
        self.known.known[:], self.known.filled[:] = state["known"], state["filled"]
        self.known.total[: len(state["total"])] = state["total"]
        self.hits.load(state["hits"].tobytes())


class Memory:
    """Users, sequences and questions; bounded, and whoever is erased leaves it at once.

    Attributes
    ----------
    fresh : Histories
        Sequences that the champion has not learnt; `fresh_user` (m,) whose, `fresh_until` (m,) how
        many events had come when they were handed out.
    """

    def __init__(self, config: LifelongConfig) -> None:
        self.config = config
        self.items = Vocabulary(config.items)
        self.listed = Listed(config.items)
        self.trails = Trails(config.users, config.model.most_events, config.session_gap_seconds)
        self.buffer = ReplayBuffer(
            newest=config.newest,
            reservoir=config.reservoir,
            longest=config.model.most_events + 1,
            seed=config.tuning.seed,
        )
        self.fresh = no_histories()
        self.fresh_user = np.zeros(0, np.uint64)
        self.fresh_until = np.zeros(0, np.int64)
        self.old = Sample(OLD_QUESTIONS, config.tuning.seed)
        self.asked: list[Asked] = []

    def holds_out(self, user: int) -> bool:
        """Tell whether a user is never trained on, and shows what was forgotten."""
        return user % self.config.hold_out_one_in == 0

    def hand_out(self, events: int) -> None:
        """Move what is new of all users to what is to be taught."""
        users, histories = self.trails.hand_out()
        taught = np.flatnonzero(users % np.uint64(self.config.hold_out_one_in) != 0)
        self.fresh = self.fresh.and_then(histories.take(taught))
        self.fresh_user = np.concatenate([self.fresh_user, users[taught]])
        self.fresh_until = np.concatenate([self.fresh_until, np.full(len(taught), events)])
        if (surplus := len(self.fresh_user) - self.config.newest) > 0:
            self._to_buffer(np.arange(len(self.fresh_user)) < surplus)

    def let_go(self, events: int) -> None:
        """Move what a champion has learnt, that cut so late, to what is rehearsed."""
        self._to_buffer(self.fresh_until <= events)

    def _to_buffer(self, which: NDArray[np.bool_]) -> None:
        places = np.flatnonzero(which)
        if len(places):
            self.buffer.add(self.fresh_user[places], self.fresh.take(places))
            self._keep_fresh(~which)

    def _keep_fresh(self, which: NDArray[np.bool_]) -> None:
        self.fresh = self.fresh.take(np.flatnonzero(which))
        self.fresh_user, self.fresh_until = self.fresh_user[which], self.fresh_until[which]

    def erase(self, user: int) -> None:
        """Forget a user."""
        self.trails.erase(user)
        self.buffer.erase(user)
        self._keep_fresh(self.fresh_user != np.uint64(user))
        self.old.erase(user)
        self.asked = [asked for asked in self.asked if asked[0] != user]

    def rows_of(self, items: Texts) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return rows of items (n,), for which there is room, and those not seen before (m,)."""
        rows = self.items.assign(items)
        return rows, np.unique(rows[self.items.last_seen[rows] == 0])

    def evict_items(self) -> NDArray[np.int64]:
        """Give up the items unseen for longest; return their rows."""
        gone = self.items.oldest()
        self.items.free(gone)
        self.listed.forget(gone)
        for part in (self.trails, self.old):
            part.forget_items(gone)
        for item in (self.fresh.item, self.buffer.item):
            item[np.isin(item, gone)] = -1
        lost = set(gone.tolist())
        self.asked = [
            asked for asked in self.asked if not lost.intersection([asked[1], *asked[3].item])
        ]
        return gone

    def state(self) -> dict[str, dict[str, NDArray[np.generic]]]:
        """Return it part by part, as named arrays."""
        fresh = self.fresh
        return {
            "items": {name: np.array(array) for name, array in self.items.state().items()},
            "listed": self.listed.state(self.items.used),
            "trails": self.trails.state(),
            "buffer": self.buffer.state(),
            "fresh": {
                "user": self.fresh_user,
                "until": self.fresh_until,
                "item": fresh.item,
                "kind": fresh.kind,
                "time": fresh.time,
                "start": fresh.start,
                "context": fresh.looked_back,
            },
            "old": self.old.state(),
            "asked": Questions.of(self.asked).state("asked"),
        }

    def load_state(self, parts: Mapping[str, State]) -> None:
        """Become the memory that gave this state."""
        self.items.load_state(parts["items"])
        self.listed.load_state(parts["listed"])
        self.trails.load_state(parts["trails"])
        self.buffer.load_state(parts["buffer"])
        fresh: dict[str, Any] = {name: np.array(a) for name, a in parts["fresh"].items()}
        self.fresh_user, self.fresh_until = fresh.pop("user"), fresh.pop("until")
        self.fresh = Histories(**fresh)
        self.old.load_state(parts["old"])
        self.asked = Questions.from_state("asked", parts["asked"]).one_by_one()


def joined(parts: Mapping[str, State]) -> dict[str, NDArray[np.generic]]:
    """Return named arrays of several parts under one name each: `part/name`."""
    return {f"{part}/{key}": array for part, each in parts.items() for key, array in each.items()}


def parted(state: State) -> dict[str, dict[str, NDArray[np.generic]]]:
    """Return them part by part again."""
    parts: dict[str, dict[str, NDArray[np.generic]]] = {}
    for name, array in state.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = array
    return parts

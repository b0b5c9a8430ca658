"""Ways to live with drift: learn on, refit every so often, or stay as one is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import numpy as np

from benchmarks.drift_stream import LIST, Scenario
from learners.base import PURCHASE, Batch, CatalogueEntry, EngineConfig
from learners.candidates import gather
from learners.engine import Engine
from learners.handle import Handle, state_of
from learners.jit import jit_counted
from learners.prequential import Events, Tested, ask_user, make_tested, rank
from learners.ranks import BLEND, SOURCES, Ranking, note_ranks
from learners.sources import shelves
from learners.sources.content import listing_of
from learners.store.history import append, begin
from learners.store.texts import keys_64

__all__ = ["METHODS", "REFIT_EVERY", "WINDOW", "Contestant", "Frozen", "Online", "Refitted"]

REFIT_EVERY = 10_000  # events
WINDOW = 10_000  # events before the refit, which is all that it learns from


@jit_counted
def _look_on(handle: Handle, events: Events, tested: Tested, gap_seconds: float, most: int) -> None:
    """Test events as `prequential.test_then_learn` does, and note them in histories: no more."""
    state = state_of(handle)
    history, models, blend, work = state.history, state.models, state.blend, state.work
    listed = 0
    for i in range(len(events.item)):
        listed = shelves.list_until(models.content, events.listing, listed, i)
        user, item, time = events.user[i], events.item[i], events.time[i]
        tested.known[i] = history.head[user].total
        begin(history, user, events.session[i], time, gap_seconds)
        tested.valid[i] = tested.known[i] > 0
        if tested.valid[i]:
            head = history.head[user]
            asked = ask_user(history, work, user, max(time, head.last), int(head.session_length))
            touched = gather(models, work, asked)
            kept = rank(models, blend, work, asked, touched, most)
            final = Ranking(work.chosen, work.score, kept)
            note_ranks(models, work, touched, kept, final, item, tested.rank[i], tested.covered)
        append(history, user, item, events.kind[i], time)
    shelves.list_until(models.content, events.listing, listed, len(events.item))


class Contestant(ABC):
    """What meets the batches of a story; `learn` returns (hits at 20, targets) of a batch."""

    def __init__(self, config: EngineConfig, scenario: Scenario) -> None:
        self.engine = Engine(config)

    @abstractmethod
    def learn(self, batch: Batch) -> tuple[int, int]:
        """Test a batch event by event, and learn what the method learns."""

    def lists(self, users: Sequence[str]) -> list[list[str]]:
        """Lists of LIST items for some users, as asked after the batch."""
        return [[each.item for each in self.engine.recommend(user, k=LIST)] for user in users]


class Online(Contestant):
    """everlearn, with or without action at an alarm."""

    def learn(self, batch: Batch) -> tuple[int, int]:
        hits, targets = self._books()
        self.engine.learn(batch)
        now = self._books()
        return now[0] - hits, now[1] - targets

    def _books(self) -> tuple[int, int]:
        blend = self.engine.evaluation.metrics()[SOURCES[BLEND]]
        return round(blend["hr@20"] * blend["n"]), int(blend["n"])


class Frozen(Contestant):
    """Learns until the first change; then it knows who looks at what, and learns nothing of it."""

    def __init__(self, config: EngineConfig, scenario: Scenario) -> None:
        self.online = Online(config, scenario)
        self.engine = self.online.engine
        self.learns_until = scenario.at

    def learn(self, batch: Batch) -> tuple[int, int]:
        if self.engine.memory.events < self.learns_until:
            return self.online.learn(batch)
        return look_on(self.engine, batch)


class Refitted(Contestant):
    """Thrown away every REFIT_EVERY events and fitted anew on the last WINDOW; frozen between."""

    def __init__(self, config: EngineConfig, scenario: Scenario) -> None:
        self.online = Online(config, scenario)
        self.engine = self.online.engine
        self._config = config
        self._window: deque[Batch] = deque()
        self._held = self._since = 0
        self._fitted = False

    def learn(self, batch: Batch) -> tuple[int, int]:
        found = look_on(self.engine, batch) if self._fitted else self.online.learn(batch)
        acts = int(np.count_nonzero(batch.kind <= PURCHASE))
        self._window.append(batch)
        self._held += acts
        self._since += acts
        if self._since >= REFIT_EVERY:
            self._since -= REFIT_EVERY
            self._refit()
        return found

    def _refit(self) -> None:
        """Begin anew, with the catalogue, which is no taste, and the newest batches."""
        while self._held - len(self._window[0]) >= WINDOW:
            self._held -= int(np.count_nonzero(self._window.popleft().kind <= PURCHASE))
        engine, old = Engine(self._config), self.engine
        listed = {}
        for former in range(old.memory.items.used):
            if entry := old.catalogue.entry(former):
                listed[old.memory.items.ids[former]] = entry
        rows, entries = engine.memory.items.assign(list(listed)), list(listed.values())
        for row, entry in zip(rows.tolist(), entries, strict=True):
            engine.catalogue.update(row, entry)
        engine.memory.content.list_items(rows, entries, np.full(len(rows), old.clock))
        for batch in self._window:
            engine.learn(batch)
        self.engine, self._fitted = engine, True


def look_on(engine: Engine, batch: Batch) -> tuple[int, int]:
    """Test a batch and write it into histories; return hits at LIST and targets."""
    memory = engine.memory
    is_act = batch.kind <= PURCHASE
    acts, told = np.flatnonzero(is_act), np.flatnonzero(~is_act)
    rows = memory.items.assign(batch.item)
    entries = [batch.catalogue.get(place, CatalogueEntry()) for place in told.tolist()]
    for row, entry in zip(rows[told].tolist(), entries, strict=True):
        engine.catalogue.update(row, entry)
    n, before = len(acts), np.cumsum(is_act, dtype=np.int64)
    events = Events(
        memory.users.assign([batch.user[place] for place in acts.tolist()]),
        rows[acts],
        batch.kind[acts],
        batch.timestamp[acts],
        keys_64([batch.session[place] for place in acts.tolist()]),
        np.ones(n, np.bool_),
        np.zeros(n, np.bool_),
        listing_of(rows[told], entries, batch.timestamp[told], before[told]),
        np.full(n, np.nan, np.float32),
    )
    tested = make_tested(n, engine.evaluation.covered)
    config = engine.config
    _look_on(memory.handle, events, tested, config.session_gap_seconds, config.candidates)
    engine.clock = max(engine.clock, float(batch.timestamp.max()))
    return int((tested.rank[tested.valid, BLEND] <= LIST).sum()), int(tested.valid.sum())


METHODS: dict[str, type[Contestant]] = {
    "everlearn": Online,
    "no_drift_action": Online,
    f"refit_every_{REFIT_EVERY}": Refitted,
    "frozen": Frozen,
}

"""The engine: events in, recommendations out. Start reading here.

`learn` takes a batch in order: each event is admitted once (`ledger`), its ids become rows
(`vocab`), and `prequential.test_then_learn` ranks for a sample before it learns all. `recommend`
asks the same kernels. Everything the next event reads is in `state()`; the same events in the same
order give the same `fingerprint()`, byte for byte, however they were cut into batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.answers import Answers
from learners.base import (
    ERASURE,
    ITEM,
    KINDS,
    PURCHASE,
    Batch,
    CatalogueEntry,
    EngineConfig,
    Recommendation,
    UserView,
)
from learners.capacity import parts_of
from learners.deep.served.deep import Deep
from learners.drift import DetectorConfig, Drift
from learners.evaluate import Prequential
from learners.explore import Explorer, Slots
from learners.forgetting import Watch
from learners.prequential import Events, Tested, make_tested, test_then_learn
from learners.report import report_of
from learners.sources.content import NO_LISTING, listing_of
from learners.sources.shelves import Listing
from learners.store.catalogue import Catalogue, Told
from learners.store.digest import fingerprint_of
from learners.store.ledger import admit, with_room
from learners.store.memory import Memory
from learners.store.texts import Texts, keys_64
from learners.store.turnstile import Turnstile

__all__ = ["Engine"]


class Engine:
    """An online recommender over clicks and purchases.

    One thread learns; any thread may ask. Positions and watermarks of the log it has learnt are
    kept beside the state, so that a checkpoint holds both.

    Parameters
    ----------
    config : EngineConfig, optional
        Capacities, half-lives, seed; the defaults when left out.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self.memory = Memory.make(self.config)
        self.evaluation = Prequential(self.config.items)
        self.drift = Drift(DetectorConfig.of(self.config))
        self.catalogue = Catalogue(self.config.items)
        self.clock = 0.0  # event time, seconds
        self.learnt = dict.fromkeys(KINDS, 0)
        self.duplicates = 0
        self.rejected: dict[str, int] = {}
        self.logs: list[str] = []
        self.positions: dict[str, int] = {}
        self.watermarks: dict[str, float] = {}
        self._turn = Turnstile()
        self.explorer = Explorer(self.memory, self.catalogue)
        self._answers = Answers(self.memory, self.catalogue, self.config, self.explorer)
        self._watch = Watch(self.config, self.drift, self.memory, self.catalogue, self._turn)

    # Learning

    def learn(self, batch: Batch) -> int:
        """Learn a batch in order, on one thread only; return how many of its events were new.

        Positions move when all of it has been learnt.
        """
        logs = np.array([self._log(name) for name in batch.logs], np.int32)[batch.log]
        before = sum(self.learnt.values())
        self._learn_fresh(batch, self._admit(batch, logs))
        for reason, count in batch.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count
        self.positions.update(batch.positions)
        self.watermarks.update(batch.watermarks)
        return sum(self.learnt.values()) - before

    def _log(self, name: str) -> int:
        if name not in self.logs:
            self.logs.append(name)
            self.memory.ledger = with_room(self.memory.ledger, len(self.logs))
        return self.logs.index(name)

    def _admit(self, batch: Batch, logs: NDArray[np.int32]) -> NDArray[np.int64]:
        """Enter a batch in the books; return the places of the events that are new."""
        fresh = np.empty(len(batch), np.bool_)
        admit(self.memory.ledger, batch.event_hash, batch.kind, logs, fresh)
        places = np.flatnonzero(fresh)
        self.duplicates += len(batch) - len(places)
        for kind, count in enumerate(np.bincount(batch.kind[places], minlength=len(KINDS))):
            self.learnt[KINDS[kind]] += int(count)
        return places

    def _learn_fresh(self, batch: Batch, places: NDArray[np.int64]) -> None:
        self.explorer.learn(batch, places)
        begin = 0
        for erasure in np.flatnonzero(batch.kind[places] == ERASURE):
            self._learn_run(batch, places[begin:erasure])
            with self._turn:
                self.memory.erase(batch.user[places[erasure]])
            begin = int(erasure) + 1
        self._learn_run(batch, places[begin:])

    def _learn_run(self, batch: Batch, places: NDArray[np.int64]) -> None:
        """Learn events without an erasure, evicting wherever rows run out."""
        kinds = batch.kind[places]
        all_items, all_users = Texts.of(batch.item), Texts.of(batch.user)
        memory = self.memory
        named = places[(kinds <= PURCHASE) | (kinds == ITEM)]
        if self.config.admit_items_after > 1:
            named = named[memory.let_through(all_items.take(named), batch.kind[named])]
        while len(named):
            acts = batch.kind[named] <= PURCHASE
            items = all_items.take(named)
            users = all_users.take(named[acts])
            reach = memory.items.room(items)
            if (most_acts := memory.users.room(users)) < len(users):
                reach = min(reach, int(np.flatnonzero(acts)[most_acts]))
            now = min(reach, self._watch.reach(acts))
            if now:
                self._learn_rows(batch, named[:now], acts[:now], items[:now], users)
            named = named[now:]
            if len(named) and now == reach:
                with self._turn:
                    self._evict()

    def _learn_rows(
        self,
        batch: Batch,
        places: NDArray[np.int64],
        acts: NDArray[np.bool_],
        items: Texts,
        users: Texts,
    ) -> None:
        memory = self.memory
        count = memory.events + np.cumsum(acts)
        rows = memory.items.assign(items)
        memory.deep.learn_rows(rows, memory.items)
        memory.items.last_seen[rows] = count
        acting = places[acts]
        sampled = batch.event_hash[places] % np.uint64(self.config.evaluate_one_in) == 0
        listing, told = self._list(batch, places, rows, acts, sampled)
        if not len(acting):
            with self._turn:
                memory.list_all(listing)
            return
        user_rows = memory.users.assign(users[: len(acting)])
        memory.users.last_seen[user_rows] = count[acts]
        events = Events(
            user_rows,
            rows[acts],
            batch.kind[acting],
            batch.timestamp[acting],
            keys_64(Texts.of(batch.session).take(acting)),
            sampled[acts],
            (count <= self.config.blend_warmup_events)[acts],
            listing,
            batch.value[acting] if len(batch.value) else np.full(len(acting), np.nan, np.float32),
        )
        self._test_then_learn(events, told)

    def _list(
        self,
        batch: Batch,
        places: NDArray[np.int64],
        rows: NDArray[np.int32],
        acts: NDArray[np.bool_],
        sampled: NDArray[np.bool_],
    ) -> tuple[Listing, Told]:
        """Take item events into the catalogue; return them, and what `Catalogue.take` tells."""
        if acts.all():
            return NO_LISTING, {}
        listed = places[~acts]
        entries = [batch.catalogue.get(place, CatalogueEntry()) for place in listed.tolist()]
        with self._turn:
            told = self.catalogue.take(rows, acts, entries, sampled)
        after = np.cumsum(acts, dtype=np.int64)[~acts]
        return listing_of(rows[~acts], entries, batch.timestamp[listed], after), told

    def _test_then_learn(self, events: Events, told: Told) -> None:
        tested = make_tested(len(events.item), self.evaluation.covered)
        for start, end in self._watch.parts(len(events.item)):
            self._learn_part(events, tested, start, end)
            self._watch.look(events, tested, told, start, end)
        self.evaluation.record_all(tested, events, self.memory.events)
        self.memory.events += len(events.item)

    def _learn_part(self, events: Events, tested: Tested, start: int, end: int) -> None:
        while start < end:
            self._turn.waiting[0] = 0
            with self._turn:
                stop = test_then_learn(
                    self.memory.handle,
                    events,
                    tested,
                    self.config.session_gap_seconds,
                    self.config.candidates,
                    start,
                    end,
                    self._turn.waiting,
                )
                self.clock = max(self.clock, float(events.time[start:stop].max()))
            start = stop
            self.memory.outcomes.update_where_due(self._turn)

    def _evict(self) -> None:
        """Give up the longest unseen rows of whichever vocabulary is full."""
        if len(self.memory.users) == self.memory.users.capacity:
            self.memory.evict_users(self._turn.let_through)
        if len(self.memory.items) == self.memory.items.capacity:
            rows = self.memory.evict_items(self._turn.let_through)
            self.evaluation.forget_items(rows)
            self.catalogue.forget(rows)

    def serve(self, deep: Deep) -> None:
        """Answer with another version of the deep model, or none, from now on; between batches."""
        deep.begin(self.memory.items)
        with self._turn:
            self.memory.serve(deep)

    @property
    def snapshot(self) -> str:
        """Name the version of the deep model that answers now, empty without one."""
        return self.memory.deep.snapshot

    # Asking

    def recommend(
        self,
        user: str | None = None,
        *,
        events: Sequence[tuple[str, str, float]] = (),
        k: int = 10,
        exclude: Collection[str] = (),
        explore: Slots | None = None,
    ) -> list[Recommendation]:
        """Return the k best items for a user, or for an anonymous list of events.

        Parameters
        ----------
        user : str, optional
            Unknown users get what is popular.
        events : sequence of (item, kind, seconds), oldest first
            Read where no user is named.
        k : int
            Length of the answer; shorter only where fewer items are known.
        exclude : {"seen", "bought"}
            Leave out what the user has clicked or bought, as far as the history reaches.
        explore : Slots, optional
            Places for new and uncertain items, where a user is named.
        """
        with self._turn:
            return self._answers.recommend(self.clock, user, events, k, exclude, explore)

    def similar(self, item: str, k: int = 10) -> list[Recommendation]:
        """Return the k items that follow or accompany an item; empty when it is unknown."""
        with self._turn:
            return self._answers.similar(self.clock, item, k)

    def trending(self, k: int = 10) -> list[Recommendation]:
        """Return the k items most clicked lately."""
        with self._turn:
            return self._answers.trending(self.clock, k)

    def user(self, user: str) -> UserView | None:
        """Return what is held of a user, `None` when that is nothing."""
        with self._turn:
            return self._answers.user(user)

    def knows_item(self, item: str) -> bool:
        """Tell whether an item was clicked, bought or listed in the catalogue."""
        return self.memory.items.row(item) >= 0

    def entry(self, item: str) -> CatalogueEntry | None:
        """Return what the catalogue says of an item."""
        return self.catalogue.entry(self.memory.items.row(item))

    # The books

    def report(self) -> dict[str, object]:
        """Return counts, prequential figures by source, windows and alarms, as plain values."""
        return report_of(self)

    def ledger(self) -> dict[str, dict[str, int]]:
        """Return count, xor and sum (modulo 2^64) of the event-id hashes learnt per partition."""
        totals = self.memory.ledger.total
        return {
            name: dict(zip(("count", "xor", "sum"), map(int, totals[i]), strict=True))
            for i, name in enumerate(self.logs)
        }

    def capacity_bytes(self) -> int:
        """Return the bytes that it may come to take, as `capacity` counts them."""
        return sum(parts_of(self).values())

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the learnt state as views; call it between batches, copy before learning on."""
        parts: dict[str, Mapping[str, NDArray[np.generic]]] = {
            **self.memory.parts(),
            "evaluation": self.evaluation.state(self.memory.items.used),
            "drift": self.drift.state(),
            "catalogue": self.catalogue.state(),
            "explored": self.explorer.state(),
            "engine": {
                "clock": np.array([self.clock]),
                "events": np.array([self.memory.events, self.duplicates, *self.learnt.values()]),
            },
        }
        return {
            f"{part}/{key}": array for part, each in parts.items() for key, array in each.items()
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the engine that gave this state; positions and ledger are the checkpoint's."""
        parts: dict[str, dict[str, NDArray[np.generic]]] = {}
        for name, array in state.items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = array
        self.memory.load_parts(parts)
        self.evaluation.load_state(parts["evaluation"])
        self.drift.load_state(parts["drift"])
        self.catalogue.load_state(parts["catalogue"])
        self.explorer.load_state(parts["explored"])
        self.clock = float(parts["engine"]["clock"][0])
        self.memory.events, self.duplicates, *counts = map(int, parts["engine"]["events"])
        self.learnt = dict(zip(KINDS, counts, strict=True))

    def fingerprint(self) -> str:
        """Return a digest of the learnt state; call it where nothing is being learnt.

        Positions and ledger are left out: the same events from another log give the same answers.
        """
        return fingerprint_of(self.state())

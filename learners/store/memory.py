"""What the engine has learnt: vocabularies, histories, sources, blend and books, in one place.

All arrays are reserved at full capacity when it is made; the system backs a page with memory when
it is first written, so the use grows with the data and the bound is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.blend import Blend, blend_state, load_blend, make_blend
from learners.candidates import Models, Workspace, first_weights, make_workspace
from learners.deep.served.deep import Deep
from learners.handle import Handle, State, make_handle
from learners.outcomes import Outcomes
from learners.sources.content import Content
from learners.sources.factors import Factors
from learners.sources.neighbours import Neighbours
from learners.sources.popularity import Popularity
from learners.sources.rings import Weighing
from learners.sources.shelves import FRESH, Listing
from learners.sources.transitions import Transitions
from learners.store.frequency import Frequency, let_through, make_frequency
from learners.store.history import History, forget_items, make_history
from learners.store.ledger import Ledger, make_ledger
from learners.store.rows import refill
from learners.store.sessions import forget_owners
from learners.store.texts import Texts, keys_64
from learners.store.vocab import Vocabulary

__all__ = ["MOST_ANSWER", "Memory"]

USERS_AT_ONCE = 65_536  # whose histories are swept under one hold of the lock
EVICTED_AT_ONCE = 8_192  # users
MOST_ANSWER = 512  # candidates of one answer, where the settings ask for fewer


class Marked(NamedTuple):
    """An array (n, ...), and marks (at least n,): 1 where a row has changed since `clear_marks`."""

    array: NDArray[Any]
    changed: NDArray[np.uint8]


@dataclass(slots=True)
class Memory:
    """The arrays of an engine and the operations that touch several of them."""

    users: Vocabulary
    items: Vocabulary
    history: History
    near: Neighbours
    following: Transitions
    popular: Popularity
    factors: Factors
    content: Content
    outcomes: Outcomes
    deep: Deep
    blend: Blend
    ledger: Ledger
    frequency: Frequency
    work: Workspace
    models: Models
    handle: Handle  # of history, models, blend and work
    admit_after: int  # events of an item
    events: int = 0  # clicks and purchases learnt

    @classmethod
    def make(cls, config: EngineConfig) -> Memory:
        """Return empty memory of the configured capacities."""
        ring = 1 << max(config.neighbour_sessions - 1, 3).bit_length()
        slots = 1 << max(config.transition_slots - 1, 3).bit_length()
        half_life = config.neighbour_half_life_seconds
        weighing = Weighing.of(config)
        near = Neighbours(
            config.items, config.sessions, ring, config.neighbours, half_life, weighing
        )
        following = Transitions(config.items, config.transition_half_lives_seconds, slots)
        popular = Popularity(config.items, config.popularity_half_lives_seconds)
        step = config.factor_rate, config.factor_correction
        factors = Factors(config.items, config.factor_recent, config.seed, *step)
        content = Content(config.items, config.content_candidates)
        outcomes = Outcomes(config, max(config.candidates, MOST_ANSWER))
        deep = Deep(config.items)
        history = make_history(config.users, config.history_length)
        blend = make_blend(first_weights(), config.hidden_units, config.seed, config.blend_rate)
        work = make_workspace(
            config.items,
            config.sessions,
            ring,
            config.neighbours,
            slots,
            len(blend.bias),
            max(config.candidates, MOST_ANSWER),
        )
        models = Models(
            near.sessions,
            near.arrays,
            following.arrays,
            popular.arrays,
            factors.arrays,
            content.arrays,
            outcomes.arrays,
            deep.arrays,
        )
        return cls(
            Vocabulary(config.users),
            Vocabulary(config.items),
            history,
            near,
            following,
            popular,
            factors,
            content,
            outcomes,
            deep,
            blend,
            make_ledger(config.dedupe_events),
            make_frequency(config.items, config.admit_items_after),
            work,
            models,
            make_handle(State(history, models, blend, work)),
            config.admit_items_after,
        )

    def let_through(self, items: Texts, kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell of each event whether its item has been met often enough to be learnt; (n,)."""
        through = np.empty(len(kinds), np.bool_)
        let_through(self.frequency, keys_64(items), kinds, self.admit_after, through)
        return through

    def serve(self, deep: Deep) -> None:
        """Put another snapshot in the place of the one before; the kernels read it from now on."""
        self.deep = deep
        self.models = self.models._replace(deep=deep.arrays)
        self.handle = make_handle(State(self.history, self.models, self.blend, self.work))

    @property
    def seen(self) -> int:
        """Return how many items were clicked, bought or listed."""
        return int(self.popular.arrays.seen[0] + self.content.arrays.book[FRESH])

    def erase(self, user: str) -> None:
        """Remove a user: the history, their sessions, and the id itself."""
        row = self.users.row(user)
        if row >= 0:
            self._forget_users(np.array([row]), erase=True)

    def evict_users(self, pause: Callable[[], None]) -> None:
        """Give up the users unseen for longest; their sessions stay, nobody's.

        `pause` is called between the steps, after each of which every answer is a sound one.
        """
        rows = self.users.oldest()
        for first in range(0, len(rows), EVICTED_AT_ONCE):
            self._forget_users(rows[first : first + EVICTED_AT_ONCE], erase=False)
            pause()

    def _forget_users(self, rows: NDArray[np.int64], erase: bool) -> None:
        for array in (self.history.head, self.history.event):
            array[rows] = np.zeros(1, array.dtype)[0]
        self.history.changed[rows] = 1
        forget_owners(self.near.sessions, rows, erase)
        self.outcomes.forget_users(rows)
        self.deep.forget_users(rows)
        self.users.free(rows)

    def list_all(self, listing: Listing) -> None:
        """Learn item events that no click or purchase follows."""
        self.content.list_all(listing)
        self.outcomes.list_all(listing)

    def evict_items(self, pause: Callable[[], None]) -> NDArray[np.int64]:
        """Give up the items unseen for longest, everywhere; return their rows.

        `pause` is called between the steps, after each of which every answer is a sound one.
        """
        rows = self.items.oldest()
        for source in (self.near, self.following, self.popular, self.factors, self.content):
            source.forget_items(rows, pause)
            pause()
        self.outcomes.forget_items(rows)
        self.deep.forget_items(rows)
        gone = np.zeros(self.items.capacity, np.bool_)
        gone[rows] = True
        for first in range(0, self.users.used, USERS_AT_ONCE):
            forget_items(self.history, first, min(first + USERS_AT_ONCE, self.users.used), gone)
            pause()
        self.items.free(rows)
        return rows

    def parts(self) -> dict[str, dict[str, NDArray[np.generic]]]:
        """Return the state by part, the used rows only."""
        n = self.users.used
        return {
            "users": self.users.state(),
            "items": self.items.state(),
            "history": {"head": self.history.head[:n], "event": self.history.event[:n]},
            "neighbours": {**self.near.state()},
            "transitions": {**self.following.state()},
            "popularity": {**self.popular.state()},
            "factors": {**self.factors.state()},
            "content": {**self.content.state()},
            "outcomes": {**self.outcomes.state(self.items.used)},
            "blend": {**blend_state(self.blend)},
            "deep": {"snapshot": np.frombuffer(self.deep.snapshot.encode(), np.uint8)},
            "frequency": self.frequency._asdict(),
            "known": {"ids": self.ledger.known, "filled": self.ledger.filled},
        }

    def marked(self) -> dict[str, Marked]:
        """Return the arrays that say which of their rows changed, by their names in a state."""
        n, history = self.users.used, self.history
        return {
            "history/head": Marked(history.head[:n], history.changed),
            "history/event": Marked(history.event[:n], history.changed),
        }

    def clear_marks(self) -> None:
        """Mark from now on; call it where nothing is being learnt."""
        self.history.changed[:] = 0

    def load_parts(self, parts: Mapping[str, Mapping[str, NDArray[np.generic]]]) -> None:
        """Become the memory that gave this state."""
        self.users.load_state(parts["users"])
        self.items.load_state(parts["items"])
        for name, array in parts["history"].items():
            refill(getattr(self.history, name), array)
        self.near.load_state(parts["neighbours"])
        self.following.load_state(parts["transitions"])
        self.popular.load_state(parts["popularity"])
        self.factors.load_state(parts["factors"])
        self.content.load_state(parts["content"])
        self.outcomes.load_state(parts.get("outcomes", {}))
        load_blend(self.blend, parts["blend"])
        self.deep.begin(self.items)
        for name, array in parts["frequency"].items():
            getattr(self.frequency, name)[...] = array
        self.ledger.known[...] = parts["known"]["ids"]
        self.ledger.filled[...] = parts["known"]["filled"]

"""A drifting shop, written down once: what happened in it, and who might be asked about when.

So every method meets the same events and is asked the same questions. What a shopper truly wants is
kept with each question: regret is by true taste, not by clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learners.base import Batch
from streams.shop import Drift, Shop, ShopConfig
from streams.shop_events import item_number

__all__ = ["BIN", "LIST", "Question", "Scenario", "Story", "scenarios", "tell"]

BIN = 128  # events, which are a batch and a point of the curves
LIST = 20
ASKED = 4  # shoppers a bin
SECONDS = 60.0  # of event time between two events: 1,440 events a day
START = 1_750_000_000.0  # seconds UTC
SEEN_WITHIN = 5_000  # events in which a drift that is over at once should be found


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A script: what changes, when (in events), and how long that takes."""

    drift: Drift
    at: int
    length: int
    events: int

    @property
    def changes(self) -> list[int]:
        """The events at which something begins to change."""
        every = range(self.at, self.events, self.at)
        return list(every) if self.drift == "recurring" else [self.at]

    def spans(self) -> list[tuple[int, int]]:
        """The (first, last) event of each time in which an alarm is right."""
        lasts = SEEN_WITHIN + (self.length if self.drift == "gradual" else 0)
        return [(change, change + lasts) for change in self.changes]


def scenarios(events: int, later: int = 0) -> dict[str, Scenario]:
    """Scripts of this length: the drift in the middle, or (recurring) at each quarter.

    All but the recurring one, which meets a schedule at several places anyway, may begin `later`.
    """
    kinds: tuple[Drift, ...] = ("sudden", "gradual", "recurring", "catalogue")
    return {
        kind: Scenario(
            drift=kind,
            at=events // 4 if kind == "recurring" else events // 2 + later,
            length=events // 10,
            events=events,
        )
        for kind in kinds
    }


@dataclass(frozen=True, slots=True)
class Question:
    """Some shoppers at one moment."""

    users: Sequence[str]
    chance: NDArray[np.float32]  # (n, places) true chance of each place to be the next pick
    generation: NDArray[np.int64]  # (places,) which item a place holds

    def regret(self, lists: Sequence[Sequence[str]]) -> float:
        """Chance of a pick that the best lists of LIST have, less that of these; summed."""
        lost = 0.0
        size = len(self.generation)
        for chance, names in zip(self.chance, lists, strict=True):
            numbers = np.array([item_number(name) for name in names], np.int64)
            places = numbers % size
            on_sale = (
                self.generation[places] == numbers // size if len(names) else np.zeros(0, bool)
            )
            held = np.unique(places[on_sale])
            lost += float(np.partition(chance, -LIST)[-LIST:].sum() - chance[held].sum())
        return lost


@dataclass(frozen=True, slots=True)
class Story:
    """Batches of BIN events, and a question after each."""

    scenario: Scenario
    batches: list[Batch]
    questions: list[Question]


def tell(scenario: Scenario, *, users: int, items: int, seed: int, ask: bool = True) -> Story:
    """Let a shop live through a scenario."""
    shop = Shop(
        ShopConfig(
            users=users,
            items=items,
            seed=seed,
            drift=scenario.drift,
            drift_at=scenario.at,
            drift_length=scenario.length,
        )
    )
    rng = np.random.default_rng([seed, 11])
    story = Story(scenario, [], [])
    opening = shop.catalogue(START)
    for first in range(0, scenario.events, BIN):
        numbers = np.arange(first, min(first + BIN, scenario.events))
        happened = shop.step(np.asarray(START + SECONDS * (1.0 + numbers), np.float64))
        if not first:
            happened = replace(happened, catalogue=[*opening, *happened.catalogue])
        story.batches.append(happened.batch())
        if ask:
            turn = rng.permutation(len(shop.user))[:ASKED]
            chance = shop.chance(shop.user[turn], shop.current[turn]).astype(np.float32)
            story.questions.append(Question(shop.user_names(turn), chance, shop.generation.copy()))
    return story

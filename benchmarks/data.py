"""Synthetic events: a crowd of shoppers in a large shop, with sessions, tastes and purchases.

The shop is that of `everlearn simulate`; before it opens, every user has clicked once and every
item was clicked, so that a learner that has read so much holds all of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streams.events import Click, Event, Purchase, encode
from streams.shop import Shop, ShopConfig
from streams.shop_events import item_name, user_name

__all__ = ["Crowd", "Message", "lead_in", "live_events", "message_of", "recorded"]

LONG_AGO = 1_750_000_000.0  # seconds UTC; recorded events begin here, so that runs can be repeated
STEP_SECONDS = 0.05  # of event time between two recorded events
ACTIVE = 2_000  # shoppers in the shop at a time
SLICE = 200


class Message(NamedTuple):
    """An event as Kafka takes it."""

    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many users and items there are; `seed` decides who likes what."""

    users: int = 100_000
    items: int = 50_000
    seed: int = 1

    @property
    def lead_in(self) -> int:
        """Events after which every user and every item has been seen."""
        return max(self.users, self.items)

    def open_shop(self, name: str) -> Shop:
        """The shop of this crowd; the name begins every id of an event or a session."""
        active = min(ACTIVE, self.users // 4)
        return Shop(
            ShopConfig(users=self.users, items=self.items, seed=self.seed, active=active, name=name)
        )


def lead_in(crowd: Crowd, start: float = LONG_AGO) -> Iterator[Event]:
    """One click of every user, at least one on every item, in an order without meaning."""
    rng = np.random.default_rng([crowd.seed, 3])
    users = rng.permutation(crowd.lead_in) % crowd.users
    items = rng.permutation(crowd.lead_in) % crowd.items
    for i, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        yield Click(
            event_id=f"first-{i}",
            timestamp=start + i * STEP_SECONDS,
            user=user_name(user),
            item=item_name(item),
        )


def recorded(crowd: Crowd, events: int, start: float = LONG_AGO) -> Iterator[Event]:
    """The lead-in, then so many events of the shop."""
    yield from lead_in(crowd, start)
    shop = crowd.open_shop("bench")
    opened = start + crowd.lead_in * STEP_SECONDS
    for done in range(0, events, ACTIVE):
        numbers = np.arange(done, min(done + ACTIVE, events), dtype=np.float64)
        yield from shop.step(opened + numbers * STEP_SECONDS).events()


def live_events(crowd: Crowd, skip: int) -> Iterator[Event]:
    """Events of the shop without end, after so many that were recorded; their times are to be set.

    They are made a few at a time, so that nobody is kept waiting for many.
    """
    shop = crowd.open_shop("live")
    for _ in range(0, skip, ACTIVE):
        shop.step(np.zeros(ACTIVE))
    while True:
        yield from shop.step(np.zeros(SLICE)).events()


def message_of(event: Event) -> Message:
    """A click or purchase as a producer publishes it: keyed by user, at its own time."""
    user = event.user if isinstance(event, Click | Purchase) else ""
    return Message(user.encode(), encode(event), round(event.timestamp * 1000))

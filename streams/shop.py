"""A synthetic shop: a catalogue, shoppers who click and buy by known tastes, scripted drift.

Pure and seeded; no Kafka, no clock. Because the true tastes are known at every moment, the regret
of an answer and the recovery after a drift can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK, PURCHASE
from streams.events import Item
from streams.shop_events import ShopEvents, item_name, item_number, user_name
from streams.shop_tastes import DRIFTS, Drift, ShopConfig, Tastes

__all__ = ["DRIFTS", "Drift", "Shop", "ShopConfig"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

BUY = 0.25  # chance to buy a clicked item that is liked with 1
LEAVE = 0.12  # chance to leave after a turn
WITHDRAWN = 0.3  # share of the catalogue that a catalogue shock replaces
NOTICE = 4.0  # a shown item is clicked with so many times its chance to be picked unseen
TIRE = 0.95  # and with so much of that for each place further down


class Shop:
    """The shop, and who is in it.

    A place of the catalogue holds one item; a catalogue shock puts another one there.

    >>> shop = Shop(ShopConfig(users=50, items=100, seed=7))
    >>> happened = shop.step(np.arange(1000.0))
    >>> len(happened), shop.events
    (1000, 1000)
    >>> best = shop.best(np.array([3]), k=5)
    >>> float(shop.regret(np.array([3]), best)[0])
    0.0
    """

    def __init__(self, config: ShopConfig | None = None) -> None:
        self.config = config = config or ShopConfig()
        self.tastes = Tastes(config)
        self.events = 0
        self.generation = np.zeros(config.items, np.int64)  # 1 where the shock put another item
        size = max(2, min(config.active, config.users // 2))
        self.user = np.full(size, -1)  # (active,) who is in the shop
        self.current = np.full(size, -1)  # (active,) the place each looks at, -1 for none yet
        self.session = np.zeros(size, np.int64)
        self._bought = np.zeros(size, np.bool_)
        self._sessions = 0
        self._rng = np.random.default_rng([config.seed, 2])
        self._visits = np.cumsum(self.tastes.visits)
        self._enter(np.arange(size))

    def catalogue(self, time: float) -> list[Item]:
        """The entries of all items on sale, as events of this time."""
        return [self._entry(place, time) for place in range(self.config.items)]

    def step(self, times: Floats) -> ShopEvents:
        """Let shoppers act at these times, one at a time; the catalogue's news come first."""
        size = max(1, len(self.user) // 2)
        parts = [times[start : start + size] for start in range(0, max(1, len(times)), size)]
        return ShopEvents.joined([self.act(self.turn(len(part)), part) for part in parts])

    def turn(self, count: int) -> Rows:
        """Choose who acts next: up to `count` different shoppers, as places in `user`."""
        return self._rng.permutation(len(self.user))[:count]

    def act(
        self, turn: Rows, times: Floats, shown: Mapping[int, Sequence[str]] | None = None
    ) -> ShopEvents:
        """Let the shoppers of a turn click or buy, and then perhaps leave.

        Parameters
        ----------
        turn : (n,) array
            From `turn`.
        times : (n,) array
            When each acts, in seconds.
        shown : mapping, optional
            Place in the turn -> the items shown to that shopper, who clicks one by true taste,
            rather near the top, or looks around alone when none appeals.
        """
        launched = self._shock(float(times[0])) if len(times) else []
        rng, n = self._rng, len(turn)
        users, before = self.user[turn], self.current[turn]
        number = self.events + np.arange(n)
        era = (rng.random(n) < self.tastes.newness(number)).astype(np.int64)
        keen = rng.random(n) < BUY * self.tastes.liking(users, before, era)
        buys = keen & (before >= 0) & ~self._bought[turn]
        place = np.where(buys, before, self.tastes.browse(rng, users, before, era))
        position = np.full(n, -1)
        for i, names in (shown or {}).items():
            if not buys[i] and (clicked := self._look(users[i], before[i], names)) is not None:
                position[i], place[i] = clicked
        happened = ShopEvents(
            shop=self.config.name,
            kind=np.where(buys, PURCHASE, CLICK).astype(np.uint8),
            user=users,
            item=place + self.generation[place] * self.config.items,
            session=self.session[turn],
            time=times,
            price=np.where(buys, self.tastes.price[place], 0.0),
            quantity=np.where(buys, 1.0 + (rng.random(n) < 0.2), 1.0),
            position=position,
            number=number,
            catalogue=launched,
        )
        self.current[turn], self._bought[turn] = place, buys
        self.events += n
        self._enter(turn[rng.random(n) < LEAVE])
        return happened

    def chance(self, users: Rows, before: Rows | None = None, at: int | None = None) -> Floats:
        """True chance of each place to be a user's next pick, now or at an event; (n, items)."""
        return self.tastes.chance(users, before, at=self.events if at is None else at)

    def best(self, users: Rows, before: Rows | None = None, k: int = 10) -> list[list[str]]:
        """The k items most likely to be picked next, best first: what nobody can beat."""
        order = np.argsort(-self.chance(users, before), axis=1, kind="stable")[:, :k]
        return [[self.item_at(place) for place in row] for row in order]

    def regret(
        self, users: Rows, lists: Sequence[Sequence[str]], before: Rows | None = None
    ) -> Floats:
        """Share of the best list's chance of a pick that each list misses; (n,), 0 is perfect."""
        missed = np.ones(len(users))
        for i, (chance, names) in enumerate(zip(self.chance(users, before), lists, strict=True)):
            places = {place for place in map(self.place_of, names) if place >= 0}
            if places:
                best = np.sort(chance)[::-1][: len(names)].sum()
                missed[i] -= np.sort(chance[list(places)])[::-1].sum() / best
        return missed

    def item_at(self, place: int) -> str:
        """Id of the item that a place of the catalogue holds now."""
        return item_name(int(place + self.generation[place] * self.config.items))

    def place_of(self, item: str) -> int:
        """Place of an item in the catalogue; -1 when it is not on sale."""
        number = item_number(item)
        place = number % self.config.items
        on_sale = number == place + self.generation[place] * self.config.items
        return place if on_sale else -1

    def user_names(self, turn: Rows) -> list[str]:
        """Ids of the shoppers of a turn."""
        return [user_name(int(user)) for user in self.user[turn]]

    def _look(self, user: int, before: int, names: Sequence[str]) -> tuple[int, int] | None:
        """Go through a shown list from the top; the clicked (position, place), if any."""
        chance = self.chance(np.array([user]), np.array([before]))[0]
        for position, name in enumerate(names):
            place = self.place_of(name)
            appeal = min(1.0, NOTICE * chance[place]) * TIRE**position if place >= 0 else 0.0
            if self._rng.random() < appeal:
                return position, place
        return None

    def _enter(self, leaving: Rows) -> None:
        """Replace shoppers who leave by others who are not in the shop."""
        for slot in leaving:
            visitor = self.user[slot]
            while visitor in self.user:
                visitor = np.searchsorted(self._visits, self._rng.random() * self._visits[-1])
            self.user[slot] = visitor
        self.current[leaving] = -1
        self._bought[leaving] = False
        self.session[leaving] = self._sessions + np.arange(len(leaving))
        self._sessions += len(leaving)

    def _shock(self, time: float) -> list[Item]:
        """Replace a part of the catalogue once its moment has come; the entries that tell it."""
        config = self.config
        due = config.drift == "catalogue" and self.events >= config.drift_at
        if not due or self.generation.any():
            return []
        gone = np.sort(self._rng.permutation(config.items)[: int(WITHDRAWN * config.items)])
        withdrawn = [self._entry(place, time, available=False) for place in gone]
        self.generation[gone] = 1
        return withdrawn + [self._entry(place, time) for place in gone]

    def _entry(self, place: int, time: float, available: bool = True) -> Item:
        name = self.item_at(place)
        category = f"category-{self.tastes.category[place]:03d}"
        return Item(
            event_id=f"{self.config.name}-{name}-{'on' if available else 'off'}",
            timestamp=time,
            item=name,
            category=category,
            price=float(self.tastes.price[place]),
            title=f"{category.capitalize()}, number {item_number(name)}",
            created=time if available else None,
            available=available,
        )

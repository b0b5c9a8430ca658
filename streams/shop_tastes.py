"""What the shoppers of the synthetic shop truly want, at every moment of its script.

A shopper looks through three favourite categories, likes few of each one's items, and often goes
on from item A to the items that follow A for everybody. Tastes come in two eras, old and new; the
script of a drift says how much of what happens follows the new one. Users and items are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from learners.errors import SettingsError

__all__ = ["DRIFTS", "Drift", "ShopConfig", "Tastes"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Drift = Literal["none", "sudden", "gradual", "recurring", "catalogue"]
DRIFTS: tuple[Drift, ...] = ("none", "sudden", "gradual", "recurring", "catalogue")

CATEGORY_WEIGHTS = np.array([0.6, 0.3, 0.1])  # of a shopper's three favourites
FOLLOWER_WEIGHTS = np.array([0.6, 0.3, 0.1])  # of the three items that follow an item
FOLLOW = 0.5  # chance to go on to a follower
STAY = 0.6  # chance to stay in a favourite category otherwise
SHARPNESS = 1.6  # how much more a shopper likes one item of a category than another
DIMENSIONS = 4  # of tastes and traits
ITEMS_PER_CATEGORY = 25
# What a machine of ordinary size has memory for.
BOUNDS = {
    "users": (4, 1_000_000),
    "items": (24, 200_000),
    "drift_at": (1, 10**12),
    "drift_length": (1, 10**12),
    "active": (2, 1_000_000),
}


@dataclass(frozen=True, slots=True)
class ShopConfig:
    """A shop's size, seed and script; `drift_at` and `drift_length` count events.

    `sudden`: all tastes, and what follows what, change at `drift_at`. `gradual`: the same within
    `drift_length` events. `recurring`: old and new take turns every `drift_at` events.
    `catalogue`: at `drift_at`, 30 % of the items are withdrawn and new ones take their places.
    `name` starts the ids of events and sessions; `active` is how many are in the shop at a time.
    """

    users: int = 1_000
    items: int = 1_000
    seed: int = 1
    drift: Drift = "none"
    drift_at: int = 10_000
    drift_length: int = 5_000
    active: int = 64
    name: str = "shop"

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise SettingsError(
                    f"a shop with {name} = {value:,} cannot open: give {low:,} to {high:,}"
                )
        if self.drift not in DRIFTS:
            raise SettingsError(f"unknown drift {self.drift!r}: give one of {', '.join(DRIFTS)}")


class Tastes:
    """The true tastes; nothing here changes once it is drawn from the seed.

    >>> tastes = Tastes(ShopConfig(users=10, items=50, drift="sudden", drift_at=100))
    >>> tastes.chance(np.array([3, 4]), at=0).sum(axis=1).round(9).tolist()
    [1.0, 1.0]
    >>> tastes.newness(np.array([99, 100])).tolist()
    [0.0, 1.0]
    """

    def __init__(self, config: ShopConfig) -> None:
        self.config = config
        rng = np.random.default_rng([config.seed, 1])
        categories = max(3, config.items // ITEMS_PER_CATEGORY)
        self.category = rng.permutation(np.arange(config.items) % categories)  # (items,)
        self.shelves = _shelves(self.category, categories)  # (categories, width), -1 pads
        self.traits = rng.normal(0.0, 1.0, (config.items, DIMENSIONS))
        self.appeal = rng.normal(0.0, 0.8, config.items)
        base = rng.lognormal(3.0, 0.8, categories)
        self.price = np.round(base[self.category] * rng.lognormal(0.0, 0.3, config.items), 2)
        self.visits = (1.0 + rng.permutation(config.users)) ** -0.7  # how often a user comes
        eras = (2, config.users)
        self.favourites = _three_of(rng, categories, eras)  # (2, users, 3), most loved first
        self.wishes = rng.normal(0.0, 1.0, (*eras, DIMENSIONS))
        self.followers = np.stack([self._draw_followers(rng) for _ in range(2)])  # (2, items, 3)

    def newness(self, at: Rows | int) -> Floats:
        """Share of the new era in what happens at these event numbers, 0 to 1."""
        config, number = self.config, np.asarray(at)
        if config.drift == "sudden":
            return (number >= config.drift_at).astype(np.float64)
        if config.drift == "gradual":
            return np.clip((number - config.drift_at) / config.drift_length, 0.0, 1.0)
        if config.drift == "recurring":
            return ((number // config.drift_at) % 2).astype(np.float64)
        return np.zeros(number.shape)

    def chance(self, users: Rows, before: Rows | None = None, *, at: int) -> Floats:
        """Chance of each item to be a user's next pick; (n, items), rows sum to 1.

        Parameters
        ----------
        users : (n,) array
        before : (n,) array, optional
            The item each user looks at now, -1 for none: without it, the pick of a new visit.
        at : int
            The event number that decides between the eras.
        """
        new = float(self.newness(at))
        chance = np.zeros((len(users), self.config.items))
        for era, share in enumerate((1.0 - new, new)):
            if share > 0.0:
                chance += share * self._era_chance(era, users, before)
        return chance

    def browse(self, rng: np.random.Generator, users: Rows, before: Rows, era: Rows) -> Rows:
        """Draw what each user looks at next; (n,) items."""
        n = len(users)
        favourites = self.favourites[era, users]  # (n, 3)
        category = favourites[np.arange(n), _draw(rng, CATEGORY_WEIGHTS, n)]
        at_home = (before >= 0) & (favourites == self.category[before][:, None]).any(axis=1)
        category = np.where(at_home & (rng.random(n) < STAY), self.category[before], category)
        shelf = self.shelves[category]  # (n, width)
        logits = SHARPNESS * np.einsum("nd,nwd->nw", self.wishes[era, users], self.traits[shelf])
        logits += self.appeal[shelf] + rng.gumbel(size=shelf.shape)
        picked = shelf[np.arange(n), np.where(shelf >= 0, logits, -np.inf).argmax(axis=1)]
        follower = self.followers[era, before, _draw(rng, FOLLOWER_WEIGHTS, n)]
        return np.where((before >= 0) & (rng.random(n) < FOLLOW), follower, picked)

    def liking(self, users: Rows, items: Rows, era: Rows) -> Floats:
        """How much each user likes an item, 0 to 1; (n,)."""
        match = (self.wishes[era, users] * self.traits[items]).sum(axis=1)
        liking: Floats = 1.0 / (1.0 + np.exp(-match))
        return liking

    def _era_chance(self, era: int, users: Rows, before: Rows | None) -> Floats:
        on_sale = self.shelves >= 0
        logits = SHARPNESS * self.wishes[era, users] @ self.traits.T + self.appeal  # (n, items)
        likes = np.exp(logits[:, self.shelves]) * on_sale  # (n, categories, width)
        likes /= likes.sum(axis=2, keepdims=True)
        weights = np.zeros((len(users), len(self.shelves)))
        np.put_along_axis(weights, self.favourites[era, users], CATEGORY_WEIGHTS[None, :], axis=1)
        if before is not None:
            led = np.flatnonzero(before >= 0)
            home = self.category[before[led]]
            led_home = weights[led, home] > 0.0
            weights[led[led_home]] *= 1.0 - STAY
            weights[led[led_home], home[led_home]] += STAY
        chance = np.zeros((len(users), self.config.items))
        chance[:, self.shelves[on_sale]] = (likes * weights[:, :, None])[:, on_sale]
        if before is not None:
            chance[led] *= 1.0 - FOLLOW
            followers = self.followers[era, before[led]]  # (led, 3)
            np.add.at(chance, (led[:, None], followers), FOLLOW * FOLLOWER_WEIGHTS)
        return chance

    def _draw_followers(self, rng: np.random.Generator) -> Rows:
        """Draw three items of its category that follow each item; (items, 3)."""
        shelf = self.shelves[self.category]  # (items, width)
        lottery = np.where(shelf >= 0, rng.random(shelf.shape), np.inf)
        lottery[shelf == np.arange(len(shelf))[:, None]] = np.inf  # not the item itself
        return np.take_along_axis(shelf, np.argsort(lottery, axis=1)[:, :3], axis=1)


def _shelves(category: Rows, categories: int) -> Rows:
    """The items of each category, padded with -1; (categories, width)."""
    order = np.argsort(category, kind="stable")
    sizes = np.bincount(category, minlength=categories)
    shelves = np.full((categories, sizes.max()), -1)
    column = np.arange(len(category)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    shelves[category[order], column] = order
    return shelves


def _three_of(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Rows:
    """Draw three different numbers below n; (*shape, 3)."""
    first, second, third = (rng.integers(n - i, size=shape) for i in range(3))
    second += second >= first
    third += third >= np.minimum(first, second)
    third += third >= np.maximum(first, second)
    return np.stack([first, second, third], axis=-1)


def _draw(rng: np.random.Generator, weights: Floats, n: int) -> Rows:
    """Draw n numbers by weight; (n,)."""
    drawn: Rows = np.searchsorted(np.cumsum(weights), rng.random(n) * weights.sum())
    return drawn

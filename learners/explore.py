r"""Exploration: some slots of an answer go to items of which too little is known.

*Which items.* A pool of up to `POOL` items that may be shown and have had few clicks, those of the
least evidence first (clicks, purchases and exploration slots), the newest of them before others.

*How they are chosen.* Thompson sampling (Thompson 1933; Chapelle, Li 2011), River's
`bandit.ThompsonSampling` over Beta posteriors of the chance of a click in an exploration slot. Its
propensities have no closed form, so it is not asked for every answer. It is pulled `PULLS` times
for each category in the pool whenever enough has been learnt, and the shares of these pulls, mixed
with `EVEN` of even chances, are a table; answers draw from the table.
So what is drawn from is known exactly, and every item in the pool keeps a chance. `PERSONAL` of the
slots go to the categories of the answer's own best items.

*How they are drawn.* For :math:`x = k \cdot share` slots, item i has its propensity
:math:`\pi_i = \min(1, c\,p_i)` with :math:`\sum \pi_i = x`, and systematic sampling (Madow 1949)
draws :math:`\lfloor x \rfloor` or :math:`\lceil x \rceil` different items in which each is with
chance :math:`\pi_i` exactly. Their places are drawn evenly from the lower half, never the first.

Answers draw by the hash of their own name, and the table is made from what was learnt: to ask
changes nothing that is learnt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from learners.base import Batch, Recommendation
from learners.explored import OBJECT_BYTES, Explored
from learners.propensity import draw
from learners.store.catalogue import Catalogue
from learners.store.memory import Memory

__all__ = ["HELD_BYTES", "Explorer", "Slots"]

POOL = 256
FEW_EVENTS = 20  # clicks and purchases after which an item is not new any more
PRIOR = (1, 20)  # of the Beta posterior: clicks and misses
MOST_ARMS = 4 * POOL
ARM_BYTES = 4_500  # of River's arm: a distribution with a random generator of its own
HELD_BYTES = OBJECT_BYTES + (MOST_ARMS + POOL) * ARM_BYTES
PULLS = 32  # for each category in the pool
EVEN = 0.2
PERSONAL = 0.8
LEADING = 3  # items of an answer that say which categories are wanted
# The table is made anew when this much has been learnt since: events, with an item's entry and an
# explored item counted as so many.
RENEW, ENTRY, SHOW = 10_000, 100, 20


Floats = NDArray[np.float64]


class Slots(NamedTuple):
    """What an answer gives to exploration: a share of its places, drawn by the answer's name."""

    share: float  # 0 to 0.5
    draw: str


class _Table(NamedTuple):
    """Chances of the pool's items."""

    row: list[int]  # (n,) rising
    ids: list[str]
    place: dict[str, int]  # of an id
    category: dict[str | None, int]  # its number
    category_of: dict[str, int]  # items that answers began with, -1 where there is none
    pool: Floats  # (4, n) rows, categories, chances among all, chances within the category
    made_at: int


class Explorer:
    """Puts new and uncertain items into answers.

    Parameters
    ----------
    memory, catalogue
        What was learnt; nothing of it is changed.

    Attributes
    ----------
    books : Explored
        What was explored, and clicked.
    """

    def __init__(self, memory: Memory, catalogue: Catalogue) -> None:
        self.memory = memory
        self.catalogue = catalogue
        self.books = Explored()
        self._table: _Table | None = None
        self._policy: _Policy | None = None

    def learn(self, batch: Batch, places: NDArray[np.int64]) -> None:
        """Learn the events at some places of a batch: the outcomes of exploration.

        Where answers have asked for a table, it is made anew when enough was learnt since.
        """
        self.books.learn(batch, places)
        if self._table is not None and self._learnt() - self._table.made_at >= RENEW:
            self.renew()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the books; the table follows from what was learnt."""
        return self.books.state()

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the explorer that gave this state."""
        self.books.load_state(state)
        self._table = self._policy = None

    def fill(
        self, best: list[Recommendation], k: int, slots: Slots, seen: NDArray[np.int32]
    ) -> list[Recommendation]:
        """Return an answer with items to explore in the place of its last ones.

        Parameters
        ----------
        best
            The answer without exploration.
        k
            Places that were asked for.
        slots
            How many of them are for exploration.
        seen : (m,)
            Rows of what this user has seen.
        """
        places = k - k // 2 if k > 1 and len(best) == k else 0
        wanted = min(slots.share * k, places)
        if wanted <= 0.0:
            return best
        table, ids = self._table or self.renew(), self.memory.items.ids
        most = math.ceil(wanted)
        drawn, propensity = np.empty(most, np.int64), np.empty(most)
        kept = [table.place.get(one.item, -1) for one in best[: k - most]]
        listed = [place for place in kept if place >= 0]
        count = draw(
            table.pool,
            self.catalogue.hidden,
            seen,
            np.array(listed, np.int64),
            self._wanted(table, best),
            PERSONAL,
            wanted,
            _uniform(slots.draw, 0),
            drawn,
            propensity,
        )
        # One that was evicted since the table was made has another id by now.
        fresh = {
            table.ids[i]: chance
            for i, chance in zip(drawn[:count].tolist(), propensity[:count].tolist(), strict=True)
            if ids[table.row[i]] == table.ids[i]
        }
        answer = [one for one in best if one.item not in fresh][: k - len(fresh)]
        at = _lower_places(k, len(fresh), slots.draw)
        for place, (item, chance) in sorted(zip(at, fresh.items(), strict=True)):
            answer.insert(place, Recommendation(item, 0.0, {"explore": float(f"{chance:.4g}")}))
        return answer

    def _wanted(self, table: _Table, best: Sequence[Recommendation]) -> NDArray[np.int64]:
        """Return the numbers of the categories of an answer's first items."""
        known = table.category_of
        wanted = set()
        for one in best[:LEADING]:
            number = known.get(one.item)
            if number is None:
                entry = self.catalogue.entry(self.memory.items.row(one.item))
                number = table.category.get(entry.category, -1) if entry is not None else -1
                known[one.item] = number
            if number >= 0:
                wanted.add(number)
        return np.array(list(wanted), np.int64)

    def _learnt(self) -> int:
        return self.memory.events + ENTRY * self.catalogue.version + SHOW * self.books.shown

    def renew(self) -> _Table:
        """Choose the pool and pull River's policies; nothing that is learnt is changed."""
        made_at = self._learnt()
        rows, counts = self._pool()
        ids = [self.memory.items.ids[row] for row in rows]
        if self._policy is None or len(self._policy.told) > MOST_ARMS:
            self._policy = _Policy(seed=self.memory.events + self.books.shown)
        for item, count in zip(ids, counts, strict=True):
            self._policy.tell(item, count)
        groups: dict[str | None, list[int]] = {}
        for i, row in enumerate(rows):
            entry = self.catalogue.entry(row)
            groups.setdefault(entry.category if entry else None, []).append(i)
        pool = np.zeros((4, len(rows)))
        pool[0] = rows
        for number, arms in enumerate(groups.values()):
            shares = self._policy.shares([ids[i] for i in arms])
            pool[1, arms] = number
            pool[3, arms] = (1.0 - EVEN) * shares + EVEN / len(arms)
            pool[2, arms] = pool[3, arms] * (len(arms) / len(rows))
        numbers = {category: number for number, category in enumerate(groups)}
        places = {item: i for i, item in enumerate(ids)}
        self._table = _Table(rows, ids, places, numbers, {}, pool, made_at)
        return self._table

    def _pool(self) -> tuple[list[int], list[list[int]]]:
        """Return rows and (shown, clicked) of the items of which least is known."""
        items, books = self.memory.items, list(self.books.counts.items())
        n = items.used
        counts = np.zeros((n, 2), np.int64)
        explored = items.rows([item for item, _ in books])
        known = np.flatnonzero(explored >= 0)
        counts[explored[known]] = [books[i][1] for i in known.tolist()] or 0
        events = self.memory.popular.arrays.item["events"][:n]
        new = (events < FEW_EVENTS) & ~self.catalogue.hidden[:n]
        new[items.unused] = False
        rows = np.flatnonzero(new)
        evidence = (events[rows] + counts[rows, 0]).astype(np.float64)
        evidence -= items.last_seen[rows] / (self.memory.events + 1.0)  # below 1: newest first
        if len(rows) > POOL:
            rows = rows[np.sort(np.argpartition(evidence, POOL)[:POOL])]
        return rows.tolist(), counts[rows].tolist()


class _Policy:
    """River's Thompson sampling over items; it is told what was counted since it was last told.

    River copies its Beta distribution for each new arm, which takes longer than all else; so the
    arms stay, until there are `MOST_ARMS`.
    """

    def __init__(self, seed: int) -> None:
        from river import bandit, proba  # a second of imports, so only when somebody explores

        beta: Any = proba.Beta(*PRIOR)
        self.policy: Any = bandit.ThompsonSampling(reward_obj=beta, seed=seed)
        self.told: dict[str, list[int]] = {}

    def tell(self, item: str, counts: Sequence[int]) -> None:
        """Tell how often an item was shown and clicked by now."""
        shown, clicked = self.told.get(item, (0, 0))
        clicks, misses = counts[1] - clicked, counts[0] - counts[1] - (shown - clicked)
        for reward in [1] * clicks + [0] * misses:
            self.policy.update(item, reward)
        self.told[item] = list(counts)

    def shares(self, items: list[str]) -> Floats:
        """Return the share of each item in `PULLS` pulls."""
        if len(items) == 1:
            return np.ones(1)
        pulls = Counter(self.policy.pull(items) for _ in range(PULLS))
        return np.array([pulls[item] / PULLS for item in items])


def _uniform(name: str, number: int) -> float:
    """Return a number from 0 up to 1 that an answer's name decides."""
    return (xxh3_64_intdigest(name.encode(), number) >> 11) * 2.0**-53


def _lower_places(k: int, count: int, name: str) -> list[int]:
    """Draw different places of the lower half of k; every order of them is as likely."""
    places = list(range(k // 2, k))
    for i in range(count):
        j = i + int(_uniform(name, i + 1) * (len(places) - i))
        places[i], places[j] = places[j], places[i]
    return places[:count]

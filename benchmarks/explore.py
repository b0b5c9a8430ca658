"""What exploration costs and brings: the synthetic shop, asked in one process, as it renews itself.

Halfway, 30 % of the items are withdrawn and new ones take their places. Every shopper is shown an
answer before each act and clicks by true taste, or looks around alone, so that new items are also
found without the shop's help. Everything is counted after the change. The lists of all shares are
for the same shop and seed; each share goes its own way from the first click on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev

import numpy as np
import xxhash
from numpy.typing import NDArray

from benchmarks.rows import Row, make_row
from learners.base import IMPRESSION, Batch, EngineConfig, Recommendation
from learners.engine import Engine
from learners.explore import Slots
from streams.shop import Shop, ShopConfig
from streams.shop_events import ShopEvents, item_name, item_number
from streams.warmup import warm_up

__all__ = ["SHARES", "run"]

SHARES = (0.0, 0.05, 0.1, 0.2)
K = 10
STEP_SECONDS = 20.0  # of event time between two acts
# Student's t for 95 %, two-sided, by degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass
class _Tally:
    """What is counted of one run after the change."""

    answers: int = 0
    clicks: int = 0
    explored: int = 0
    clicked_explored: int = 0
    regret: list[float] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)


def run(
    *,
    shares: Sequence[float] = SHARES,
    users: int,
    items: int,
    events: int,
    seeds: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    r"""Yield a row for each share of exploration.

    With P(i) a shopper's true chance to pick item i next, the regret of a list L of k items is
    :math:`1 - \sum_{i \in L} P(i) / \max_{|M|=k} \sum_{i \in M} P(i)`, as `Shop.regret` counts it.

    Parameters
    ----------
    shares
        Of the slots of an answer.
    users, items, events
        Of the shop; the catalogue changes after half of the events.
    seeds
        Shops; figures are their means, with half the width of a 95 % interval (Student's t), and
        differences to the first share are of the same shops.
    """
    warm_up(say, explores=True)
    first: list[dict[str, float]] = []
    for share in shares:
        started = time.perf_counter()
        runs = []
        for seed in range(1, seeds + 1):
            say(f"share {share:g}, shop {seed} of {seeds}")
            config = ShopConfig(
                users=users, items=items, seed=seed, drift="catalogue", drift_at=events // 2
            )
            runs.append(_figures(_Run(config, share).open(events), items))
        first = first or runs
        figures: dict[str, object] = {"explore_share": share, "seeds": seeds, "events": events}
        figures |= {"users": users, "items": items}
        for name in runs[0]:
            each = [one[name] for one in runs]
            figures[name] = round(mean(each), 5)
            figures[f"{name}_within"] = _within(each)
            change = [one[name] - none[name] for one, none in zip(runs, first, strict=True)]
            figures[f"{name}_change"] = round(mean(change), 5)
            figures[f"{name}_change_within"] = _within(change)
        yield make_row("explore", f"share_{share:g}", figures, time.perf_counter() - started)


def _within(values: Sequence[float]) -> float:
    """Half the width of a 95 % interval of the mean."""
    if len(values) < 2:
        return math.nan
    t = T_95[min(len(values) - 2, len(T_95) - 1)]
    return round(t * stdev(values) / math.sqrt(len(values)), 5)


def _figures(tally: _Tally, items: int) -> dict[str, float]:
    quarter = len(tally.regret) // 2
    new = {name for name in tally.shown if item_number(name) >= items}
    found = {name for name in tally.found if item_number(name) >= items}
    fresh = int(0.3 * items)
    return {
        "coverage@10": len(tally.shown) / items,
        "coverage@10_new": len(new) / fresh,
        "clicked_share_new": len(found) / fresh,
        "regret": mean(tally.regret),
        "regret_late": mean(tally.regret[quarter:]),
        "clicks_per_answer": tally.clicks / max(tally.answers, 1),
        "clicks_per_explored": tally.clicked_explored / max(tally.explored, 1),
    }


class _Run:
    """A shop and an engine that answers its shoppers."""

    def __init__(self, config: ShopConfig, share: float) -> None:
        self.shop = Shop(config)
        self.share = share
        self.engine = Engine(
            EngineConfig(users=config.users, items=2 * config.items, sessions=65_536)
        )
        self.changed_at = config.drift_at
        self.tally = _Tally()
        self.asked = 0

    def open(self, events: int) -> _Tally:
        """Let shoppers act; return what was counted after the change."""
        shop = self.shop
        opening = replace(shop.step(np.empty(0)), catalogue=shop.catalogue(0.0))
        self.engine.learn(opening.batch())
        while shop.events < events:
            turn = shop.turn(min(len(shop.user) // 2, events - shop.events))
            times = (shop.events + np.arange(len(turn), dtype=np.float64)) * STEP_SECONDS
            users = shop.user_names(turn)
            shown = [self._ask(user) for user in users]
            lists = [[one.item for one in answer] for answer in shown]
            counted = shop.events >= self.changed_at + len(shop.user)  # the change is learnt
            if counted:
                now = shop.user[turn], lists, shop.current[turn]
                self.tally.regret += shop.regret(*now).tolist()
            happened = shop.act(turn, times, dict(enumerate(lists)))
            if counted:
                self._count(shown, happened)
            self.engine.learn(self._impressions(users, shown, times))
            self.engine.learn(happened.batch())
        return self.tally

    def _ask(self, user: str) -> list[Recommendation]:
        self.asked += 1
        slots = Slots(self.share, f"answer-{self.asked}") if self.share else None
        return self.engine.recommend(user, k=K, explore=slots)

    def _count(self, shown: Sequence[list[Recommendation]], happened: ShopEvents) -> None:
        tally = self.tally
        clicked = [shown[i][at] for i, at in enumerate(happened.position.tolist()) if at >= 0]
        tally.answers += len(shown)
        tally.clicks += len(clicked)
        tally.clicked_explored += sum("explore" in one.sources for one in clicked)
        tally.explored += sum("explore" in one.sources for answer in shown for one in answer)
        tally.shown |= {one.item for answer in shown for one in answer}
        tally.found |= {item_name(number) for number in happened.item.tolist()}

    def _impressions(
        self,
        users: Sequence[str],
        shown: Sequence[list[Recommendation]],
        times: NDArray[np.float64],
    ) -> Batch:
        """The impressions of some answers, as a node reads them from Kafka."""
        n = len(users)
        first = self.asked - n
        names = (f"answer-{first + i}".encode() for i in range(n))
        explored = [[one.item for one in answer if "explore" in one.sources] for answer in shown]
        return Batch(
            kind=np.full(n, IMPRESSION, np.uint8),
            user=users,
            item=[""] * n,
            session=[""] * n,
            timestamp=times,
            event_hash=np.array([xxhash.xxh3_64_intdigest(name) for name in names], np.uint64),
            log=np.zeros(n, np.int32),
            logs=["impressions/0"],
            explored={i: items for i, items in enumerate(explored) if items},
        )

"""The synthetic shop: seeded, scripted, and with truths that what happens agrees with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from learners.base import CLICK, ITEM, PURCHASE
from learners.errors import SettingsError
from streams.events import Click, Item, Purchase
from streams.shop import Shop, ShopConfig
from streams.shop_events import ShopEvents

SMALL = ShopConfig(users=100, items=100, seed=5)


def walk(config: ShopConfig, events: int, start: float = 0.0) -> tuple[Shop, ShopEvents]:
    shop = Shop(config)
    return shop, shop.step(start + np.arange(float(events)))


def new_share(config: ShopConfig, at: int) -> float:
    """How far the tastes are from the first ones, against how far the second ones are."""
    shop, everyone = Shop(config), np.arange(config.users)
    old, now = shop.chance(everyone, at=0), shop.chance(everyone, at=at)
    other = Shop(ShopConfig(users=config.users, items=config.items, drift="sudden", drift_at=1))
    new = other.chance(everyone, at=1)
    return float(np.abs(now - old).sum() / np.abs(new - old).sum())


def test_the_same_seed_gives_the_same_events_and_another_one_others() -> None:
    events = [walk(SMALL, 500)[1].events() for _ in range(2)]
    assert events[0] == events[1]
    other = walk(ShopConfig(users=100, items=100, seed=6), 500)[1].events()
    assert [e.item for e in other if isinstance(e, Click)] != [
        e.item for e in events[0] if isinstance(e, Click)
    ]


def test_events_are_unique_in_time_order_and_buy_only_what_was_just_clicked() -> None:
    events = walk(SMALL, 3000)[1].events()
    assert len({event.event_id for event in events}) == 3000
    assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    last: dict[str | None, str] = {}
    bought = 0
    for event in events:
        assert isinstance(event, Click | Purchase)
        if isinstance(event, Purchase):
            bought += 1
            assert event.item == last[event.session]
            assert event.price is not None
            assert event.price > 0
        last[event.session] = event.item
    assert 0.05 < bought / len(events) < 0.25
    users = {event.session: event.user for event in events if isinstance(event, Click | Purchase)}
    assert len(users) > 200
    assert all(
        users[event.session] == event.user
        for event in events
        if isinstance(event, Click | Purchase)
    )


def test_whoever_knows_the_tastes_beats_popularity_clearly() -> None:
    config = ShopConfig(users=300, items=500, seed=2)
    shop, events = walk(config, 6000)
    clicks = events.kind == CLICK
    popular = {place for place, _ in Counter(events.item[clicks][:3000].tolist()).most_common(20)}
    last: dict[int, int] = {}
    known = followed = hit_by_popularity = targets = 0
    for i, (user, place, session) in enumerate(
        zip(events.user, events.item, events.session, strict=True)
    ):
        if i >= 3000 and clicks[i] and session in last:
            chance = shop.chance(np.array([user]), np.array([last[session]]), at=i)[0]
            known += place in np.argsort(-chance)[:20]
            followed += place in shop.tastes.followers[0, last[session]]
            hit_by_popularity += place in popular
            targets += 1
        last[session] = place
    assert known / targets > 0.9
    assert followed / targets > 0.45
    assert hit_by_popularity / targets < 0.25


def test_the_true_chances_are_those_of_what_happens() -> None:
    config = ShopConfig(users=4, items=30, seed=3, active=2)
    shop = Shop(config)
    rng = np.random.default_rng(0)
    user, before = np.array([1]), np.array([7])
    said = shop.chance(user, before)[0]
    draws = shop.tastes.browse(
        rng, user.repeat(20_000), before.repeat(20_000), np.zeros(20_000, int)
    )
    assert np.abs(np.bincount(draws, minlength=30) / 20_000 - said).max() < 0.015
    assert said.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("drift", "at", "share"),
    [
        ("none", 90_000, 0.0),
        ("sudden", 999, 0.0),
        ("sudden", 1000, 1.0),
        ("gradual", 1000, 0.0),
        ("gradual", 1250, 0.5),
        ("gradual", 1500, 1.0),
        ("recurring", 1500, 1.0),
        ("recurring", 2500, 0.0),
        ("catalogue", 2500, 0.0),
    ],
)
def test_tastes_change_when_the_script_says_so(drift: str, at: int, share: float) -> None:
    config = ShopConfig(users=40, items=60, drift=drift, drift_at=1000, drift_length=500)  # type: ignore[arg-type]
    assert new_share(config, at) == pytest.approx(share)


def test_a_catalogue_shock_takes_items_away_and_launches_new_ones() -> None:
    config = ShopConfig(users=50, items=100, drift="catalogue", drift_at=400)
    shop = Shop(config)
    before = shop.step(np.arange(400.0)).events()
    after = shop.step(np.arange(400.0, 2400.0)).events()
    told = [event for event in after if isinstance(event, Item)]
    gone = {item.item for item in told if item.available is False}
    launched = {item.item for item in told if item.available}
    assert len(gone) == len(launched) == 30
    assert not gone & launched
    assert launched.isdisjoint({getattr(event, "item", "") for event in before})
    clicked = {event.item for event in after if isinstance(event, Click)}
    assert clicked.isdisjoint(gone)
    assert len(clicked & launched) > 15
    assert len({event.event_id for event in [*shop.catalogue(0.0), *told]}) == 100 + 30


def test_shoppers_click_what_is_shown_when_it_is_their_taste() -> None:
    def clicked(good: bool) -> float:
        shop = Shop(ShopConfig(users=100, items=200, seed=4))
        taken = 0
        for i in range(30):
            turn = shop.turn(20)
            users = shop.user[turn] if good else (shop.user[turn] + 37) % 100
            lists = shop.best(users, shop.current[turn], k=10)
            happened = shop.act(turn, np.full(20, float(i)), dict(enumerate(lists)))
            answers = [e for e in happened.events({n: f"i{n}" for n in range(20)})]
            named = [e for e in answers if isinstance(e, Click) and e.position is not None]
            assert all(e.item == lists[answers.index(e)][e.position or 0] for e in named)
            assert all(e.impression_id for e in named)
            taken += len(named)
        return taken / 600

    assert clicked(good=True) > clicked(good=False) > 0.2


def test_regret_is_nothing_for_the_best_list_and_all_for_a_useless_one() -> None:
    shop = Shop(SMALL)
    users, before = np.array([3, 9]), np.array([10, -1])
    best = shop.best(users, before, k=5)
    assert shop.regret(users, best, before).tolist() == [0.0, 0.0]
    worst = [[shop.item_at(int(np.argmin(chance)))] for chance in shop.chance(users, before)]
    assert shop.regret(users, worst, before) == pytest.approx(1.0, abs=1e-3)
    assert shop.regret(users, [["nonsense"], []], before).tolist() == [1.0, 1.0]
    half = [best[0][:2] + ["item-99999"] * 3, best[1]]
    assert 0.0 < shop.regret(users, half, before)[0] < 1.0


def test_a_batch_holds_the_same_events_as_the_structs() -> None:
    shop = Shop(ShopConfig(users=50, items=100, drift="catalogue", drift_at=1))
    shop.step(np.arange(3.0))
    happened = shop.step(np.arange(3.0, 203.0))
    batch, events = happened.batch(), happened.events()
    assert len(batch) == len(events) == 260
    for i, event in enumerate(events):
        assert batch.timestamp[i] == event.timestamp
        assert batch.item[i] == getattr(event, "item", None)
        if isinstance(event, Item):
            assert batch.kind[i] == ITEM
            assert batch.catalogue[i].available is event.available
        elif isinstance(event, Purchase):
            assert batch.kind[i] == PURCHASE
        else:
            assert isinstance(event, Click)
            assert (batch.user[i], batch.session[i]) == (event.user, event.session)


@pytest.mark.parametrize("wrong", [{"users": 1}, {"items": 3}, {"drift": "weekly"}])
def test_an_impossible_shop_is_refused_in_words(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=str(next(iter(wrong.values())))):
        ShopConfig(**wrong)  # type: ignore[arg-type]

"""Exploration: new items get shown, by known chances, and what comes of it is learnt once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from learners.base import (
    CLICK,
    ERASURE,
    IMPRESSION,
    ITEM,
    Batch,
    CatalogueEntry,
    EngineConfig,
    Recommendation,
)
from learners.engine import Engine
from learners.explore import ENTRY, RENEW, Slots
from learners.propensity import inclusion
from tests.test_engine import batch_of, checkerboard

CONFIG = EngineConfig(users=200, items=300, sessions=256, dedupe_events=4096, history_length=64)
NEW = [f"new{i}" for i in range(30)]
NOW = 20_000.0
ME = "u1"  # walks along the odd items

Happened = tuple[int, str, str, float]


def listing(names: Sequence[str], available: bool = True, category: str = "boats") -> Batch:
    entry = CatalogueEntry(category=category, available=available)
    events = [(ITEM, "", name, NOW) for name in names]
    return batch_of(events, f"{names[0]}-{available}", dict.fromkeys(range(len(names)), entry))


def shop() -> Engine:
    """An engine with 40 items that everybody clicks, and 30 that nobody has."""
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(2500)))
    engine.learn(listing(NEW))
    return engine


@pytest.fixture(scope="module")
def opened() -> Engine:
    return shop()


def ask(engine: Engine, share: float, count: int, k: int = 10) -> list[list[Recommendation]]:
    return [engine.recommend(ME, k=k, explore=Slots(share, f"answer-{i}")) for i in range(count)]


def explored(answer: Sequence[Recommendation]) -> dict[str, float]:
    return {one.item: one.sources["explore"] for one in answer if "explore" in one.sources}


def names(answer: Sequence[Recommendation]) -> list[str]:
    return [one.item for one in answer]


def shows(items: Sequence[str], user: str, time: float, name: str) -> Batch:
    """The impression of an answer that explored some items."""
    return replace(batch_of([(IMPRESSION, user, "", time)], name), explored={0: items})


def joined(events: Sequence[Happened], shown: dict[int, list[str]], prefix: str = "j") -> Batch:
    return replace(batch_of(events, prefix), explored=shown)


def test_an_item_that_nobody_clicked_is_shown_only_where_a_share_is_given(opened: Engine) -> None:
    plain = names(opened.recommend(ME, k=10))
    assert not set(plain) & set(NEW)
    assert names(ask(opened, 0.0, 1)[0]) == plain
    answers = ask(opened, 0.3, 400)
    assert {item for answer in answers for item in explored(answer)} == set(NEW)


def test_exploration_takes_its_share_from_the_lower_half_and_leaves_the_best(
    opened: Engine,
) -> None:
    plain = names(opened.recommend(ME, k=10))
    seats: Counter[int] = Counter()
    for answer in ask(opened, 0.2, 500):
        places = [place for place, one in enumerate(answer) if "explore" in one.sources]
        assert len(answer) == len(set(names(answer))) == 10
        assert len(places) == 2
        assert [one.item for one in answer if "explore" not in one.sources] == plain[:8]
        seats.update(places)
    assert set(seats) == {5, 6, 7, 8, 9}
    assert all(150 <= count <= 250 for count in seats.values()), "each place as often"


@pytest.mark.parametrize(("k", "share"), [(1, 0.5), (2, 0.5), (3, 0.1), (7, 0.5), (10, 0.05)])
def test_an_answer_of_any_length_explores_its_share_but_never_first(
    opened: Engine, k: int, share: float
) -> None:
    answers = ask(opened, share, 1000, k=k)
    counts = [len(explored(answer)) for answer in answers]
    wanted = 0.0 if k == 1 else k * share
    assert np.mean(counts) == pytest.approx(wanted, abs=0.06)
    assert set(counts) <= {int(np.floor(wanted)), int(np.ceil(wanted))}
    assert not any("explore" in answer[0].sources for answer in answers)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_an_item_is_explored_as_often_as_its_propensity_says(share: float) -> None:
    engine = shop()
    engine.learn(shows(NEW[:6], ME, NOW, "first"))
    engine.learn(batch_of([(CLICK, ME, NEW[0], NOW + 1.0)], "c"))
    n = 4000
    answers = ask(engine, share, n)
    found: Counter[str] = Counter()
    said: dict[str, set[float]] = {}
    for answer in answers:
        found.update(explored(answer).keys())
        for item, propensity in explored(answer).items():
            said.setdefault(item, set()).add(propensity)
    assert NEW[0] not in said, "who has clicked it needs not be shown it"
    assert all(len(each) == 1 for each in said.values()), "the same question, the same chance"
    chances = {item: each.pop() for item, each in said.items()}
    assert sum(chances.values()) == pytest.approx(10 * share, rel=0.002)
    for item, chance in chances.items():
        error = 4.0 * np.sqrt(chance * (1.0 - chance) / n) + 1.0 / n
        assert found[item] / n == pytest.approx(chance, abs=error)


def test_propensities_are_in_proportion_and_never_above_one() -> None:
    rng = np.random.default_rng(5)
    for wanted in (0.3, 1.0, 4.5, 12.0):
        chance = rng.pareto(0.7, 12)
        chance[3] = 0.0
        found = chance.copy()
        inclusion(found, wanted)
        assert found[3] == 0.0
        assert found.max() <= 1.0 + 1e-12
        assert found.sum() == pytest.approx(min(wanted, 11))
        below = (found > 0.0) & (found < 1.0)
        assert np.ptp(found[below] / chance[below], axis=None) < 1e-9 if below.any() else True


def test_what_cannot_be_had_or_is_known_already_is_never_explored() -> None:
    engine = shop()
    ask(engine, 0.5, 1)  # the table is made before they are withdrawn
    engine.learn(listing(NEW[:20], available=False))
    gone = CatalogueEntry(deleted=True)
    engine.learn(batch_of([(ITEM, "", NEW[20], NOW)], "gone", {0: gone}))
    seen = [(CLICK, ME, NEW[i], NOW + i) for i in (21, 22)]
    engine.learn(batch_of(seen, "seen"))
    for table in ("old", "new"):
        answers = ask(engine, 0.5, 400)
        shown = {item for answer in answers for item in explored(answer)}
        named = {item for answer in answers for item in names(answer)} & set(NEW)
        assert shown, table
        assert shown <= set(NEW[23:]), table
        # Those like what was seen may be among the best anyway; what was seen may be named again.
        assert set(NEW[23:]) <= named <= set(NEW[21:]), table
        engine.explorer.renew()


def test_an_item_that_was_evicted_is_not_explored() -> None:
    engine = Engine(replace(CONFIG, items=48))
    engine.learn(batch_of(checkerboard(500)))
    engine.learn(listing(NEW[:4]))
    assert {item for answer in ask(engine, 0.5, 50) for item in explored(answer)} >= set(NEW[:4])
    later = checkerboard(400)
    engine.learn(
        batch_of([(kind, user, item, time + 1e4) for kind, user, item, time in later], "l")
    )
    engine.learn(listing([f"more{i}" for i in range(20)]))
    assert not all(engine.knows_item(item) for item in NEW[:4])
    for answer in ask(engine, 0.5, 50):
        assert all(engine.knows_item(item) for item in names(answer))


def test_those_who_look_at_boats_are_shown_new_boats() -> None:
    engine = Engine(CONFIG)
    engine.learn(listing([f"i{i}" for i in range(1, 40, 2)], category="boats"))
    engine.learn(listing([f"i{i}" for i in range(0, 40, 2)], category="books"))
    engine.learn(batch_of(checkerboard(2500)))
    engine.learn(listing(NEW[:15], category="boats"))
    engine.learn(listing(NEW[15:], category="books"))
    shown = Counter(item for answer in ask(engine, 0.1, 400) for item in explored(answer))
    boats = sum(count for item, count in shown.items() if item in NEW[:15])
    assert 0.8 < boats / 400 < 1.0


def test_what_is_clicked_is_explored_more_than_what_is_not() -> None:
    engine = shop()
    for i in range(40):
        engine.learn(shows(NEW, f"guest{i}", NOW + i, f"s{i}-"))
        engine.learn(batch_of([(CLICK, f"guest{i}", NEW[i % 3], NOW + i + 0.5)], f"c{i}-"))
    assert engine.explorer.books.counts[NEW[0]] == [40, 14]
    engine.explorer.renew()
    shown = Counter(item for answer in ask(engine, 0.1, 1000) for item in explored(answer))
    assert sum(shown[item] for item in NEW[:3]) > 400
    assert all(shown[item] > 0 for item in NEW), "none is given up for good"


def test_asking_changes_nothing_that_is_learnt(opened: Engine) -> None:
    before = opened.fingerprint()
    first = ask(opened, 0.3, 20)
    assert ask(opened, 0.3, 20) == first
    assert opened.fingerprint() == before


def test_what_stands_at_the_end_of_an_answer_may_be_explored_there(opened: Engine) -> None:
    """Where its place goes to exploration, a new item of the answer itself takes part."""
    plain = [Recommendation(name, 0.1, {}) for name in ["i1", "i2", "i3", "i4", *NEW[:6]]]
    seen: Counter[str] = Counter()
    for i in range(400):
        answer = opened.explorer.fill(plain, 10, Slots(0.25, f"a{i}"), np.empty(0, np.int32))
        assert len(set(names(answer))) == len(answer) == 10
        assert names(answer)[:5] == [one.item for one in plain[:5]]
        seen.update(explored(answer).keys())
    assert not set(NEW[:3]) & set(seen), "shown in any case"
    assert set(seen) == set(NEW[3:])


def test_a_visitor_without_a_name_is_not_explored_on(opened: Engine) -> None:
    events = [("i1", "click", NOW)]
    plain = opened.recommend(events=events, k=10)
    assert opened.recommend(events=events, k=10, explore=Slots(0.5, "a")) == plain


def happenings(n: int, seed: int = 2) -> tuple[list[Happened], dict[int, list[str]]]:
    """Impressions that explore, clicks before and after them, and erasures."""
    rng = np.random.default_rng(seed)
    events: list[Happened] = []
    shown = {}
    for i in range(n):
        user, item = f"u{rng.integers(9)}", str(rng.choice(NEW[:9]))
        kind = int(rng.choice([CLICK, CLICK, IMPRESSION, ERASURE], p=[0.5, 0.1, 0.38, 0.02]))
        if kind == IMPRESSION:
            shown[i] = [item, str(rng.choice(NEW[9:]))] if rng.random() < 0.5 else [item]
        time = NOW + 30.0 * i - float(rng.choice([0.0, 45.0]))
        events.append((kind, user, item if kind == CLICK else "", time))
    return events, shown


def learnt_in_pieces(size: int) -> Engine:
    events, shown = happenings(900)
    batch = joined(events, shown)
    engine = shop()
    cuts = [*range(0, len(events), size), len(events)]
    for begin, end in pairwise(cuts):
        part = slice(begin, end)
        engine.learn(
            replace(
                batch,
                **{
                    name: getattr(batch, name)[part]
                    for name in (
                        "kind",
                        "user",
                        "item",
                        "session",
                        "timestamp",
                        "event_hash",
                        "log",
                    )
                },
                explored={p - begin: one for p, one in shown.items() if begin <= p < end},
            )
        )
    return engine


def test_the_outcomes_are_the_same_however_the_log_is_cut() -> None:
    whole = learnt_in_pieces(900)
    books = whole.explorer.books
    assert books.shown > 300
    assert 20 < books.clicked < books.shown
    assert sum(clicked for _, clicked in books.counts.values()) == books.clicked
    for size in (1, 7, 250):
        assert learnt_in_pieces(size).fingerprint() == whole.fingerprint()


def test_a_state_goes_on_where_it_was_left() -> None:
    whole, restored = learnt_in_pieces(900), Engine(CONFIG)
    restored.load_state(whole.state())
    assert restored.fingerprint() == whole.fingerprint()
    events, shown = happenings(300, seed=4)
    later = [(kind, user, item, time + 27_000.0) for kind, user, item, time in events]
    for engine in (whole, restored):
        engine.learn(joined(later, shown, "later"))
    assert restored.fingerprint() == whole.fingerprint()
    assert ask(restored, 0.2, 20) == ask(whole, 0.2, 20)


def test_a_table_in_use_is_made_anew_as_things_are_learnt() -> None:
    engine = shop()
    ask(engine, 0.1, 1)
    newer = [f"newer{i}" for i in range(RENEW // ENTRY + 1)]
    engine.learn(listing(newer))
    engine.learn(shows(NEW[:1], ME, NOW, "s"))
    shown = {item for answer in ask(engine, 0.5, 300) for item in explored(answer)}
    assert len(shown & set(newer)) > 50

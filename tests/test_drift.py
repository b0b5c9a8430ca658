"""Drift is found, told where, acted on, and none of it depends on how a stream is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learners.base import CLICK, ITEM, Batch, CatalogueEntry, EngineConfig, Query
from learners.checks import interactions
from learners.drift import CATEGORIES, Drift, HitStream
from learners.engine import Engine
from learners.errors import SettingsError
from learners.forgetting import ACT_EVERY, forget_followers, forget_overall, quicken
from learners.store.catalogue import Catalogue
from learners.store.memory import Memory
from streams.settings import load_settings
from tests.test_engine import cut

SMALL = EngineConfig(
    users=256,
    items=128,
    sessions=512,
    dedupe_events=16_384,
    evaluate_one_in=1,
    candidates=40,
    drift_action=True,
)


def flips(rate: float, n: int, seed: int = 1) -> list[bool]:
    drawn: list[bool] = (np.random.default_rng(seed).random(n) < rate).tolist()
    return drawn


@pytest.mark.parametrize(("fallen", "within"), [(0.6, 200), (0.7, 500), (0.3, 100)])
def test_a_fall_is_found_and_its_rates_told(fallen: float, within: int) -> None:
    stream = HitStream()
    assert not any(stream.update(hit) for hit in flips(0.85, 20_000))
    alarms = [
        (i, found) for i, hit in enumerate(flips(fallen, 600, 2)) if (found := stream.update(hit))
    ]
    when, (_, before, after) = alarms[0]
    assert when < within
    assert before == pytest.approx(0.85, abs=0.03)
    assert after == pytest.approx(fallen, abs=0.15)


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_agrees_with_rivers_detectors_shown_every_hit(seed: int) -> None:
    from river.drift import ADWIN, PageHinkley

    generator = np.random.default_rng(seed)
    rates = np.repeat(generator.uniform(0.1, 0.95, 4), generator.integers(300, 2_000, 4))
    stream, adwin = HitStream(), ADWIN(delta=1e-3)
    page_hinkley = PageHinkley(delta=0.05, threshold=30.0, alpha=1.0, mode="down")
    for hit in (generator.random(len(rates)) < rates).tolist():
        before = adwin.estimation
        adwin.update(hit)
        page_hinkley.update(hit)
        cut = adwin.drift_detected and adwin.estimation < before
        found = stream.update(hit)
        assert bool(found) == (cut or page_hinkley.drift_detected)
        if found:
            assert found[0] == ("Page-Hinkley" if page_hinkley.drift_detected else "ADWIN")
            break


def test_a_slow_fall_is_found_and_a_rise_is_none() -> None:
    stream = HitStream()
    rising = np.random.default_rng(3).random(20_000) < np.linspace(0.3, 0.8, 20_000)
    assert not any(stream.update(hit) for hit in rising.tolist())
    falling = np.random.default_rng(4).random(6_000) < np.linspace(0.8, 0.6, 6_000)
    assert any(stream.update(hit) for hit in falling.tolist())


def feed(drift: Drift, n: int, first: int, rates: dict[str, float], seed: int = 5) -> None:
    """Events of alternating users and categories; the rate of "x" or 0.8."""
    generator = np.random.default_rng(seed)
    names = [f"c{i}" for i in range(8)]
    for i in range(n):
        category, known = names[i % 8], 100 if i % 3 else 2
        rate = rates.get(category, rates.get("regulars" if known > 64 else "newcomers", 0.8))
        hit = bool(generator.random() < rate)
        drift.update(hit, first + i, float(first + i), known=known, category=category)


@pytest.mark.parametrize(
    ("rates", "where"),
    [
        ({"c3": 0.3}, "category c3"),
        ({"newcomers": 0.55}, "segment newcomers"),
        ({f"c{i}": 0.5 for i in range(8)}, "overall"),
    ],
)
def test_an_alarm_says_where(rates: dict[str, float], where: str) -> None:
    drift = Drift()
    feed(drift, 16_000, 0, {})
    assert not drift.alarms
    feed(drift, 3_000, 16_000, rates, seed=6)
    assert drift.alarms[0].where == where
    assert drift.raised == {where: 1} or where != "overall"


def test_categories_are_bounded() -> None:
    drift = Drift()
    for i in range(1_000):
        drift.update(True, i, float(i), category=f"category-{i}")
    assert len(drift.categories) == CATEGORIES


@pytest.mark.parametrize("at", [100, 9_000, 16_700, 17_500])
def test_a_stored_detector_goes_on_as_if_nothing_had_happened(at: int) -> None:
    whole, first, second = Drift(), Drift(), Drift()
    generator = np.random.default_rng(8)
    hits = [*(generator.random(16_500) < 0.8), *(generator.random(2_000) < 0.5)]
    for i, hit in enumerate(hits):
        whole.update(bool(hit), i, float(i), known=i // 100, category=f"c{i % 3}")
        part = first if i < at else second
        if i == at:
            second.load_state(first.state())
        part.update(bool(hit), i, float(i), known=i // 100, category=f"c{i % 3}")
    assert whole.alarms
    assert second.report() == whole.report()
    assert {name: a.tobytes() for name, a in second.state().items()} == {
        name: a.tobytes() for name, a in whole.state().items()
    }


def drifting(n: int = 9_000, change: int = 5_000, told: int = 40) -> Batch:
    """Pairs that follow each other, other ones after the change; entries come all the time."""
    generator = np.random.default_rng(9)
    kind, user, item, catalogue = [], [], [], {}
    for i in range(n):
        if i % told == 0:
            number = int(generator.integers(64))
            catalogue[i] = CatalogueEntry(category=f"c{generator.integers(3)}")
            kind.append(ITEM)
            user.append("")
            item.append(f"i{number}")
            continue
        who = int(generator.integers(50))
        step = i // 50 % 2
        base = who % 32
        shift = 0 if i < change else 17
        place = 2 * base + step if generator.random() < 0.9 else int(generator.integers(64))
        kind.append(CLICK)
        user.append(f"u{who}")
        item.append(f"i{(place * (1 if i < change else 5) + shift) % 64}")
    return Batch(
        kind=np.array(kind, np.uint8),
        user=user,
        item=item,
        session=[""] * n,
        timestamp=1e9 + 60.0 * np.arange(n),
        event_hash=np.arange(1, n + 1, dtype=np.uint64),
        log=np.zeros(n, np.int32),
        logs=["mixed/0"],
        catalogue=catalogue,
    )


def cut_with_entries(batch: Batch, start: int, stop: int) -> Batch:
    entries = {i - start: e for i, e in batch.catalogue.items() if start <= i < stop}
    return replace(cut(batch, start, stop), catalogue=entries)


@pytest.fixture(scope="module")
def stream() -> Batch:
    return drifting()


@pytest.fixture(scope="module")
def learnt(stream: Batch) -> Engine:
    engine = Engine(SMALL)
    engine.learn(stream)
    return engine


def test_an_alarm_acts_and_the_setting_leaves_it_at_the_alarm(
    stream: Batch, learnt: Engine
) -> None:
    passive = Engine(replace(SMALL, drift_action=False))
    passive.learn(stream)
    first = passive.drift.alarms[0]
    assert first == learnt.drift.alarms[0]
    assert passive.fingerprint() != learnt.fingerprint()
    assert np.sum(learnt.memory.blend.w_squares) < np.sum(passive.memory.blend.w_squares)
    calm = [Engine(SMALL), Engine(replace(SMALL, drift_action=False))]
    for engine in calm:
        engine.learn(cut_with_entries(stream, 0, 4_000))
        assert not engine.drift.alarms
    assert calm[0].fingerprint() == calm[1].fingerprint()


@pytest.mark.parametrize("seed", [1, 2])
def test_alarms_and_actions_are_the_same_however_the_stream_is_cut(
    stream: Batch, learnt: Engine, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    other, start = Engine(SMALL), 0
    while start < len(stream):
        stop = min(len(stream), start + int(generator.integers(1, 900)))
        other.learn(cut_with_entries(stream, start, stop))
        start = stop
    assert learnt.drift.alarms
    assert other.drift.report() == learnt.drift.report()
    assert other.fingerprint() == learnt.fingerprint()


def test_an_alarm_that_waits_for_its_action_is_in_the_state(stream: Batch, learnt: Engine) -> None:
    due = learnt.drift.alarms[0].event
    entries = np.cumsum(stream.kind == CLICK)
    place = int(np.searchsorted(entries, due)) + 1
    assert due % ACT_EVERY
    first, second = Engine(SMALL), Engine(SMALL)
    first.learn(cut_with_entries(stream, 0, place))
    assert first.drift.alarms
    second.load_state(first.state())
    second.learn(cut_with_entries(stream, place, len(stream)))
    assert second.drift.report() == learnt.drift.report()
    assert second.memory.blend.w.tobytes() == learnt.memory.blend.w.tobytes()


def test_to_forget_overall_ages_all_evidence_but_not_what_comes_next() -> None:
    memory, fresh = Memory.make(SMALL), Memory.make(SMALL)
    forget_overall(memory, 3.0)  # nothing is there to forget
    pairs = [(s, item) for s in range(6) for item in (3, 5)]
    query = Query(np.array([3], np.int32), now=1_000_012.0)
    for source in (memory.near, memory.following, fresh.following):
        source.learn(interactions(pairs, start_seconds=1e6))
    before = [source.score(query, 8)[5] for source in (memory.near, memory.following)]
    forget_overall(memory, 3.0)
    after = [source.score(query, 8)[5] for source in (memory.near, memory.following)]
    assert after == pytest.approx([value / 8 for value in before], rel=1e-4)
    more = interactions([(7, 3), (7, 6)], start_seconds=1_000_010.0)
    memory.following.learn(more)
    fresh.following.learn(more)
    later = [source.following.score(query, 8)[6] for source in (memory, fresh)]
    assert later[0] == pytest.approx(later[1], rel=1e-4)


def test_to_forget_followers_leaves_other_items_alone() -> None:
    memory = Memory.make(SMALL)
    pairs = [(s, item) for s in range(6) for item in ((3, 5) if s % 2 else (8, 9))]
    memory.following.learn(interactions(pairs, start_seconds=1e6))

    def followers(item: int) -> np.ndarray:
        return memory.following.score(Query(np.array([item], np.int32), now=1e6), 12)

    before = followers(3), followers(8)
    forget_followers(memory.following.arrays, np.array([3, 5, 11]), 2.0)
    assert followers(3) == pytest.approx(before[0] / 4)
    assert followers(8).tolist() == before[1].tolist()
    forget_followers(memory.following.arrays, np.empty(0, np.int64), 2.0)
    assert followers(8).tolist() == before[1].tolist()


def test_a_quickened_blend_takes_longer_steps(learnt: Engine) -> None:
    memory = Memory.make(SMALL)
    for name in memory.blend._fields:
        getattr(memory.blend, name)[...] = getattr(learnt.memory.blend, name)
    weights = memory.blend.w.tobytes()
    quicken(memory.blend)
    assert memory.blend.w.tobytes() == weights
    steps = 1 / np.sqrt(memory.blend.inner_squares + 1e-12)
    assert np.median(steps * np.sqrt(learnt.memory.blend.inner_squares)) == pytest.approx(
        10, rel=0.1
    )


def test_a_click_counts_for_the_category_that_its_item_had_then() -> None:
    catalogue = Catalogue(items=4)
    catalogue.update(1, CatalogueEntry(category="old"))
    rows = np.array([1, 2, 1, 1, 3], np.int32)
    acts = np.array([True, True, False, True, False])
    told = [CatalogueEntry(category="new"), CatalogueEntry(category="late")]
    asked = np.array([True, True, True, True, True])
    assert catalogue.take(rows, acts, told, asked) == {0: "old", 2: "new"}
    assert catalogue.category(2) is None
    assert catalogue.rows_of({"late", "new"}).tolist() == [1, 3]
    later = np.array([False, False, False, True, False])
    assert catalogue.take(rows, acts, told, later) == {2: "new"}


def test_the_items_of_a_category_are_those_of_exactly_its_name() -> None:
    names = ["tent", "tents", None, "Käse", "t" * 300, "", "tents"]
    catalogue = Catalogue(items=16)
    assert not len(catalogue.rows_of({"tents"}))
    for row, name in enumerate(names):
        catalogue.update(2 * row, CatalogueEntry(category=name, title="tents"))
    for name in {"tent", "tents", "Käse", "t" * 300, "", "ten"}:
        rows = [2 * row for row, other in enumerate(names) if other == name]
        assert catalogue.rows_of({name}).tolist() == rows
        assert {catalogue.category(row) for row in rows} <= {name}
    catalogue.forget(np.array([2]))
    assert catalogue.rows_of({"tents", "Käse"}).tolist() == [6, 12]


def test_the_action_is_switched_on_in_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "everlearn.toml"
    file.write_text("[engine]\ndrift_action = true\ndrift_threshold = 40\n")
    engine = load_settings(file).engine
    assert (engine.drift_action, engine.drift_threshold) == (True, 40.0)
    assert not EngineConfig().drift_action
    file.write_text("[engine]\ndrift_confidence = 0\n")
    with pytest.raises(SettingsError, match="drift_confidence"):
        load_settings(file)

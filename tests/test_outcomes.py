"""What follows a click: outcomes are learnt in bounded memory, come true, and move the ranking."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from benchmarks import purchases, purchases_plot
from learners.base import CLICK, ERASURE, ITEM, PURCHASE, Batch, CatalogueEntry, EngineConfig
from learners.calibration import BINS, reliability
from learners.checkpoint import CheckpointStore
from learners.engine import Engine
from learners.errors import CheckpointError
from learners.outcomes import OPEN
from learners.past import PRICE
from streams.decode import Gate
from streams.order import Record
from streams.settings import Settings, TopicSettings
from tests.gates import NOW
from tests.test_engine import CONFIG, batch_of, checkerboard

BUYING = replace(CONFIG, objective_click=0.0, objective_purchase=1.0, outcome_window_seconds=3600.0)
VALUING = replace(BUYING, objective_purchase=0.0, objective_value=1.0)
Told = tuple[int, str, str, float]


def valued(events: Sequence[Told], prices: dict[str, float], prefix: str = "e") -> Batch:
    """A batch whose purchases tell what was paid."""
    return replace(batch_of(events, prefix), value=values_of(events, prices))


def values_of(events: Sequence[Told], prices: dict[str, float]) -> NDArray[np.float32]:
    value = [prices.get(item, np.nan) if kind == PURCHASE else 0.0 for kind, _, item, _ in events]
    return np.array(value, np.float32)


def shop(n: int, chance: dict[str, float], seed: int = 5) -> list[Told]:
    """Visitors look at c, then at a (60 in 100) or b, and buy it with its chance."""
    generator = np.random.default_rng(seed)
    told: list[Told] = []
    for visit in range(n):
        user, time = f"u{visit % 150}", 1e6 + 4000.0 * visit
        item = "a" if generator.random() < 0.6 else "b"
        told += [(CLICK, user, "c", time), (CLICK, user, item, time + 10.0)]
        if generator.random() < chance[item]:
            told.append((PURCHASE, user, item, time + 60.0))
    return told


def answer(config: EngineConfig, batch: Batch) -> list[str]:
    """What a new visitor who looks at c is shown, c itself apart."""
    engine = Engine(config)
    engine.learn(batch)
    now = float(batch.timestamp[-1]) + 4000.0
    engine.learn(batch_of([(CLICK, "new", "c", now)], "now"))
    return [found.item for found in engine.recommend("new", exclude=("seen",))]


def test_the_objective_decides_what_is_shown_first() -> None:
    bought = valued(shop(4000, {"a": 0.02, "b": 0.4}, seed=6), {})
    assert answer(CONFIG, bought)[0] == "a"
    assert answer(BUYING, bought)[0] == "b"
    paid = valued(shop(4000, {"a": 0.3, "b": 0.3}, seed=6), {"a": 2.0, "b": 50.0})
    assert answer(BUYING, paid)[0] == "a"
    assert answer(VALUING, paid)[0] == "b"


def test_anonymous_visitors_are_ranked_by_the_objective_too() -> None:
    batch = valued(shop(1500, {"a": 0.02, "b": 0.4}), {})
    seen = [("c", "click", float(batch.timestamp[-1]))]
    share = {}
    for name, config in (("click", CONFIG), ("purchase", BUYING)):
        engine = Engine(config)
        engine.learn(batch)
        found = engine.recommend(events=seen, exclude=("seen",), k=2)
        share[name] = {best.item: best.score for best in found}
        assert set(share[name]) == {"a", "b"}
    assert share["purchase"]["b"] > 1.2 * share["click"]["b"]


def test_what_was_left_long_ago_and_not_bought_stays_a_candidate_under_purchases() -> None:
    told = shop(300, {"a": 0.5, "b": 0.5})
    end = told[-1][3] + 4000.0
    past = [f"f{i}" for i in range(25)]
    told += [(CLICK, "late", item, end + 60.0 * i) for i, item in enumerate(past)]
    engine = Engine(replace(BUYING, candidates=5, history_length=32))
    engine.learn(valued(told, {}))
    rows = {engine.memory.items.row(item) for item in past}
    assert len(engine.recommend("late", k=5)) == 5
    assert rows <= set(engine.memory.outcomes.arrays.final_item[:30].tolist())
    shown = {best.item for best in engine.recommend("late", k=40, exclude=("seen",))}
    assert {"a", "b"} <= shown
    assert not shown & set(past)


def test_probabilities_come_true() -> None:
    engine = Engine(BUYING)
    engine.learn(valued(shop(9000, {"a": 0.05, "b": 0.3}), {}))
    told = engine.report()["outcomes"]
    assert isinstance(told, dict)
    assert told["outcomes"] > 17_000
    assert told["calibration_error"] <= 0.03  # the first clicks of all included
    rows = told["reliability"]
    assert sum(row["n"] for row in rows) == told["outcomes"]
    assert rows[-1]["told"] > 4 * rows[0]["told"]
    json.dumps(told)


def test_batches_may_be_cut_anywhere_and_learning_goes_on_from_a_state() -> None:
    told = checkerboard(2600)
    config = replace(BUYING, outcome_window_seconds=600.0)
    whole = Engine(config)
    whole.learn(batch_of(told))
    cut = Engine(config)
    for begin in range(0, 1300, 100):
        cut.learn(batch_of(told[begin : begin + 100], f"p{begin}-"))
    moved = Engine(config)
    moved.load_state({name: array.copy() for name, array in cut.state().items()})
    assert moved.fingerprint() == cut.fingerprint()
    ended = []
    for engine in (moved, cut):
        for begin in range(1300, 2600, 700):
            engine.learn(batch_of(told[begin : begin + 700], f"q{begin}-"))
        ended.append(engine.state())
    for name, array in ended[0].items():
        assert np.array_equal(array, ended[1][name]), name
    same = whole.state()
    assert int(same["outcomes/queue"][0]) > 1024  # so the weights have changed
    for name, array in ended[0].items():
        if name.startswith("outcomes/"):
            assert np.array_equal(array, same[name]), name


def test_a_price_counts_from_its_item_event_on_wherever_batches_are_cut() -> None:
    told = shop(700, {"a": 0.3, "b": 0.3})
    entries = {900: ("a", 3.0), 901: ("b", 8.0), 1400: ("b", 2.0), len(told) + 3: ("a", 5.0)}
    for place, (item, _) in entries.items():
        told.insert(place, (ITEM, "", item, told[place - 1][3]))
    states = []
    for size in (len(told), 250, 1):
        engine = Engine(VALUING)
        for begin in range(0, len(told), size):
            part = told[begin : begin + size]
            listed = {
                place - begin: CatalogueEntry(price=price)
                for place, (_, price) in entries.items()
                if begin <= place < begin + size
            }
            engine.learn(replace(batch_of(part, f"{begin}-", listed), value=values_of(part, {})))
        rows = [engine.memory.items.row(item) for item in "abc"]
        assert engine.memory.outcomes.arrays.books.item[rows, PRICE].tolist() == [5.0, 2.0, 0.0]
        states.append(engine.state())
    for state in states[1:]:
        for name, array in state.items():
            if name.startswith("outcomes/"):
                assert np.array_equal(array, states[0][name]), name


def test_a_checkpoint_from_before_the_objective_is_one_of_clicks(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    capture = store.capture(Engine(CONFIG))
    known = capture.manifest["config"]
    older = {name: value for name, value in known.items() if not name.startswith("objective")}
    store.write(replace(capture, manifest={**capture.manifest, "config": older}))
    assert store.load(Engine(CONFIG)) is not None
    with pytest.raises(CheckpointError, match="objective_purchase"):
        store.load(Engine(replace(CONFIG, objective_purchase=1.0)))


def test_open_clicks_are_bounded_and_the_rest_is_a_fair_sample() -> None:
    generator = np.random.default_rng(2)
    n = 2 * OPEN
    users, items = generator.integers(0, 2000, n), generator.integers(0, 200, n)
    told = [
        (CLICK, f"u{user}", f"i{item}", 1e6 + 0.1 * i)
        for i, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    engine = Engine(replace(BUYING, users=2500, dedupe_events=0, evaluate_one_in=10**6))
    for begin in range(0, n, 16_384):
        engine.learn(batch_of(told[begin : begin + 16_384], f"{begin}-"))
    outcomes = engine.memory.outcomes
    left, entered, halvings = outcomes.arrays.queue.tolist()
    assert halvings >= 1
    assert OPEN // 4 < entered - left <= OPEN
    size = sum(array.nbytes for array in outcomes.state(300).values())
    assert size == sum(array.nbytes for array in Engine(BUYING).memory.outcomes.state(300).values())


def test_who_is_erased_leaves_no_open_click() -> None:
    engine = Engine(BUYING)
    engine.learn(batch_of([(CLICK, "ann", "a", 10.0), (CLICK, "bob", "a", 11.0)]))
    arrays = engine.memory.outcomes.arrays
    assert (arrays.key[:2] >= 0).all()
    engine.learn(batch_of([(ERASURE, "ann", "", 12.0)], "x"))
    assert (arrays.key[:2] >= 0).tolist() == [False, True]


def test_with_clicks_as_the_objective_nothing_of_it_is_kept() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(300)))
    assert not [name for name in engine.state() if name.startswith("outcomes")]
    assert engine.report()["outcomes"] == {}
    assert "value_hr@20" not in engine.evaluation.metrics(PURCHASE)["blend"]


def test_value_is_weighed_where_it_is_told() -> None:
    engine = Engine(replace(CONFIG, evaluate_one_in=1))
    batch = valued(shop(600, {"a": 0.3, "b": 0.3}), {"a": 1.0})
    engine.learn(batch)
    figures = engine.evaluation.metrics(PURCHASE)["blend"]
    assert 0.9 < figures["value_hr@20"] <= 1.0
    cut = Engine(replace(CONFIG, evaluate_one_in=1))
    cut.load_state(engine.state())
    assert cut.evaluation.metrics(PURCHASE)["blend"] == figures


@pytest.mark.parametrize("user", ["ann", "änn"])  # the second is left to the decoder
def test_the_value_of_a_purchase_reaches_the_engine(user: str) -> None:
    gate = Gate({"mixed": TopicSettings(name="mixed", type="mixed")}, now=lambda: NOW)
    about = {"user": user, "item": "a", "timestamp": NOW}
    said: list[dict[str, object]] = [
        {"type": "purchase", "price": 2.5, "quantity": 3},
        {"type": "purchase", "price": 4},
        {"type": "purchase", "quantity": 2},
        {"type": "purchase", "price": None},
        {"type": "click", "price": 7},
    ]
    records = [
        Record(
            "mixed",
            0,
            i,
            int(NOW * 1000),
            None,
            json.dumps({"event_id": f"e{i}", **about, **event}, ensure_ascii=False).encode(),
        )
        for i, event in enumerate(said)
    ]
    batch, rejected = gate.decode(records)
    assert not rejected
    assert np.array_equal(batch.value, [7.5, 4.0, np.nan, np.nan, 0.0], equal_nan=True)


def test_an_objective_without_any_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="give one a weight"):
        Settings(engine=EngineConfig(objective_click=0.0))


def test_calibration_error_is_zero_where_all_came_true() -> None:
    bins = np.zeros((BINS, 3))
    assert reliability(bins)["calibration_error"] is None
    bins[50:350:10] = [100, 25, 25]
    assert reliability(bins)["calibration_error"] == 0.0
    assert len(reliability(bins)["reliability"]) == 10


def test_paired_intervals_hold_the_gain_and_are_narrow_where_nothing_changed() -> None:
    generator = np.random.default_rng(4)
    user, value = np.arange(900) % 90, generator.random(900)
    hit = (generator.random(900) < 0.5).astype(np.float64)
    better = np.maximum(hit, generator.random(900) < 0.1)
    first, second = (purchases.Found(user, hits, value) for hits in (hit, better))
    same = purchases.differences(first, first)
    assert same["hr@20_gain_95"] == same["value_hr@20_gain_95"] == [0.0, 0.0]
    found = purchases.differences(second, first)
    assert found["hr@20_gain"] == pytest.approx((better - hit).mean(), abs=1e-5)
    low, high = found["hr@20_gain_95"]
    assert 0.0 < low < found["hr@20_gain"] < high
    untold = purchases.differences(purchases.Found(user, better, 0.0 * value), first)
    assert untold["value_hr@20_gain"] is None


def test_bench_purchases_tells_each_objective_and_draws_what_came_true(tmp_path: Path) -> None:
    told = shop(700, {"a": 0.05, "b": 0.4})
    frame = pl.DataFrame(
        {
            "user": [int(user[1:]) for _, user, _, _ in told],
            "item": ["abc".index(item) for _, _, item, _ in told],
            "category": [1] * len(told),
            "behaviour": ["buy" if kind == PURCHASE else "pv" for kind, *_ in told],
            "timestamp": [int(time) for *_, time in told],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    plot = tmp_path / "reliability.png"
    rows = list(
        purchases.run(
            tmp_path / "log.parquet",
            "taobao",
            sample=1,
            plot=plot,
            say=lambda text: None,
            config=CONFIG,
        )
    )
    assert [row["objective"] for row in rows] == list(purchases.OBJECTIVES)
    assert len({row["n"] for row in rows}) == 1
    assert rows[0]["hr@20_gain"] == 0.0
    assert rows[0]["calibration_error"] is None
    assert rows[1]["calibration_error"] is not None
    assert all(row["value_hr@20"] is None for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")
    purchases_plot.plot_reliability(rows[1]["outcomes"], "shop", tmp_path / "again.svg")  # type: ignore[arg-type]
    assert (tmp_path / "again.svg").stat().st_size > 1_000

"""The deep model in an engine: what torch would say, found by an index, swapped between answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.base import CLICK, KINDS, PURCHASE, EngineConfig
from learners.deep.config import ARCHITECTURES, Architecture, SequenceConfig
from learners.deep.histories import Histories
from learners.deep.packing import pack, unpack
from learners.deep.served.codes import aim, codes_of, make_direction
from learners.deep.served.deep import Deep
from learners.deep.served.index import make_index, make_search, nearest, recall
from learners.engine import Engine
from learners.errors import SnapshotError
from tests.test_engine import CONFIG, batch_of, checkerboard, cut

torch = pytest.importorskip("torch")
from learners.deep.sequence import SequenceModel  # noqa: E402

SMALL = SequenceConfig("core", width=32, feed_forward=48)
EVENTS = checkerboard(800)
ITEMS = sorted({item for _, _, item, _ in EVENTS})


@dataclass
class Held:
    """A snapshot in memory."""

    model: Any
    items: list[str] = field(default_factory=lambda: [*ITEMS, "never"])
    id: str = "first"

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Those of the model."""
        return pack(self.model.arrays())

    @property
    def config(self) -> dict[str, Any]:
        """That of the model."""
        return asdict(self.model.config)


def shaken(config: SequenceConfig, items: int) -> Any:
    """A model of which no weight is still what it begins with."""
    model = SequenceModel(config, items, seed=2).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    model.load_arrays(unpack(pack(model.arrays()), config.width))
    return model


def deep_parts(engine: Engine, events: list[tuple[str, str, float]]) -> dict[str, float]:
    """What the deep model has to do with each item of an answer."""
    listed = engine.recommend(events=events, k=len(ITEMS))
    return {entry.item: entry.sources.get("deep", 0.0) for entry in listed}


@pytest.fixture(scope="module")
def learnt() -> Engine:
    engine = Engine(CONFIG)
    engine.learn(batch_of(EVENTS))
    return engine


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("width", "others"), [(32, 0), (40, 600)])
def test_answers_are_those_of_torch(
    learnt: Engine, architecture: Architecture, width: int, others: int
) -> None:
    names = [*ITEMS, "never", *(f"other-{i}" for i in range(others))]
    names = np.random.default_rng(4).permutation(names).tolist()
    model = shaken(SequenceConfig(architecture, width=width, feed_forward=80), len(names))
    held = Held(model, names)
    learnt.serve(Deep(CONFIG.items, held))
    asked = [
        (item, KINDS[PURCHASE if i == 2 else CLICK], 900.0 * i * i)
        for i, item in enumerate(ITEMS[:7])
    ]
    told = deep_parts(learnt, asked)
    rows = np.array([held.items.index(item) for item, _, _ in asked], np.int32)
    kinds = np.array([KINDS.index(kind) for _, kind, _ in asked], np.uint8)
    times = np.array([time for _, _, time in asked])
    u = model.vectors(Histories(rows, kinds, times, np.array([0, len(rows)])))[0, 0]
    bench = learnt.memory.deep.arrays.bench
    np.testing.assert_allclose(bench.user[:width], u, atol=1e-5)
    table = model.arrays()["table"]
    logits = table @ u / np.linalg.norm(table, axis=1)
    best = logits[[held.items.index(item) for item in told]].max()
    for item, part in told.items():
        expected = np.exp(logits[held.items.index(item)] - best)
        assert part == pytest.approx(expected, abs=2e-4)


def test_a_model_of_few_places_is_asked_with_the_latest_events(learnt: Engine) -> None:
    model = shaken(replace(SMALL, most_events=3), len(ITEMS) + 1)
    learnt.serve(Deep(CONFIG.items, Held(model)))
    asked = [(item, KINDS[CLICK], 900.0 * i) for i, item in enumerate(ITEMS[:7])]
    assert deep_parts(learnt, asked) == deep_parts(learnt, asked[-3:]) != {}
    rows, times = np.array([4, 5, 6], np.int32), 900.0 * np.array([4.0, 5.0, 6.0])
    histories = Histories(rows, np.zeros(3, np.uint8), times, np.array([0, 3]))
    u = model.vectors(histories)[0, 0]
    np.testing.assert_allclose(learnt.memory.deep.arrays.bench.user[:32], u, atol=1e-5)


def test_the_index_finds_nearly_all_of_the_nearest() -> None:
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((60, 32))
    rows = centres[generator.integers(0, 60, 6000)] + 0.7 * generator.standard_normal((6000, 32))
    packed = pack({"table": rows.astype(np.float32)})
    index, order = make_index(packed["code"], packed["cluster"], packed["centre"])  # type: ignore[arg-type]
    assert sorted(order.tolist()) == list(range(6000))
    asked = rows[generator.integers(0, 6000, (100, 4))].mean(axis=1).astype(np.float32)
    assert recall(index, asked, 20) > 0.95
    again = pack({"table": rows.astype(np.float32)})
    assert all((packed[name] == again[name]).all() for name in packed)


@pytest.mark.parametrize("n", [0, 1, 3, 5, 257, 1000])
def test_an_index_of_few_clusters_finds_the_nearest_of_all(n: int) -> None:
    generator = np.random.default_rng(n)
    packed = pack({"table": generator.standard_normal((n, 40)).astype(np.float32)})
    code, cluster, centre = (packed[name] for name in ("code", "cluster", "centre"))
    centre = np.append(centre, -centre[:1], axis=0)  # a cluster without rows
    index, order = make_index(code, cluster, centre)  # type: ignore[arg-type]
    u = generator.standard_normal(40).astype(np.float32)
    found, products = nearest(index, make_search(index), u, 7)
    rows = unpack(packed, 40)["table"]
    exact = rows @ rounded(u) / np.linalg.norm(rows, axis=1)
    assert order[found].tolist() == np.argsort(-exact)[:7].tolist()
    np.testing.assert_allclose(products, -np.sort(-exact)[:7], atol=1e-5)


def rounded(u: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector as rows are multiplied with it."""
    direction = make_direction(len(u))
    aim(direction, u)
    return direction.code * direction.step


@pytest.mark.parametrize("n", [49, 50, 51, 3000])
def test_of_rows_that_are_alike_the_first_are_found(n: int) -> None:
    code = codes_of(np.full((n, 32), 7, np.int8))
    cluster = np.arange(n, dtype=np.int32) // 100
    index, _ = make_index(code, cluster, code[: cluster[-1] + 1])
    found, products = nearest(index, make_search(index), np.ones(32, np.float32), 50)
    assert found.tolist() == list(range(min(n, 50)))
    np.testing.assert_allclose(products, np.sqrt(32), rtol=1e-4)


@pytest.mark.parametrize("width", [16, 96, 8192])
def test_a_vector_is_rounded_to_half_a_step_and_no_sum_overflows(width: int) -> None:
    u = np.random.default_rng(width).standard_normal(width).astype(np.float32)
    steps = min(32_767, (2**31 - 1) // (15 * width))
    np.testing.assert_allclose(rounded(u), u, atol=0.5001 * np.abs(u).max() / steps)
    assert not rounded(np.zeros(width, np.float32)).any()
    sign = np.where(u > 0, 1, -1)
    code = codes_of(7 * sign[None])
    index, _ = make_index(code, np.zeros(1, np.int32), code)
    _, products = nearest(index, make_search(index), sign.astype(np.float32), 1)
    assert products[0] == pytest.approx(np.sqrt(width), rel=1e-6)


def test_a_snapshot_changes_answers_and_none_brings_them_back() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(EVENTS))
    before, mark = engine.recommend("u1"), engine.fingerprint()
    engine.serve(Deep(CONFIG.items, Held(shaken(SMALL, len(ITEMS) + 1))))
    assert engine.snapshot == "first"
    assert any("deep" in entry.sources for entry in engine.recommend("u1", k=len(ITEMS)))
    assert engine.recommend("u1") == engine.recommend("u1")
    assert engine.fingerprint() != mark
    engine.serve(Deep(CONFIG.items))
    assert (engine.recommend("u1"), engine.fingerprint()) == (before, mark)


def test_the_same_snapshots_at_the_same_events_give_the_same_state() -> None:
    whole = batch_of(EVENTS)
    marks = []
    for cuts in ([0, 400, 800], [0, 100, 400, 650, 800]):
        engine = Engine(replace(CONFIG, evaluate_one_in=1))
        for begin, end in pairwise(cuts):
            if begin == 400:
                engine.serve(Deep(CONFIG.items, Held(shaken(SMALL, len(ITEMS) + 1))))
            engine.learn(cut(whole, begin, end))
        marks.append(engine.fingerprint())
        assert engine.evaluation.metrics()["deep"]["hr@20"] > 0
    assert marks[0] == marks[1]


def test_a_snapshot_that_is_there_before_its_items_serves_them_once_they_come() -> None:
    model = shaken(SMALL, len(ITEMS) + 1)
    early, late = Engine(CONFIG), Engine(CONFIG)
    early.serve(Deep(CONFIG.items, Held(model)))
    early.learn(batch_of(EVENTS))
    late.learn(batch_of(EVENTS))
    late.serve(Deep(CONFIG.items, Held(model)))
    asked = [(item, KINDS[CLICK], 10.0) for item in ITEMS[:3]]
    parts = deep_parts(early, asked)
    assert max(parts.values()) == 1.0
    assert (early.memory.deep.arrays.place == late.memory.deep.arrays.place).all()


def test_items_that_lost_their_rows_are_no_longer_led_to() -> None:
    config = EngineConfig(users=64, items=24, sessions=64, dedupe_events=0)
    names = [f"i{i}" for i in range(60)]
    engine = Engine(config)
    engine.serve(Deep(config.items, Held(shaken(SMALL, len(names)), names)))
    for begin in range(0, 60, 10):
        clicks = [(CLICK, f"u{i % 5}", f"i{i}", 1e9 + i) for i in range(begin, begin + 10)]
        engine.learn(batch_of(clicks, prefix=f"e{begin}-"))
        arrays = engine.memory.deep.arrays
        rows = np.flatnonzero(arrays.place)
        assert [engine.memory.items.row(f"i{i}") >= 0 for i in range(begin, begin + 10)] == [
            True
        ] * 10
        held = {engine.memory.items.ids[row] for row in rows.tolist()}
        known = {name for name in names if engine.memory.items.row(name) >= 0}
        assert held == known
        assert (arrays.item[arrays.place[rows] - 1] == rows + 1).all()


def test_nothing_is_remembered_of_the_erased(learnt: Engine) -> None:
    learnt.serve(Deep(CONFIG.items, Held(shaken(SMALL, len(ITEMS) + 1))))
    learnt.recommend("u1")
    memo = learnt.memory.deep.arrays.memo
    row = learnt.memory.users.row("u1")
    assert (memo.key[row % len(memo.key)] >= 0).all()
    learnt.memory.erase("u1")
    assert (memo.key[row % len(memo.key)] == -1).all()
    slot = row % len(memo.key)
    assert not any(array[slot].any() for array in memo[1:])


@pytest.mark.parametrize(
    "fault",
    ["nan", "huge", "names", "twice", "missing", "config", "width", "bytes", "cluster", "scale"],
)
@pytest.mark.parametrize("architecture", ["core", "core-ave"])
def test_what_does_not_fit_together_is_refused(fault: str, architecture: Architecture) -> None:
    model = shaken(replace(SMALL, architecture=architecture), len(ITEMS) + 1)
    held: Any = Held(model)
    broken = replace(held)
    arrays, config = held.arrays, held.config
    if fault == "nan":
        arrays["encoder.reach"][0] = np.nan
    elif fault == "huge":
        arrays["encoder.reach"] = np.full(arrays["encoder.reach"].shape, 1e300)
    elif fault == "names":
        broken.items = ITEMS
    elif fault == "twice":
        broken.items = [*ITEMS, ITEMS[0]]
    elif fault == "missing":
        del arrays["encoder.reach"]
    elif fault == "width":
        arrays["code"] = np.concatenate([arrays["code"]] * 2, axis=1)
    elif fault == "bytes":
        arrays["code"] = arrays["code"].view(np.int8)
    elif fault == "cluster":
        arrays["cluster"][3] = len(arrays["centre"])
    elif fault == "scale":
        config["scale"] = float("nan")
    else:
        config["architecture"] = "tree"

    class Broken:
        id, items = "broken", broken.items

    Broken.arrays, Broken.config = arrays, config  # type: ignore[attr-defined]
    with pytest.raises(SnapshotError, match="broken cannot be served"):
        Deep(CONFIG.items, Broken())  # type: ignore[arg-type]

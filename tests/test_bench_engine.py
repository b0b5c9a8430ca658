"""The benchmarks of the engine alone, at sizes that take a moment; their figures are not judged."""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import allocations, coldstart, explore, growth, kernels, memory, memory_plot
from benchmarks.asking import STAGES
from benchmarks.data import Crowd
from benchmarks.resident import resident_bytes, resident_parts
from benchmarks.rows import Row
from benchmarks.visits import BATCH, Visits, VisitsConfig
from learners.base import CatalogueEntry, EngineConfig
from learners.capacity import ENTRY_BYTES, copy_bytes, parts_of
from learners.checkpoint import CheckpointStore
from learners.engine import Engine
from learners.errors import DataError
from learners.store.catalogue import Catalogue
from serving.commands import bench_engine, bench_learning
from streams.shop import ShopConfig
from tests.test_engine import CONFIG, batch_of, checkerboard

FRAME = ["seconds", "commit", "cpus", "date"]


def silent(_: str) -> None:
    """Say nothing."""


def checked(rows: list[Row], benchmark: str) -> dict[str, Row]:
    """Rows by method, each framed and with figures that are numbers."""
    for row in rows:
        assert list(row)[:2] == ["benchmark", "method"]
        assert list(row)[-4:] == FRAME
        assert row["benchmark"] == benchmark
        figures = [value for value in row.values() if isinstance(value, float)]
        assert figures
        assert all(map(math.isfinite, figures))
        json.dumps(row)
    return {str(row["method"]): row for row in rows}


def number(row: Row, name: str) -> float:
    return float(str(row[name]))


def test_visits_repeat_themselves_and_meet_everybody() -> None:
    config = VisitsConfig(users=400, items=100, events=6_500)
    once, again = (list(Visits(config).batches()) for _ in range(2))
    assert [batch.item for batch in once] == [batch.item for batch in again]
    assert [len(batch) for batch in once] == [BATCH] * 6 + [500]
    assert len({user for batch in once for user in batch.user}) == 400
    assert len({item for batch in once for item in batch.item}) == 100
    hashes = np.concatenate([batch.event_hash for batch in once])
    assert len(np.unique(hashes)) == 6_500


def test_visits_drift_over_all_ids_and_have_something_to_learn() -> None:
    config = VisitsConfig(
        users=2_000, items=1_000, events=20_000, user_window=200, item_window=100, rounds=0.2
    )
    batches = list(Visits(config).batches())
    first, last = ([int(item[2:]) for item in batch.item] for batch in (batches[0], batches[-1]))
    assert max(first) < 250
    assert sum(item >= 850 for item in last) > BATCH // 2
    engine = Engine(EngineConfig(users=2_000, items=1_000, sessions=4_096, evaluate_one_in=1))
    for batch in batches:
        engine.learn(batch)
    found = engine.evaluation.metrics()
    assert found["blend"]["hr@20"] > 2 * found["popularity"]["hr@20"]


def test_the_bound_names_every_part_and_grows_with_each_capacity() -> None:
    parts = parts_of(Engine(CONFIG))
    wanted = {"history", "users", "users.ids", "items", "items.ids", "ledger", "work", "evaluation"}
    assert wanted | {"neighbours", "transitions", "popularity", "catalogue.entries"} <= set(parts)
    assert sum(parts.values()) == Engine(CONFIG).capacity_bytes()
    assert parts["history"] == CONFIG.users * (32 + 8 * CONFIG.history_length + 1)


def test_no_array_of_the_state_is_left_out_of_the_bound_or_of_the_copy(tmp_path: Path) -> None:
    engine = Engine(CONFIG)
    copy = copy_bytes(engine)
    engine.learn(batch_of(checkerboard(3000)))
    state = engine.state()
    assert sum(array.nbytes for array in state.values()) < engine.capacity_bytes()
    store = CheckpointStore(tmp_path)
    capture = store.capture(engine)
    held = sum(copied.nbytes for copied in capture.state.values())
    assert held < copy
    texts = (engine.memory.users.ids, engine.memory.items.ids, engine.catalogue.entries)
    reserved = sum(each.heap.data.nbytes for each in texts)  # so small, it is there at once
    assert sum(resident_parts(engine).values()) <= sum(parts_of(engine).values()) + reserved


def test_an_entry_takes_no_more_than_is_foreseen() -> None:
    catalogue = Catalogue(items=2_000)
    for row in range(2_000):
        category, title = f"category-{row:03d}"[:12], f"Something to buy, {row:09d}"
        entry = CatalogueEntry(category=category, price=row / 7, title=title, created=row + 0.5)
        catalogue.update(row, entry)
        assert catalogue.entry(row) == entry
    assert len(catalogue.state()["text"]) <= 2_000 * ENTRY_BYTES


@pytest.mark.slow
def test_memory_is_bounded_measured_and_stays_flat_beyond_capacity(tmp_path: Path) -> None:
    plot = tmp_path / "memory.png"
    rows = checked(
        list(
            memory.run(
                users=2_000,
                items=500,
                history_length=8,
                measured=True,
                overflow_users=1_000,
                overflow_items=200,
                plot=plot,
                say=silent,
            )
        ),
        "memory",
    )
    assert list(rows) == ["bound", "measured", "overflow"]
    bound, full, beyond = rows.values()
    assert number(bound, "bytes_per_user") > 8 * 8 + 32
    assert number(bound, "bytes_per_item") > 500
    assert full["users_held"] == 2_000
    assert full["items_held"] == 500
    assert number(full, "engine_bytes") < number(full, "bytes_total")
    assert number(beyond, "bounded_items_held") <= 200 < number(beyond, "enough_items_held")
    growth = number(beyond, "bounded_bytes_10x") - number(beyond, "bounded_bytes_5x")
    assert growth < 4 * 2**20
    assert number(beyond, "bounded_hr@20") > 0.6 * number(beyond, "enough_hr@20") > 0.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_plot_has_a_line_for_each_engine(tmp_path: Path) -> None:
    samples = [
        {"items_met": 100 * i, "resident_bytes": 10**8, "hr@20": 0.3 - i / 100} for i in range(10)
    ]
    for name in ("plot.png", "plot.svg"):
        memory_plot.plot_overflow(
            {"bounded": samples, "enough": samples}, 1_000, 100, tmp_path / name
        )
    drawn = (tmp_path / "plot.svg").read_text()
    assert "#0072b2" in drawn
    assert "#e69f00" in drawn


def test_growth_tells_each_size_and_its_ratio_to_the_first() -> None:
    rows = checked(
        list(
            growth.run(
                sizes=(200, 400),
                users=100,
                least_events=1_000,
                queries=20,
                batches=2,
                runs=2,
                say=silent,
            )
        ),
        "growth",
    )
    assert list(rows) == ["200_items", "400_items"]
    for row in rows.values():
        assert number(row, "events") >= 5 * number(row, "items")
        for name in growth.JUDGED:
            ratio = number(row, f"{name.removesuffix('_us')}_ratio_to_first")
            assert ratio == pytest.approx(
                number(row, name) / number(rows["200_items"], name), abs=0.001
            )
        assert number(row, "items_met") > 20


def test_kernels_are_measured_part_by_part() -> None:
    rows = checked(
        list(
            kernels.run(
                crowd=Crowd(users=60, items=50),
                history=500,
                queries=10,
                batches=1,
                runs=2,
                asked=5,
                captures=1,
                say=silent,
            )
        ),
        "kernels",
    )
    query, learn, wait, checkpoint = rows.values()
    stages = sum(number(query, f"{stage}_us") for stage in STAGES)
    assert stages == pytest.approx(number(query, "kernel_us"), abs=0.05)
    assert number(query, "recommend_median_us") > 0
    assert 0 < number(learn, "learn_us") < number(learn, "test_and_learn_us")
    assert number(wait, "median_ms") <= number(wait, "p99_ms") <= number(wait, "longest_ms")
    assert number(wait, "events_per_second") > 0
    assert number(checkpoint, "state_bytes") > 10_000
    assert number(checkpoint, "stops_median_ms") <= number(checkpoint, "stops_longest_ms")


def test_no_objects_are_made_for_each_event() -> None:
    rows = checked(
        list(
            allocations.run(
                crowd=Crowd(users=500, items=200), history=3_000, batches=2, queries=20, say=silent
            )
        ),
        "allocations",
    )
    assert number(rows["decode"], "objects_per_event") < 0.5
    assert number(rows["learn"], "objects_per_event") < 0.5
    assert number(rows["recommend"], "objects_per_event") > 10  # the answer itself
    assert rows["recommend"]["most"]


def test_coldstart_counts_first_clicks_and_only_content_foresees_them() -> None:
    rows = list(
        coldstart.run(
            None,
            config=replace(CONFIG, items=1_000, sessions=4_096),
            shop=ShopConfig(users=200, items=500, drift="catalogue", drift_at=6_000, seed=3),
            events=9_000,
            streams=("catalogue_shock",),
            runs=1,
            say=silent,
        )
    )
    found = checked(rows, "coldstart")
    on, off = found["with_content"], found["without_content"]
    assert on["stream"] == off["stream"] == "catalogue_shock"
    for name in ("n", "n_first_click", "n_young"):
        assert on[name] == off[name]
    assert 100 < number(on, "n_first_click") < number(on, "n_young") < number(on, "n")
    assert number(off, "hr@20_first_click") == number(off, "content_hr@20") == 0.0
    assert number(on, "hr@20_first_click") > 0.2
    assert number(on, "candidates_first_click") > 0.5


def test_coldstart_asks_for_the_films_when_nobody_says_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EVERLEARN_DATA", raising=False)
    with pytest.raises(DataError, match="set EVERLEARN_DATA"):
        list(
            coldstart.run(
                None, config=CONFIG, shop=ShopConfig(), events=1, streams=("ml-100k",), say=silent
            )
        )


def test_exploration_is_compared_with_none_in_the_same_shops() -> None:
    def once() -> list[Row]:
        return list(
            explore.run(shares=(0.0, 0.2), users=60, items=60, events=800, seeds=2, say=silent)
        )

    rows = once()
    none, some = rows
    for row in rows:
        assert row["benchmark"] == "explore"
        assert row["seeds"] == 2
        assert 0.0 < number(row, "regret") < 1.0
        assert 0.0 < number(row, "clicks_per_answer") < 1.0
    assert none["method"] == "share_0"
    assert number(none, "regret_change") == number(none, "clicks_per_explored") == 0.0
    assert number(some, "coverage@10_new") > number(none, "coverage@10_new")
    assert number(some, "coverage@10_change") == pytest.approx(
        number(some, "coverage@10") - number(none, "coverage@10"), abs=2e-5
    )
    for row, again in zip(rows, once(), strict=True):
        assert {name: again[name] for name in row if name not in FRAME} == {
            name: row[name] for name in row if name not in FRAME
        }


def test_resident_memory_is_that_of_this_process() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 64 << 20) as block:  # not from what the process has been given back
        np.frombuffer(block, np.uint8)[:] = 1
        assert resident_bytes() - before > len(block) // 2


def test_the_commands_explain_themselves() -> None:
    bench = typer.Typer(no_args_is_help=True)
    bench_engine.add_to(bench)
    bench_learning.add_to(bench)
    speed = ("memory", "growth", "kernels", "allocations")
    for name in (*speed, "coldstart", "explore", "drift", "purchases"):
        result = CliRunner().invoke(bench, [name, "--help"])
        assert result.exit_code == 0
        assert "Examples" in result.output
        assert f"everlearn bench {name}" in result.output

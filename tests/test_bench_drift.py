"""`bench drift` counts recoveries, regret and alarms as its words say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import drift
from benchmarks.drift import Course, figures_of
from benchmarks.drift_methods import METHODS
from benchmarks.drift_stream import BIN, LIST, Question, Scenario, scenarios, tell
from streams.shop_events import item_name

SUDDEN = Scenario(drift="sudden", at=100 * BIN, length=1, events=200 * BIN)


def course(rates: list[float], alarms: list[int]) -> Course:
    targets = np.full(len(rates), 100)
    hits = np.round(100 * np.array(rates)).astype(np.int64)
    told = [("overall", event) for event in alarms]
    return Course(SUDDEN, hits, targets, np.full(len(rates), 0.5), 4, told)


def test_recovery_is_counted_from_the_change_to_nine_tenths_of_the_old_rate() -> None:
    quick = course([0.8] * 100 + [0.4] * 20 + [0.8] * 80, [101 * BIN])
    figures: dict[str, Any] = figures_of([quick], [quick])
    assert figures["recovery_events"] == 24 * BIN  # the last four of which are all recovered
    assert figures["hr@20_before"] == pytest.approx(0.8)
    assert figures["regret"] == pytest.approx(50.0)
    assert (figures["detections"], figures["false_alarms"], figures["delay_events"]) == (1, 0, BIN)


def test_who_does_not_come_back_is_told_and_counts_with_all_events() -> None:
    lost = course([0.8] * 100 + [0.4] * 100, [50 * BIN, 199 * BIN])
    better = course([0.9] * 200, [])
    figures: dict[str, Any] = figures_of([lost, better], [better, better])
    assert figures["recovery_events"] == 50 * BIN  # the mean with the other, which never fell
    assert (figures["not_recovered"], figures["not_recovered_common"]) == (1, 1)
    assert (figures["detections"], figures["false_alarms"]) == (0, 2)
    assert figures["delay_events"] is None


def test_regret_is_nothing_for_the_best_list_and_all_for_items_that_are_gone() -> None:
    chance = np.linspace(0.0, 1.0, 50, dtype=np.float32)[None, :]
    question = Question(["ann"], chance, np.ones(50, np.int64))
    best = [item_name(50 + place) for place in range(50 - LIST, 50)]
    assert question.regret([best]) == pytest.approx(0.0, abs=1e-6)
    gone = [item_name(place) for place in range(50 - LIST, 50)]
    assert question.regret([gone]) == pytest.approx(float(chance[0, -LIST:].sum()))
    assert question.regret([[]]) == question.regret([gone])


def test_a_story_is_the_same_for_everybody_and_drifts_where_its_script_says() -> None:
    script = scenarios(6_000, later=500)
    assert script["sudden"].at == 3_500
    assert script["recurring"].changes == [1_500, 3_000, 4_500]
    one, other = (tell(script["catalogue"], users=60, items=80, seed=3) for _ in range(2))
    assert [batch.item for batch in one.batches] == [batch.item for batch in other.batches]
    assert not one.questions[0].generation.any()
    assert one.questions[-1].generation.sum() == 24


def test_every_method_goes_through_every_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "FOUND_EVENTS", 1_600)
    plot = tmp_path / "drift.png"
    rows = list(
        drift.run(
            users=40,
            items=60,
            events=3_000,
            seeds=1,
            found_seeds=1,
            sample=1,
            plot=plot,
            say=lambda text: None,
        )
    )
    assert [row["method"] for row in rows] == [*METHODS] * 4 + ["summary"]
    by = {(row.get("scenario"), row["method"]): row for row in rows}
    ours, frozen = by["sudden", "everlearn"], by["sudden", "frozen"]
    assert ours["hr@20_before"] == frozen["hr@20_before"]
    assert float(str(ours["hr@20_end"])) > float(str(frozen["hr@20_end"]))
    assert float(str(ours["regret"])) < float(str(frozen["regret"]))
    assert rows[-1]["changes"] == 6
    assert plot.stat().st_size > 10_000

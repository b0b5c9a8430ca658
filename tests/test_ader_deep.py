"""The deep model under ADER's protocol, on weeks of a small made-up shop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import ader_deep, ader_lifelong, architectures
from benchmarks.ader_deep import sessions_of, target_ranks
from learners.base import EngineConfig
from learners.deep.config import ARCHITECTURES, FineTuneConfig, SequenceConfig
from learners.deep.histories import Histories
from learners.deep.sequence import SequenceModel
from learners.errors import DataError
from serving.cli import app
from serving.progress import progress_bar
from tests.weeks import shop, write

QUICK = FineTuneConfig(epochs=2, epochs_first=3, batch=32, negatives=40, warmup_steps=2, threads=1)
SMALL = SequenceConfig(width=16, feed_forward=32, most_events=8)


def test_a_row_for_each_method_tells_quality_seconds_and_what_is_still_known(
    tmp_path: Path,
) -> None:
    file = write(shop(periods=5), tmp_path / "weeks.parquet")
    rows = {
        str(row["method"]): row
        for row in ader_deep.run(
            file, config=SMALL, training=QUICK, save=tmp_path / "models", bar=progress_bar
        )
    }
    assert set(rows) == set(ader_deep.METHODS)
    for row in rows.values():
        cycles = row["cycles"]
        assert isinstance(cycles, dict)
        for name in ("recall@20", "mrr@20", "recall@10", "mrr@10", "train_seconds"):
            assert len(cycles[name]) == 4
            assert row[name] == pytest.approx(np.mean(cycles[name]), abs=0.001)
        assert row["n"] == sum(cycles["n"])
        assert len(row["old_weeks"]["recall@20"]) == 4  # type: ignore[index,call-overload]
    trained = {method: row["cycles"]["targets_trained"] for method, row in rows.items()}  # type: ignore[index,call-overload]
    assert trained["deep_finetune"][1] < trained["deep_rehearsal"][1] < trained["deep_joint"][3]
    assert rows["deep_rehearsal"]["cycles"] != rows["deep_distilled"]["cycles"]


def test_a_saved_model_ranks_as_it_did(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    file = write(shop(), tmp_path / "weeks.parquet")
    told = {"config": SMALL, "training": QUICK, "save": tmp_path, "bar": progress_bar, "cycles": 2}
    list(ader_deep.run(file, methods=["deep_rehearsal"], **told))  # type: ignore[arg-type]
    folder = tmp_path / "deep_rehearsal"
    assert sorted(p.stem for p in folder.glob("*.json")) == ["cycle-00", "cycle-01", "cycle-02"]
    about = json.loads((folder / "cycle-02.json").read_text())
    model = SequenceModel(SequenceConfig(**about["config"]), about["items"])
    model.load_arrays(load_file(folder / "cycle-02.safetensors"))
    stream = ader_deep.read_stream(file)
    begin, end = stream.starts[2:4]
    part = stream.unlearnt(begin, end)
    ranks = target_ranks(model, sessions_of(part.clicks.item, part.session))
    assert 100 * (ranks <= 20).mean() == pytest.approx(about["recall@20"], abs=0.001)
    assert len(ranks) == len(part.targets())


def test_ties_count_at_their_mean_rank() -> None:
    model = SequenceModel(SMALL, items=5)
    model.table[:] = torch.eye(16)[0]
    assert target_ranks(model, Histories.of([[0, 1, 2], [4, 3]])).tolist() == [3.0] * 3


def test_the_command_puts_the_weeks_models_into_the_blend(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    config = {"training": QUICK, "save": tmp_path, "bar": progress_bar}
    list(ader_deep.run(file, methods=["deep_rehearsal"], **config))  # type: ignore[arg-type]
    words = ["bench", "ader", str(file), "--deep", "--save", str(tmp_path), "--json"]
    chosen = ["--method", "blend", "--method", "together"]
    result = CliRunner().invoke(app, [*words, *chosen])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    by_name = {(row["method"], row["protocol"]): row for row in rows}
    assert set(by_name) == {
        (method, protocol)
        for method in ("blend", "together")
        for protocol in ("per_period", "per_event")
    }
    for protocol in ("per_period", "per_event"):
        alone, both = by_name["blend", protocol], by_name["together", protocol]
        assert alone["n"] == both["n"]
        assert alone["cycles"]["mrr@20"] != both["cycles"]["mrr@20"]


def test_models_of_another_kind_or_file_are_refused(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    other = write([click for click in shop() if click.item < 50], tmp_path / "other.parquet")
    save = tmp_path / "models"
    config = {"config": SMALL, "training": QUICK, "save": save, "bar": progress_bar, "cycles": 1}
    list(ader_deep.run(file, methods=["deep_rehearsal"], **config))  # type: ignore[arg-type]

    def refused(file: Path, model: SequenceConfig) -> str:
        told = {"save": save, "model": model, "cycles": 1, "bar": progress_bar}
        with pytest.raises(DataError) as caught:
            list(ader_lifelong.run(file, config=EngineConfig(), methods=["together"], **told))  # type: ignore[arg-type]
        return str(caught.value)

    wider = refused(file, replace(SMALL, width=32))
    assert "cycle-00.json has width 16, wanted is 32; name another folder with --save" in wider
    assert "items, the file has" in refused(other, SMALL)
    weights = save / "deep_rehearsal" / "cycle-00.safetensors"
    weights.unlink()
    assert f"{weights} cannot be read" in refused(file, SMALL)


def test_the_command_says_which_methods_there_are(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    result = CliRunner().invoke(app, ["bench", "ader", str(file), "--deep", "--method", "vsknn"])
    assert result.exit_code == 2
    assert "deep_rehearsal" in result.output
    assert "together" in result.output
    words = ["bench", "ader", str(file), "--deep", "--method", "deep_finetune", "--cycles", "1"]
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["protocol"] == "per_period"


def test_architectures_have_the_same_steps_and_their_own_seconds(tmp_path: Path) -> None:
    file = write(shop(), tmp_path / "weeks.parquet")
    rows = list(architectures.run(file, config=SMALL, training=QUICK, bar=progress_bar))
    assert [row["method"] for row in rows] == list(ARCHITECTURES)
    assert len({row["steps"] for row in rows}) == len({row["n"] for row in rows}) == 1
    assert len({row["parameters"] for row in rows}) == len(rows)
    for row in rows:
        assert float(str(row["query_p50_ms"])) > 0
        assert 0 < float(str(row["mrr@20"])) <= float(str(row["recall@20"])) <= 100

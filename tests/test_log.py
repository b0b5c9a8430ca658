"""Recorded logs: whole or not there, in the one order, refused where they are something else."""

from __future__ import annotations

import json
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.base import EngineConfig
from learners.errors import DataError
from streams.log import SCHEMA, LogAbout, LogWriter, frame_of, in_order, read_log, records_of
from streams.order import Record, merge_order
from streams.settings import Settings

CLICKS = "everlearn.clicks"


def test_a_large_log_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.PART_ROWS", 10)
    records = [Record(CLICKS, 0, i, i, None, b"v") for i in range(35)]
    with LogWriter(tmp_path / "log.parquet", LogAbout({})) as writer:
        for start in range(0, 35, 7):
            writer.append(frame_of(records[start : start + 7]))
    assert records_of(read_log(tmp_path / "log.parquet")[0]) == records


def test_a_killed_recording_is_kept_as_a_log_when_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streams.log.PART_ROWS", 10)
    records = [Record(CLICKS, 0, i, i, None, b"v") for i in range(25)]
    killed = LogWriter(tmp_path / "log.parquet", LogAbout({}, EngineConfig(seed=7)))
    killed.__enter__()
    for record in records:
        killed.append(frame_of([record]))
    with LogWriter(tmp_path / "log.parquet", LogAbout({})) as writer:
        writer.append(frame_of(records[:1]))
    rescued, about = read_log(tmp_path / "log.parquet.rescued-1")
    assert records_of(rescued) == records[:20]
    assert about.engine.seed == 7
    assert "log.parquet.rescued-1" in caplog.text
    assert records_of(read_log(tmp_path / "log.parquet")[0]) == records[:1]


def test_a_log_was_recorded_when_it_ended(tmp_path: Path) -> None:
    about = LogAbout.of(Settings(), [])
    with LogWriter(tmp_path / "log.parquet", about) as writer:
        before = time.time()
        writer.append(frame_of([Record(CLICKS, 0, 0, 0, None, b"v")]))
    assert before <= read_log(tmp_path / "log.parquet")[1].recorded_at <= time.time()


def test_an_interrupted_recording_leaves_the_file_of_before(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    with LogWriter(file, LogAbout({})) as writer:
        writer.append(frame_of([Record(CLICKS, 0, 0, 0, None, b"old")]))
    with pytest.raises(ZeroDivisionError), LogWriter(file, LogAbout({})) as writer:
        writer.append(frame_of([Record(CLICKS, 0, 0, 1 // 0, None, b"new")]))
    assert read_log(file)[0]["value"].to_list() == [b"old"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


parts = st.sampled_from([("a", 0), ("a", 1), ("b", 0)])


@given(st.lists(st.tuples(parts, st.integers(0, 20)), max_size=60))
def test_a_log_has_the_order_in_which_a_node_learns(log: list[tuple[tuple[str, int], int]]) -> None:
    offsets = dict.fromkeys([("a", 0), ("a", 1), ("b", 0)], -1)
    records = []
    for part, at in log:
        offsets[part] += 1
        records.append(Record(*part, offsets[part], at, None, b"v"))
    expected = merge_order(records)
    ordered, watermarks = in_order(
        frame_of([*records, *records]).sample(fraction=1.0, shuffle=True)
    )
    assert records_of(ordered) == expected
    assert watermarks.tolist() == sorted(watermarks.tolist())


def test_a_file_that_is_no_recorded_log_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_log(tmp_path / "log.parquet")
    pl.DataFrame({"user": [1]}).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match=r"its columns are user.*--dataset"):
        read_log(tmp_path / "users.parquet")
    (tmp_path / "text").write_text("text")
    with pytest.raises(DataError, match="cannot be read as a recorded log"):
        read_log(tmp_path / "text")
    newer = json.dumps({"format": 99})
    pl.DataFrame(schema=SCHEMA).write_parquet(tmp_path / "newer", metadata={"everlearn": newer})
    with pytest.raises(DataError, match="its format is 99"):
        read_log(tmp_path / "newer")

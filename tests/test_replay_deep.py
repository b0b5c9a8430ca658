"""A replay with a deep model: the same lessons, verdicts and answers every time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from learners.errors import DataError, SettingsError
from streams.events import Click
from streams.replay import ReplayResult, replay_log
from streams.settings import Settings
from streams.settings.trainer import TrainerSettings

USERS, STEPS = 60, 100
SETTINGS = Settings(
    engine={"users": 100, "items": 100, "sessions": 1024},
    trainer=TrainerSettings(
        width=16,
        first_events=1500,
        every_events=1500,
        every_minutes=0,
        gate_targets=100,
        evaluate_one_in=1,
        hold_out_one_in=2,
        users=100,
        items=100,
    ),
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk around a ring of items, a step an hour."""
    path = tmp_path_factory.mktemp("logs") / "ring.jsonl"
    clicks = [
        Click(
            event_id=f"{step}-{user}",
            timestamp=1e9 + 3600.0 * step + user,
            user=f"u{user}",
            item=f"i{(7 * user + step) % 30}",
        )
        for step in range(STEPS)
        for user in range(USERS)
    ]
    path.write_bytes(b"\n".join(map(msgspec.json.encode, clicks)))
    return path


@pytest.fixture(scope="module")
def first(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReplayResult, Path]:
    folder = tmp_path_factory.mktemp("first") / "snapshots"
    return replay_log(log, settings=SETTINGS, deep=True, snapshots=folder), folder


def test_models_are_born_judged_and_serve_the_same_way_twice(
    log: Path, first: tuple[ReplayResult, Path]
) -> None:
    result, _ = first
    told = [each["what"] for each in result.report["snapshots"]]
    assert told[:3] == ["begun", "born", "promoted"]
    assert result.engine.snapshot
    assert result.metrics["deep"]["hr@20"] > 0
    again = replay_log(log, settings=SETTINGS, deep=True)
    assert again.report["snapshots"] == result.report["snapshots"]
    assert again.fingerprint == result.fingerprint


def test_a_replay_with_given_snapshots_has_one_fingerprint(
    log: Path, first: tuple[ReplayResult, Path]
) -> None:
    result, folder = first
    given = [replay_log(log, settings=SETTINGS, snapshots=folder) for _ in range(2)]
    assert given[0].fingerprint == given[1].fingerprint != result.fingerprint
    assert given[0].engine.snapshot == result.engine.snapshot
    assert given[0].metrics["deep"]["hr@20"] > result.metrics["deep"]["hr@20"]
    assert replay_log(log, settings=SETTINGS).fingerprint != given[0].fingerprint


def test_what_cannot_be_is_said(
    log: Path, first: tuple[ReplayResult, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="has snapshots already: name another folder"):
        replay_log(log, settings=SETTINGS, deep=True, snapshots=first[1])
    with pytest.raises(SettingsError, match="not resumed: leave out the checkpoint"):
        replay_log(log, settings=SETTINGS, deep=True, checkpoint=tmp_path)

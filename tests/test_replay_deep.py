"""A replay with a deep model: the same lessons, verdicts and answers every time."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from learners.deep.registry import Registry
from learners.errors import DataError, SettingsError, SnapshotError
from serving.cli import app
from streams.events import Click
from streams.replay import ReplayResult, replay_log
from streams.settings import Settings
from streams.settings.trainer import TrainerSettings
from tests.test_replay_command import tell_to_stop

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--deep", "--snapshots", "{file}/x"], "cannot write snapshots to .*: Not a directory; "),
        (["--deep", "--snapshots", "{file}"], "cannot write snapshots to .*: Not a directory; "),
        (["--deep", "--snapshots", "/proc/x"], "name another folder with --snapshots"),
        (["--snapshots", "{file}-not"], "does not exist: .* or add --deep"),
        (["--snapshots", "{file}"], "is a file: name one that has a champion"),
        (["--deep", "--checkpoint", "x"], "not resumed: leave out the checkpoint, or --deep"),
    ],
)
def test_folders_are_refused_before_anything_is_read(
    words: list[str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    said = CliRunner().invoke(app, ["replay", "no.log", *[w.format(file=file) for w in words]])
    assert said.exit_code == 1
    assert re.search(message, str(said.exception))


def test_lessons_that_all_fail_are_told_and_no_success(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> str:
        raise SnapshotError("the disk is full")

    monkeypatch.setattr(Registry, "write", refuse)
    said = CliRunner().invoke(app, ["replay", str(log), "--deep", *settings_file(tmp_path)])
    assert said.exit_code == 1
    assert "at event 1,500: the lesson failed: the disk is full" in said.stderr
    assert "every lesson failed: no snapshot was written" in said.stderr
    assert "events learnt" in said.stdout


@pytest.mark.parametrize("named", [True, False])
def test_a_deep_replay_that_is_stopped_says_what_it_leaves(
    named: bool, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def press(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
        def update(done: int, total: int | None, note: str) -> None:
            if done > 1500:
                tell_to_stop(signal.SIGINT)

        yield update

    monkeypatch.setattr("streams.replay_sources.BATCH", 256)
    monkeypatch.setattr("serving.progress.progress_bar", press)
    folder = tmp_path / "snapshots"
    words = ["--snapshots", str(folder)] if named else []
    said = CliRunner().invoke(app, ["replay", str(log), "--deep", *words, *settings_file(tmp_path)])
    assert said.exit_code == 130
    assert "--checkpoint" not in said.stderr
    if named:
        assert f"1 snapshot made until then in {folder}, and nothing else is kept" in said.stderr
    else:
        assert "nothing is kept: a replay with --deep is not resumed" in said.stderr


def settings_file(folder: Path) -> list[str]:
    """The settings of these tests, as a file for a command."""
    path = folder / "settings.toml"
    trainer = SETTINGS.trainer.model_dump(exclude_unset=True)
    lines = [f"{name} = {value}" for name, value in trainer.items()]
    path.write_text(
        "\n".join(
            ["[engine]", "users = 100", "items = 100", "sessions = 1024", "[trainer]", *lines]
        )
    )
    return ["--settings", str(path)]

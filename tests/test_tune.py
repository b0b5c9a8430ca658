"""`everlearn tune`: it finds what helps a log, says how much, and writes only what gains."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from learners.base import EngineConfig
from learners.errors import DataError
from learners.ranks import BLEND, NEIGHBOURS, SOURCES, TRANSITIONS
from learners.trials import try_config
from serving.cli import app
from streams.events import Click, Event
from streams.replay import open_source, replay_log
from streams.settings import Settings, load_settings
from streams.settings.texts import ENGINE_BOUNDS
from streams.tune import _interactions, tune_log
from streams.tune_search import KNOBS, moved, value_of
from tests.test_replay import write_lines

DAY = 86_400.0
START = 1_750_000_000.0
# Half-lives of four months, where what follows what changes every day.
SLOW = {"transition_half_lives_seconds": (1e7, 1e7), "neighbour_half_life_seconds": 1e7}
WRONG = Settings(engine=EngineConfig(sessions=20_000, **SLOW))  # type: ignore[arg-type]
TOML = """[engine]
sessions = 20000
transition_half_lives_seconds = [1e7, 1e7]
neighbour_half_life_seconds = 1e7
"""


def fickle_events(days: int = 24, visits: int = 250, items: int = 80, seed: int = 3) -> list[Event]:
    """Visits of two clicks; each day has its own answer to what is clicked second."""
    generator = np.random.default_rng(seed)
    events: list[Event] = []
    for day in range(days):
        answer = generator.permutation(items)
        for visit, first in enumerate(generator.integers(0, items, visits)):
            for step, item in enumerate((first, answer[first])):
                n = 2 * (day * visits + visit) + step
                at = START + DAY * (day + (2 * visit + step) / (2 * visits))
                events.append(
                    Click(event_id=f"e{n}", timestamp=at, user=f"u{n // 2}", item=f"i{item}")
                )
    return events


@pytest.fixture(scope="module")
def fickle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("fickle"), fickle_events())


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "wrong.toml"
    path.write_text(TOML)
    return path


def test_a_wrong_half_life_is_found_and_written_with_its_gain(
    fickle: Path, wrong: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.toml"
    words = ["tune", str(fickle), "--settings", str(wrong), "--trials", "24", "--out", str(out)]
    printed = CliRunner().invoke(app, [*words, "--json"])
    assert printed.exit_code == 0, printed.output
    row = json.loads(printed.stdout)
    assert row["trials"] <= 24
    assert row["settings"]["transition_half_lives_seconds"][0] < 2e6
    assert 0.02 < row["gain"]["low"] < row["gain"]["mean"] < row["gain"]["high"]
    for figure in ("hr@20", "mrr@20"):
        assert row["figures"]["best"][figure] > row["figures"]["base"][figure]
    text = out.read_text()
    assert f"--trials {row['trials']}" in text
    assert f"HR@20 {row['figures']['base']['hr@20']:.4f} became" in text
    assert tomllib.loads(text)["engine"]["sessions"] == 20_000, "what was set before is kept"
    listed = CliRunner().invoke(app, ["settings", "--settings", str(out), "--json"])
    assert listed.exit_code == 0, listed.output
    found = load_settings(out).engine
    assert (
        list(found.transition_half_lives_seconds)
        == (row["settings"]["transition_half_lives_seconds"])
    )
    assert replay_log(fickle, settings=out).hit_rate(20) > (
        replay_log(fickle, settings=wrong).hit_rate(20)
    ), "a replay of the log gains, too"
    shown = CliRunner().invoke(app, [*words, "--force"])
    assert shown.exit_code == 0
    assert f"the settings are in {out}, after {row['trials']} trials" in shown.stdout
    assert out.read_text() == text, "the same number of trials finds the same"


def test_where_nothing_gains_nothing_is_written(tmp_path: Path) -> None:
    """Items come at random: whatever the search believes to have found, the last quarter denies."""
    generator = np.random.default_rng(5)
    clicks: list[Event] = [
        Click(event_id=f"e{i}", timestamp=START + i, user=f"u{i // 4}", item=f"i{item}")
        for i, item in enumerate(generator.integers(0, 300, 3000))
    ]
    log, out = write_lines(tmp_path, clicks), tmp_path / "tuned.toml"
    shown = CliRunner().invoke(app, ["tune", str(log), "--trials", "30", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "nothing is better than the settings there are: none is written" in shown.stdout
    assert not out.exists()


def test_a_budget_in_seconds_is_kept_and_confirmed(
    fickle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by 0.1 s whenever it is looked at."""
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.1 * next(ticks))
    monkeypatch.setattr("streams.tune_search.time", clock)
    told: list[tuple[float, float, str]] = []
    tuned = tune_log(
        fickle, settings=WRONG, budget_seconds=20.0, progress=lambda *what: told.append(what)
    )
    assert {total for _, total, _ in told} == {20.0}
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert any("neighbours: neighbour_" in doing for _, _, doing in told)
    assert told[-1][2].endswith("confirming")
    assert tuned.gains
    assert tuned.low > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_best_so_far(
    number: signal.Signals,
    fickle: Path,
    wrong: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def press(what: str, with_rate: bool) -> Iterator[Callable[[int, int | None, str], None]]:
        yield lambda done, total, note: tell_to_stop(number) if "neighbours:" in note else None

    monkeypatch.setattr("serving.progress.progress_bar", press)
    out = tmp_path / "tuned.toml"
    words = ["tune", str(fickle), "--settings", str(wrong), "--out", str(out)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 128 + number
    assert "stopped, and not confirmed: the settings are in" in shown.stdout
    assert "# Stopped before this could be confirmed" in out.read_text()
    assert load_settings(out).engine.transition_half_lives_seconds[0] < 2e6


def tell_to_stop(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    for thread in threading.enumerate():
        if thread.name == "told to stop":
            thread.join()


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (b"", [], "holds no click or purchase to tune by"),
        (b'{"type": "item", "item": "a"}\n', [], "holds no click or purchase to tune by"),
        (b"oops\n", [], "to tune by: line 1: malformed_json"),
        (b'{"type": "click", "user": "a", "item": "b"}\n' * 300, [], "give a longer log"),
        (None, [], "cannot be read"),
        (b"", ["--out", "{folder}/there.toml"], "there.toml exists: name another file"),
        (b"", ["--out", "{folder}/log.jsonl", "--force"], "it is the log itself"),
        (b"", ["--out", "/nowhere/tuned.toml"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_tuned_or_written_is_said_in_words(
    text: bytes | None, words: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "there.toml").write_text("of before")
    log = tmp_path / "log.jsonl"
    if text is not None:
        log.write_bytes(text)
    given = ["--out", str(tmp_path / "tuned.toml")]
    given += [word.format(folder=tmp_path) for word in words]
    said = CliRunner().invoke(app, ["tune", str(log), *given])
    assert said.exit_code == 1
    assert isinstance(said.exception, DataError)
    assert message in str(said.exception)
    assert (tmp_path / "there.toml").read_text() == "of before"


def test_a_trial_ranks_as_the_engine_does(tmp_path: Path) -> None:
    """Also a source that is tried alone, and what was delivered twice."""
    path = write_lines(tmp_path, fickle_events(days=3))
    path.write_bytes(path.read_bytes() + msgspec.json.encode(fickle_events(days=1)[0]) + b"\n")
    engine = replay_log(path, settings=WRONG)
    source = open_source(path, None, WRONG)
    events, _ = _interactions(source, len(source))
    assert len(events.item) == engine.report["events"]
    for place in (BLEND, NEIGHBOURS, TRANSITIONS):
        trial = try_config(source.engine, events, place)
        figures = engine.metrics[SOURCES[place]]
        assert trial.valid.sum() == figures["n"]
        assert (trial.rank[trial.valid] <= 20).mean() == pytest.approx(figures["hr@20"])
        found = trial.rank[trial.valid & (trial.rank <= 20)]
        assert (1 / found).sum() / figures["n"] == pytest.approx(figures["mrr@20"])


def test_only_the_events_until_then_are_read(fickle: Path) -> None:
    half, some = (tune_log(fickle, settings=WRONG, until=until, trials=1) for until in (0.5, 4000))
    assert (half.events, some.events) == (len(fickle_events()) // 2, 4000)


@pytest.mark.parametrize("source", KNOBS)
def test_constants_move_within_their_bounds(source: int) -> None:
    for knob in KNOBS[source]:
        config, (low, high) = EngineConfig(), ENGINE_BOUNDS[knob.name]
        up, down = moved(config, knob, 1, 0), moved(config, knob, -1, 1)
        assert value_of(down, knob) <= value_of(config, knob) < value_of(up, knob)
        for steps in (-1000, 1000) if knob.adds else (-40, 40):
            value = getattr(moved(config, knob, steps, 0), knob.name)
            values = value if isinstance(value, tuple) else (value,)
            assert all(low <= each <= high for each in values)
            assert type(value) is type(getattr(config, knob.name))
        other = replace(up, **{knob.name: getattr(config, knob.name)})
        assert other == config, "nothing else has moved"

"""The command `replay`: what it prints, writes and plots, and what it says when it cannot."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from learners.errors import DataError
from serving.cli import app
from serving.report import print_report
from streams.replay import ReplayResult, replay_log
from tests.test_replay import SETTINGS, SMALL, START, shop_events, write_lines


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("log"), shop_events())


@pytest.fixture(scope="module")
def replayed(lines: Path) -> ReplayResult:
    return replay_log(lines, settings=SETTINGS)


def test_the_first_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = '{"type": "click", "user": "ann", "item": "sofa"}'
    path.write_text("\n".join([good, "", "oops", '{"type": "click"}', good]))
    shown = CliRunner().invoke(app, ["replay", str(path)])
    assert shown.exit_code == 0
    assert "2 rejected (1 malformed_json, 1 bad_field)" in shown.stdout
    assert "line 3: malformed_json" in shown.stdout


def test_lines_as_windows_writes_them_are_the_same_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    fingerprints = []
    for begin, end in ((b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")):
        written = [b'{"type": "click", "user": "ann", "item": "%d"}' % i for i in range(3)]
        path.write_bytes(begin + end.join([*written[:2], b"", written[2]]) + end)
        replayed = replay_log(path, settings=SETTINGS)
        assert (replayed.report["events"], replayed.report["rejected"]) == (3, {})
        fingerprints.append(replayed.fingerprint)
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "holds no event"),
        (b"\n\n", "holds no event"),
        (b"\x93\x00\nmore\n", "1 invalid_utf8, 1 malformed_json.*line 1: invalid_utf8"),
    ],
)
def test_a_file_without_events_is_no_success(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(text)
    shown = CliRunner().invoke(app, ["replay", str(path), "--checkpoint", str(tmp_path / "state")])
    assert shown.exit_code == 1
    assert "fingerprint" not in shown.stdout
    with pytest.raises(DataError, match=f"nothing was learnt: .*{told}"):
        replay_log(path, settings=SETTINGS)
    assert not list((tmp_path / "state").glob("0*")), "no checkpoint of nothing"


def test_the_replay_command_prints_writes_and_plots(lines: Path, tmp_path: Path) -> None:
    plot, report = tmp_path / "plot.png", tmp_path / "report.json"
    words = ["replay", str(lines), "--plot", str(plot), "--report", str(report)]
    printed = CliRunner().invoke(app, [*words, "--json"], env={"EVERLEARN_ENGINE__SEED": "3"})
    assert printed.exit_code == 0, printed.output
    row = json.loads(printed.stdout)
    wanted = {"events", "rejected", "fingerprint", "microseconds_per_event", "metrics", "clicks"}
    assert wanted | {"purchases", "alarms"} <= set(row)
    figures = {"hr@10", "hr@20", "mrr@20", "ndcg@20", "coverage@20"}
    assert all(figures <= set(source) for source in row["metrics"].values())
    assert plot.read_bytes().startswith(b"\x89PNG")
    written = json.loads(report.read_text())
    assert written["fingerprint"] == row["fingerprint"]
    assert len(written["windows"]["events"]) == len(written["windows"]["hr@20"]["blend"]) > 1
    shown = CliRunner().invoke(app, ["replay", str(lines), "--sample", "4"])
    assert "all events  blend" in shown.stdout
    assert "purchases   blend" in shown.stdout
    assert "fingerprint" in shown.stdout


def test_json_lines_come_on_standard_input(replayed: ReplayResult, lines: Path) -> None:
    config = {f"EVERLEARN_ENGINE__{n.upper()}": str(getattr(SMALL, n)) for n in ("users", "items")}
    config |= {"EVERLEARN_ENGINE__SESSIONS": "2000", "EVERLEARN_ENGINE__DEDUPE_EVENTS": "10000"}
    words = ["replay", "-", "--json"]
    printed = CliRunner().invoke(app, words, input=lines.read_text(), env=config)
    assert json.loads(printed.stdout)["fingerprint"] == replayed.fingerprint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.parquet"], "does not exist"),
        (["missing.jsonl"], "cannot be read"),
        (["missing.parquet", "--dataset", "taobao"], "does not exist"),
        (["{lines}", "--dataset", "netflix"], "unknown data set"),
        (["/"], "is a folder"),
        ([""], "no log is named: give a file, - or kafka://host:port"),
        (["", "--dataset", "taobao"], "no log is named"),
        (["/", "--dataset", "taobao"], "is a folder"),
        (["{lines}", "--checkpoint", "{lines}"], "is a file, checkpoints need a folder"),
    ],
)
def test_what_cannot_be_replayed_or_written_is_said_in_words(
    words: list[str], message: str, lines: Path
) -> None:
    said = CliRunner().invoke(app, ["replay", *[word.format(lines=lines) for word in words]])
    assert said.exit_code == 1
    assert message in str(said.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "/nowhere/plot.png"], "there is no folder /nowhere"),
        (["--plot", "plot.xyz"], "nothing draws .xyz; name a file such as plot.png"),
        (["--plot", "plot.gif"], "nothing draws .gif; name a file such as plot.png"),
        (["--plot", "{folder}/.png"], "its name has no suffix"),
        (["--plot", "{folder}"], "it is a folder"),
        (["--report", "/nowhere/r.json"], "there is no folder /nowhere"),
        (["--report", "{folder}"], "it is a folder"),
        (["--report", "{folder}/file/r.json"], "file is a file, no folder"),
        (["--report", "{folder}/file"], "it is the log itself"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_the_log_is_read(
    words: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no log")
    log = [str(tmp_path / "file"), *[word.format(folder=tmp_path) for word in words]]
    said = CliRunner().invoke(app, ["replay", *log])
    assert said.exit_code == 1
    assert message in str(said.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_figures_are_shown_even_if_there_is_nothing_to_plot(lines: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    plot.write_text("of before")
    words = ["replay", str(lines), "--stop-at", "50", "--plot", str(plot)]
    said = CliRunner().invoke(app, words)
    assert (said.exit_code, plot.read_text()) == (1, "of before")
    assert "nothing to plot" in str(said.exception)
    assert "50 events learnt" in said.stdout


def test_a_full_disk_as_simulated_leaves_the_report_of_before(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    report.write_text("of before")
    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    said = CliRunner().invoke(
        app, ["replay", str(lines), "--stop-at", "50", "--report", str(report)]
    )
    assert said.exit_code == 1
    assert "No space left on device; free space or name another file" in str(said.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert report.read_text() == "of before"


def fill_disk(path: Path, data: bytes) -> int:
    path.touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_date_and_a_sample_mean_is_in_the_plot(lines: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    shown = CliRunner().invoke(app, ["replay", str(lines), "--sample", "2", "--plot", str(plot)])
    assert "one event in 2 was ranked" in shown.stdout
    text = plot.read_text()
    assert "<!-- one event in 2 was ranked before it was learnt -->" in text
    assert "<!-- 15 Jun 15:06 -->" in text, "when the first event happened"


def test_an_alarm_is_explained(replayed: ReplayResult, capsys: pytest.CaptureFixture[str]) -> None:
    alarm = {"where": "overall", "event": 1234, "time": START, "before": 0.5, "after": 0.25}
    print_report(replayed.report | {"alarms": [alarm]})
    shown = capsys.readouterr().out
    assert (
        "1 drift alarm (1 overall, 0 in a category or segment), the last at click or purchase 1,234"
        in shown
    )
    assert "hit rate at 20 went from 0.500 to 0.250" in shown
    assert "by more than chance explains" in shown


def test_compiling_is_announced(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for compiled, told in (
        (False, "compiling the kernels (once; a minute or two) ...\n"),
        (True, ""),
    ):
        monkeypatch.setattr("streams.warmup.are_compiled", lambda found=compiled: found)
        shown = CliRunner().invoke(app, ["replay", str(lines), "--stop-at", "50", "--json"])
        assert (shown.stderr, shown.exit_code) == (told, 0)
        json.loads(shown.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_replay_command_with_a_word_on_how_to_go_on(
    number: signal.Signals, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def press(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
        yield lambda done, total, note: tell_to_stop(number)

    monkeypatch.setattr("streams.replay_sources.BATCH", 256)
    monkeypatch.setattr("serving.progress.progress_bar", press)
    report, folder = tmp_path / "report.json", str(tmp_path / "state")
    words = ["replay", str(lines), "--report", str(report)]
    kept = CliRunner().invoke(app, [*words, "--checkpoint", folder])
    lost = CliRunner().invoke(app, words)
    assert (kept.exit_code, lost.exit_code) == (128 + number, 128 + number)
    assert f"256 events; they are kept in {folder}: the same command goes on" in kept.stderr
    assert "nothing is kept: with --checkpoint FOLDER" in lost.stderr
    assert (kept.stdout, report.exists()) == ("", False)


def tell_to_stop(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    for thread in threading.enumerate():
        if thread.name == "told to stop":
            thread.join()

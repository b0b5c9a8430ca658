"""The demo proves that learning pays, ends in order, and leaves nothing running."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from learners.errors import BrokerError
from serving.child import clean_environment
from serving.demo import DemoState, choose_port
from serving.demo_view import DemoView
from serving.figures import Figures, parse_figures
from serving.metrics import Metrics
from streams.scratch import scratch_folder
from streams.simulate import Simulated
from tests.fakes import EngineWithFigures, NodeInMemory
from tests.waiting import runs, until

START_SECONDS = 90.0  # the kernels may have to be compiled


def state(**more: object) -> DemoState:
    known = {
        "url": "http://127.0.0.1:8080",
        "figures": Figures(
            events=1200,
            lag=3,
            answers=50,
            answer_seconds=0.1,
            hit_rates={("blend", 20): 0.5, ("popularity", 20): 0.25},
        ),
        "before": Figures(events=1000),
        "between_seconds": 1.0,
        "shop": Simulated(events=1200, clicked_shown=70),
        "first_answer_seconds": 4.2,
        "failed_requests": 0,
        "seconds": 9.0,
    }
    return DemoState(**(known | more))  # type: ignore[arg-type]


def test_the_summary_has_the_figures_that_matter() -> None:
    assert state().summary() == {
        "events": 1200,
        "blend": {"hr@20": 0.5},
        "popularity": {"hr@20": 0.25},
        "first_answer_seconds": 4.2,
        "failed_requests": 0,
        "snapshots": {"born": 0, "promoted": 0, "discarded": 0, "champion": None},
    }


def test_the_summary_tells_of_snapshots_born_proved_and_promoted() -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    gate = {"decision": "promote", "champion_hr@20": 0.125, "challenger_hr@20": 0.375}
    first = {"id": "00000001-aaaaaaaa", "state": "champion", "events": 2000, "gate": gate}
    second = {"id": "00000002-bbbbbbbb", "state": "discarded", "parent": first["id"]}
    shown = state(snapshots=[first, second])
    DemoView(console).show(shown)
    assert "2 born, 1 promoted, 1 discarded; 00000001-aaaaaaaa serves (37.5 %, before 12.5 %)" in (
        console.export_text()
    )
    DemoView(console).end(shown)
    (line,) = (line for line in console.export_text().splitlines() if "bbbbbbbb" in line)
    assert "discarded" in line
    assert first["id"] in line
    assert shown.summary()["snapshots"] == {
        "born": 2,
        "promoted": 1,
        "discarded": 1,
        "champion": first["id"],
    }


def test_the_table_sets_the_blend_against_popularity() -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    view = DemoView(console)
    with view.open():
        view.show(state())
    view.end(state())
    shown = console.export_text()
    assert "http://127.0.0.1:8080" in shown
    assert "50.0 %" in shown
    assert "25.0 %" in shown
    assert "1,200 events learnt (200/s)" in shown
    assert "1,200 events learnt, lag" in shown, "nobody asks for a pace at the end"
    assert "shoppers often pick from the list" in shown
    assert "first personal answer 4.2 s after the start" in shown


def test_there_is_no_pace_before_there_is_one_to_tell() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    DemoView(console).show(state(before=Figures()))
    (line,) = (line for line in console.export_text().splitlines() if "learnt" in line)
    assert "/s)" not in line
    assert line.endswith("popularity 25.0 %"), "one line each, however long, where nobody watches"


def test_a_port_that_is_taken_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} .*choose another"):
            choose_port(port)
    assert choose_port(port) == port


KILLED = """
import os, signal
from streams.scratch import scratch_folder
with scratch_folder("test") as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_of_the_killed_is_removed_by_the_next_and_one_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    assert left.parent == tmp_path
    with scratch_folder("test") as used, scratch_folder("test") as other:
        assert used.is_dir()
        assert other.is_dir()
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_figures_are_read_from_the_metrics_page() -> None:
    engine = EngineWithFigures()
    metrics = Metrics(engine, NodeInMemory(engine))
    metrics.answered("recommend", 0.25)
    figures = parse_figures(metrics.page().decode())
    assert figures.events == 12
    assert figures.lag == 0
    assert (figures.answers, figures.answer_seconds) == (1, 0.25)
    assert figures.hit_rate("blend") == 0.4
    assert figures.recent_hit_rates["blend", 20] == 0.6
    assert figures.sources == ["blend", "popularity"]


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from serving.cli import main; main()", "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment() | {"TMPDIR": str(folder)},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def children(process: int) -> list[int]:
    """Processes that this one has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(fields.split()[1]) == process and fields.split()[0] != "Z":
            found.append(int(name.split()[0]))
    return found


def wait_for_line(running: subprocess.Popen[str], part: str) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if part in line:
            return
    pytest.fail(f"the demo ended without {part!r}")


@pytest.mark.slow
def test_after_some_seconds_the_blend_beats_popularity(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", "8", "--json") as running:
        text, _ = running.communicate(timeout=START_SECONDS + 60)
    assert running.returncode == 0, text
    summary = json.loads(text.splitlines()[-1])
    assert summary["events"] > 500
    assert summary["blend"]["hr@20"] > summary["popularity"]["hr@20"]
    assert summary["failed_requests"] == 0
    assert summary["first_answer_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_running(number: signal.Signals, tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        wait_for_line(running, "answers at")
        nodes = children(running.pid)
        assert nodes
        running.send_signal(number)
        text, _ = running.communicate(timeout=60)
        assert running.returncode == (0 if number == signal.SIGINT else -number)
        assert ("neighbours" in text) == (number == signal.SIGINT)
        until(lambda: not any(map(runs, nodes)), seconds=20)

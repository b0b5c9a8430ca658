"""The benchmarks tell the truth at sizes that take a moment; their figures are not judged here."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.data import Crowd, live_events, message_of, recorded
from benchmarks.load import Load
from benchmarks.rows import make_row
from benchmarks.stopwatch import Stopwatch
from learners.errors import EverlearnError
from serving.cli import app
from serving.commands import bench
from streams.decode import Gate
from streams.events import Click, Purchase
from streams.order import Record
from streams.settings import TopicSettings

FRAME = ["seconds", "commit", "cpus", "date"]
SMALL = ("--items", "100", "--users", "60", "--broker", "embedded", "--json")
ANSWER = b'{"items":[{"item":"a"},{"item":"b"}]}'


def rows_of(*words: str) -> dict[str, dict[str, object]]:
    """Run a benchmark; return its rows by method."""
    result = CliRunner().invoke(app, ["bench", *words, *SMALL], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    for row in rows:
        assert list(row)[:2] == ["benchmark", "method"]
        assert list(row)[-4:] == FRAME
        assert row["benchmark"] == words[0]
        assert row["broker"] == "embedded"
        figures = [value for value in row.values() if isinstance(value, float)]
        assert all(map(math.isfinite, figures))
    return {str(row["method"]): row for row in rows}


@pytest.mark.slow
def test_throughput_measures_each_method_on_the_same_topic() -> None:
    rows = rows_of("throughput", "--events", "6043", "--limit", "3")
    nodes = ("engine", "engine_deep")
    methods = ("faust_agent", "batch_source", "batch_source_decode", *nodes, "river_biasedmf")
    assert tuple(rows) == methods
    for row in rows.values():
        assert {"events_per_second", "cpu_seconds"} <= row.keys()
        assert 0 < int(str(row["events"])) <= 6043
    for engine in map(rows.get, nodes):
        assert engine is not None
        assert (engine["users"], engine["items"]) == (60, 100)
        assert int(str(engine["evaluated"])) > 0


@pytest.mark.slow
def test_latency_asks_while_the_node_learns() -> None:
    words = ("--rate", "100", "--no-highest", "--seconds", "1", "--history", "500")
    row = rows_of("latency", *words, "--events-per-second", "200")["100_per_second"]
    assert {"p50_ms", "p90_ms", "p99_ms", "requests_per_second"} <= row.keys()
    assert row["requests"] == 100
    assert row["failed"] == 0
    assert int(str(row["events_per_second"])) > 0


@pytest.mark.slow
def test_freshness_sees_every_click_change_an_answer() -> None:
    words = ("--deep", "--clicks", "5", "--history", "500", "--events-per-second", "50")
    rows = rows_of("freshness", *words)
    assert list(rows) == ["quiet", "while_learning"]
    for row in rows.values():
        assert (row["n"], row["snapshots"]) == (5, 1)
        assert {"p50_ms", "p99_ms"} <= row.keys()


def test_the_recorded_events_name_everybody_first_and_are_sound() -> None:
    crowd = Crowd(users=60, items=100, seed=3)
    events = list(recorded(crowd, events=500))
    first = events[: crowd.lead_in]
    acts = [event for event in first if isinstance(event, Click)]
    assert len({event.user for event in acts}) == 60
    assert len({event.item for event in acts}) == 100
    assert len({event.event_id for event in events}) == len(events) == 600
    assert any(isinstance(event, Purchase) for event in events)
    gate = Gate({"t": TopicSettings(name="t", type="mixed")})
    messages = map(message_of, events)
    records = [Record("t", 0, i, m.timestamp_ms, m.key, m.value) for i, m in enumerate(messages)]
    batch, rejected = gate.decode(records)
    assert (len(batch), rejected) == (600, [])


def test_the_same_seed_gives_the_same_events() -> None:
    crowd = Crowd(users=60, items=100)
    twice = [[message_of(event) for event in recorded(crowd, events=100)] for _ in range(2)]
    assert twice[0] == twice[1]


def test_live_events_do_not_repeat_ids_of_recorded_ones() -> None:
    crowd = Crowd(users=60, items=100)
    live = live_events(crowd, skip=100)
    ids = {next(live).event_id for _ in range(500)}
    assert len(ids) == 500
    assert not ids & {event.event_id for event in recorded(crowd, events=500)}


def test_a_stopwatch_counts_from_when_it_is_warm_and_stops_in_time() -> None:
    watch = Stopwatch(warm=100, total=10_000, limit_seconds=0.0)
    assert [watch.count(60) for _ in range(4)] == [False, False, True, True]
    assert watch.figures()["events"] == 60


@contextmanager
def slow_server(stall_at: int, stall_seconds: float, answer: bytes) -> Iterator[int]:
    """Answer requests one after the other; one of them takes long. Gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    turn, count = threading.Lock(), iter(range(10**6))
    head = b"HTTP/1.1 200 OK\r\ncontent-length: " + str(len(answer)).encode() + b"\r\n\r\n"

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(4096):
                with turn:
                    if next(count) == stall_at:
                        time.sleep(stall_seconds)
                connection.sendall(head + answer)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_stalled_server_is_charged_for_everybody_it_kept_waiting() -> None:
    with slow_server(stall_at=100, stall_seconds=0.5, answer=ANSWER) as port:
        load = Load(port=port, users=["anna", "ben"], rate=400, k=2)
        figures = load.run(1.5)
        load.close()
    assert figures["failed"] == 0
    assert figures["requests"] == len(load.latencies) == 600
    # Half a second of requests fell due during the stall, a third of all; each waited for its end.
    waited = [seconds for seconds in load.latencies if seconds > 0.1]
    assert 120 <= len(waited) <= 300
    assert max(load.latencies) >= 0.5


def test_an_answer_that_is_no_full_list_has_failed() -> None:
    with slow_server(stall_at=-1, stall_seconds=0, answer=ANSWER) as port:
        load = Load(port=port, users=["anna"], rate=200, k=3)
        figures = load.run(0.1)
        load.close()
    assert figures["failed"] == figures["requests"] == 20


def test_a_row_frames_its_figures() -> None:
    row = make_row("speed", "fast", {"per_second": 7}, 1.23456)
    assert list(row) == ["benchmark", "method", "per_second", *FRAME]
    assert row["seconds"] == 1.235


def test_without_the_checkout_the_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages" / "serving" / "commands" / "bench.py"
    monkeypatch.setattr(bench, "__file__", str(installed))
    with pytest.raises(EverlearnError, match=r"without its source checkout.*clone it"):
        bench._module("data")


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["bench", "throughput", "--method", "engin"])
    assert result.exit_code == 2
    assert "river_biasedmf" in result.output

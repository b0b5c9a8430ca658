"""Ctrl-C and SIGTERM end every command that goes on and on, in the same way and in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from learners.errors import TopicError
from serving.child import clean_environment
from serving.stopping import interrupted_when_told, told_to_stop
from streams.broker import EmbeddedBroker
from streams.log import read_log
from streams.record import TopicReader
from streams.settings import Settings
from tests import waiting
from tests.test_importer import small_taobao
from tests.traffic import CLICKS, Traffic, clicks

NUMBERS = [signal.SIGINT, signal.SIGTERM]
DEADLINE_SECONDS = 30.0
SERVING = Path(__file__).parent.parent / "serving"


@contextmanager
def command(*words: str, first: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", f"{first}\nfrom serving.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def until(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    def holds() -> bool:
        if condition():
            return True
        assert running.poll() is None
        return False

    waiting.until(holds, DEADLINE_SECONDS)


def any_click(broker: EmbeddedBroker) -> bool:
    try:
        with closing(TopicReader(Settings(broker=broker.address), [CLICKS])) as reader:
            return reader.total > 0
    except TopicError:
        return False


@pytest.mark.parametrize("number", NUMBERS)
def test_either_signal_sets_the_event_and_the_handlers_of_before_come_back(number: int) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with told_to_stop() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(DEADLINE_SECONDS)
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_a_signal_is_borne_wherever_the_event_is_waited_for() -> None:
    """The handler must not want a lock that the waiting thread holds."""
    stop = threading.Event()
    with told_to_stop(stop), stop._cond:  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(DEADLINE_SECONDS)


@pytest.mark.parametrize("number", NUMBERS)
def test_either_signal_interrupts(number: int) -> None:
    def wait() -> None:
        os.kill(os.getpid(), number)
        time.sleep(DEADLINE_SECONDS)

    with pytest.raises(KeyboardInterrupt), interrupted_when_told():
        wait()


def test_signals_are_handled_in_one_place() -> None:
    handling = [path for path in SERVING.rglob("*.py") if "signal.signal(" in path.read_text()]
    assert handling == [SERVING / "stopping.py"]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_embedded_broker_ends_in_order(number: signal.Signals) -> None:
    with command("broker", "--json") as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["broker"]
        running.send_signal(number)
        assert running.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_a_simulation_ends_in_order(
    embedded_broker: EmbeddedBroker, number: signal.Signals
) -> None:
    with command(
        "simulate", "--broker", embedded_broker.address, "--rate", "500", "--json"
    ) as running:
        until(lambda: any_click(embedded_broker), running)
        running.send_signal(number)
        text, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0
        assert json.loads(text)["events"] > 0


@pytest.mark.parametrize("number", NUMBERS)
def test_an_import_ends_in_order_and_says_how_to_go_on(
    embedded_broker: EmbeddedBroker, tmp_path: Path, number: signal.Signals
) -> None:
    words = ("import", "taobao", str(small_taobao(tmp_path)), "--speed", "1x", "--json")
    with command(*words, "--broker", embedded_broker.address) as running:
        until(lambda: any_click(embedded_broker), running)
        running.send_signal(number)
        text, told = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == 128 + number
    row = json.loads(text)
    assert row["events"] + row["left"] == 71
    assert f"{row['left']} events are left: the same command with --skip {row['events']}" in told
    with closing(TopicReader(Settings(broker=embedded_broker.address))) as reader:
        assert reader.total == row["events"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_recording_that_follows_keeps_what_came(
    embedded_broker: EmbeddedBroker, tmp_path: Path, number: signal.Signals
) -> None:
    traffic = Traffic(embedded_broker.address)
    for event in clicks(100):
        traffic.send(event)
    traffic.flush()
    file = tmp_path / "log.parquet"
    words = ("record", str(file), "--broker", embedded_broker.address, "--follow", "--json")
    # Every record is on disk at once, so that it can be seen from outside that some have come.
    with command(*words, first="import streams.log; streams.log.PART_ROWS = 1") as running:
        until(lambda: bool(list(tmp_path.glob("*/*.parquet"))), running)
        running.send_signal(number)
        text, _ = running.communicate(timeout=DEADLINE_SECONDS)
        assert running.returncode == 0
    assert json.loads(text)["records"] == read_log(file)[0].height

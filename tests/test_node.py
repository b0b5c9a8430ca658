"""The life of a node: it starts where it stopped, says what is wrong, and ends in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mode import Service
from structlog.testing import capture_logs

from learners.base import CLICK, EngineConfig
from learners.checkpoint import CheckpointStore
from learners.drift import Alarm
from learners.engine import Engine
from learners.errors import CheckpointError
from streams.broker import EmbeddedBroker
from streams.node import NodeRuntime
from streams.settings import Settings
from tests import waiting
from tests.forked_node import ForkedNode
from tests.test_drift import drifting
from tests.traffic import Traffic, clicks, topic_of

SMALL = {"users": 4096, "items": 2048, "sessions": 16_384}
DEADLINE_SECONDS = 30.0


def publish(broker: EmbeddedBroker, n: int, seed: int = 0) -> Traffic:
    """Publish n events; the books say what is to be learnt."""
    traffic = Traffic(broker.address)
    for event in clicks(n, seed=seed):
        traffic.send(event)
    traffic.flush()
    return traffic


def settings_for(broker: EmbeddedBroker, folder: Path, **more: Any) -> Settings:
    """Settings of a small node."""
    usual = {"broker": broker.address, "state_dir": folder, "engine": EngineConfig(**SMALL)}
    return Settings(**usual | more)


def in_a_node(settings: Settings, act: Callable[[NodeRuntime], Any], *services: Service) -> Any:
    """Run a node in this process while `act` is awaited."""

    async def run() -> Any:
        runtime = NodeRuntime(settings, services=services)
        await runtime.start()
        try:
            return await asyncio.wait_for(act(runtime), DEADLINE_SECONDS)
        finally:
            await runtime.stop()

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the caller has the deadline."""
    while not condition():
        await asyncio.sleep(0.01)


def last_offsets(traffic: Traffic) -> dict[str, int]:
    """What a position token says of everything published."""
    return {label: end - 1 for label, end in traffic.books.ends.items()}


def test_a_stopped_node_goes_on_where_it_stood(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    first = publish(embedded_broker, 3000)
    node = ForkedNode(
        tmp_path, broker=embedded_broker.address, engine=SMALL, checkpoint_seconds=3600
    )
    node.start().until_reading()
    assert node.stop() == 0  # however far it came
    more = publish(embedded_broker, 2000, seed=1)
    node.settings["checkpoint_seconds"] = 0.2
    node.start().until_learnt(more.books.ends)
    assert node.stop() == 0
    assert node.manifest()["events"] == 5000
    counts = {label: sums["count"] for label, sums in node.manifest()["ledger"].items()}
    for label, sums in first.books.ledger.items():
        assert counts[label] == sums["count"] + more.books.ledger[label]["count"]


def test_drift_alarms_are_logged_once_each_and_stop_nobody(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    story, traffic = drifting(), Traffic(embedded_broker.address)
    for i in np.flatnonzero(story.kind == CLICK).tolist():
        event = {"event_id": f"e{i}", "timestamp": float(story.timestamp[i])}
        traffic.send(event | {"type": "click", "user": story.user[i], "item": story.item[i]})
    traffic.flush()
    engine = EngineConfig(**SMALL, evaluate_one_in=1, candidates=40)
    settings = settings_for(embedded_broker, tmp_path, engine=engine)

    async def learn_all(runtime: NodeRuntime) -> list[Alarm]:
        await runtime.learnt(last_offsets(traffic))
        return list(runtime.engine.drift.alarms)

    with capture_logs() as logs:
        alarms = in_a_node(settings, learn_all)
    logged = [line for line in logs if line["event"] == "drift alarm"]
    assert alarms
    assert [line["events"] for line in logged] == [alarm.event for alarm in alarms]
    assert {line["where"] for line in logged} == {alarm.where for alarm in alarms}


def test_a_checkpoint_that_succeeds_ends_the_complaint_about_the_one_before(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = publish(embedded_broker, 200)
    settings = settings_for(embedded_broker, tmp_path, checkpoint_seconds=3600)

    def full(*_: object) -> Path:
        raise CheckpointError("the disk is full")

    async def save_twice(runtime: NodeRuntime) -> list[list[str]]:
        await runtime.learnt(last_offsets(traffic))
        seen = []
        with monkeypatch.context() as broken:
            broken.setattr(CheckpointStore, "write", full)
            await runtime.learning.save()
            seen.append(runtime.learning.checkpoint_problems)
        await runtime.learning.save()
        return [*seen, runtime.learning.checkpoint_problems]

    assert in_a_node(settings, save_twice) == [["the disk is full"], []]


def test_sigterm_ends_with_a_last_checkpoint(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    traffic = publish(embedded_broker, 2000)
    settings = settings_for(embedded_broker, tmp_path, checkpoint_seconds=3600)

    async def learn_all(runtime: NodeRuntime) -> None:
        await runtime.learnt(last_offsets(traffic))

    in_a_node(settings, learn_all)
    engine = Engine(settings.engine)
    in_a_node(settings, lambda runtime: until(lambda: runtime.learning.loaded))
    assert CheckpointStore(tmp_path).load(engine) is not None
    assert traffic.books.differences(engine.ledger()) == {}


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    embedded_broker: EmbeddedBroker, tmp_path: Path, harm: str
) -> None:
    first = publish(embedded_broker, 1000)
    node = ForkedNode(tmp_path, broker=embedded_broker.address, engine=SMALL).start()
    node.until_learnt(first.books.ends)
    second = publish(embedded_broker, 1000, seed=1)
    node.until_learnt(second.books.ends)
    node.kill()
    newest = max(checkpoints(node))
    damage(newest / "state.safetensors", harm)

    node.start().until_reading()
    node.until(lambda: max(checkpoints(node)) > newest, "a checkpoint after the damaged one")
    node.until_learnt(second.books.ends)
    assert node.stop() == 0
    (refusal,) = node.entries("checkpoint refused")
    assert str(newest) in refusal["problem"]
    assert node.manifest()["events"] == 2000


def checkpoints(node: ForkedNode) -> list[Path]:
    return [folder for folder in node.state_dir.iterdir() if folder.name.isdigit()]


def damage(file: Path, harm: str) -> None:
    data = bytearray(file.read_bytes())
    if harm == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()


def test_events_that_are_gone_stop_the_node_unless_it_may_lose_them(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    node = ForkedNode(tmp_path, broker=embedded_broker.address, engine=SMALL).start()
    node.until_learnt(publish(embedded_broker, 1000).books.ends)
    assert node.stop() == 0
    lost = sum(node.positions().values())
    with EmbeddedBroker() as other:  # another broker: the topics are empty there
        Traffic(other.address).send_raw("everlearn.clicks", b"u", b"{", 1.7e9)
        node.settings["broker"] = other.address
        assert node.start().wait() == 1
        message = node.log_text().splitlines()[-1]
        assert message.startswith("everlearn: ")
        assert "everlearn.clicks/0 that were learnt are gone" in message
        assert "EVERLEARN_ACCEPT_LOSS=true" in message

        node.settings["accept_loss"] = True
        more = publish(other, 1000, seed=1)
        node.start().until_reading()
        node.until(
            lambda: node.manifest().get("rejected", {}).get("lost", 0) > 0, "the loss counted"
        )
        assert node.stop() == 0
        assert node.manifest()["rejected"]["lost"] <= lost
        assert sum(node.positions().values()) <= sum(more.books.ends.values()) + lost


def test_two_nodes_cannot_share_a_state_folder(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    first = ForkedNode(tmp_path, broker=embedded_broker.address, engine=SMALL).start()
    first.until_started()
    second = ForkedNode(tmp_path, broker=embedded_broker.address, engine=SMALL)
    second.log = tmp_path / "second.log"
    assert second.start().wait() == 1
    assert f"is used by another node (process {first.pid})" in second.log_text()
    assert first.stop() == 0


def test_read_your_writes_waits_until_a_position_is_learnt(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    event = {"event_id": "mine", "timestamp": 1.7e9, "user": "ann", "item": "lamp"}

    async def write_and_read(runtime: NodeRuntime) -> list[tuple[str, str, float]]:
        traffic = Traffic(embedded_broker.address)
        traffic.send(event)
        await asyncio.to_thread(traffic.flush)
        await runtime.learnt(last_offsets(traffic))
        view = runtime.engine.user("ann")
        return list(view.events) if view else []

    events = in_a_node(settings_for(embedded_broker, tmp_path), write_and_read)
    assert [(item, kind) for item, kind, _ in events] == [("lamp", "click")]


def test_an_app_that_fails_is_built_anew_and_nothing_is_lost_or_repeated(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    traffic = Traffic(embedded_broker.address)

    async def fail_twice(runtime: NodeRuntime) -> dict[str, dict[str, int]]:
        events = list(clicks(30_000))
        for part in range(3):
            for event in events[part * 10_000 : (part + 1) * 10_000]:
                traffic.send(event)
            await asyncio.to_thread(traffic.flush)
            if part < 2:
                await until(lambda: runtime.engine.report()["events"] > 0)
                app = runtime.app
                assert app is not None
                await app.app.crash(ConnectionError("the broker's clients gave up"))
                await until(lambda app=app: runtime.app not in (None, app))
        await runtime.learnt(last_offsets(traffic))
        return runtime.engine.ledger()

    ledger = in_a_node(settings_for(embedded_broker, tmp_path), fail_twice)
    assert traffic.books.differences(ledger) == {}


def test_readiness_tells_what_is_missing(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    async def watch(runtime: NodeRuntime) -> tuple[dict[str, Any], dict[str, Any]]:
        await until(lambda: "no event topic exists" in str(runtime.ready()["reasons"]))
        before = runtime.ready()
        traffic = publish(embedded_broker, 100)
        await runtime.learnt(last_offsets(traffic))
        await until(lambda: runtime.ready()["ready"])
        return before, runtime.ready()

    before, after = in_a_node(settings_for(embedded_broker, tmp_path), watch)
    assert not before["ready"]
    assert before["lag"] is None
    assert after["lag"] == 0
    assert sum(after["positions"].values()) == 100
    assert "everlearn.erasures" in after["missing_topics"]


def test_services_run_before_the_broker_is_there(tmp_path: Path) -> None:
    service = Service()
    settings = Settings(broker="127.0.0.1:1", state_dir=tmp_path, engine=EngineConfig(**SMALL))

    async def look(runtime: NodeRuntime) -> list[str]:
        await until(lambda: bool(runtime.broker_problem))
        assert service.started
        assert runtime.engine.recommend("anybody") == []
        return list(runtime.ready()["reasons"])

    (reason,) = in_a_node(settings, look, service)
    assert "127.0.0.1:1 cannot be reached" in reason


@pytest.mark.slow
def test_faust_worker_learns_without_the_api(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    traffic = publish(embedded_broker, 500)
    kept = ("PATH", "HOME", "XDG_CACHE_HOME", "EVERLEARN_CACHE")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "EVERLEARN_BROKER": embedded_broker.address,
        "EVERLEARN_STATE_DIR": str(tmp_path / "state"),
        "EVERLEARN_CHECKPOINT_SECONDS": "0.2",
    }
    command = [sys.executable, "-m", "faust", "-A", "streams.app", "worker", "-l", "info"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    watched = ForkedNode(tmp_path)

    def told() -> str:
        return (tmp_path / "worker.log").read_text()

    def learnt() -> bool:
        assert worker.poll() is None, told()
        held = watched.positions()
        return all(held.get(place, 0) >= end for place, end in traffic.books.ends.items())

    waiting.until(learnt, 60, told)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert traffic.books.differences(watched.manifest()["ledger"]) == {}
    assert topic_of(next(clicks(1))) in (tmp_path / "worker.log").read_text()

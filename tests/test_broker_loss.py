"""A broker that is away: the node waits, says so, answers meanwhile, and goes on by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learners.base import EngineConfig
from streams.apache import ApacheKafka
from streams.node import NodeRuntime
from streams.settings import Settings
from tests.traffic import Traffic, clicks, make_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

DEADLINE_SECONDS = 60.0
REOPEN_SECONDS = 1.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in time: {what}")


def test_the_node_waits_for_a_broker_that_is_down_and_for_one_that_comes_back(
    new_apache_kafka: Callable[[], ApacheKafka], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.source.REOPEN_SECONDS", REOPEN_SECONDS)
    kafka = new_apache_kafka()
    make_topics(kafka.address)
    traffic = Traffic(kafka.address)
    events = list(clicks(6000))

    async def publish(start: int, stop: int) -> None:
        for event in events[start:stop]:
            traffic.send(event)
        await asyncio.to_thread(traffic.flush)

    async def learns_all(runtime: NodeRuntime) -> None:
        offsets = {label: end - 1 for label, end in traffic.books.ends.items()}
        async with asyncio.timeout(DEADLINE_SECONDS):
            await runtime.learnt(offsets)
        await until(lambda: runtime.ready()["ready"], "ready again")

    async def is_away(runtime: NodeRuntime) -> None:
        await until(lambda: "cannot be reached" in str(runtime.ready()["reasons"]), "says so")
        assert not runtime.ready()["ready"]

    async def live() -> dict[str, Any]:
        await publish(0, 2000)
        await asyncio.to_thread(kafka.kill)
        settings = Settings(
            broker=kafka.address,
            state_dir=tmp_path,
            engine=EngineConfig(users=4096, items=2048, sessions=16_384),
            watchdog_seconds=5,  # a broker that is away is no reason to bark
        )
        runtime = NodeRuntime(settings)
        await runtime.start()
        try:
            await is_away(runtime)
            await asyncio.to_thread(kafka.start)
            await learns_all(runtime)
            await asyncio.to_thread(kafka.kill)
            await is_away(runtime)
            assert runtime.engine.recommend(events[0]["user"])
            left = time.monotonic()  # for so long that the client is closed, and opened anew
            await until(lambda: time.monotonic() > left + 3 * REOPEN_SECONDS, "stays away")
            await is_away(runtime)
            await asyncio.to_thread(kafka.start)
            await publish(2000, 6000)
            await learns_all(runtime)
        finally:
            await runtime.stop()
        return runtime.engine.report() | {"ledger": runtime.engine.ledger()}

    report = asyncio.run(live())
    assert traffic.books.differences(report["ledger"]) == {}
    assert report["events"] == 6000
    assert report["duplicates"] == 0

"""Every event is learnt exactly once, though the node is killed again and again."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.apache import ApacheKafka
from tests.forked_node import ForkedNode
from tests.traffic import Traffic, clicks, make_topics, topics

EVENTS = 200_000
KILLS = 20
RATE = 8_000  # events a second while they flow

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ENGINE = {"users": 4096, "items": 2048, "sessions": 16_384}


def node(folder: Path, kafka: ApacheKafka, prefix: str, **engine: Any) -> ForkedNode:
    folder.mkdir(exist_ok=True)
    settings = {"broker": kafka.address, "topics": topics(prefix), "engine": ENGINE | engine}
    return ForkedNode(folder, checkpoint_seconds=0.1, **settings)


def kill_again_and_again(killed: ForkedNode, seed: int) -> None:
    """Kill the node at random moments of its start and its work."""
    draw = np.random.default_rng(seed)
    kept = []
    for kill in range(KILLS):
        killed.start()
        if kill % 4:
            killed.until_reading()
        time.sleep(draw.uniform(0.0, 0.9))
        killed.kill()
        kept.append(int(killed.manifest().get("events", 0)))
    print(f"seed {seed}: events in the newest checkpoint at each kill: {kept}")
    assert sum(n < EVENTS for n in kept) >= KILLS // 2, "too late to say anything"


def test_events_that_flow_are_learnt_once_through_20_kills(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    make_topics(apache_kafka.address, prefix)
    traffic = Traffic(apache_kafka.address, prefix)

    def flow() -> None:
        begun = time.monotonic()
        for i, event in enumerate(clicks(EVENTS)):
            if i % 100 == 0 and (ahead := i / RATE - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)
            traffic.send(event)
        traffic.flush()

    killed = node(tmp_path, apache_kafka, prefix)
    flowing = threading.Thread(target=flow)
    flowing.start()
    kill_again_and_again(killed, secrets.randbelow(2**32))
    flowing.join()
    killed.start().until_learnt(traffic.books.ends)
    assert killed.stop() == 0
    assert traffic.books.differences(killed.manifest()["ledger"]) == {}
    assert killed.manifest()["events"] == EVENTS


def test_a_full_log_gives_the_fingerprint_of_a_run_without_faults_through_20_kills(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    make_topics(apache_kafka.address, prefix)
    traffic = Traffic(apache_kafka.address, prefix)
    for event in clicks(EVENTS):
        traffic.send(event)
    traffic.flush()

    killed = node(tmp_path / "killed", apache_kafka, prefix, evaluate_one_in=8)
    kill_again_and_again(killed, secrets.randbelow(2**32))
    killed.start().until_learnt(traffic.books.ends)
    assert killed.stop() == 0
    calm = node(tmp_path / "calm", apache_kafka, prefix, evaluate_one_in=8)
    calm.start().until_learnt(traffic.books.ends)
    assert calm.stop() == 0

    assert traffic.books.differences(killed.manifest()["ledger"]) == {}
    assert killed.manifest()["fingerprint"] == calm.manifest()["fingerprint"]

"""A node that cannot go on ends, and keeps what it had; the watchdog ends one that hangs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from learners.base import EngineConfig
from learners.engine import Engine
from streams.broker import EmbeddedBroker
from streams.watchdog import EXIT_CODE, Watchdog
from tests.forked_node import ForkedNode
from tests.test_node import SMALL, publish

DEADLINE_SECONDS = 30.0


def test_an_error_while_learning_ends_the_node_and_keeps_the_checkpoint(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    good = publish(embedded_broker, 500)
    node = ForkedNode(tmp_path, broker=embedded_broker.address, engine=SMALL).start()
    node.until_learnt(good.books.ends)
    assert node.stop() == 0
    positions = node.positions()
    publish(embedded_broker, 500, seed=1)
    failing = ForkedNode(
        tmp_path, fake_engine=failing_engine, broker=embedded_broker.address, engine=SMALL
    )
    assert failing.start().wait() == 1
    assert "a defect in a learner" in failing.log_text()
    assert failing.positions() == positions


class FailingEngine(Engine):
    """A fake: it learns half of a batch and fails."""

    def learn(self, batch: Any) -> int:
        raise ValueError("a defect in a learner")


def failing_engine() -> Engine:
    return FailingEngine(EngineConfig(**SMALL))


class HangingEngine(Engine):
    """A fake: it never finishes a batch."""

    def learn(self, batch: Any) -> int:
        threading.Event().wait()
        return 0


def hanging_engine() -> Engine:
    return HangingEngine(EngineConfig(**SMALL))


def test_the_watchdog_ends_a_node_that_hangs(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker, 100)
    node = ForkedNode(
        tmp_path,
        fake_engine=hanging_engine,
        broker=embedded_broker.address,
        engine=SMALL,
        watchdog_seconds=1.0,
    )
    assert node.start().wait() == EXIT_CODE
    (entry,) = node.entries("watchdog ends the process")
    assert entry["reason"] == "events wait, and none was learnt"


def test_the_watchdog_ends_a_process_whose_loop_stands_still() -> None:
    ended = threading.Event()
    dog = Watchdog(0.2, lambda: (False, None), lambda code: ended.set())
    dog.start()
    assert ended.wait(DEADLINE_SECONDS)


def test_the_watchdog_leaves_a_node_alone_that_works_or_has_nothing_to_do() -> None:
    signs: list[tuple[bool, object]] = [(True, i) for i in range(10)] + [(False, 9)] * 10
    ended: list[int] = []
    dog = Watchdog(0.05, lambda: signs.pop(0) if len(signs) > 1 else signs[0], ended.append)
    dog.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(signs) > 1 and time.monotonic() < deadline:
        dog.beat()
        time.sleep(0.005)
    dog.stop()
    assert not ended


def test_signs_are_looked_for_where_nothing_changes_them_meanwhile() -> None:
    here, ended = threading.get_ident(), threading.Event()

    def signs() -> tuple[bool, object]:
        if threading.get_ident() != here:
            raise RuntimeError("dictionary changed size during iteration")
        return True, "nothing moves"

    dog = Watchdog(0.2, signs, lambda code: ended.set())
    dog.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not ended.wait(0.01) and time.monotonic() < deadline:
        dog.beat()
    assert ended.is_set()

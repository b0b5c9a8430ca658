"""A broker that accepts connections but never answers: what a request sees of it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from learners.errors import DeliveryError
from streams.publisher import Publisher
from tests.waiting import until


def test_an_impatient_message_does_not_wait_for_a_broker_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.publisher.IMPATIENT_SECONDS", 0.3)

    async def publish(publisher: Publisher) -> tuple[int, int]:
        async with asyncio.timeout(10):
            return await publisher.publish("t", b"k", b"v", patient=False)

    command = [sys.executable, "-c", "from serving.cli import main; main()", "broker", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as broker:
        try:
            assert broker.stdout is not None
            address = json.loads(broker.stdout.readline())["broker"]
            with Publisher(address) as publisher:
                publisher.publish_nowait("t", b"k", b"v")
                publisher.flush()
                broker.send_signal(signal.SIGSTOP)
                with pytest.raises(DeliveryError, match=r"within 0.3 s; .*may have arrived"):
                    asyncio.run(publish(publisher))
                # What was given up is noted by another thread; no message has timed out so soon.
                until(lambda: publisher.waiting == 0, seconds=2.0)
                broker.send_signal(signal.SIGCONT)
                until(lambda: is_taken(publisher, publish))
        finally:
            broker.send_signal(signal.SIGCONT)
            broker.terminate()


def is_taken(
    publisher: Publisher, publish: Callable[[Publisher], Coroutine[Any, Any, object]]
) -> bool:
    try:
        asyncio.run(publish(publisher))
    except DeliveryError:
        return False
    return True

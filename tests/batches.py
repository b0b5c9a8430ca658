"""Messages for tests of reading: a steady stream, and batches that no client would write."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

__all__ = ["constantly", "publish_unreadable"]


def publish_unreadable(
    broker: str, topic: str, partition: int, codec: int, count: int, *, damaged: bool = False
) -> None:
    """A batch whose compression nobody can undo; no client would write one, so by hand."""
    tail = struct.pack(">hiqqqhii", codec, count - 1, 0, 0, -1, -1, -1, count) + b"no such data"
    body = struct.pack(">ibI", 0, 2, calc_crc32c(tail) ^ damaged) + tail
    batch = struct.pack(">qi", 0, len(body)) + body
    name = struct.pack(">h", len(topic)) + topic.encode()
    produce = struct.pack(">hhih", 0, 7, 1, -1) + struct.pack(">hhi", -1, -1, 5000)
    place = struct.pack(">i", 1) + name + struct.pack(">iii", 1, partition, len(batch))
    host, port = broker.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        message = produce + place + batch
        connection.sendall(struct.pack(">i", len(message)) + message)
        assert connection.recv(1000)


@contextmanager
def constantly(broker: str, topic: str, partition: int = 0) -> Iterator[None]:
    """Publish to a partition so often that a read always finds something."""
    enough = threading.Event()

    def publish() -> None:
        producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
        while not enough.wait(0.01):
            producer.produce(topic, b"more", partition=partition)
            producer.poll(0)
        producer.flush(20)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        yield
    finally:
        enough.set()
        publisher.join()

"""Messages of a Kafka client: where they stand, and their columns in a recorded log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from learners.errors import BrokerError
from streams.log import SCHEMA

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Part", "frame_of_messages", "part_of", "reached_by", "unreadable_in"]

Part = tuple[str, int]  # topic, partition


def reached_by(messages: list[Message]) -> dict[Part, int]:
    """Next offset of each partition after these messages; at its end, Kafka says so.

    Raises
    ------
    BrokerError
        The client cannot go on.
    """
    from confluent_kafka import KafkaError

    reached: dict[Part, int] = {}
    for message in messages:
        error = message.error()
        if error is None:
            reached[part_of(message)] = (message.offset() or 0) + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            reached[part_of(message)] = message.offset() or 0
        elif error.fatal():
            raise BrokerError(f"reading stopped: {error.str()}; `everlearn doctor` tells more")
    return reached


def unreadable_in(messages: list[Message]) -> Iterator[tuple[Part, int]]:
    """Find the batches that cannot be decompressed: partition, first offset."""
    from confluent_kafka import KafkaError

    codes = (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED)
    for message in messages:
        error = message.error()
        if error is not None and message.topic() and error.code() in codes:
            yield part_of(message), message.offset() or 0


def part_of(message: Message) -> Part:
    """Say which partition a message came from."""
    return message.topic() or "", message.partition() or 0


def frame_of_messages(messages: list[Message]) -> pl.DataFrame:
    """Columns of messages without errors, as a recorded log holds them."""
    columns = {
        "topic": [message.topic() for message in messages],
        "partition": [message.partition() for message in messages],
        "offset": [message.offset() for message in messages],
        "timestamp": [message.timestamp()[1] for message in messages],
        "key": [message.key() for message in messages],
        "value": [message.value() for message in messages],
    }
    return pl.DataFrame(columns, schema=SCHEMA)

"""Batches of records that cannot be unpacked: an unknown codec, damaged bytes.

The client library fails at such a batch for ever. Here it is passed over offset by offset, each of
which stands for a record that nobody can read, and becomes a dead letter.
"""

from __future__ import annotations

import struct
import zlib
from gzip import BadGzipFile
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, RecordTooLargeError, UnsupportedCodecError
from cramjam import DecompressionError

from streams.order import KafkaRecord, Record, TopicPart, label

if TYPE_CHECKING:
    from streams.decode import Rejected

__all__ = ["UNREADABLE_ERRORS", "Unreadable", "read_around", "rejection"]

# What unpacking a batch raises; anything else says nothing about the records.
UNREADABLE_ERRORS = (
    BadGzipFile,
    CorruptRecordException,
    DecompressionError,
    EOFError,
    IndexError,
    RecordTooLargeError,
    UnicodeDecodeError,
    UnsupportedCodecError,
    struct.error,
    zlib.error,
)

NO_TIME = -1
WAIT_MILLISECONDS = 1000


class Unreadable(Record):
    """The place of a record that cannot be read; its one header says why."""

    __slots__ = ()


async def read_around(
    consumer: AIOKafkaConsumer, part: TopicPart, position: int, end: int, most: int
) -> list[KafkaRecord]:
    """Read a partition record by record, until just after what cannot be read.

    Parameters
    ----------
    consumer
        Has the partition assigned; it is left at the record after the last one returned.
    part, position, end
        The partition, the offset to begin at, and its end.
    most
        Records to return at most.
    """
    tp = TopicPartition(*part)
    consumer.seek(tp, position)
    records: list[KafkaRecord] = []
    while position < end and len(records) < most:
        try:
            fetched = await consumer.getmany(tp, timeout_ms=WAIT_MILLISECONDS, max_records=1)
        except UNREADABLE_ERRORS as error:
            why = repr(error).encode(errors="replace")
            records.append(Unreadable(*part, position, NO_TIME, None, None, [("error", why)]))
            position += 1
            consumer.seek(tp, position)
            continue
        passed = bool(records) and isinstance(records[-1], Unreadable)
        for record in fetched.get(tp, ()):
            records.append(record)
            position = record.offset + 1
        if passed or not fetched:
            break
    return records


def rejection(record: Unreadable) -> Rejected:
    """Reject a record that cannot be read."""
    from streams.decode import Rejected

    ((_, why),) = record.headers
    place = f"{label(record.topic, record.partition)} at {record.offset}"
    return Rejected("undecodable", f"{place}: {why.decode(errors='replace')}", record)

"""Malformed messages become dead letters; good events around them are learnt, none is lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cramjam
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record._crc32c import crc as crc32c
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka import Consumer, TopicPartition

from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker
from tests.forked_node import ForkedNode
from tests.traffic import CLICKS, PURCHASES, Traffic, clicks, make_topics, topics

GOOD, BAD = 1_000_000, 10_000
NOW = 1_700_000_000.0


class Poison(NamedTuple):
    """A message that is no event, and why."""

    reason: str
    value: bytes | None
    topic: str = CLICKS


def click(**changes: Any) -> bytes:
    """A click, changed; ... takes a field away."""
    event = {"event_id": "e", "timestamp": NOW, "user": "u", "item": "i"} | changes
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


def nested(depth: int) -> bytes:
    return click()[:-1] + b', "context": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


GOOD_CLICK = click()
POISONS = [
    Poison("malformed_json", b"{"),
    Poison("malformed_json", b"click"),
    Poison("malformed_json", GOOD_CLICK + GOOD_CLICK),
    Poison("malformed_json", GOOD_CLICK[:-5]),
    Poison("malformed_json", click(timestamp=...)[:-1] + b', "timestamp": NaN}'),
    Poison("malformed_json", click(timestamp=...)[:-1] + b', "timestamp": Infinity}'),
    Poison("bad_field", b"[]"),
    Poison("bad_field", b"null"),
    Poison("bad_field", b"7"),
    Poison("bad_field", click(user=7)),
    Poison("bad_field", click(user=None)),
    Poison("bad_field", click(user="")),
    Poison("bad_field", click(item=...)),
    Poison("bad_field", click(timestamp="now")),
    Poison("bad_field", click(timestamp=-1.0)),
    Poison("bad_field", click(event_id=...)),
    Poison("bad_field", click(price=-4.0), PURCHASES),
    Poison("future_timestamp", click(timestamp=NOW + 3600)),
    Poison("future_timestamp", click(timestamp=NOW * 1000)),
    Poison("future_timestamp", click(timestamp=1e300)),
    Poison("id_too_long", click(user="u" * 129)),
    Poison("id_too_long", click(item="\u00e9" * 100)),
    Poison("id_too_long", click(event_id="e" * 10_000)),
    Poison("too_large", click(context={"text": "x" * 70_000})),
    Poison("too_deep", nested(20)),
    Poison("too_deep", nested(5000)),
    Poison("unknown_type", click(type="purchase")),
    Poison("unknown_type", click(type="order")),
    Poison("invalid_utf8", GOOD_CLICK.replace(b'"u"', b'"\xff\xfe"')),
    Poison("empty", b""),
    Poison("tombstone", None),
    # A producer that compresses values itself, in a codec that nobody told us of.
    Poison("invalid_utf8", gzip.compress(GOOD_CLICK)),
    Poison("invalid_utf8", zlib.compress(GOOD_CLICK)),
    Poison("invalid_utf8", bytes(cramjam.zstd.compress(GOOD_CLICK))),
]


def dead_letters(broker: str, topic: str, partitions: int = 4) -> Iterator[tuple[str, str, bytes]]:
    """Place, reason and value of every dead letter."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "reader", "log_level": 0})
    for partition in range(partitions):
        end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        consumer.assign([TopicPartition(topic, partition, 0)])
        position = 0
        while position < end:
            for message in consumer.consume(1000, 1.0):
                assert message.error() is None, message.error()
                position = message.offset() + 1
                headers = dict(message.headers())
                yield message.key().decode(), headers["reason"].decode(), message.value()
    consumer.close()


def test_each_kind_of_bad_message_has_its_reason_and_its_dead_letter(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    traffic = Traffic(embedded_broker.address)
    for poison in POISONS:
        traffic.send_raw(poison.topic, b"u", poison.value, NOW)
    traffic.send(next(clicks(1, start=NOW)))
    traffic.flush()
    node = ForkedNode(tmp_path, broker=embedded_broker.address).start()
    node.until_learnt(traffic.books.ends)
    assert node.stop() == 0

    letters = list(dead_letters(embedded_broker.address, "everlearn.dead-letters"))
    assert Counter(reason for _, reason, _ in letters) == Counter(p.reason for p in POISONS)
    values = Counter(value for _, _, value in letters)
    assert values == Counter((p.value or b"")[:65_536] for p in POISONS)
    assert node.manifest()["rejected"] == dict(Counter(p.reason for p in POISONS))
    assert traffic.books.differences(node.manifest()["ledger"]) == {}


def test_batches_that_nobody_can_unpack_are_passed_over(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    batches = [
        record_batch([click(event_id="a"), click(event_id="b")]),
        record_batch([b"1", b"2", b"3"], codec=5),
        record_batch([click(event_id="c")]),
        record_batch([b"4", b"5"], codec=1),
        record_batch([b"6"], codec=4),
        record_batch([click(event_id="d")], damaged=True),
        record_batch([click(event_id="e")]),
    ]
    for batch in batches:
        asyncio.run(produce(embedded_broker.address, CLICKS, batch))
    node = ForkedNode(tmp_path, broker=embedded_broker.address).start()
    node.until_learnt({f"{CLICKS}/0": 11})
    assert node.stop() == 0
    assert node.manifest()["rejected"] == {"undecodable": 7}
    assert node.manifest()["ledger"][f"{CLICKS}/0"]["count"] == 4
    letters = dead_letters(embedded_broker.address, "everlearn.dead-letters")
    places = [f"{CLICKS}/0/{offset}" for offset in (2, 3, 4, 6, 7, 8, 9)]
    assert sorted((place, reason) for place, reason, _ in letters) == [
        (place, "undecodable") for place in places
    ]


def record_batch(values: list[bytes], *, codec: int = 0, damaged: bool = False) -> bytes:
    """A batch as a producer sends it; with a codec's number it only claims to be compressed."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for i, value in enumerate(values):
        builder.append(i, int(NOW * 1000), b"u", value, [])
    batch = bytearray(builder.build())
    struct.pack_into(">h", batch, 21, codec)
    struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
    batch[-1] ^= damaged
    return bytes(batch)


async def produce(broker: str, topic: str, batch: bytes) -> None:
    """Publish a batch to partition 0 of a topic, as it is."""
    client = AIOKafkaClient(bootstrap_servers=broker)
    await client.bootstrap()
    await client.set_topics([topic])
    leader = client.cluster.leader_for_partition(TopicPartition(topic, 0))
    await client.send(leader, ProduceRequest(None, 1, 5000, [(topic, [(0, batch)])]))
    await client.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_million_good_events_survive_ten_thousand_bad_ones(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    make_topics(apache_kafka.address, prefix)
    traffic = Traffic(apache_kafka.address, prefix, **{"compression.type": "lz4"})
    repeated = 0
    for i, event in enumerate(clicks(GOOD, start=NOW - GOOD)):
        traffic.send(event)
        if i % (GOOD // BAD) == 0:
            poison = POISONS[i // (GOOD // BAD) % len(POISONS)]
            traffic.send_raw(prefix + poison.topic, b"u", poison.value, NOW)
        if i % 1000 == 0:
            traffic.send(event, repeated=True)
            repeated += 1
    traffic.flush()
    injected = Counter(POISONS[i % len(POISONS)].reason for i in range(BAD))

    started = time.monotonic()
    node = ForkedNode(
        tmp_path, broker=apache_kafka.address, topics=topics(prefix), checkpoint_seconds=1.0
    ).start()
    node.until_learnt(traffic.books.ends)
    print(f"{GOOD + BAD} messages in {time.monotonic() - started:.1f} s")
    assert node.stop() == 0

    assert len(node.entries("node starts")) == 1
    assert traffic.books.differences(node.manifest()["ledger"]) == {}
    assert node.manifest()["events"] == GOOD
    assert node.manifest()["rejected"] == dict(injected)
    letters = list(dead_letters(apache_kafka.address, f"{prefix}everlearn.dead-letters"))
    assert Counter(reason for _, reason, _ in letters) == injected
    assert len({place for place, _, _ in letters}) == len(letters) == BAD

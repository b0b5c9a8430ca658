"""Producers: what is published, how it is keyed and timed, and what is said when it fails."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Partition
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from learners.errors import BrokerError, DataError, DeliveryError
from streams.apache import ApacheKafka, find_java
from streams.broker import EmbeddedBroker, free_port
from streams.events import Click
from streams.producer import EventProducer
from streams.publisher import Publisher
from streams.settings import Settings
from tests.waiting import until

USERS = [f"user-{number}" for number in range(40)]


def settings_for(broker: str, prefix: str, **topics: dict[str, object]) -> Settings:
    roles = ("clicks", "purchases", "impressions", "items", "erasures")
    names = {role: {"name": f"{prefix}{role}"} | topics.get(role, {}) for role in roles}
    return Settings(broker=broker, topics=names)


def read(address: str, topic: str, count: int) -> list[Message]:
    """Read `count` messages of a topic's four partitions."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    try:
        return consumer.consume(count, timeout=30)
    finally:
        consumer.close()


def java_partition(user: str) -> int:
    """Return the partition of four that Kafka's own Java client chooses for a key."""
    return (murmur2(user.encode()) & 0x7FFFFFFF) % 4


def test_events_carry_their_key_time_and_fields(embedded_broker: EmbeddedBroker) -> None:
    address = embedded_broker.address
    with EventProducer(settings=settings_for(address, "s.")) as producer:
        producer.click(user="anna", item="teapot", timestamp=1_500_000_000.25, event_id="e1")
        producer.purchase(user="anna", item="teapot", price=19.5, quantity=2)
        producer.impression(user="anna", items=["cup", "pot"])
        producer.item(item="teapot", category="kitchen", title="Teapot", price=19.5)
        producer.erase(user="anna")
        producer.flush()
        (click,) = read(address, "s.clicks", 1)
        assert (click.key(), click.timestamp()[1]) == (b"anna", 1_500_000_000_250)
        assert json.loads(click.value() or b"") == {
            "type": "click",
            "event_id": "e1",
            "timestamp": 1_500_000_000.25,
            "user": "anna",
            "item": "teapot",
        }
        (purchase,) = read(address, "s.purchases", 1)
        assert json.loads(purchase.value() or b"")["quantity"] == 2
        assert [m.key() for m in read(address, "s.items", 1)] == [b"teapot"]
        assert [m.key() for m in read(address, "s.impressions", 1)] == [b"anna"]
        assert [m.key() for m in read(address, "s.erasures", 1)] == [b"anna"]


def test_made_events_have_an_id_and_the_present_time(embedded_broker: EmbeddedBroker) -> None:
    with EventProducer(embedded_broker.address) as producer:
        one, two = (producer.click(user="u", item="i") for _ in range(2))
    assert one.event_id != two.event_id
    assert abs(two.timestamp - time.time()) < 60


def test_topic_of_somebody_else_gets_its_own_form(embedded_broker: EmbeddedBroker) -> None:
    theirs = {
        "fields": {"user": "visitor.id", "item": "sku", "timestamp": "at"},
        "timestamp_unit": "ms",
    }
    settings = settings_for(embedded_broker.address, "s.", clicks=theirs)
    with EventProducer(settings=settings) as producer:
        producer.click(user="anna", item="teapot", timestamp=1_500_000_000.25, event_id="e1")
    (click,) = read(embedded_broker.address, "s.clicks", 1)
    told = json.loads(click.value() or b"")
    assert (told["visitor"], told["sku"], told["at"]) == ({"id": "anna"}, "teapot", 1500000000250)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"user": "x" * 129}, "id_too_long|bad_field"),
        ({"item": ""}, "bad_field"),
        ({"timestamp": -1.0}, "bad_field"),
        ({"timestamp": float("nan")}, "bad_field"),
        ({"timestamp": time.time() + 86_400}, "future_timestamp"),
    ],
)
def test_event_that_no_node_accepts_is_refused(
    embedded_broker: EmbeddedBroker, wrong: dict[str, Any], reason: str
) -> None:
    with (
        EventProducer(embedded_broker.address) as producer,
        pytest.raises(DataError, match=f"no node would accept this click .({reason})"),
    ):
        producer.click(**{"user": "u", "item": "i"} | wrong)


def test_nobody_there_is_said_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=address):
        EventProducer(address)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_lost_broker_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")
    broker = EmbeddedBroker().start()
    producer = EventProducer(broker.address, delivery_seconds=1.0)
    producer.click(user="u", item="i")
    producer.flush()
    broker.stop()
    producer.click(user="u", item="i")
    with pytest.raises(DeliveryError, match=r"everlearn\.clicks.*did not answer in time"):
        producer.close()
    # kafka-python leaves sockets of refused connections to the collector: let it find them here.
    gc.collect()


@pytest.mark.kafka
def test_all_producers_agree_on_the_partition(apache_kafka: ApacheKafka, prefix: str) -> None:
    address = apache_kafka.address
    with EventProducer(settings=settings_for(address, prefix)) as producer:
        for user in USERS:
            producer.send(Click(event_id=user, timestamp=time.time(), user=user, item="i"))
    with Publisher(address) as publisher:
        for user in USERS:
            publisher.put(f"{prefix}clicks", user.encode(), b"{}")
        publisher.flush()
    messages = read(address, f"{prefix}clicks", 2 * len(USERS))
    assert len(messages) == 2 * len(USERS)
    chosen = {(m.key().decode(), m.partition()) for m in messages}
    assert chosen == {(user, java_partition(user)) for user in USERS}


@pytest.mark.kafka
def test_refusal_names_topic_and_cause(apache_kafka: ApacheKafka, prefix: str) -> None:
    with Publisher(apache_kafka.address) as publisher:
        with pytest.raises(DeliveryError, match=rf"{prefix}a.*too large"):
            publisher.put(f"{prefix}a", b"k", b"x" * 2_000_000)
        assert publisher.publish_nowait(f"{prefix}a", b"k", b"x" * 2_000_000) is False
        assert publisher.dropped == 1
        assert "too large" in publisher.last_error


def test_publish_answers_partition_and_offset(embedded_broker: EmbeddedBroker) -> None:
    async def publish(publisher: Publisher) -> Sequence[tuple[int, int]]:
        one = await publisher.publish("t", b"anna", b"1", headers=[("reason", b"why")])
        many = await asyncio.gather(*(publisher.publish("t", b"anna", b"x") for _ in range(50)))
        return [one, *many]

    with Publisher(embedded_broker.address) as publisher:
        answers = asyncio.run(publish(publisher))
        assert publisher.delivered == 51
    partition = java_partition("anna")
    assert answers == [(partition, offset) for offset in range(51)]
    (first, *_) = read(embedded_broker.address, "t", 1)
    assert first.headers() == [("reason", b"why")]


def test_published_order_is_kept(embedded_broker: EmbeddedBroker) -> None:
    with Publisher(embedded_broker.address) as publisher:
        for number in range(5000):
            publisher.put("t", b"anna", str(number).encode(), timestamp_ms=1000 + number)
        publisher.flush()
    messages = read(embedded_broker.address, "t", 5000)
    assert [int(m.value() or b"") for m in messages] == list(range(5000))
    assert [m.timestamp()[1] for m in messages] == list(range(1000, 6000))


def test_publisher_without_a_broker_drops_counts_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = Publisher(f"127.0.0.1:{free_port()}", queue_messages=10, delivery_seconds=0.3)
    publisher.start()
    sent = [publisher.publish_nowait("shop", b"k", b"v") for _ in range(12)]
    assert sent == [True] * 10 + [False] * 2
    publisher.flush(seconds=30)
    assert (publisher.delivered, publisher.failed, publisher.dropped) == (0, 10, 2)
    assert "'shop'" in publisher.last_error
    with pytest.raises(DeliveryError, match=r"'shop'.*within 0.3 s; .*may have arrived"):
        asyncio.run(publisher.publish("shop", b"k", b"v"))
    assert caplog.records == [], "its client's attempts to connect are nobody's news"
    publisher.close()


def test_an_impatient_message_does_not_outlast_its_broker() -> None:
    """Refused at once when the broker is known to be away; soon when it goes; and never sent."""

    async def publish(publisher: Publisher) -> None:
        async with asyncio.timeout(10):
            await publisher.publish("t", b"k", b"v", patient=False)

    broker = EmbeddedBroker().start()
    with Publisher(broker.address) as publisher:
        asyncio.run(publish(publisher))
        broker.stop()
        for told in (f"no broker answers at {broker.address}", "nothing is sent"):
            with pytest.raises(DeliveryError, match=told):
                asyncio.run(publish(publisher))
        until(lambda: publisher.waiting == 0)


def test_a_publisher_notices_that_its_broker_is_there() -> None:
    with socket.socket() as listener:
        address = f"127.0.0.1:{free_port()}"
        with Publisher(address) as publisher:
            until(lambda: "refused" in publisher.away)
            listener.bind(("127.0.0.1", int(address.split(":")[1])))
            listener.listen()
            until(lambda: not publisher.away)


def test_closing_gives_up_what_waits() -> None:
    publisher = Publisher(f"127.0.0.1:{free_port()}").start()
    publisher.publish_nowait("shop", b"k", b"v")
    publisher.close(seconds=0.0)
    assert publisher.failed == 1


@pytest.mark.kafka
@pytest.mark.slow
def test_broker_keeps_its_data_and_publishers_outlive_it(
    new_apache_kafka: Callable[[], ApacheKafka],
) -> None:
    kafka = new_apache_kafka()
    with Publisher(kafka.address, delivery_seconds=60.0) as publisher:
        for number in range(100):
            publisher.put("t", b"anna", str(number).encode())
        publisher.flush()
        kafka.kill()
        for number in range(100, 200):
            publisher.put("t", b"anna", str(number).encode())
        kafka.start()
        publisher.flush(60.0)
        assert (publisher.delivered, publisher.failed) == (200, 0)
    values = [int(m.value() or b"") for m in read(kafka.address, "t", 200)]
    assert values == list(range(200))


CODECS = ("gzip", "snappy", "lz4", "zstd")

JAVA_PRODUCER = """
import java.util.Map;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.StringSerializer;

class Send {
    public static void main(String[] args) {
        var text = new StringSerializer();
        for (int i = 2; i < args.length; i++) {
            Map<String, Object> options = Map.of(
                "bootstrap.servers", args[0], "compression.type", args[i], "linger.ms", 20);
            try (var producer = new KafkaProducer<>(options, text, text)) {
                for (int n = 0; n < 100; n++)
                    producer.send(new ProducerRecord<>(args[1], "u" + n, args[i] + n));
            }
        }
    }
}
"""


async def read_as_a_node(address: str, topic: str, count: int) -> list[bytes]:
    """Read with the client that a node reads with."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([Partition(topic, partition) for partition in range(4)])
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < count and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
        return values
    finally:
        await consumer.stop()


def expected(codecs: Sequence[str]) -> list[bytes]:
    return sorted(f"{codec}{number}".encode() for codec in codecs for number in range(100))


@pytest.mark.kafka
def test_codecs_of_confluent_kafka_are_read(apache_kafka: ApacheKafka, prefix: str) -> None:
    topic = f"{prefix}confluent"
    for codec in CODECS:
        producer = Producer({"bootstrap.servers": apache_kafka.address, "compression.type": codec})
        for number in range(100):
            producer.produce(topic, f"{codec}{number}", f"u{number}")
        assert producer.flush(30) == 0
    values = asyncio.run(read_as_a_node(apache_kafka.address, topic, 400))
    assert sorted(values) == expected(CODECS)


@pytest.mark.kafka
def test_gzip_of_kafka_python_is_read(apache_kafka: ApacheKafka, prefix: str) -> None:
    topic = f"{prefix}python"
    producer = KafkaProducer(bootstrap_servers=apache_kafka.address, compression_type="gzip")
    for number in range(100):
        producer.send(topic, f"gzip{number}".encode(), f"u{number}".encode())
    producer.close()
    values = asyncio.run(read_as_a_node(apache_kafka.address, topic, 100))
    assert sorted(values) == expected(["gzip"])


@pytest.mark.kafka
@pytest.mark.slow
def test_codecs_of_java_are_read(
    apache_kafka: ApacheKafka, kafka_jars: Path, prefix: str, tmp_path: Path
) -> None:
    topic, program = f"{prefix}java", tmp_path / "Send.java"
    program.write_text(JAVA_PRODUCER)
    command = [find_java() or "java", "-cp", f"{kafka_jars}/*", program]
    done = subprocess.run(
        [*command, apache_kafka.address, topic, *CODECS], capture_output=True, text=True
    )
    if "compiler" in done.stderr and done.returncode:
        pytest.skip("this Java has no compiler (a JRE): the test's Java producer needs a JDK")
    assert done.returncode == 0, done.stderr
    values = asyncio.run(read_as_a_node(apache_kafka.address, topic, 400))
    assert sorted(values) == expected(CODECS)

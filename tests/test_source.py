"""The batch source: everything that Kafka holds, once, in the one order, from where we stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from learners.errors import EventsLostError
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker
from streams.order import KafkaRecord, Record, label, merge_order
from streams.settings import Settings
from streams.source import BatchSource, Fetch
from tests.batches import constantly

DEADLINE_SECONDS = 30.0


@dataclass
class Stand:
    """Where a pretended engine stands."""

    positions: dict[str, int] = field(default_factory=dict)
    watermarks: dict[str, float] = field(default_factory=dict)


def settings_for(broker: str, topics: Sequence[str], **more: Any) -> Settings:
    """Settings of a node that reads these topics and nothing else that exists."""
    mine = {f"mine{i}": {"name": name, "type": "click"} for i, name in enumerate(topics)}
    return Settings(broker=broker, topics=mine, **more)


def write(broker: str, rows: Sequence[tuple[str, int, int]], **options: Any) -> None:
    """Publish empty-keyed records: topic, partition, time in milliseconds."""
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, **options})
    for i, (topic, partition, time_ms) in enumerate(rows):
        producer.produce(topic, b"%d" % i, partition=partition, timestamp=time_ms)
        producer.poll(0)
    assert producer.flush(20) == 0


def read(
    settings: Settings,
    n: int,
    stand: Stand | None = None,
    *,
    during: Callable[[BatchSource, list[KafkaRecord]], None] | None = None,
) -> list[KafkaRecord]:
    """Run a source until it has given n records; `during` is called after each fetch."""
    return asyncio.run(read_async(settings, n, stand or Stand(), during))


async def read_async(
    settings: Settings,
    n: int,
    stand: Stand,
    during: Callable[[BatchSource, list[KafkaRecord]], None] | None,
) -> list[KafkaRecord]:
    records: list[KafkaRecord] = []
    enough = asyncio.Event()

    async def put(fetch: Fetch) -> None:
        records.extend(fetch.records)
        if during:
            during(source, records)
        if len(records) >= n:
            enough.set()

    source = BatchSource(settings, stand, put)
    await source.start()
    try:
        await asyncio.wait_for(source.wait(enough.wait()), DEADLINE_SECONDS)
    finally:
        await source.stop()
    if source.crash_reason:
        raise source.crash_reason
    return records


def places(records: Sequence[KafkaRecord]) -> list[tuple[str, int, int]]:
    """Topic, partition and offset of records."""
    return [(r.topic, r.partition, r.offset) for r in records]


def recorded(rows: Sequence[tuple[str, int, int]]) -> list[Record]:
    """The records that `write` leaves in Kafka."""
    offsets: dict[tuple[str, int], int] = {}
    records = []
    for topic, partition, time_ms in rows:
        offset = offsets[topic, partition] = offsets.get((topic, partition), -1) + 1
        records.append(Record(topic, partition, offset, time_ms, None, b""))
    return records


def scattered(topics: Sequence[str], n: int) -> list[tuple[str, int, int]]:
    """Records over 4 partitions of each topic, unevenly, with times that jump back and tie."""
    return [
        (topics[i % 7 % len(topics)], i * i % 4, 1_000_000 + 10 * i - 400 * (i % 11 == 0))
        for i in range(n)
    ]


@pytest.mark.parametrize("fetch_records", [7, 2000])
def test_all_partitions_come_in_the_one_order(
    embedded_broker: EmbeddedBroker, fetch_records: int
) -> None:
    rows = scattered(["a", "b"], 3000)
    write(embedded_broker.address, rows)
    settings = settings_for(embedded_broker.address, ["a", "b"], fetch_records=fetch_records)
    assert places(read(settings, len(rows))) == places(merge_order(recorded(rows)))


def test_going_on_from_a_checkpoint_continues_the_order(embedded_broker: EmbeddedBroker) -> None:
    rows = scattered(["a", "b"], 2000)
    write(embedded_broker.address, rows)
    whole = merge_order(recorded(rows))
    stand = Stand()
    for record in whole[:777]:
        name = label(record.topic, record.partition)
        stand.positions[name] = record.offset + 1
        stand.watermarks[name] = max(stand.watermarks.get(name, 0), record.timestamp / 1000)
    settings = settings_for(embedded_broker.address, ["a", "b"])
    assert places(read(settings, len(rows) - 777, stand)) == places(whole[777:])


def test_memory_is_bounded_while_one_partition_is_far_behind(
    embedded_broker: EmbeddedBroker,
) -> None:
    early = [("a", 0, 1000 + i) for i in range(10_000)]
    late = [("a", 1, 1_000_000 + i) for i in range(10_000)]
    write(embedded_broker.address, [*late, *early])
    most = 0

    def watch(source: BatchSource, records: list[KafkaRecord]) -> None:
        nonlocal most
        most = max(most, len(source.buffer))

    settings = settings_for(embedded_broker.address, ["a"], fetch_records=100)
    records = read(settings, 20_000, during=watch)
    assert [r.partition for r in records] == [0] * 10_000 + [1] * 10_000
    assert most <= 600  # 4 fetches held back, one more on its way, one to learn


def test_a_partition_read_to_its_end_holds_nobody_back(embedded_broker: EmbeddedBroker) -> None:
    write(embedded_broker.address, [("a", 0, 1000), ("b", 3, 999)])

    def live(source: BatchSource, records: list[KafkaRecord]) -> None:
        if len(records) == 2:
            write(embedded_broker.address, [("a", 0, 5_000_000)])

    settings = settings_for(embedded_broker.address, ["a", "b"])
    assert places(read(settings, 3, during=live)) == [("b", 3, 0), ("a", 0, 0), ("a", 0, 1)]


def test_a_topic_that_appears_later_is_picked_up(embedded_broker: EmbeddedBroker) -> None:
    write(embedded_broker.address, [("a", 0, 1000)])

    def later(source: BatchSource, records: list[KafkaRecord]) -> None:
        assert ("b" in source.missing_topics) == (len(records) == 1)
        if len(records) == 1:
            write(embedded_broker.address, [("b", 2, 2000)])

    settings = settings_for(embedded_broker.address, ["a", "b"])
    assert places(read(settings, 2, during=later)) == [("a", 0, 0), ("b", 2, 0)]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_producers_is_read(embedded_broker: EmbeddedBroker, codec: str) -> None:
    rows = [("a", 0, 1000 + i) for i in range(500)]
    write(embedded_broker.address, rows, **{"compression.type": codec})
    records = read(settings_for(embedded_broker.address, ["a"]), 500)
    assert [r.value for r in records] == [b"%d" % i for i in range(500)]


def test_learnt_events_that_are_gone_stop_the_source(embedded_broker: EmbeddedBroker) -> None:
    write(embedded_broker.address, [("a", 0, 1000)] * 5)
    settings = settings_for(embedded_broker.address, ["a"])
    with pytest.raises(EventsLostError, match=r"3 events of a/0 that were learnt are gone"):
        read(settings, 1, Stand({"a/0": 8}))


@pytest.mark.kafka
class TestOnApacheKafka:
    """What the embedded broker cannot do: retention, growing topics, transactions."""

    @pytest.fixture
    def admin(self, apache_kafka: ApacheKafka) -> AdminClient:
        return AdminClient({"bootstrap.servers": apache_kafka.address})

    @pytest.fixture
    def topic(self, admin: AdminClient, prefix: str) -> str:
        name = f"{prefix}clicks"
        for created in admin.create_topics([NewTopic(name, 2)]).values():
            created.result(20)
        return name

    def test_dropped_events_stop_the_source_and_are_named(
        self, apache_kafka: ApacheKafka, admin: AdminClient, topic: str
    ) -> None:
        write(apache_kafka.address, [(topic, 1, 1000)] * 100)
        drop(admin, topic, 1, 40)
        with pytest.raises(EventsLostError, match=rf"dropped 30 events of {topic}/1 .*10 to 39"):
            read(settings_for(apache_kafka.address, [topic]), 1, Stand({f"{topic}/1": 10}))

    def test_a_loss_that_is_accepted_is_counted(
        self, apache_kafka: ApacheKafka, admin: AdminClient, topic: str
    ) -> None:
        write(apache_kafka.address, [(topic, 1, 1000)] * 100)
        drop(admin, topic, 1, 40)
        fetches: list[Fetch] = []

        async def run() -> None:
            there = asyncio.Event()

            async def put(fetch: Fetch) -> None:
                fetches.append(fetch)
                there.set()

            settings = settings_for(apache_kafka.address, [topic], accept_loss=True)
            source = BatchSource(settings, Stand({f"{topic}/1": 10}), put)
            await source.start()
            await asyncio.wait_for(source.wait(there.wait()), DEADLINE_SECONDS)
            await source.stop()

        asyncio.run(run())
        assert fetches[0].lost == 30
        assert fetches[0].records[0].offset == 40

    def test_events_dropped_while_it_reads_stop_the_source(
        self, apache_kafka: ApacheKafka, admin: AdminClient, topic: str
    ) -> None:
        write(apache_kafka.address, [(topic, 0, 1000)] * 100_000)

        def drop_what_comes(source: BatchSource, records: list[KafkaRecord]) -> None:
            if len(records) == 2000:
                drop(admin, topic, 0, 100_000)

        settings = settings_for(apache_kafka.address, [topic], fetch_records=2000)
        with pytest.raises(EventsLostError, match=rf"dropped \d+ events of {topic}/0"):
            read(settings, 100_000, during=drop_what_comes)

    def test_nothing_is_lost_when_partitions_are_added(
        self, apache_kafka: ApacheKafka, admin: AdminClient, topic: str
    ) -> None:
        write(apache_kafka.address, [(topic, i % 2, 1000 + i) for i in range(200)])

        def grow(source: BatchSource, records: list[KafkaRecord]) -> None:
            if len(records) == 200:
                for grown in admin.create_partitions([NewPartitions(topic, 4)]).values():
                    grown.result(20)
                write(apache_kafka.address, [(topic, i % 4, 2000 + i) for i in range(200)])

        records = read(settings_for(apache_kafka.address, [topic]), 400, during=grow)
        assert len(set(places(records))) == 400
        assert {p: sum(r.partition == p for r in records) for p in range(4)} == {
            0: 150,
            1: 150,
            2: 50,
            3: 50,
        }

    def test_an_aborted_transaction_is_not_read_and_leaves_no_lag(
        self, apache_kafka: ApacheKafka, topic: str
    ) -> None:
        producer = Producer(
            {"bootstrap.servers": apache_kafka.address, "transactional.id": f"{topic}-writer"}
        )
        producer.init_transactions(20)
        for value, end in (
            (b"no", producer.abort_transaction),
            (b"yes", producer.commit_transaction),
        ):
            producer.begin_transaction()
            producer.produce(topic, value, partition=0)
            producer.flush(20)
            end(20)
        sources: list[BatchSource] = []
        settings = settings_for(apache_kafka.address, [topic])
        records = read(settings, 1, during=lambda source, _: sources.append(source))
        assert [r.value for r in records] == [b"yes"]
        assert asyncio.run(settles(settings)) == 0

    def test_a_transaction_on_one_topic_holds_no_busy_topic_back(
        self, apache_kafka: ApacheKafka, admin: AdminClient, topic: str, prefix: str
    ) -> None:
        busy = f"{prefix}busy"
        for created in admin.create_topics([NewTopic(busy, 1)]).values():
            created.result(20)
        producer = Producer(
            {"bootstrap.servers": apache_kafka.address, "transactional.id": f"{topic}-writer"}
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"ends with a mark", partition=0, timestamp=1000)
        producer.commit_transaction(20)
        with constantly(apache_kafka.address, busy):
            settings = settings_for(apache_kafka.address, [topic, busy])
            records = read(settings, 300)
        assert sum(record.topic == busy for record in records) >= 299


async def settles(settings: Settings) -> int:
    """Read until nothing is left unread, or the deadline is over; return what is left."""

    async def put(fetch: Fetch) -> None:
        pass

    source = BatchSource(settings, Stand(), put)
    await source.start()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (source.unread or not source.sent_records) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await source.stop()
    return source.unread


def drop(admin: AdminClient, topic: str, partition: int, before: int) -> None:
    """Have Kafka drop the records before an offset, as its retention does."""
    for done in admin.delete_records([TopicPartition(topic, partition, before)]).values():
        done.result(20)

"""What Kafka holds: its partitions, where each begins and ends, and whether we can go on there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from learners.errors import EventsLostError
from streams.order import TopicPart, label
from streams.security import aiokafka_options
from streams.settings import Settings

__all__ = [
    "Checked",
    "check_stands",
    "close_consumer",
    "find_partitions",
    "open_consumer",
    "readable_end",
]

REQUEST_SECONDS = 10.0
FETCH_BYTES = 512 * 1024  # per partition and fetch: a fetch is thrown away when a partition pauses
CONSUMER_OPTIONS: Mapping[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    # A fetch is answered when it is worth the answer, or after 20 ms: answering each event alone
    # took twice the node's time, and a partition that was paused must not wait for an idle fetch.
    "fetch_max_wait_ms": 20,
    "fetch_min_bytes": 64 * 1024,
    "max_partition_fetch_bytes": FETCH_BYTES,
    "request_timeout_ms": int(REQUEST_SECONDS * 1000),
    "retry_backoff_ms": 100,
}


class Checked(NamedTuple):
    """Where to read each partition from, where it ends, and how many events are given up."""

    starts: dict[TopicPart, int]
    ends: dict[TopicPart, int]
    losses: list[str]
    lost: int


async def open_consumer(settings: Settings) -> AIOKafkaConsumer:
    """Connect a consumer that belongs to no group and reads nothing yet.

    Raises
    ------
    KafkaError, OSError
        The broker cannot be reached.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.broker,
        client_id=f"everlearn-{settings.node_name}-source",
        **{**CONSUMER_OPTIONS, **aiokafka_options(settings)},
    )
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await consumer.start()
    except BaseException:
        await close_consumer(consumer)
        raise
    return consumer


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer, whatever state it is in.

    When a fetch waits to be tried again, aiokafka cancels it and lets that cancellation out: it
    would end whoever closes, with the connections still open.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        await consumer._client.close()


async def find_partitions(
    consumer: AIOKafkaConsumer, topics: Collection[str]
) -> frozenset[TopicPart]:
    """Find the partitions of topics; asking for them by name would create what is missing."""
    cluster = await consumer._client.fetch_all_metadata()
    return frozenset(
        (topic, partition)
        for topic in topics
        for partition in cluster.partitions_for_topic(topic) or ()
    )


async def check_stands(
    consumer: AIOKafkaConsumer, stands: Mapping[TopicPart, int | None], *, accept_loss: bool
) -> Checked:
    """Check that Kafka still holds what comes next in each partition.

    Parameters
    ----------
    consumer
        Asks the broker.
    stands
        Next offset of each partition, `None` to begin where the partition begins.
    accept_loss
        Go on with what is left, instead of raising.

    Raises
    ------
    EventsLostError
        Events have been dropped that are not learnt yet, or learnt ones are gone.
    """
    tps = [TopicPartition(*part) for part in stands]
    # Asked one by one, unknown topics would cost a round of metadata each.
    await consumer._client.set_topics(consumer._client._topics | {tp.topic for tp in tps})
    begins = await consumer.beginning_offsets(tps)
    ends = await consumer.end_offsets(tps)
    checked = Checked({}, {(tp.topic, tp.partition): ends[tp] for tp in tps}, [], 0)
    for (part, stand), tp in zip(stands.items(), tps, strict=True):
        begin, end = begins[tp], ends[tp]
        start = begin if stand is None else min(max(stand, begin), end)
        checked.starts[part] = start
        if stand is not None and start != stand:
            checked.losses.append(_loss(part, stand, begin, end))
            checked = checked._replace(lost=checked.lost + abs(start - stand))
    if checked.losses and not accept_loss:
        raise EventsLostError(
            f"{'; '.join(checked.losses)}. Start from an empty state_dir to learn what Kafka still "
            "has, or go on without the lost events with EVERLEARN_ACCEPT_LOSS=true"
        )
    return checked


def readable_end(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    """Return the offset up to which a partition can be read, as the last fetch told."""
    stable, high = consumer.last_stable_offset(tp), consumer.highwater(tp)
    return int(stable if stable is not None and stable >= 0 else high or 0)


def _loss(part: TopicPart, stand: int, begin: int, end: int) -> str:
    if stand < begin:
        return (
            f"Kafka has dropped {begin - stand} events of {label(*part)} that are not learnt yet "
            f"(offsets {stand} to {begin - 1}; its retention is too short)"
        )
    return (
        f"{stand - end} events of {label(*part)} that were learnt are gone from Kafka (it ends at "
        f"{end}, {stand} comes next): the topic was made anew, or its broker lost data"
    )

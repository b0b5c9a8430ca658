"""The batch source: reads every partition of every event topic, in the one order, in batches.

No consumer group and no commits: the engine's positions say where to go on, so what was learnt and
where reading stands can never disagree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from mode import Service

from streams.kafka_log import (
    check_stands,
    close_consumer,
    find_partitions,
    open_consumer,
    readable_end,
)
from streams.order import KafkaRecord, MergeBuffer, TopicPart, label
from streams.settings import Settings
from streams.unreadable import UNREADABLE_ERRORS, read_around

__all__ = ["BatchSource", "Fetch", "Progress"]

log = structlog.get_logger("everlearn.source")

POLL_MILLISECONDS = 200
WATCH_SECONDS = 1.0
GONE_SECONDS = 3.0  # an answer that takes longer than this counts as none
RETRY_SECONDS = 0.5
DISCOVER_SECONDS = 5.0
REOPEN_SECONDS = 30.0
STOP_SECONDS = 1.0


class Progress(Protocol):
    """Where learning stands: the engine, as the source sees it."""

    @property
    def positions(self) -> Mapping[str, int]: ...
    @property
    def watermarks(self) -> Mapping[str, float]: ...


class Fetch(NamedTuple):
    """Records in the one order, numbered; `lost` counts events given up with `accept_loss`."""

    number: int
    records: list[KafkaRecord]
    lost: int = 0


class BatchSource(Service):
    """Reads all event topics from where the engine stands, and hands on batches.

    It waits for a broker that is away, goes on where it stopped, and picks up topics and partitions
    that appear later.

    Parameters
    ----------
    settings
        Broker, topics, `fetch_records`, `accept_loss`.
    progress
        The engine: its `positions` say where to start, its `watermarks` carry the order on.
    put
        Takes a `Fetch`; it may wait, and reading waits with it.

    Raises
    ------
    EventsLostError
        Kafka has dropped events that were not learnt yet, and `accept_loss` is not set.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress,
        put: Callable[[Fetch], Awaitable[None]],
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.progress = progress
        self.put = put
        self.topics = frozenset(settings.event_topics())
        self.buffer = MergeBuffer[KafkaRecord]({})
        self.next_offsets: dict[TopicPart, int] = {}
        self.ends: dict[TopicPart, int] = {}
        self.found: frozenset[TopicPart] = frozenset()
        self.sent_records = 0
        self.sent_fetches = 0
        self.lost = 0
        self.connected = False
        self.unreachable_since = time.monotonic()
        self.problem = "not connected yet"
        self._consumer: AIOKafkaConsumer | None = None
        self._finished = asyncio.Event()
        super().__init__(**kwargs)

    @property
    def unread(self) -> int:
        """Records that Kafka holds or the merge holds back, not handed on yet."""
        waiting = (max(0, end - self.next_offsets[part]) for part, end in self.ends.items())
        return sum(waiting) + len(self.buffer)

    @property
    def missing_topics(self) -> list[str]:
        """Event topics that the broker does not have (yet)."""
        return sorted(self.topics - self._topics_read())

    def _topics_read(self) -> set[str]:
        return {topic for topic, _ in self.next_offsets}

    @Service.task
    async def _read(self) -> None:
        self.buffer = MergeBuffer(dict(self.progress.watermarks))
        try:
            while not self.should_stop:
                try:
                    await self._turn()
                except (KafkaError, OSError) as error:
                    self._unreached(error)
                    self._rewind()
                    await self.sleep(RETRY_SECONDS)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self.should_stop or (task is not None and task.cancelling()):
                raise
            # Let through, it would end reading without a word: a node that is deaf for ever.
            raise RuntimeError("the Kafka client cancelled reading") from error
        finally:
            self.connected, self.problem = False, "reading has stopped"
            await self._close()
            self._finished.set()

    async def on_stop(self) -> None:
        """Let reading come to its end: a client that is cancelled leaves connections behind."""
        if not self.started:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), STOP_SECONDS)

    async def _turn(self) -> None:
        """Read once, and hand on what is now in order."""
        consumer = await self._consumer_in_order()
        try:
            fetched = await consumer.getmany(
                timeout_ms=POLL_MILLISECONDS, max_records=self.settings.fetch_records
            )
        except OffsetOutOfRangeError as error:
            await self._find_again(consumer, error.args[0])
            return
        except UNREADABLE_ERRORS as error:
            fetched = await self._read_around(consumer, error)
        for tp, records in fetched.items():
            part = (tp.topic, tp.partition)
            self.next_offsets[part] = records[-1].offset + 1
            self.ends[part] = max(self.ends[part], readable_end(consumer, tp))
            self.buffer.add(part, records)
        await self._skip_unseen(consumer)
        await self._hand_on(self.buffer.release(self._more()))
        self._throttle(consumer)

    async def _read_around(
        self, consumer: AIOKafkaConsumer, error: Exception
    ) -> dict[TopicPartition, list[KafkaRecord]]:
        """Read carefully, after a batch somewhere could not be unpacked."""
        log.warning("a batch cannot be read, and is passed over", problem=repr(error))
        self._rewind()
        await self._ask_ends(consumer)
        n = self.settings.fetch_records
        fetched: dict[TopicPartition, list[KafkaRecord]] = {}
        for part in self._more():
            tp, start, end = TopicPartition(*part), self.next_offsets[part], self.ends[part]
            if tp in consumer.paused():
                continue
            if records := await read_around(consumer, part, start, end, n):
                fetched[tp] = records
        return fetched

    def _rewind(self) -> None:
        """Go back to what comes next: an error takes with it the records fetched beside it."""
        if self._consumer is not None:
            for part, offset in self.next_offsets.items():
                self._consumer.seek(TopicPartition(*part), offset)

    async def _hand_on(self, records: list[KafkaRecord]) -> None:
        n = self.settings.fetch_records
        for start in range(0, len(records), n):
            fetch = Fetch(self.sent_fetches, records[start : start + n], self.lost)
            self.lost = 0
            self.sent_fetches += 1
            self.sent_records += len(fetch.records)
            await self.put(fetch)

    def _more(self) -> list[TopicPart]:
        """Partitions that Kafka has unread records of: they may hold the others back."""
        return [part for part, end in self.ends.items() if self.next_offsets[part] < end]

    async def _skip_unseen(self, consumer: AIOKafkaConsumer) -> None:
        """Move past offsets without a record: transaction marks, and what compaction removed.

        At the end of a partition they would hold the others back, however busy those are.
        """
        for part in self._more():
            tp = TopicPartition(*part)
            if tp not in consumer.paused():
                self.next_offsets[part] = await consumer.position(tp)

    def _throttle(self, consumer: AIOKafkaConsumer) -> None:
        """Stop fetching partitions that are far ahead of the others, so that memory is bounded."""
        high = 4 * self.settings.fetch_records
        paused = consumer.paused()
        for part in self.next_offsets:
            tp, held = TopicPartition(*part), self.buffer.n_held(part)
            if tp not in paused and held > high:
                consumer.pause(tp)
            elif tp in paused and held < high // 2:
                consumer.resume(tp)

    async def _consumer_in_order(self) -> AIOKafkaConsumer:
        """Return a connected consumer that reads all partitions known by now."""
        if self._consumer is not None and self._unreachable_seconds() > REOPEN_SECONDS:
            await self._close()
        if self._consumer is None:
            self._consumer = await open_consumer(self.settings)
            self._assign(self._consumer)
        while not self.found and not self.should_stop:
            await self._look(self._consumer)
            await self.sleep(0 if self.found else WATCH_SECONDS)
        if new := self.found - self.next_offsets.keys():
            await self._extend(self._consumer, sorted(new))
        return self._consumer

    async def _close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            self.unreachable_since = time.monotonic()
            await close_consumer(consumer)

    async def _extend(self, consumer: AIOKafkaConsumer, parts: Iterable[TopicPart]) -> None:
        """Begin to read partitions, from where the engine stands."""
        stands = {
            part: self.progress.positions[label(*part)]
            for part in parts
            if label(*part) in self.progress.positions
        }
        starts = await self._checked(consumer, {part: stands.get(part) for part in parts})
        self._assign(consumer)
        log.info("reading", partitions={label(*p): at for p, at in sorted(starts.items())})

    async def _find_again(
        self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Check partitions whose next offset Kafka no longer has."""
        wanted = {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
        for part, offset in (await self._checked(consumer, wanted)).items():
            consumer.seek(TopicPartition(*part), offset)

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        if self.next_offsets:
            consumer.assign([TopicPartition(*part) for part in self.next_offsets])
        self._rewind()

    async def _checked(
        self, consumer: AIOKafkaConsumer, stands: Mapping[TopicPart, int | None]
    ) -> dict[TopicPart, int]:
        """Note where to read partitions from, and their ends; return the former."""
        checked = await check_stands(consumer, stands, accept_loss=self.settings.accept_loss)
        if checked.losses:
            log.warning("events lost, as accept_loss allows", losses=checked.losses)
        self.lost += checked.lost
        self.next_offsets |= checked.starts
        self.ends |= checked.ends
        return checked.starts

    @Service.task
    async def _watch(self) -> None:
        """Ask the broker, again and again, whether it is there and what it holds."""
        looked = -DISCOVER_SECONDS
        while not self.should_stop:
            await self.sleep(WATCH_SECONDS)
            consumer = self._consumer
            if consumer is None or self.should_stop:
                continue
            try:
                async with asyncio.timeout(GONE_SECONDS):
                    if self.missing_topics or time.monotonic() - looked > DISCOVER_SECONDS:
                        await self._look(consumer)
                        looked = time.monotonic()
                    await self._ask_ends(consumer)
                    self._reached()
            except (KafkaError, OSError) as error:
                self._unreached(error)

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        self.found |= await find_partitions(consumer, self.topics)
        self._reached()

    async def _ask_ends(self, consumer: AIOKafkaConsumer) -> None:
        parts = list(self.next_offsets)
        ends = await consumer.end_offsets([TopicPartition(*part) for part in parts])
        for part in parts:
            self.ends[part] = max(self.ends[part], ends[TopicPartition(*part)])

    def _reached(self) -> None:
        if not self.connected:
            seconds = round(self._unreachable_seconds(), 1)
            log.info("broker reached", broker=self.settings.broker, after_seconds=seconds)
        self.connected = True
        self.problem = ""

    def _unreached(self, error: Exception) -> None:
        if self.connected:
            self.unreachable_since = time.monotonic()
        self.connected = False
        problem = str(error) or type(error).__name__
        if problem != self.problem:
            log.warning("broker not reached", broker=self.settings.broker, problem=problem)
        self.problem = problem

    def _unreachable_seconds(self) -> float:
        return 0.0 if self.connected else time.monotonic() - self.unreachable_since

"""Recording: topics of a broker, from somewhere to their ends or on and on, as a parquet log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from learners.errors import BrokerError, DataError, TopicError
from streams.broker import is_embedded
from streams.log import LogAbout, LogWriter
from streams.messages import Part, frame_of_messages, part_of, reached_by, unreadable_in
from streams.ranges import EVERYTHING, Range
from streams.security import confluent_options
from streams.settings import Settings
from streams.targets import check_target
from streams.words import counted

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

__all__ = ["EVERYTHING", "Range", "TopicReader", "record_topics"]

FETCH = 10_000
POLL_SECONDS = 0.2
TIMEOUT_SECONDS = 15.0
SILENCE_SECONDS = 30.0
SHOWN = 4  # partitions that a message names

log = logging.getLogger("everlearn.record")

Progress = Callable[[int, int], None]  # records read, records to read


class TopicReader:
    """Reads topics of a broker without a consumer group, up to the ends they have at the start.

    Parameters
    ----------
    settings
        Broker, security, and the topics that carry events.
    topics
        Topics to read by name; those of the settings that exist, when left out.
    chosen
        Which of their records.
    follow
        Go on with what arrives later, until every partition has passed the end of the chosen range;
        where it has none, until the iterator is closed.

    Attributes
    ----------
    dropped : dict
        First offset of each partition, (topic, number), whose chosen beginning the broker has
        dropped.
    """

    def __init__(
        self,
        settings: Settings,
        topics: list[str] | None = None,
        *,
        chosen: Range = EVERYTHING,
        follow: bool = False,
    ) -> None:
        self.settings = settings
        self.chosen = chosen
        self.follow = follow
        self.read = 0
        self.dropped: dict[Part, int] = {}
        self._passed: dict[Part, int] = {}
        # Asked first, because it knows at once when nobody is there.
        plain = settings.security.protocol == "PLAINTEXT"
        self._embedded = plain and is_embedded(settings.broker)
        self._consumer = self._connect()
        try:
            self.topics = self._existing(topics)
            self._start = self._starts()
            self._stop = self._stops()
            self._tell_of_dropped()
        except BaseException:
            self.close()
            raise

    @property
    def total(self) -> int:
        """How many offsets lie between the starts and the ends."""
        return sum(max(0, stop - self._start[part]) for part, stop in self._stop.items())

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield records as frames of the log's columns; those of a partition in order."""
        from confluent_kafka import TopicPartition

        waiting = {part for part, stop in self._stop.items() if stop > self._start[part]}
        at = dict(self._start)
        ahead = self._ahead(at) if self.follow else set()
        parts = waiting | ahead
        self._consumer.assign([TopicPartition(*part, self._start[part]) for part in parts])
        heard = time.monotonic()
        while waiting or ahead:
            messages = self._consumer.consume(FETCH, POLL_SECONDS)
            if messages:
                heard = time.monotonic()
            elif waiting and time.monotonic() - heard > SILENCE_SECONDS:
                raise BrokerError(self._silence(waiting))
            records = [message for message in messages if message.error() is None]
            reached = reached_by(messages)
            for part, base in unreadable_in(messages):
                if base >= self._passed.get(part, 0):
                    reached[part] = self._passed[part] = self._pass_over(part, base)
            at |= reached
            ahead = self._ahead(at) & ahead - self._late(records)
            if ahead and self._is_over():
                self._stop, waiting, ahead = self._stops(), ahead, set()
                heard = time.monotonic()
            waiting -= {part for part in waiting if at[part] >= self._stop[part]}
            if records:
                self.read += len(records)
                yield self._inside(frame_of_messages(records))

    def _ahead(self, at: Mapping[Part, int]) -> set[Part]:
        """Tell which partitions have not come to the last of the chosen offsets."""
        limit = self.chosen.stop_offset
        return {part for part, offset in at.items() if limit is None or offset < limit}

    def _late(self, records: Sequence[Message]) -> set[Part]:
        """Tell which partitions have come to the end of the chosen time."""
        stop = self.chosen.stop_time
        if stop is None:
            return set()
        return {part_of(record) for record in records if record.timestamp()[1] >= stop * 1000}

    def _is_over(self) -> bool:
        """Whether the chosen time has passed: what arrives from now on is of later."""
        return self.chosen.stop_time is not None and time.time() > self.chosen.stop_time

    def _silence(self, waiting: Iterable[Part]) -> str:
        from confluent_kafka import TopicPartition

        places = self._consumer.position([TopicPartition(*part) for part in waiting])
        offsets = {part: self._start[part] for part in waiting}
        offsets |= {(at.topic, at.partition): at.offset for at in places if at.offset >= 0}
        at = ", ".join(f"{topic}/{number} at {offsets[topic, number]}" for topic, number in offsets)
        return (
            f"nothing came for {SILENCE_SECONDS:.0f} seconds from {at}, though there is more: the "
            "broker is away, or what stands there is damaged; begin after it with --from"
        )

    def _inside(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self.follow:
            ends = pl.DataFrame(
                [(*part, stop) for part, stop in self._stop.items()],
                schema={"topic": pl.String, "partition": pl.Int32, "stop": pl.Int64},
                orient="row",
            )
            frame = frame.join(ends, on=["topic", "partition"], maintain_order="left")
            frame = frame.filter(pl.col("offset") < pl.col("stop")).drop("stop")
        return self.chosen.keeps(frame)

    def _pass_over(self, part: Part, base: int) -> int:
        """Go on after a batch that nobody can decompress; return the offset after it.

        The client reports such a batch for ever and does not tell where it ends: ask until found.
        """
        from confluent_kafka import TopicPartition

        high = self._bounds(part)[1]
        with closing(self._connect()) as probe:
            bad, good = base, min(base + 1, high)
            while not _readable(probe, part, good, base):
                bad, good = good, min(2 * good - base, high)
            while good - bad > 1:
                middle = (bad + good) // 2
                bad, good = (
                    (bad, middle) if _readable(probe, part, middle, base) else (middle, good)
                )
        log.warning("%s/%d: offsets %d to %d cannot be decompressed", *part, base, good - 1)
        self._consumer.seek(TopicPartition(*part, good))
        return good

    def _connect(self) -> Consumer:
        from confluent_kafka import Consumer

        options: dict[str, Any] = {
            "bootstrap.servers": self.settings.broker,
            "group.id": "everlearn-record",  # never joined: partitions are assigned
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "check.crcs": True,  # as a node does
            "log_level": 3,
        }
        return Consumer(options | confluent_options(self.settings), logger=log)

    def _existing(self, wanted: list[str] | None) -> dict[str, list[int]]:
        """Find the partitions of the topics to read."""
        known = self.settings.event_topics()
        if unknown := sorted(set(wanted or ()) - set(known)):
            raise TopicError(
                f"no event topic is named {unknown[0]!r}; the settings know {', '.join(known)}: "
                "add it under [topics] with the type of its events"
            )
        there = self._ask(lambda: self._consumer.list_topics(timeout=TIMEOUT_SECONDS).topics)
        missing = [name for name in wanted or known if name not in there]
        if missing and (wanted or len(missing) == len(known)):
            raise TopicError(
                f"{self.settings.broker} has no topic {', '.join(missing)}; "
                "`everlearn topics create` makes them"
            )
        return {name: sorted(there[name].partitions) for name in wanted or known if name in there}

    def _starts(self) -> dict[Part, int]:
        from confluent_kafka import TopicPartition

        parts = [(topic, number) for topic, numbers in self.topics.items() for number in numbers]
        starts = {}
        for part in parts:
            low, high = self._bounds(part)
            starts[part] = min(max(low, self.chosen.start_offset), high)
            if low > self.chosen.start_offset:
                self.dropped[part] = low
        # The embedded broker says "the end" whatever time it is asked for: read all and choose.
        if self.chosen.start_time is not None and not self._embedded:
            milliseconds = int(self.chosen.start_time * 1000)
            asked = [TopicPartition(*part, milliseconds) for part in parts]
            found = self._ask(lambda: self._consumer.offsets_for_times(asked, TIMEOUT_SECONDS))
            for place in found:
                part = (place.topic, place.partition)
                starts[part] = place.offset if place.offset >= 0 else self._bounds(part)[1]
                if starts[part] > self.dropped.get(part, 0):
                    self.dropped.pop(part, None)  # the time begins after what was dropped
        return starts

    def _tell_of_dropped(self) -> None:
        if self.dropped:
            first = ", ".join(f"{topic}/{n} begins at {at}" for (topic, n), at in self._shown())
            more = len(self.dropped) - SHOWN
            others = f" and {counted(more, 'partition')} more" if more > 0 else ""
            log.warning("the broker has dropped older events: %s%s", first, others)

    def _shown(self) -> list[tuple[Part, int]]:
        return sorted(self.dropped.items())[:SHOWN]

    def _stops(self) -> dict[Part, int]:
        limit = self.chosen.stop_offset
        ends = {part: self._bounds(part)[1] for part in self._start}
        return {part: end if limit is None else min(end, limit) for part, end in ends.items()}

    def _bounds(self, part: Part) -> tuple[int, int]:
        from confluent_kafka import TopicPartition

        low, high = self._ask(
            lambda: self._consumer.get_watermark_offsets(TopicPartition(*part), TIMEOUT_SECONDS)
        )
        return low, high

    def _ask(self, question: Callable[[], Any]) -> Any:
        from confluent_kafka import KafkaException

        try:
            return question()
        except KafkaException as error:
            raise BrokerError(
                f"{self.settings.broker} does not answer ({error.args[0].str()}): "
                "is the broker up? (`everlearn doctor` tells)"
            ) from error


def _readable(probe: Consumer, part: Part, offset: int, base: int) -> bool:
    """Tell whether what stands at an offset is no part of the unreadable batch at `base`."""
    from confluent_kafka import TopicPartition

    probe.assign([TopicPartition(*part, offset)])
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        messages = probe.consume(1, POLL_SECONDS)
        if messages:
            return (part, base) not in unreadable_in(messages)
    raise BrokerError(f"{part[0]}/{part[1]} gives nothing at offset {offset}: is the broker up?")


def record_topics(
    settings: Settings,
    path: Path,
    topics: list[str] | None = None,
    *,
    chosen: Range = EVERYTHING,
    follow: bool = False,
    progress: Progress = lambda read, total: None,
) -> dict[str, int]:
    """Write topics into a recorded log; return how many records of each.

    With `follow` it goes on until every partition has passed the end of the chosen range, or until
    interrupted (Ctrl-C), and keeps what it has got.

    Raises
    ------
    BrokerError, TopicError, DataError
        The broker does not answer, a topic is missing, the file cannot be written, or there is
        nothing to write: then a former file stays.
    """
    check_target(path, renamed=True)
    with closing(TopicReader(settings, topics, chosen=chosen, follow=follow)) as reader:
        counts = dict.fromkeys(reader.topics, 0)
        with LogWriter(path, LogAbout.of(settings, list(counts))) as writer:
            try:
                for frame in reader.frames():
                    writer.append(frame)
                    for topic, count in frame["topic"].value_counts().iter_rows():
                        counts[topic] += count
                    progress(reader.read, reader.total)
            except KeyboardInterrupt:
                if not follow:
                    raise
            if not writer.rows:
                where = "in the topics" if chosen == EVERYTHING else "in that range of the topics"
                kept = "stays as it was" if path.exists() else "is not made"
                raise DataError(
                    f"nothing was recorded, for there is no record {where}, and {path} {kept}: "
                    "choose others with --topics, --from and --to"
                )
    return counts

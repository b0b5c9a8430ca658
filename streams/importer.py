"""Importing: a data set's events published to their topics, at full speed or keeping pace."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import msgspec

from learners.base import KINDS
from learners.errors import DataError, SettingsError, TopicError
from streams.broker import EMBEDDED_LIMITS
from streams.datasets import Dataset
from streams.events import Event, Item
from streams.publisher import Publisher
from streams.settings import Settings, TopicSettings
from streams.shapes import ROLES, in_shape_of, key_of
from streams.topics import TopicReport, create_topics, list_topics

__all__ = ["EventWriter", "Imported", "import_dataset", "parse_speed", "prepare_topics"]

DAY_SECONDS = 86400.0
OLDEST = "message.timestamp.before.max.ms"
EMBEDDED_EVENTS = 140_000  # about what 4 partitions of 5 MB each hold

Progress = Callable[[int, int], None]  # events published, events in all


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import published; `rejected` rows of the data set are no events.

    `left` events were not published, because it was told to stop.
    """

    events: int
    types: dict[str, int]
    rejected: dict[str, int]
    seconds: float
    left: int = 0


class EventWriter:
    """Turns events into messages of their topics and hands them to a publisher.

    Parameters
    ----------
    publisher
        Started; it waits while its queue is full.
    settings
        Names the topic of each type of event, and its shape if it is somebody else's.
    """

    def __init__(self, publisher: Publisher, settings: Settings) -> None:
        self.publisher = publisher
        self.topics = {kind: settings.topics[role] for kind, role in ROLES.items()}
        self.types: Counter[str] = Counter()

    def write(self, event: Event) -> None:
        """Publish an event, keyed by user or item; the record carries the event's own time.

        Raises
        ------
        DeliveryError
            An event that was written before has failed.
        """
        kind = str(event.__struct_config__.tag)
        topic = self.topics[kind]
        if topic.mapped:
            fields = msgspec.to_builtins(event)
            key, value = key_of(topic, fields), msgspec.json.encode(in_shape_of(topic, fields))
        else:
            key = event.item if isinstance(event, Item) else getattr(event, "user", "")
            value = msgspec.json.encode(event)
        self.publisher.put(topic.name, key.encode(), value, round(event.timestamp * 1000))
        self.types[kind] += 1


def import_dataset(
    dataset: Dataset,
    settings: Settings,
    *,
    speed: float | None = None,
    skip: int = 0,
    stop: threading.Event | None = None,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Publish a data set and wait until the broker has all of it.

    Its events always come in the same order, so an import that was stopped goes on with `skip`.

    Parameters
    ----------
    dataset
        From `load_dataset`.
    settings
        Broker and topics.
    speed
        Seconds of event time that pass in one second; as fast as possible when left out.
    skip
        Leave out so many events from the beginning.
    stop
        When it is set, the import ends once the broker has what was published until then.
    progress
        Called now and then with the events done so far, skipped ones included, and in all.

    Raises
    ------
    DataError
        There are not so many events to skip.
    DeliveryError
        The broker did not acknowledge an event.
    """
    start = time.perf_counter()
    stop = stop or threading.Event()
    total = len(dataset) - sum(dataset.rejected.values())
    if skip > total:
        raise DataError(f"cannot skip {skip:,} events: {dataset.name} has {total:,}; skip fewer")
    with Publisher(settings.broker, settings, linger_milliseconds=20.0) as publisher:
        writer = EventWriter(publisher, settings)
        done = skip
        events = islice(dataset.events(), skip, None)
        for done, event in enumerate(paced(events, speed, stop), start=skip + 1):
            writer.write(event)
            if done % 1000 == 0 or speed is not None:
                progress(done, total)
        publisher.flush()
    progress(done, total)
    seconds = time.perf_counter() - start
    types = dict(writer.types)
    return Imported(done - skip, types, dataset.rejected, seconds, left=total - done)


def paced(
    events: Iterable[Event], speed: float | None, stop: threading.Event | None = None
) -> Iterator[Event]:
    """Hold events back until their time has come, when `speed` seconds pass in one, or to stop."""
    stop = stop or threading.Event()
    start, first = time.monotonic(), None
    for event in events:
        if speed is not None:
            first = event.timestamp if first is None else first
            wait = (event.timestamp - first) / speed - (time.monotonic() - start)
            if wait > 0:
                stop.wait(wait)
        if stop.is_set():
            return
        yield event


def parse_speed(text: str) -> float | None:
    """Read `max` or a factor like `60x`.

    >>> parse_speed("60x"), parse_speed("max")
    (60.0, None)
    """
    if text == "max":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < float("inf"):
        raise SettingsError(f"speed {text!r} is neither max nor a factor like 60x")
    return factor


def prepare_topics(dataset: Dataset, settings: Settings) -> list[str]:
    """Make the topics that the data set needs; warn of those that would not keep its events.

    Raises
    ------
    BrokerError
        The broker cannot be reached.
    TopicError
        A missing topic would be made so that it keeps none of these events.
    """
    roles = {ROLES[KINDS[kind]] for kind in dataset.frame["kind"].unique()}
    reports = [report for report in list_topics(settings) if report.role in roles]
    if all(report.cleanup_policy is None and report.state != "missing" for report in reports):
        full = len(dataset) > EMBEDDED_EVENTS
        return [f"{settings.broker} is an embedded broker. {EMBEDDED_LIMITS}"] if full else []
    age_days = (time.time() - dataset.frame["timestamp"][0]) / DAY_SECONDS
    warnings = []
    for report in reports:
        problem = _too_short(report, settings.topics[report.role], age_days)
        if problem and report.state == "missing":
            raise TopicError(f"{problem}; set topics.{report.role}.retention_days = -1 (for ever)")
        if problem:
            warnings.append(
                f"{problem}; change the topic (retention.ms=-1, and delete its setting "
                f"{OLDEST}), or set topics.{report.role}.retention_days = -1 and make it anew"
            )
    create_topics(settings)
    return warnings


def _too_short(report: TopicReport, topic: TopicSettings, age_days: float) -> str:
    """Say that a topic, as it is or as it would be made, does not keep such old events."""
    if report.state == "missing":
        days, deletes = topic.retention_days, True
    else:
        deletes = "delete" in (report.cleanup_policy or "")
        days = -1.0 if report.retention_days is None else report.retention_days
    if not deletes or days < 0 or days >= age_days:
        return ""
    return (
        f"topic {report.name} keeps {days:g} days, but these events are up to "
        f"{age_days:,.0f} days old: Kafka refuses or deletes them"
    )

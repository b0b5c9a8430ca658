"""The gate: Kafka's bytes become events, or rejections with a reason; it never raises.

Clicks and purchases that are sound at a glance are read in a kernel (`scan`). The others of a topic
are checked and decoded as a whole; where anything in them is doubtful, they are decoded one by one,
which decides alone. All three ways give the same.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from learners.base import CLICK, PURCHASE, Batch
from streams.columns import batch_of, columns_of
from streams.events import (
    EVENT_TYPES,
    MAX_AHEAD_SECONDS,
    MAX_BYTES,
    MAX_ID_BYTES,
    AnyEvent,
    Event,
    Impression,
    Item,
)
from streams.mapping import UNITS, MappedReader, Unreadable
from streams.order import KafkaRecord, label
from streams.scan import ANY_ACT, NO_ACT, make_scanned, scan
from streams.words import of_bad_json

if TYPE_CHECKING:
    from streams.settings import TopicSettings

__all__ = ["REASONS", "Gate", "Rejected"]

MAX_DEPTH = 8
# 1990, seconds UTC: an earlier time of somebody else's topic was read in a wrong unit.
EARLIEST = 631_152_000.0
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# More than this in one piece is decoded message by message, which needs no second copy.
MAX_JOINED_BYTES = 8 * 1024 * 1024
MAX_DETAIL = 300

REASONS = {
    "bad_field": "a field is missing, of a wrong type or out of bounds",
    "empty": "the message has no bytes",
    "future_timestamp": "the event's time is more than 5 minutes ahead",
    "id_too_long": "an id is longer than 128 bytes",
    "ignored": "the settings ignore this type of event; no dead letter is written",
    "invalid_utf8": "a text is not UTF-8",
    "malformed_json": "the message is not JSON",
    "tombstone": "the message has no value, and its topic is no catalogue with a key",
    "too_deep": "the JSON is nested deeper than 8 levels",
    "too_large": "the message is larger than 64 KiB",
    "undecodable": "the message, or the compressed batch that holds it, cannot be read",
    "unknown_topic": "no settings say what this topic carries",
    "unknown_type": "the type of event is missing, unknown or not the topic's",
}

ID_FIELDS = ("event_id", "user", "item", "session", "impression_id", "category", "snapshot")
ACTS = {"click": CLICK, "purchase": PURCHASE, "mixed": ANY_ACT}
STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no event: why in a stable word (see `REASONS`), why in full, and itself."""

    reason: str
    detail: str
    record: KafkaRecord | None


class Gate:
    """Decodes the records of topics as their settings say.

    An event may be at most 5 minutes ahead of its record's own time and of the wall clock. As the
    record's time is in the log, a replay decides as the live node did; the wall clock matters only
    for a record that itself claims to be from the future.

    Parameters
    ----------
    topics
        What each topic carries, by its name in Kafka.
    now
        Wall clock, seconds UTC.

    Examples
    --------
    >>> from streams.order import Record
    >>> from streams.settings import Settings
    >>> gate = Gate(Settings().event_topics())
    >>> value = b'{"event_id": "e1", "timestamp": 5, "user": "u1", "item": "i1"}'
    >>> gate.decode_one(Record("everlearn.clicks", 0, 7, 5000, b"u1", value)).item
    'i1'
    >>> gate.decode_one(Record("everlearn.clicks", 0, 8, 5000, b"u1", b"{")).reason
    'malformed_json'
    """

    def __init__(
        self, topics: Mapping[str, TopicSettings], now: Callable[[], float] = time.time
    ) -> None:
        self.topics = dict(topics)
        self._now = now
        self._carried = {
            name: ACTS.get(topic.type or "", NO_ACT)
            for name, topic in self.topics.items()
            if not topic.mapped
        }
        self._decoders = {
            name: msgspec.json.Decoder(AnyEvent if topic.type == "mixed" else _event_type(topic))
            for name, topic in self.topics.items()
            if not topic.mapped
        }
        self._mapped = {
            name: MappedReader(topic) for name, topic in self.topics.items() if topic.mapped
        }

    def decode_one(self, record: KafkaRecord) -> Event | Rejected:
        """Decode a record: an event, or why it is none."""
        return self._decode_one(record, self._now())

    def decode(
        self, records: Sequence[KafkaRecord], watermarks: Mapping[str, float] | None = None
    ) -> tuple[Batch, list[Rejected]]:
        """Decode records into the columns to learn and the rejections to publish.

        Parameters
        ----------
        records
            In the order in which they are learnt; those of a partition by rising offset.
        watermarks
            Running maximum of record times before these records, by partition label.

        Returns
        -------
        tuple
            The batch, whose `rejected` counts every reason, and the dead letters: the rejected
            records but for those that the settings ignore.
        """
        now = self._now()
        columns, scanned = columns_of(records), make_scanned(len(records))
        carried = [self._carried.get(topic, NO_ACT) for topic, _ in columns.parts]
        expected = np.array(carried, np.uint8)[columns.log]
        scan(columns.data, columns.start, columns.stop, expected, columns.times, now, scanned)
        left = np.flatnonzero(~scanned.sound).tolist()
        outcomes = self._outcomes([records[place] for place in left], now)
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
        others = {
            place: None if isinstance(outcome, Rejected) else outcome
            for place, outcome in zip(left, outcomes, strict=True)
        }
        reasons = Counter(r.reason for r in rejected)
        batch = batch_of(columns, scanned, others, watermarks or {}, reasons)
        return batch, [r for r in rejected if r.reason != "ignored"]

    def _outcomes(self, records: Sequence[KafkaRecord], now: float) -> list[Event | Rejected]:
        groups: dict[str, list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            groups[record.topic].append(place)
        outcomes: list[Event | Rejected] = [cast(Event, None)] * len(records)
        for topic, places in groups.items():
            group = [records[place] for place in places]
            found: Sequence[Event | Rejected] | None = self._all_sound(topic, group, now)
            if found is None:
                found = [self._decode_one(record, now) for record in group]
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
        return outcomes

    def _all_sound(
        self, topic: str, records: Sequence[KafkaRecord], now: float
    ) -> Sequence[Event] | None:
        """Decode records that pass every bound at a glance, or say nothing about any of them."""
        decoder = self._decoders.get(topic)
        values = [record.value for record in records]
        if decoder is None or not all(values):
            return None
        sizes = list(map(len, cast("list[bytes]", values)))
        if max(sizes) > MAX_BYTES or sum(sizes) > MAX_JOINED_BYTES:
            return None
        joined = b"\n".join(cast("list[bytes]", values))
        if not _plain(joined, cast("list[bytes]", values)):
            return None
        try:
            events = decoder.decode_lines(joined)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        # No value holds a line feed, so as many events as lines means one event for each.
        if len(events) != len(records) or not _timely(events, records, now):
            return None
        return cast("Sequence[Event]", events)

    def _decode_one(self, record: KafkaRecord, now: float) -> Event | Rejected:
        try:
            return self._read(record, now)
        except Unreadable as error:
            reason, detail = error.reason, error.detail
        except UnicodeDecodeError as error:
            reason, detail = "invalid_utf8", str(error)
        except msgspec.ValidationError as error:
            reason, detail = _invalid(str(error)), of_bad_json(str(error), record.value)
        except msgspec.DecodeError as error:
            reason = "malformed_json" if _is_utf8(record.value or b"") else "invalid_utf8"
            detail = of_bad_json(str(error), record.value)
        except Exception as error:  # a message must not be able to stop a node
            reason, detail = "undecodable", repr(error)
        return Rejected(reason, detail[:MAX_DETAIL], record)

    def _read(self, record: KafkaRecord, now: float) -> Event:
        topic = self.topics.get(record.topic)
        if topic is None:
            raise Unreadable("unknown_topic", f"no settings say what {record.topic!r} carries")
        value = record.value
        if value is None:
            return _deletion(record, topic)
        _check_size(value)
        mapped = self._mapped.get(record.topic)
        event = mapped(record) if mapped else self._decoders[record.topic].decode(value)
        if not value.isascii() or b"\\u" in value or not (record.key or b"").isascii():
            _check_ids(event)
        _check_time(event.timestamp, record, now, topic)
        return event


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _event_type(topic: TopicSettings) -> type[Event]:
    return EVENT_TYPES[cast(str, topic.type)]


def _plain(joined: bytes, values: Sequence[bytes]) -> bool:
    """Whether every text is ASCII (bytes are characters) and no value can be nested too deep."""
    if joined.count(b"\n") >= len(values) or not joined.isascii():
        return False
    if b"\\" in joined and b"\\u" in joined:  # one byte is looked for 20 times as fast as two
        return False
    brackets = joined.count(b"{") + joined.count(b"[")
    if brackets < len(values) + MAX_DEPTH:  # each value has one, so none has more than MAX_DEPTH
        return True
    return all(value.count(b"{") + value.count(b"[") <= MAX_DEPTH for value in values)


def _timely(events: Sequence[Event], records: Sequence[KafkaRecord], now: float) -> bool:
    n = len(records)
    stamps = np.fromiter([event.timestamp for event in events], np.float64, n)
    times = np.fromiter([record.timestamp for record in records], np.float64, n) / 1000
    latest = np.where(times >= 0, np.minimum(times, now), now) + MAX_AHEAD_SECONDS
    return bool((stamps <= latest).all())


def _check_size(value: bytes) -> None:
    if not value:
        raise Unreadable("empty", "the message has no bytes")
    if len(value) > MAX_BYTES:
        raise Unreadable("too_large", f"{len(value)} bytes, {MAX_BYTES} are allowed")
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Unreadable("too_deep", f"nested {_depth(value)} levels, {MAX_DEPTH} are allowed")


def _depth(value: bytes) -> int:
    """Levels of nesting, found without decoding: brackets outside of strings."""
    bare = np.frombuffer(STRINGS.sub(b"", value), np.uint8)
    opening = ((bare == ord("{")) | (bare == ord("["))).astype(np.int64)
    closing = (bare == ord("}")) | (bare == ord("]"))
    return int(np.cumsum(opening - closing).max(initial=0))


def _check_ids(event: Event) -> None:
    for name, text in _ids(event):
        size = len(text.encode())
        if size > MAX_ID_BYTES:
            raise Unreadable("id_too_long", f"{name}: {size} bytes, {MAX_ID_BYTES} are allowed")


def _ids(event: Event) -> Iterator[tuple[str, str]]:
    for name in ID_FIELDS:
        text = getattr(event, name, None)
        if text is not None:
            yield name, text
    if isinstance(event, Impression):
        yield from (("items", item) for item in event.items)
        yield from (("explored", item) for item in event.explored or ())


def _check_time(seconds: float, record: KafkaRecord, now: float, topic: TopicSettings) -> None:
    known = min(record.timestamp / 1000, now) if record.timestamp >= 0 else now
    latest = known + MAX_AHEAD_SECONDS
    if not seconds <= latest:
        raise Unreadable(
            "future_timestamp",
            f"timestamp {seconds:.15g} is {round(seconds - known):.15g} seconds ahead, "
            f"{MAX_AHEAD_SECONDS:.0f} are allowed{_in_other_unit(seconds, latest, topic)}",
        )
    if topic.mapped and seconds < EARLIEST:
        day = datetime.fromtimestamp(seconds, UTC).date()
        hint = _in_other_unit(seconds, latest, topic)
        raise Unreadable("bad_field", f"timestamp is of {day}, before 1990{hint}")


def _in_other_unit(seconds: float, latest: float, topic: TopicSettings) -> str:
    """Name the unit in which a time would be plausible, if there is one."""
    unit = topic.timestamp_unit or "s"
    if unit == "iso":
        return ""
    number = seconds * UNITS[unit]
    for other, parts in UNITS.items():
        if EARLIEST <= number / parts <= latest:
            cure = f"set timestamp_unit = {other!r} for" if topic.mapped else "seconds are meant in"
            return f"; {number:.15g} looks like {UNIT_NAMES[other]}: {cure} {topic.name!r}"
    return ""


def _deletion(record: KafkaRecord, topic: TopicSettings) -> Item:
    if topic.type != "item" or not record.key:
        raise Unreadable("tombstone", "no value; only a key of the catalogue can be deleted so")
    place = f"{label(record.topic, record.partition)}/{record.offset}"
    seconds = max(record.timestamp, 0) / 1000
    deletion = Item(event_id=place, timestamp=seconds, item=record.key.decode(), deleted=True)
    _check_ids(deletion)
    return deletion


def _invalid(message: str) -> str:
    if "`$.type`" in message or "`type`" in message:
        return "unknown_type"
    return "id_too_long" if f"`str` of length <= {MAX_ID_BYTES}" in message else "bad_field"

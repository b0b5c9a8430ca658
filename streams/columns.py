"""Records and events as columns: what the gate reads, and what the engine learns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from learners.base import KINDS, Batch, CatalogueEntry
from learners.store.texts import Texts
from streams.events import EVENT_TYPES, Event, Impression, Item, Purchase
from streams.order import KafkaRecord, TopicPart, label, time_of
from streams.scan import Scanned

__all__ = ["Columns", "batch_of", "columns_of"]

KIND_OF = {EVENT_TYPES[name]: code for code, name in enumerate(KINDS)}
TEXTS = ("user", "item", "session")  # of an event, as the rows of `Scanned.start`

_part_of = attrgetter("topic", "partition")


class Columns(NamedTuple):
    """Records in the order in which they are learnt; those of a partition by rising offset."""

    parts: list[TopicPart]  # each once
    log: NDArray[np.int32]  # (n,) place in `parts`
    times: NDArray[np.float64]  # (n,) record times, seconds UTC
    data: NDArray[np.uint8]  # all values, one after the other; nothing for one that is absent
    start: NDArray[np.int64]  # (n,) where each value begins in `data`
    stop: NDArray[np.int64]  # (n,)
    next_offsets: list[int]  # by place in `parts`


def columns_of(records: Sequence[KafkaRecord]) -> Columns:
    """Return records as columns."""
    n = len(records)
    named = list(map(_part_of, records))
    number = {part: place for place, part in enumerate(dict.fromkeys(named))}
    log = np.fromiter(map(number.__getitem__, named), np.int32, n)
    last = np.zeros(len(number), np.int64)
    last[log] = np.arange(n)
    values = [record.value or b"" for record in records]
    stop = np.cumsum(np.fromiter(map(len, values), np.int64, n))
    return Columns(
        parts=list(number),
        log=log,
        times=np.fromiter(map(time_of, records), np.float64, n) / 1000,
        data=np.frombuffer(b"".join(values), np.uint8),
        start=np.concatenate([[0], stop])[:-1],
        stop=stop,
        next_offsets=[records[place].offset + 1 for place in last.tolist()],
    )


def batch_of(
    columns: Columns,
    scanned: Scanned,
    others: Mapping[int, Event | None],
    watermarks: Mapping[str, float],
    rejected: Mapping[str, int],
) -> Batch:
    """Return the batch of some records.

    Parameters
    ----------
    columns
        The records.
    scanned
        What the kernel read of them; it is completed with the other events.
    others
        The event of each record, by place, that the kernel left alone; `None` where it is rejected.
    watermarks
        Running maximum of record times before these records (seconds), by partition label.
    rejected
        How many records are rejected, by reason.
    """
    good = {place: event for place, event in others.items() if event is not None}
    data = _complete(scanned, columns.data, good) if good else columns.data
    kept = slice(None) if len(good) == len(others) else np.flatnonzero(scanned.sound)
    logs = [label(*part) for part in columns.parts]
    user, item, session = (
        Texts(data, start[kept], stop[kept])
        for start, stop in zip(scanned.start, scanned.stop, strict=True)
    )
    return Batch(
        kind=scanned.kind[kept],
        user=user,
        item=item,
        session=session,
        timestamp=scanned.timestamp[kept],
        event_hash=scanned.event_hash[kept],
        value=scanned.value[kept],
        log=columns.log[kept],
        logs=logs,
        catalogue={
            int(np.count_nonzero(scanned.sound[:place])): _entry(event)
            for place, event in good.items()
            if isinstance(event, Item)
        },
        positions=dict(zip(logs, columns.next_offsets, strict=True)),
        watermarks=_watermarks(columns, logs, watermarks),
        rejected=dict(rejected),
        explored={
            int(np.count_nonzero(scanned.sound[:place])): explored
            for place, event in good.items()
            if isinstance(event, Impression) and event.explored and (explored := _explored(event))
        },
    )


def _complete(
    scanned: Scanned, data: NDArray[np.uint8], events: Mapping[int, Event]
) -> NDArray[np.uint8]:
    """Enter events that came as objects; return the buffer with their texts behind the others'."""
    places = list(events)
    # Impressions name the session they were shown in; only clicks and purchases are learnt from.
    names = [getattr(event, name, None) or "" for event in events.values() for name in TEXTS]
    texts = Texts.of(names)
    scanned.start[:, places] = (texts.start + len(data)).reshape(-1, len(TEXTS)).T
    scanned.stop[:, places] = (texts.stop + len(data)).reshape(-1, len(TEXTS)).T
    scanned.kind[places] = [KIND_OF[type(event)] for event in events.values()]
    scanned.timestamp[places] = [event.timestamp for event in events.values()]
    hashes = [xxh3_64_intdigest(event.event_id.encode()) for event in events.values()]
    scanned.event_hash[places] = np.array(hashes, np.uint64)
    scanned.value[places] = [_value(event) for event in events.values()]
    scanned.sound[places] = True
    return np.concatenate([data, texts.data])


def _explored(shown: Impression) -> list[str]:
    """Return the items of an impression that it says it explored."""
    explored = shown.explored or {}
    return [item for item in dict.fromkeys(shown.items) if item in explored]


def _value(event: Event) -> float:
    """Price x quantity of a purchase, NaN where no price is told; 0 of other events."""
    if not isinstance(event, Purchase):
        return 0.0
    return math.nan if event.price is None else event.price * event.quantity


def _entry(item: Item) -> CatalogueEntry:
    return CatalogueEntry(
        category=item.category,
        price=item.price,
        title=item.title,
        created=item.created,
        available=item.available,
        deleted=item.deleted,
    )


def _watermarks(
    columns: Columns, logs: Sequence[str], before: Mapping[str, float]
) -> dict[str, float]:
    """Running maximum of record times (seconds) after these records, by partition label."""
    after = np.array([before.get(name, -np.inf) for name in logs])
    np.maximum.at(after, columns.log, columns.times)
    return dict(zip(logs, after.tolist(), strict=True))

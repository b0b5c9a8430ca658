"""Events as the columns that the engine learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from learners.base import ITEM, KINDS, PURCHASE, Batch, CatalogueEntry
from streams.events import EVENT_TYPES, Click, Event, Item
from streams.order import KafkaRecord, label

__all__ = ["batch_of"]

KIND_OF = {EVENT_TYPES[name]: code for code, name in enumerate(KINDS)}


def batch_of(
    records: Sequence[KafkaRecord],
    events: Sequence[Event | None],
    watermarks: Mapping[str, float],
    rejected: Mapping[str, int],
) -> Batch:
    """Return the batch of some records.

    Parameters
    ----------
    records
        In the order in which they are learnt; those of a partition by rising offset.
    events
        The event of each record, `None` where it is rejected.
    watermarks
        Running maximum of record times before these records (seconds), by partition label.
    rejected
        How many records are rejected, by reason.
    """
    parts = [(record.topic, record.partition) for record in records]
    number = {part: index for index, part in enumerate(dict.fromkeys(parts))}
    log = np.fromiter([number[part] for part in parts], np.int32, len(parts))
    logs = [label(*part) for part in number]
    offsets = dict(zip(parts, [record.offset for record in records], strict=True))
    good = [event for event in events if event is not None]
    n = len(good)
    kind = np.fromiter([KIND_OF[type(event)] for event in good], np.uint8, n)
    user, item, session = _texts(good, kind)
    return Batch(
        kind=kind,
        user=user,
        item=item,
        session=session,
        timestamp=np.fromiter([event.timestamp for event in good], np.float64, n),
        event_hash=_hashes(good),
        log=log if n == len(log) else log[[event is not None for event in events]],
        logs=logs,
        catalogue={int(i): _entry(cast(Item, good[i])) for i in np.flatnonzero(kind == ITEM)},
        positions={label(*part): offset + 1 for part, offset in offsets.items()},
        watermarks=_watermarks(records, log, logs, watermarks),
        rejected=dict(rejected),
    )


def _texts(
    events: Sequence[Event], kind: NDArray[np.uint8]
) -> tuple[list[str], list[str], list[str]]:
    if kind.max(initial=0) <= PURCHASE:
        acts = cast("Sequence[Click]", events)
        return (
            [act.user for act in acts],
            [act.item for act in acts],
            [act.session or "" for act in acts],
        )
    # Impressions name the session they were shown in; only clicks and purchases are learnt from.
    return (
        [getattr(event, "user", "") for event in events],
        [getattr(event, "item", "") for event in events],
        [getattr(event, "session", None) or "" for event in events],
    )


def _hashes(events: Sequence[Event]) -> NDArray[np.uint64]:
    ids = [event.event_id.encode() for event in events]
    return np.fromiter(map(xxh3_64_intdigest, ids), np.uint64, len(ids))


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
    records: Sequence[KafkaRecord],
    log: NDArray[np.int32],
    logs: Sequence[str],
    before: Mapping[str, float],
) -> dict[str, float]:
    """Running maximum of record times (seconds) after these records, by partition label."""
    times = np.fromiter([record.timestamp for record in records], np.float64, len(records)) / 1000
    after = np.array([before.get(name, -np.inf) for name in logs])
    np.maximum.at(after, log, times)
    return dict(zip(logs, after.tolist(), strict=True))

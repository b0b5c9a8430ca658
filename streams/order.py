"""The one order in which events of all topics and partitions are learnt.

It is the order of (running maximum of the partition's record times, topic, partition, offset), so a
recorded log has one order, whatever each fetch returned and however often its reader was stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["KafkaRecord", "MergeBuffer", "Record", "TopicPart", "label", "merge_order", "time_of"]

BEFORE_ALL = np.iinfo(np.int64).min

TopicPart = tuple[str, int]


class KafkaRecord(Protocol):
    """What the order and the decoder read of a record; aiokafka's records fit as they are."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Record(NamedTuple):
    """A Kafka record from a file or a test; `timestamp` is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


R = TypeVar("R", bound=KafkaRecord)

time_of = attrgetter("timestamp")  # milliseconds


def label(topic: str, partition: int) -> str:
    """Name a partition as positions, watermarks and ledgers do.

    >>> label("everlearn.clicks", 0)
    'everlearn.clicks/0'
    """
    return f"{topic}/{partition}"


def running_times(records: Sequence[KafkaRecord], start: int) -> NDArray[np.int64]:
    """Running maximum of record times in milliseconds, never below `start`; (n,)."""
    times = np.fromiter(map(time_of, records), np.int64, len(records))
    return np.maximum(np.maximum.accumulate(times), start)


def merge_order(records: Iterable[R], watermarks: Mapping[str, float] | None = None) -> list[R]:
    """Put records into the one order.

    Parameters
    ----------
    records
        Records of any partitions; those of one partition in the order of their offsets.
    watermarks
        Running maximum of record times (seconds) before these records, by partition label; take
        `Engine.watermarks` to go on where a checkpoint stands.

    Examples
    --------
    >>> late, early = Record("a", 0, 0, 9, None, b""), Record("b", 0, 0, 5, None, b"")
    >>> held_up = Record("a", 0, 1, 3, None, b"")  # its partition has already reached 9
    >>> [(r.topic, r.offset) for r in merge_order([late, held_up, early])]
    [('b', 0), ('a', 0), ('a', 1)]
    """
    buffer = MergeBuffer[R](watermarks or {})
    parts: defaultdict[TopicPart, list[R]] = defaultdict(list)
    for record in records:
        parts[record.topic, record.partition].append(record)
    for part, its_records in parts.items():
        buffer.add(part, its_records)
    return buffer.release(())


class MergeBuffer(Generic[R]):
    """Fetched records, held back until no partition can still give an earlier one.

    Parameters
    ----------
    watermarks
        Running maximum of record times (seconds) already learnt, by partition label.
    """

    def __init__(self, watermarks: Mapping[str, float]) -> None:
        self.watermarks = watermarks
        self.last_times: dict[TopicPart, int] = {}
        self.held: dict[TopicPart, tuple[list[R], NDArray[np.int64]]] = {}

    def add(self, part: TopicPart, records: Sequence[R]) -> None:
        """Take records of one partition, fetched after those given before."""
        if not records:
            return
        times = running_times(records, self.last_time(part))
        self.last_times[part] = int(times[-1])
        if part in self.held:
            old_records, old_times = self.held[part]
            self.held[part] = ([*old_records, *records], np.concatenate([old_times, times]))
        else:
            self.held[part] = (list(records), times)

    def release(self, more: Collection[TopicPart]) -> list[R]:
        """Take out, in order, what nothing from the partitions in `more` can precede."""
        if not self.held:
            return []
        bound = min(((self.last_time(part), part) for part in more), default=None)
        taken: list[tuple[list[R], NDArray[np.int64]]] = []
        for part in sorted(self.held):
            records, times = self.held[part]
            n = len(records) if bound is None else cut(times, part, bound)
            if n == len(records):
                taken.append(self.held.pop(part))
            elif n:
                taken.append((records[:n], times[:n]))
                self.held[part] = (records[n:], times[n:])
        return interleave(taken)

    def last_time(self, part: TopicPart) -> int:
        """Return the running maximum of the partition's record times so far, in milliseconds."""
        if part in self.last_times:
            return self.last_times[part]
        seconds = self.watermarks.get(label(*part))
        return int(BEFORE_ALL) if seconds is None else round(seconds * 1000)

    def n_held(self, part: TopicPart) -> int:
        """Count the partition's records that are held back."""
        return len(self.held[part][0]) if part in self.held else 0

    def __len__(self) -> int:
        return sum(len(records) for records, _ in self.held.values())


def cut(times: NDArray[np.int64], part: TopicPart, bound: tuple[int, TopicPart]) -> int:
    """Count the partition's records that come before anything still to come from the bound's."""
    time, bound_part = bound
    return int(np.searchsorted(times, time, side="right" if part <= bound_part else "left"))


def interleave(parts: Sequence[tuple[list[R], NDArray[np.int64]]]) -> list[R]:
    """Merge partitions, given in the order of their names and each in its own order, by time."""
    if not parts:
        return []
    if len(parts) == 1:
        return parts[0][0]
    # A stable sort keeps the order (topic, partition, offset) among equal times.
    order = np.argsort(np.concatenate([times for _, times in parts]), kind="stable")
    records = list(chain.from_iterable(its_records for its_records, _ in parts))
    return list(itemgetter(*order.tolist())(records))

"""What a replay reads: recorded logs, data sets and JSON lines, as batches in one order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from learners.base import Batch, EngineConfig
from streams.datasets import Dataset
from streams.decode import Gate, Rejected
from streams.lines import LINES_TOPIC
from streams.log import in_order, records_of
from streams.order import label
from streams.settings import TopicSettings

__all__ = ["DatasetSource", "LinesSource", "RecordSource", "ReplaySource"]

BATCH = 4096
EDGE_ROWS = 4096
LINES_LABEL = label(LINES_TOPIC, 0)


class ReplaySource(Protocol):
    """Events in one order: `len` of them, rejected ones included."""

    @property
    def engine(self) -> EngineConfig:
        """How these events are learnt."""

    @property
    def first_rejected(self) -> str:
        """Where the first record stood that is no event, and why it is none; empty for none."""

    @property
    def label(self) -> str:
        """The log whose positions count the rows of one file; empty where a broker counts."""

    def digest(self, position: int) -> str:
        """Tell the rows before a position from those of another file."""

    def __len__(self) -> int: ...

    def held(self, positions: Mapping[str, int]) -> int:
        """Count the events before `positions`, which are learnt already."""

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        """Yield the first `stop_at` events in batches, without those before `positions`."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A data set, straight from its columns."""

    dataset: Dataset
    engine: EngineConfig
    first_rejected: str = ""  # its rows have no lines or offsets to be found by

    def __len__(self) -> int:
        return len(self.dataset)

    def held(self, positions: Mapping[str, int]) -> int:
        return positions.get(self.dataset.label, 0)

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        return self.dataset.batches(self.held(positions), stop_at, BATCH)

    @property
    def label(self) -> str:
        return self.dataset.label

    def digest(self, position: int) -> str:
        """Digest the first and the last of these rows: all of them would take minutes."""
        rows = self.dataset.frame.head(position)
        edges = pl.concat([rows.head(EDGE_ROWS), rows.tail(EDGE_ROWS)])
        return sha256(repr((rows.height, edges.rows())).encode()).hexdigest()


class RecordSource:
    """Kafka records in their order, decoded by the gate that a node has."""

    label = ""

    def __init__(
        self,
        log: pl.DataFrame,
        topics: Mapping[str, TopicSettings],
        engine: EngineConfig,
        now: float,
    ) -> None:
        self.engine = engine
        self.first_rejected = ""
        self.log, self.watermarks = in_order(log)
        self.gate = Gate(topics, lambda: now)
        labels = self.log.select(pl.format("{}/{}", "topic", "partition")).to_series()
        self.labels = labels.cast(pl.Categorical)

    def __len__(self) -> int:
        return self.log.height

    def digest(self, position: int) -> str:
        return ""  # offsets are the broker's: any recording of it goes on from them

    def _is_held(self, positions: Mapping[str, int]) -> NDArray[np.bool_]:
        known = self.labels.cast(pl.String).replace_strict(dict(positions), default=0)
        return (self.log["offset"] < known.cast(pl.Int64)).to_numpy()

    def held(self, positions: Mapping[str, int]) -> int:
        return int(np.count_nonzero(self._is_held(positions)))

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        places = np.flatnonzero(~self._is_held(positions)[:stop_at])
        for start in range(0, len(places), BATCH):
            chosen = places[start : start + BATCH]
            batch, rejected = self.gate.decode(records_of(self.log[chosen]))
            if rejected and not self.first_rejected:
                self.first_rejected = _told(rejected[0])
            labels = self.labels[chosen].to_list()
            yield replace(
                batch, watermarks=dict(zip(labels, self.watermarks[chosen].tolist(), strict=True))
            )


class LinesSource(RecordSource):
    """JSON lines, completed: their positions are line numbers of one file."""

    label = LINES_LABEL

    def digest(self, position: int) -> str:
        before = self.log.filter(pl.col("offset") < position)
        return sha256(repr(before.select("offset", "value").rows()).encode()).hexdigest()


def _told(rejected: Rejected) -> str:
    """Say where a rejected record stood, and why it is no event."""
    record = rejected.record
    place = ""
    if record is not None and record.topic == LINES_TOPIC:
        place = f"line {record.offset + 1}: "
    elif record is not None:
        place = f"{label(record.topic, record.partition)} at {record.offset}: "
    return f"{place}{rejected.reason}: {rejected.detail}"

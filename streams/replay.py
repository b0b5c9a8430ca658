"""Replay: the same engine, driven from a recorded log, a data set, JSON lines or a broker's topics.

Whatever the source, its events have one order, a replay learns them in it, and a replay that goes
on from a checkpoint in the middle ends with the same fingerprint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from learners.base import Batch, EngineConfig
from learners.checkpoint import CheckpointStore
from learners.engine import Engine
from learners.errors import DataError, SettingsError
from learners.warmup import warm_up
from streams.datasets import Dataset, load_dataset
from streams.decode import Gate
from streams.lines import LINES_TOPIC, read_lines
from streams.log import LogAbout, frame_of, in_order, read_log, records_of
from streams.record import TopicReader
from streams.settings import Settings, TopicSettings, load_settings

__all__ = ["ReplayResult", "ReplaySource", "open_source", "replay_log"]

BATCH = 4096
KAFKA = "kafka://"
LINES_ENDINGS = (".jsonl", ".ndjson")

Progress = Callable[[int, int, Engine], None]  # events passed, events in all


class ReplaySource(Protocol):
    """Events in one order: `len` of them, rejected ones included."""

    @property
    def engine(self) -> EngineConfig:
        """How these events are learnt."""

    def __len__(self) -> int: ...

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        """Yield the first `stop_at` events in batches, without those before `positions`."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A data set, straight from its columns."""

    dataset: Dataset
    engine: EngineConfig

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        start = positions.get(self.dataset.label, 0)
        return self.dataset.batches(start, stop_at, BATCH)


class RecordSource:
    """Kafka records in their order, decoded by the gate that a node has."""

    def __init__(
        self,
        log: pl.DataFrame,
        topics: Mapping[str, TopicSettings],
        engine: EngineConfig,
        now: float,
    ) -> None:
        self.engine = engine
        self.log, self.watermarks = in_order(log)
        self.gate = Gate(topics, lambda: now)
        labels = self.log.select(pl.format("{}/{}", "topic", "partition")).to_series()
        self.labels = labels.cast(pl.Categorical)

    def __len__(self) -> int:
        return self.log.height

    def batches(self, positions: Mapping[str, int], stop_at: int) -> Iterator[Batch]:
        known = self.labels.cast(pl.String).replace_strict(dict(positions), default=0)
        fresh = (self.log["offset"] >= known.cast(pl.Int64))[:stop_at]
        places = np.flatnonzero(fresh.to_numpy())
        for start in range(0, len(places), BATCH):
            chosen = places[start : start + BATCH]
            batch, _ = self.gate.decode(records_of(self.log[chosen]))
            labels = self.labels[chosen].to_list()
            yield replace(
                batch, watermarks=dict(zip(labels, self.watermarks[chosen].tolist(), strict=True))
            )


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came out of a replay.

    Attributes
    ----------
    engine : Engine
        The engine, as a node that learnt this log would hold it.
    report : dict
        Counts, fingerprint, microseconds an event, prequential figures, alarms.
    """

    engine: Engine
    report: dict[str, Any]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Prequential figures of all targets by source: `metrics["blend"]["hr@20"]`."""
        metrics: dict[str, dict[str, float]] = self.report["metrics"]
        return metrics

    @property
    def fingerprint(self) -> str:
        """Digest of the learnt state: equal for equal logs and settings."""
        return str(self.report["fingerprint"])

    def hit_rate(self, k: int = 20, source: str = "blend") -> float:
        """Share of targets that stood among the first k when their turn came."""
        figures = self.metrics.get(source)
        if figures is None:
            raise SettingsError(f"no source {source!r}; there are {', '.join(self.metrics)}")
        if f"hr@{k}" not in figures:
            known = ", ".join(name for name in figures if name.startswith("hr@"))
            raise SettingsError(f"the hit rate at {k} is not measured; there are {known}")
        return figures[f"hr@{k}"]

    def recommend(self, user: str, k: int = 10) -> list[str]:
        """The k items that the user is shown after the last event, best first."""
        return [answer.item for answer in self.engine.recommend(user, k=k)]


def replay_log(
    path: str | Path,
    *,
    dataset: str | None = None,
    settings: Settings | str | Path | None = None,
    stop_at: int | None = None,
    sample: int | None = None,
    checkpoint: Path | None = None,
    progress: Progress = lambda passed, total, engine: None,
) -> ReplayResult:
    """Drive a fresh engine from a log, and say how well it foresaw each event.

    Parameters
    ----------
    path
        A recorded log, JSON lines (`.jsonl`, or `-` for standard input), `kafka://host:port`, or,
        with `dataset`, the file of a data set.
    dataset
        Name of a data set (`streams.datasets`).
    settings
        The settings, or the file that holds them; a recorded log brings those of its engine.
    stop_at
        Stop after so many events, counted from the start of the log.
    sample
        Evaluate one event in so many, chosen by hash; default: all, but for recorded logs and
        topics what their node does.
    checkpoint
        Folder to go on from, when it holds a checkpoint, and to leave one in at the end.

    Raises
    ------
    DataError, SettingsError, BrokerError, TopicError, CheckpointError
        When a part of this cannot be read.
    """
    if not isinstance(settings, Settings):
        settings = load_settings(settings)
    source = open_source(path, dataset, settings)
    config = source.engine if sample is None else replace(source.engine, evaluate_one_in=sample)
    engine = Engine(config)
    store = CheckpointStore(checkpoint, settings.checkpoint_keep) if checkpoint else None
    if store is not None and store.load(engine) is None and store.problems:
        raise DataError("; ".join(store.problems) + f"; empty {checkpoint} to begin anew")
    warm_up()  # so that the time per event is not that of compiling
    learnt, seconds = _learn(engine, source, stop_at, progress)
    if store is not None:
        store.write(store.capture(engine))
    return ReplayResult(engine, _report(engine, learnt, seconds))


def open_source(path: str | Path, dataset: str | None, settings: Settings) -> ReplaySource:
    """Find out what a path is and open it; `engine` of the source says how to learn it."""
    name = str(path)
    everything = replace(settings.engine, evaluate_one_in=1)
    if dataset is not None:
        return DatasetSource(load_dataset(dataset, path), everything)
    if name.startswith(KAFKA):
        there = settings.model_copy(update={"broker": name.removeprefix(KAFKA).rstrip("/")})
        with closing(TopicReader(there)) as reader:
            frames = [frame_of([]), *reader.frames()]
        return RecordSource(
            pl.concat(frames), settings.event_topics(), settings.engine, time.time()
        )
    if name == "-" or name.endswith(LINES_ENDINGS):
        topics = {LINES_TOPIC: TopicSettings(name=LINES_TOPIC, type="mixed")}
        return RecordSource(frame_of(read_lines(path)), topics, everything, time.time())
    log, about = read_log(Path(path))
    return RecordSource(log, about.topics, _engine_of(about, settings), about.recorded_at)


def _engine_of(about: LogAbout, settings: Settings) -> EngineConfig:
    """Take the recording's engine, but for what a flag, a variable or a file sets now."""
    set_now = {
        name.removeprefix("engine."): getattr(settings.engine, name.removeprefix("engine."))
        for name, origin in settings.origins().items()
        if name.startswith("engine.") and origin != "default"
    }
    return replace(about.engine, **set_now)


def _learn(
    engine: Engine, source: ReplaySource, stop_at: int | None, progress: Progress
) -> tuple[int, float]:
    """Learn what the engine has not learnt yet; the number of events and the seconds it took."""
    total = len(source) if stop_at is None else min(stop_at, len(source))
    learnt, passed, seconds, start = 0, 0, 0.0, time.perf_counter()
    for batch in source.batches(dict(engine.positions), total):
        learnt += engine.learn(batch)
        passed += len(batch) + sum(batch.rejected.values())
        seconds = time.perf_counter() - start
        progress(passed, total, engine)
    return learnt, seconds


def _report(engine: Engine, learnt: int, seconds: float) -> dict[str, Any]:
    report = engine.report()
    each = round(1e6 * seconds / learnt, 2) if learnt else 0.0
    return {
        "events": report["events"],
        "rejected": report["rejected"],
        "fingerprint": engine.fingerprint(),
        "microseconds_per_event": each,
        **{name: value for name, value in report.items() if name not in ("events", "rejected")},
    }

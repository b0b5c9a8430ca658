"""Replay: the same engine, driven from a recorded log, a data set, JSON lines or a broker's topics.

Whatever the source, its events have one order, a replay learns them in it, and a replay that goes
on from a checkpoint in the middle ends with the same fingerprint.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from learners.base import EngineConfig
from learners.checkpoint import Capture, CheckpointStore, hold_folder
from learners.engine import Engine
from learners.errors import DataError, SettingsError
from streams.datasets import load_dataset
from streams.lines import LINES_TOPIC, read_lines
from streams.log import LogAbout, frame_of, read_log
from streams.record import TopicReader
from streams.replay_deep import DeepReplay, deep_replay
from streams.replay_sources import DatasetSource, LinesSource, RecordSource, ReplaySource
from streams.settings import Settings, TopicSettings, load_settings
from streams.targets import check_deep
from streams.warmup import warm_up
from streams.words import counted

__all__ = ["ReplayResult", "ReplaySource", "open_source", "replay_log"]

KAFKA = "kafka://"
ADDRESSES = re.compile(r"[^\s:/,]+:\d+(,[^\s:/,]+:\d+)*")
LINES_ENDINGS = (".jsonl", ".ndjson")
OTHER_FOLDER = "name another folder with --checkpoint"
LOGS = "logs"  # in a manifest: the files whose rows its positions count

Progress = Callable[[int, int, Engine], None]  # events passed, events in all


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came out of a replay.

    Attributes
    ----------
    engine : Engine
        The engine, as a node that learnt this log would hold it.
    report : dict
        Counts, fingerprint, microseconds an event, prequential figures, alarms.
    stopped : bool
        Whether it was told to stop before the end of the log.
    """

    engine: Engine
    report: dict[str, Any]
    stopped: bool = False

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
    deep: bool = False,
    snapshots: Path | None = None,
    progress: Progress = lambda passed, total, engine: None,
    tell: Callable[[str], None] = lambda text: None,
    stopping: AbstractContextManager[threading.Event] | None = None,
) -> ReplayResult:
    """Drive a fresh engine from a log, and say how well it foresaw each event.

    Parameters
    ----------
    path
        A recorded log, JSON lines (`.jsonl`, or `-` for standard input), `kafka://host:port`, or,
        with `dataset`, the file of a data set (`streams.datasets`).
    settings
        The settings, or the file that holds them; a recorded log brings those of its engine.
    stop_at
        Stop after so many events, counted from the start of the log.
    sample
        Evaluate one event in so many, chosen by hash; default: all, but for recorded logs and
        topics what their node does.
    checkpoint
        Folder to go on from, when it holds a checkpoint, and to leave one in; nobody else's. JSON
        lines or a data set must begin with the rows that were learnt into it.
    deep, snapshots
        Train, judge and serve a deep model on the way, as a trainer does, and leave its snapshots
        in that folder, with no `checkpoint`. Not `deep`: the folder's champion answers.
    progress, tell
        Called after each batch with the events passed, those in all, and the engine; called with
        what a person who waits should know.
    stopping
        Entered while it learns; it ends after the batch in which the event that is lent is set.

    Raises
    ------
    EverlearnError
        When a part of this cannot be read, or nothing in it is an event.
    """
    check_deep(deep, checkpoint, snapshots)
    settings = settings if isinstance(settings, Settings) else load_settings(settings)
    with ExitStack() as stack:
        store = stack.enter_context(_store(checkpoint, settings))
        source = open_source(path, dataset, settings)
        engine = Engine(replace(source.engine, evaluate_one_in=sample) if sample else source.engine)
        learnt_from = _resume(engine, store, source, path, stop_at) if store is not None else {}
        _load(tell)
        trained = stack.enter_context(deep_replay(engine, settings, snapshots, deep, tell))
        with stopping or nullcontext(threading.Event()) as stop:
            run = _learn(engine, source, stop_at, progress, stop, trained)
        _refuse_nothing(engine, source, path, run.stopped or stop_at == 0)
        if store is not None:
            store.write(_with_log(store.capture(engine), learnt_from, source, path))
    return ReplayResult(engine, _report(engine, source, run, trained), run.stopped)


@contextmanager
def _store(folder: Path | None, settings: Settings) -> Iterator[CheckpointStore | None]:
    """Hold a folder of checkpoints, if one is named."""
    if folder is None:
        yield None
        return
    with hold_folder(folder, "replay", OTHER_FOLDER):
        yield CheckpointStore(folder, settings.checkpoint_keep)


def open_source(path: str | Path, dataset: str | None, settings: Settings) -> ReplaySource:
    """Find out what a path is and open it; `engine` of the source says how to learn it."""
    name = str(path)
    if not name:
        raise DataError("no log is named: give a file, - or kafka://host:port")
    everything = replace(settings.engine, evaluate_one_in=1)
    if dataset is not None:
        return DatasetSource(load_dataset(dataset, path), everything)
    if name.startswith(KAFKA):
        there = settings.model_copy(update={"broker": _addresses(name)})
        with closing(TopicReader(there)) as reader:
            frames = [frame_of([]), *reader.frames()]
        return RecordSource(
            pl.concat(frames), settings.event_topics(), settings.engine, time.time()
        )
    if name == "-" or name.endswith(LINES_ENDINGS):
        topics = {LINES_TOPIC: TopicSettings(name=LINES_TOPIC, type="mixed")}
        return LinesSource(frame_of(read_lines(path)), topics, everything, time.time())
    log, about = read_log(Path(path))
    return RecordSource(log, about.topics, _engine_of(about, settings), about.recorded_at)


def _addresses(url: str) -> str:
    """Take the broker out of a URL."""
    broker = url.removeprefix(KAFKA).removesuffix("/")
    if not ADDRESSES.fullmatch(broker):
        raise SettingsError(
            f"{url!r} is not kafka://host:port: write for example kafka://127.0.0.1:9092; "
            "the topics are those of the settings"
        )
    return broker


def _engine_of(about: LogAbout, settings: Settings) -> EngineConfig:
    """Take the recording's engine, but for what a flag, a variable or a file sets now."""
    set_now = {
        name.removeprefix("engine."): getattr(settings.engine, name.removeprefix("engine."))
        for name, origin in settings.origins().items()
        if name.startswith("engine.") and origin != "default"
    }
    return replace(about.engine, **set_now)


def _resume(
    engine: Engine,
    store: CheckpointStore,
    source: ReplaySource,
    path: str | Path,
    stop_at: int | None,
) -> dict[str, Any]:
    """Give the engine what the newest checkpoint holds; return the files that it was learnt from.

    By label: `name` of the file, and `digest` of its rows before the position.
    """
    folder = store.load(engine)
    if folder is None:
        if store.problems:
            raise DataError("; ".join(store.problems) + f"; empty {store.folder} to begin anew")
        return {}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    learnt_from: dict[str, Any] = manifest.get(LOGS, {})
    of_files = engine.positions if source.label else learnt_from  # records count by partition
    if others := [name for name in of_files if name != source.label]:
        former = ", ".join(learnt_from.get(name, {}).get("name", name) for name in others)
        raise DataError(
            f"{store.folder} holds what was learnt from {former}, and {_name(path)} is another "
            f"kind of log: {OTHER_FOLDER}"
        )
    if stop_at is not None and stop_at < (held := source.held(engine.positions)):
        raise DataError(
            f"{store.folder} holds {counted(held, 'event')} of {_name(path)} already, --stop-at "
            f"{stop_at} is before that: {OTHER_FOLDER}"
        )
    known = learnt_from.get(source.label)
    if known is None:
        return learnt_from
    position = engine.positions[source.label]
    if source.digest(position) != known["digest"]:
        raise DataError(
            f"{store.folder} holds what was learnt from {known['name']}, and {_name(path)} does "
            f"not begin with the same {counted(position, 'row')}: "
            f"{OTHER_FOLDER}, or append to the log that was learnt"
        )
    return learnt_from


def _with_log(
    capture: Capture, learnt_from: Mapping[str, Any], source: ReplaySource, path: str | Path
) -> Capture:
    """Note in a manifest which file its positions count the rows of."""
    position = capture.manifest["positions"].get(source.label)
    logs = dict(learnt_from)
    if position is not None:
        logs[source.label] = {"name": _name(path), "digest": source.digest(position)}
    return replace(capture, manifest={**capture.manifest, LOGS: logs})


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else Path(path).name


def _load(tell: Callable[[str], None]) -> None:
    """Compile and import first, so that this is no part of the time per event."""
    warm_up(tell)
    import_module("river.drift")


def _refuse_nothing(
    engine: Engine, source: ReplaySource, path: str | Path, was_stopped: bool
) -> None:
    if not (any(engine.learnt.values()) or was_stopped):
        raise DataError(f"nothing was learnt: {_why_nothing(path, engine, source)}")


def _why_nothing(path: str | Path, engine: Engine, source: ReplaySource) -> str:
    if not engine.rejected:
        return f"{path} holds no event; give a log that does"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in engine.rejected.items())
    first = f"; the first: {source.first_rejected}" if source.first_rejected else ""
    return f"no record of {path} is an event ({reasons}){first}"


class _Run(NamedTuple):
    """What one replay did: events learnt, seconds it took, when its first event was."""

    learnt: int
    seconds: float
    began: float | None
    stopped: bool


def _learn(
    engine: Engine,
    source: ReplaySource,
    stop_at: int | None,
    progress: Progress,
    stop: threading.Event,
    trained: DeepReplay | None,
) -> _Run:
    """Learn what the engine has not learnt yet, or as much of it as there is time."""
    total = len(source) if stop_at is None else min(stop_at, len(source))
    learnt, passed, seconds, start = 0, 0, 0.0, time.perf_counter()
    began = None
    for batch in source.batches(dict(engine.positions), total):
        if stop.is_set():
            return _Run(learnt, seconds, began, True)
        if began is None and len(batch) and not any(engine.learnt.values()):
            began = float(batch.timestamp[0])
        learnt += engine.learn(batch)
        if trained is not None:
            trained.learn(batch)
        passed += len(batch) + sum(batch.rejected.values())
        seconds = time.perf_counter() - start
        progress(passed, total, engine)
    return _Run(learnt, seconds, began, False)


def _report(
    engine: Engine, source: ReplaySource, run: _Run, trained: DeepReplay | None
) -> dict[str, Any]:
    report = engine.report()
    each = round(1e6 * run.seconds / run.learnt, 2) if run.learnt else 0.0
    return {
        "events": report["events"],
        "rejected": report["rejected"],
        "first_rejected": source.first_rejected,
        "fingerprint": engine.fingerprint(),
        "microseconds_per_event": each,
        "evaluated_one_in": engine.config.evaluate_one_in,
        "began": run.began,
        "snapshots": trained.report() if trained else [],
        **{name: value for name, value in report.items() if name not in ("events", "rejected")},
    }

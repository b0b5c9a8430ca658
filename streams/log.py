"""Recorded logs: topics in one parquet file, with the settings that a replay needs.

A row is a Kafka record: `topic, partition, offset, timestamp` (milliseconds), `key, value`. The
file's metadata holds what each topic carries and how the engine was set, so that a replay, on any
machine, learns what the node learnt.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.errors import DataError
from streams.order import KafkaRecord, Record
from streams.settings import Settings, TopicSettings
from streams.targets import no_file

__all__ = ["SCHEMA", "LogAbout", "LogWriter", "frame_of", "in_order", "read_log", "records_of"]

SCHEMA = {
    "topic": pl.String,
    "partition": pl.Int32,
    "offset": pl.Int64,
    "timestamp": pl.Int64,
    "key": pl.Binary,
    "value": pl.Binary,
}
METADATA_KEY = "everlearn"
ABOUT = "about.json"  # beside the parts
FORMAT = 1
PART_ROWS = 250_000

log = logging.getLogger("everlearn.record")


@dataclass(frozen=True, slots=True)
class LogAbout:
    """What a recorded log says of itself.

    `recorded_at`, when the recording ended (seconds UTC), is the wall clock of its replay: nothing
    in it arrived later.
    """

    topics: dict[str, TopicSettings]
    engine: EngineConfig = field(default_factory=EngineConfig)
    recorded_at: float = 0.0

    @classmethod
    def of(cls, settings: Settings, topics: Sequence[str]) -> Self:
        """Describe a recording of these topics; its writer notes when it ended."""
        known = settings.event_topics()
        return cls({name: known[name] for name in topics}, settings.engine)

    def to_json(self) -> str:
        """Write it as the file's metadata holds it."""
        topics = {name: topic.model_dump(mode="json") for name, topic in self.topics.items()}
        about = {"format": FORMAT, "recorded_at": self.recorded_at, "topics": topics}
        return json.dumps(about | {"engine": asdict(self.engine)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; settings that this version does not know are left out."""
        about: dict[str, Any] = json.loads(text)
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
        topics = {name: TopicSettings(**topic) for name, topic in about["topics"].items()}
        known = {setting.name for setting in fields(EngineConfig)}
        engine: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in about["engine"].items()
            if name in known
        }
        return cls(topics, EngineConfig(**engine), about["recorded_at"])


class LogWriter:
    """Writes a recorded log of any size: parts beside the file, joined and renamed at `close`.

    Use it as a context manager; after an error nothing is left but what was there before. Parts
    that a killed recording has left are kept as a log beside the file.
    """

    def __init__(self, path: Path, about: LogAbout) -> None:
        self.path = path
        self.about = about
        self.rows = 0
        self._frames: list[pl.DataFrame] = []
        self._parts = path.with_name(f".{path.name}.parts")
        self._part_paths: list[Path] = []

    def __enter__(self) -> Self:
        with self._in_words():
            self._rescue()
            self._parts.mkdir()
            try:
                (self._parts / ABOUT).write_text(self.about.to_json())
            except OSError:
                self._remove_parts()
                raise
        return self

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows; they are on disk at the latest when the writer closes.

        Raises
        ------
        DataError
            The disk does not take them.
        """
        self._frames.append(frame)
        self.rows += frame.height
        if sum(frame.height for frame in self._frames) >= PART_ROWS:
            with self._in_words():
                self._write_part()

    def close(self) -> None:
        """Join what was appended into the file, in one step.

        Raises
        ------
        DataError
            The disk does not take it.
        """
        about = replace(self.about, recorded_at=time.time())
        try:
            with self._in_words():
                self._write_part()
                self._join(self._part_paths, about, self.path)
        finally:
            self._remove_parts()

    def _join(self, parts: list[Path], about: LogAbout, path: Path) -> None:
        whole = self._parts / "whole"
        metadata = {METADATA_KEY: about.to_json()}
        pl.scan_parquet(parts).sink_parquet(whole, metadata=metadata)
        whole.replace(path)

    def _rescue(self) -> None:
        """Make a log of what a recording that was killed had on disk."""
        if parts := sorted(self._parts.glob("*.parquet")):
            about = LogAbout.from_json((self._parts / ABOUT).read_text())
            ended = replace(about, recorded_at=parts[-1].stat().st_mtime)
            names = (self.path.with_name(f"{self.path.name}.rescued-{n}") for n in count(1))
            path = next(path for path in names if not path.exists())
            self._join(parts, ended, path)
            log.warning("a recording was killed; what it had on disk is now %s", path)
        self._remove_parts()

    def _remove_parts(self) -> None:
        shutil.rmtree(self._parts, ignore_errors=True)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"cannot write {self.path}: {_reason(error)}; free space or name another file"
            ) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._remove_parts()

    def _write_part(self) -> None:
        if self._frames or not self._part_paths:
            path = self._parts / f"{len(self._part_paths):06d}.parquet"
            half = path.with_suffix(".half")  # renamed when whole: a kill leaves whole parts
            pl.concat([pl.DataFrame(schema=SCHEMA), *self._frames]).write_parquet(half)
            half.replace(path)
            self._part_paths.append(path)
            self._frames = []


def _reason(error: Exception) -> str:
    """Say why the disk did not take something: polars has the system's number in its text only."""
    number = re.search(r"os error (\d+)", str(error))
    if number:
        return os.strerror(int(number[1]))
    return getattr(error, "strerror", None) or str(error)


def read_log(path: Path) -> tuple[pl.DataFrame, LogAbout]:
    """Read a recorded log.

    Raises
    ------
    DataError
        The file is missing, or `everlearn record` did not write it.
    """
    if not path.is_file():
        cure = "" if path.is_dir() else f"; `everlearn record {path}` writes a log"
        raise DataError(f"{path} {no_file(path)}{cure}")
    try:
        metadata = pl.read_parquet_metadata(path)
        if METADATA_KEY not in metadata:
            found = ", ".join(pl.read_parquet_schema(path))
            raise DataError(
                f"{path} is no recorded log (its columns are {found}): for a data set give "
                "--dataset NAME; logs are written by `everlearn record`"
            )
        return pl.read_parquet(path, columns=list(SCHEMA)), LogAbout.from_json(
            metadata[METADATA_KEY]
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} cannot be read as a recorded log: it is no parquet file, or a damaged one; "
            "JSON lines are in files named .jsonl or .ndjson, or come on standard input (-)"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read as a recorded log: {error}") from error


def frame_of(records: Sequence[KafkaRecord]) -> pl.DataFrame:
    """Columns of records, as a recorded log holds them."""
    columns = {name: [getattr(record, name) for record in records] for name in SCHEMA}
    return pl.DataFrame(columns, schema=SCHEMA)


def records_of(frame: pl.DataFrame) -> list[Record]:
    """Records of a recorded log's rows."""
    return list(map(Record._make, ((*row, ()) for row in frame.iter_rows())))


def in_order(log: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.float64]]:
    """Put a log into the one order of `streams.order`, each record once.

    Returns
    -------
    log : DataFrame
        The rows in learning order.
    watermarks : (n,) array
        The running maximum of the row's partition, seconds.
    """
    part = ("topic", "partition")
    ordered = (
        log.unique(subset=[*part, "offset"], keep="first")
        .sort(*part, "offset")
        .with_columns(watermark=pl.col("timestamp").cum_max().over(*part))
        .sort("watermark", maintain_order=True)  # equal times: topic, partition, offset
    )
    return ordered.drop("watermark"), (ordered["watermark"] / 1000).to_numpy()

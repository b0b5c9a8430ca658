"""A process that learns a stream and says what it takes: `python -m benchmarks.resident JSON`.

Fresh, so that nothing but the program, its libraries and one engine is in it. It prints one line.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import resource
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.visits import START, Visits, VisitsConfig
from learners.base import ITEM, Batch, CatalogueEntry, EngineConfig, Source
from learners.capacity import arrays_of
from learners.engine import Engine
from streams.warmup import warm_up

__all__ = ["main", "measure", "resident_bytes"]

LISTED = 1_000  # item events of a batch
PAGE = mmap.PAGESIZE


def resident_bytes() -> int:
    """Return the memory that this process occupies now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def measure(
    config: EngineConfig, visits: VisitsConfig, *, listed: int, samples: int, save: bool
) -> dict[str, object]:
    """Learn a stream with a new engine; return what the process takes, and what was foreseen.

    Parameters
    ----------
    listed
        Items of which the catalogue has an entry.
    samples
        How many times, evenly spaced, memory and the hit rate since the last time are noted.
    save
        Whether a checkpoint is written at last.
    """
    stream = Visits(visits)
    met = np.zeros(visits.users, np.bool_), np.zeros(visits.items, np.bool_)
    met[0][:], met[1][:] = False, False  # their pages are taken now, not later
    warm_up()
    import_module("river.drift")  # whose place is with the libraries, not with the engine
    gc.collect()
    baseline = resident_bytes()
    engine = Engine(config)
    _list_items(engine, listed)
    course = _learn(engine, stream, met, samples)
    gc.collect()
    found = {
        "baseline_bytes": baseline,
        "resident_bytes": resident_bytes(),
        "parts": resident_parts(engine),
        "events": stream.events,
        "users_held": len(engine.memory.users),
        "items_held": len(engine.memory.items),
        "history_filled": round(_history_filled(engine), 3),
        "course": course,
        "hr@20": round(engine.evaluation.metrics()["blend"]["hr@20"], 4),
    }
    if save:
        found["resident_with_copy_bytes"] = _save(engine)
        found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _list_items(engine: Engine, listed: int) -> None:
    """Give the catalogue entries of the stream's first items, made as a decoder makes them."""
    for first in range(0, listed, LISTED):
        numbers = range(first, min(first + LISTED, listed))
        n = len(numbers)
        entries = {
            place: CatalogueEntry(
                category=f"category-{number % 997:03d}",
                price=number / 100,
                title=f"Something to buy, {number:09d}",
                created=START + number,
                available=True,
            )
            for place, number in enumerate(numbers)
        }
        engine.learn(
            Batch(
                kind=np.full(n, ITEM, np.uint8),
                user=[""] * n,
                item=[f"i-{number:09d}" for number in numbers],
                session=[""] * n,
                timestamp=np.full(n, START),
                event_hash=np.arange(first + 1, first + n + 1, dtype=np.uint64),
                log=np.zeros(n, np.int32),
                logs=["items/0"],
                catalogue=entries,
            )
        )


def _learn(
    engine: Engine, stream: Visits, met: tuple[NDArray[np.bool_], NDArray[np.bool_]], samples: int
) -> list[dict[str, float]]:
    """Learn all of the stream; return what was noted on the way."""
    course: list[dict[str, float]] = []
    books = engine.evaluation.books
    before = np.zeros(2)
    for batch in stream.batches():
        engine.learn(batch)
        for column, names in zip(met, (batch.user, batch.item), strict=True):
            column[np.fromiter((int(name[2:]) for name in names), np.int64, len(names))] = True
        if stream.events * samples >= (len(course) + 1) * stream.config.events:
            now = np.array([books.total[:, 0, 1].sum(), books.targets.sum()])
            hits, targets = now - before
            before = now
            course.append(
                {
                    "events": stream.events,
                    "users_met": int(met[0].sum()),
                    "items_met": int(met[1].sum()),
                    "resident_bytes": resident_bytes(),
                    "hr@20": round(float(hits / max(targets, 1)), 4),
                }
            )
    return course


def _history_filled(engine: Engine) -> float:
    """Return which share of the history's slots holds an event."""
    code = engine.memory.history.event["code"]
    return float(np.count_nonzero(code)) / code.size


def _save(engine: Engine) -> int:
    """Write a checkpoint as a node does; return what the process takes afterwards."""
    from learners.checkpoint import CheckpointStore

    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder))
        engine.memory.clear_marks()
        store.copy_ahead(engine)
        store.write(store.capture(engine))
        return resident_bytes()


def resident_parts(engine: Engine) -> dict[str, int]:
    """Return how many bytes of each part's arrays are backed by memory now."""
    parts: dict[str, int] = {}
    seen: set[int] = set()
    named: list[tuple[str, object]] = [
        (field.name, getattr(engine.memory, field.name)) for field in fields(engine.memory)
    ]
    for name, part in [*named, ("evaluation", engine.evaluation), ("catalogue", engine.catalogue)]:
        total = 0
        for array in arrays_of(part):
            root: Any = array
            while isinstance(root.base, np.ndarray):
                root = root.base
            if id(root) not in seen:
                seen.add(id(root))
                total += _backed(root)
        if total:
            parts[part.name if isinstance(part, Source) else name] = total
    return parts


def _backed(array: NDArray[Any]) -> int:
    """Return the bytes of an array's pages that are in memory."""
    if array.nbytes < PAGE:
        return int(array.nbytes)
    first = array.ctypes.data & -PAGE
    length = array.ctypes.data + array.nbytes - first
    pages = np.zeros(-(-length // PAGE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    found = ctypes.c_void_p(pages.ctypes.data)
    if libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(length), found):
        return int(array.nbytes)
    held = int(np.count_nonzero(pages & 1)) * PAGE
    return min(held, int(array.nbytes))


def main(words: Mapping[str, Any]) -> None:
    """Do what the words say, and print the findings."""
    config = EngineConfig(**words["engine"])
    visits = VisitsConfig(**words["visits"])
    rest = {name: words[name] for name in ("listed", "samples", "save")}
    print(json.dumps(measure(config, visits, **rest)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

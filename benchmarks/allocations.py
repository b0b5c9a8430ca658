"""Which memory an event asks for: objects of Python and blocks of the system, place by place.

memray counts every call of an allocator in the frames that made it. Work that is done batch by
batch costs few objects, however many events a batch has; an object for each event would show as 1.
Not counted is what a free list of the interpreter gives again.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import memray

from benchmarks.data import Crowd, message_of, recorded
from benchmarks.growth import NEVER, SHARE
from benchmarks.methods import settings_of
from benchmarks.rows import ROOT, Row, make_row
from learners.engine import Engine
from streams.decode import Gate
from streams.flow import SLICE_RECORDS
from streams.order import Record
from streams.warmup import warm_up

__all__ = ["run"]

TOPIC = "bench.events"
OF_PYTHON = "PYMALLOC"  # begins the names of its allocators
FREED = ("FREE", "MUNMAP")  # end the names of what gives memory back
NAMED = 3  # places of a row


def run(
    *, crowd: Crowd, history: int, batches: int, queries: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """Yield the rows `decode`, `learn`, `learn_tested_in_32` and `recommend`.

    Parameters
    ----------
    crowd
        Users and items.
    history
        Events learnt first, besides one for each user and item.
    batches
        Of as many records as a node decodes at a time, counted in each row.
    queries
        Users who are asked for.
    """
    warm_up(say)
    settings = settings_of("127.0.0.1:9092", TOPIC)
    gate = Gate(settings.event_topics())
    engine = Engine(replace(settings.engine, users=crowd.users, items=crowd.items))
    sampled = engine.config
    events = crowd.lead_in + history + (2 + 2 * batches) * SLICE_RECORDS
    coming = _slices(crowd, events)
    say(f"learning {crowd.lead_in + history:,} events")
    for records in islice(coming, -(-(crowd.lead_in + history) // SLICE_RECORDS)):
        engine.learn(gate.decode(records)[0])
    plain, tested = list(islice(coming, batches)), list(islice(coming, batches))
    users = [record.key.decode() for record in plain[0] if record.key][:queries]
    engine.recommend(users[0])
    n = sum(map(len, plain))
    yield _row("decode", lambda: [gate.decode(records) for records in plain], n)
    engine.config = replace(sampled, evaluate_one_in=NEVER)
    yield _row("learn", _learning(engine, gate, plain), n)
    engine.config = replace(sampled, evaluate_one_in=SHARE)
    yield _row(f"learn_tested_in_{SHARE}", _learning(engine, gate, tested), n)
    yield _row("recommend", lambda: [engine.recommend(user) for user in users], len(users))


def _slices(crowd: Crowd, events: int) -> Iterator[Sequence[Record]]:
    messages = map(message_of, recorded(crowd, events))
    records = (
        Record(TOPIC, 0, offset, message.timestamp_ms, message.key, message.value)
        for offset, message in enumerate(messages)
    )
    while part := list(islice(records, SLICE_RECORDS)):
        yield part


def _learning(
    engine: Engine, gate: Gate, parts: Sequence[Sequence[Record]]
) -> Callable[[], object]:
    batches = [gate.decode(records)[0] for records in parts]
    return partial(list, map(engine.learn, batches))


def _row(method: str, job: Callable[[], object], n: int) -> Row:
    """Count what a job asks for, of which `n` events or queries are the work."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="everlearn-bench-") as folder:
        path = Path(folder) / "allocations.bin"
        with memray.Tracker(path, trace_python_allocators=True):
            job()
        python, system, places = _counted(path)
    figures = {
        "n": n,
        "objects_per_event": round(python / n, 3),
        "system_blocks_per_event": round(system / n, 3),
        "most": {place: round(count / n, 3) for place, count in places.most_common(NAMED)},
    }
    return make_row("allocations", method, figures, time.perf_counter() - started)


def _counted(path: Path) -> tuple[int, int, Counter[str]]:
    """Return the calls of Python's allocator, of the system's, and all by place in our code."""
    python = system = 0
    places: Counter[str] = Counter()
    with memray.FileReader(path) as reader:
        for record in reader.get_allocation_records():
            name = memray.AllocatorType(record.allocator).name
            if name.endswith(FREED):
                continue
            if name.startswith(OF_PYTHON):
                python += record.n_allocations
            else:
                system += record.n_allocations
            places[_place(record.stack_trace())] += record.n_allocations
    return python, system, places


def _place(stack: Sequence[tuple[str, str, int]]) -> str:
    """Name the innermost line of this project, such as `learners/engine.py:190`."""
    for _, file, line in stack:
        path = Path(file)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            return f"{path.relative_to(ROOT)}:{line}"
    return "elsewhere"

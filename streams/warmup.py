"""Compile every kernel once, so that the first node starts in seconds: `python -m streams.warmup`.

The compiled kernels stay in the cache of `learners.jit`; a second run finds them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from learners.base import EngineConfig
from learners.checkpoint import CheckpointStore
from learners.deep.config import SequenceConfig
from learners.deep.packing import blank
from learners.deep.registry import Snapshot
from learners.deep.served.deep import Deep
from learners.engine import Engine
from learners.explore import Slots
from learners.jit import are_compiled, note_compiled
from streams.decode import Gate
from streams.events import Click, Event, Item
from streams.order import Record
from streams.settings import Settings

__all__ = ["warm_up"]

COMPILING = "compiling the kernels (once; a minute or two) ..."
EVENTS = 64


def warm_up(tell: Callable[[str], None] = lambda text: None, explores: bool = False) -> None:
    """Decode, learn, answer and copy once with a tiny engine: each kernel is compiled, or read.

    Records go the way of a node's, so that each kernel meets the very types that it meets there.
    `tell` is called before anything is compiled, because that takes long. What only exploration
    needs is made ready where it `explores`.
    """
    if not are_compiled():
        tell(COMPILING)
    gate = Gate(Settings().event_topics())
    engine = Engine(
        EngineConfig(users=8, items=16, sessions=16, dedupe_events=256, evaluate_one_in=1)
    )
    for name, events in (("items", _items()), ("clicks", _clicks())):
        batch, _ = gate.decode(_records(f"everlearn.{name}", events))
        engine.learn(batch)
    engine.serve(Deep(16, _snapshot()))
    engine.recommend("user-1", k=5, explore=Slots(0.5, "warm-up") if explores else None)
    copies = CheckpointStore(Path())  # in memory: nothing is written
    copies.copy_ahead(engine)
    copies.capture(engine)
    note_compiled()


def _clicks() -> Sequence[Event]:
    return [
        Click(
            event_id=f"click-{i}", timestamp=i + 1.0, user=f"user-{i % 12}", item=f"item-{i % 24}"
        )
        for i in range(EVENTS)
    ]


def _items() -> Sequence[Event]:
    return [
        Item(event_id=f"listing-{i}", timestamp=i + 1.0, item=f"item-{i % 24}", category="warm-up")
        for i in range(EVENTS)
    ]


def _snapshot() -> Snapshot:
    """A deep model that has learnt nothing."""
    config = SequenceConfig(width=16, feed_forward=16)
    items = [f"item-{i}" for i in range(24)]
    return Snapshot("warm-up", blank(config, len(items)), items, {"config": asdict(config)})


def _records(topic: str, events: Sequence[Event]) -> Sequence[Record]:
    return [
        Record(topic, 0, i, int(1000 * event.timestamp), None, msgspec.json.encode(event))
        for i, event in enumerate(events)
    ]


if __name__ == "__main__":
    import time

    started = time.perf_counter()
    warm_up(lambda text: print(text, flush=True), explores=True)
    print(f"kernels ready after {time.perf_counter() - started:.0f} s", flush=True)

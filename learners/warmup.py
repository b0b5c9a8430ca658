"""Compile every kernel once, so that the first node starts in seconds: `python -m learners.warmup`.

The compiled kernels stay in the cache of `learners.jit`; a second run finds them there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from learners.base import ITEM, Batch, CatalogueEntry, EngineConfig
from learners.engine import Engine
from learners.jit import are_compiled, note_compiled

__all__ = ["warm_up"]

COMPILING = "compiling the kernels (once; up to a minute) ..."


def warm_up(tell: Callable[[str], None] = lambda text: None) -> None:
    """Learn and answer once with a tiny engine: each kernel is compiled, or read from the cache.

    `tell` is called before anything is compiled, because that takes long.
    """
    if not are_compiled():
        tell(COMPILING)
    n = 64
    engine = Engine(
        EngineConfig(users=8, items=16, sessions=16, dedupe_events=256, evaluate_one_in=1)
    )
    batch = Batch(
        kind=np.zeros(n, np.uint8),
        user=[f"user-{i % 12}" for i in range(n)],
        item=[f"item-{i % 24}" for i in range(n)],
        session=[""] * n,
        timestamp=np.arange(n, dtype=np.float64) + 1.0,
        event_hash=np.arange(1, n + 1, dtype=np.uint64),
        log=np.zeros(n, np.int32),
        logs=["warm-up/0"],
    )
    listing = replace(
        batch,
        kind=np.full(n, ITEM, np.uint8),
        user=[""] * n,
        event_hash=batch.event_hash + np.uint64(n),
        catalogue={i: CatalogueEntry(category="warm-up") for i in range(n)},
    )
    engine.learn(listing)
    engine.learn(batch)
    engine.recommend("user-1", k=5)
    note_compiled()


if __name__ == "__main__":
    import time

    started = time.perf_counter()
    warm_up(lambda text: print(text, flush=True))
    print(f"kernels ready after {time.perf_counter() - started:.0f} s", flush=True)

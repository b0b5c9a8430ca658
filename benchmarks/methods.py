"""The ways to read a topic that are compared: `python -m benchmarks.methods METHOD JOB`.

Each runs in a fresh process on uvloop, as a node does, and prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import job_of
from benchmarks.stopwatch import Stopwatch
from streams.logs import configure_logs
from streams.settings import Settings, TopicSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from learners.base import Batch
    from streams.node import NodeRuntime
    from streams.source import Fetch

__all__ = ["METHODS", "settings_of"]

ROLE = "bench"
COUNTED_TOGETHER = 100  # to count each event alone would slow down a loop that does nothing else
SLICE_RECORDS = 1000  # decoded at a time, as a node does

Figures = dict[str, Any]


def settings_of(broker: str, topic: str, folder: Path = Path()) -> Settings:
    """Settings of a node that reads this topic, where each message names its type."""
    return Settings(
        broker=broker,
        topics={ROLE: TopicSettings(name=topic, type="mixed")},
        state_dir=folder / "state",
        snapshot_dir=folder / "snapshots",
        node_name="bench",
    )


def faust_agent(job: Figures, watch: Stopwatch) -> Figures:
    """A plain agent on the topic that does nothing with its bytes; settings are Faust's own."""
    import faust

    folder = tempfile.TemporaryDirectory(prefix="everlearn-bench-")  # Faust makes one of its own
    app = faust.App(
        "bench-faust-agent",
        datadir=folder.name,
        broker=f"kafka://{job['broker']}",
        web_enabled=False,
        autodiscover=False,
        loghandlers=[],
        # The embedded broker makes topics on first use only, and needs none of Faust's own here.
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    over = asyncio.Event()

    @app.agent(app.topic(job["topic"], value_type=bytes, value_serializer="raw"))
    async def nothing(stream: faust.StreamT[bytes]) -> None:
        done = 0
        async for _ in stream:
            done += 1
            if done == COUNTED_TOGETHER:
                done = 0
                if watch.count(COUNTED_TOGETHER):
                    over.set()

    async def run() -> None:
        starting = asyncio.ensure_future(app.start())
        await over.wait()
        starting.cancel()
        await app.stop()

    _run(run())
    folder.cleanup()
    return {}


def batch_source(job: Figures, watch: Stopwatch) -> Figures:
    """Fetch and merge into the one order; the records are dropped."""
    _read(job, watch, lambda fetch: None)
    return {}


def batch_source_decode(job: Figures, watch: Stopwatch) -> Figures:
    """Fetch, merge, decode and validate into the columns that the engine learns."""
    _read(job, watch, _decoder(job, lambda batch: None))
    return {}


def engine(job: Figures, watch: Stopwatch) -> Figures:
    """A node without its API: everything on but a deep model, checkpoints included."""
    return _node(job, watch, deep=False)


def engine_deep(job: Figures, watch: Stopwatch) -> Figures:
    """The same, with a deep model of all items among the sources."""
    return _node(job, watch, deep=True)


def _node(job: Figures, watch: Stopwatch, deep: bool) -> Figures:
    node = import_module("streams.node")
    learning = [0.0, 0.0]  # seconds on the learner's thread: before, and while it was measured
    runtimes: list[NodeRuntime] = []

    def learnt(seconds: float, times: NDArray[Any]) -> None:
        learning[watch.running] += 0.0 if watch.over else seconds
        if watch.count(len(times)) and len(runtimes) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def services(runtime: NodeRuntime) -> list[Any]:
        runtimes.append(runtime)
        runtime.learning.hooks.append(learnt)
        return []

    with tempfile.TemporaryDirectory(prefix="everlearn-bench-") as folder:
        settings = settings_of(job["broker"], job["topic"], Path(folder))
        if deep:
            from benchmarks.untrained import write_untrained
            from learners.deep.registry import Registry
            from streams.shop_events import item_name

            snapshots = Registry(settings.snapshot_dir)
            items = [item_name(item) for item in range(job["items"])]
            snapshots.promote(write_untrained(snapshots, items, seed=1))
        node.run_node(settings, services)
    known: dict[str, Any] = runtimes[0].engine.report()
    blend = known["metrics"]["blend"]
    return {
        "learn_seconds": round(learning[True], 3),
        "users": known["users"],
        "items": known["items"],
        "evaluated": blend["n"],
        "hr@20": round(blend["hr@20"], 4),
    }


def river_biasedmf(job: Figures, watch: Stopwatch) -> Figures:
    """River's BiasedMF learns the decoded events from memory: its learning alone."""
    reco = import_module("river.reco")

    pairs: list[tuple[str, str]] = []
    reading = Stopwatch(warm=0, total=job["total"], limit_seconds=600.0)
    _read(job, reading, _decoder(job, lambda b: pairs.extend(zip(b.user, b.item, strict=True))))
    model = reco.BiasedMF(seed=1)
    for start in range(0, len(pairs), 500):
        part = pairs[start : start + 500]
        for user, item in part:
            model.learn_one(user=user, item=item, y=1.0)
        if watch.count(len(part)):
            break
    return {"users": len(model.u_biases), "items": len(model.i_biases)}


METHODS: dict[str, Callable[[Figures, Stopwatch], Figures]] = {
    "faust_agent": faust_agent,
    "batch_source": batch_source,
    "batch_source_decode": batch_source_decode,
    "engine": engine,
    "engine_deep": engine_deep,
    "river_biasedmf": river_biasedmf,
}


class _Nothing:
    """Progress of somebody who begins at the beginning."""

    positions: dict[str, int] = {}  # noqa: RUF012
    watermarks: dict[str, float] = {}  # noqa: RUF012


def _read(job: Figures, watch: Stopwatch, take: Callable[[Fetch], None]) -> None:
    """Read the topic with the batch source until the measurement is over."""
    from streams.source import BatchSource

    over = asyncio.Event()

    async def put(fetch: Fetch) -> None:
        take(fetch)
        if watch.count(len(fetch.records)):
            over.set()

    async def run() -> None:
        source = BatchSource(settings_of(job["broker"], job["topic"]), _Nothing(), put)
        await source.start()
        await over.wait()
        await source.stop()

    _run(run())


def _decoder(job: Figures, use: Callable[[Batch], None]) -> Callable[[Fetch], None]:
    from streams.decode import Gate

    gate = Gate(settings_of(job["broker"], job["topic"]).event_topics())
    watermarks: dict[str, float] = {}

    def take(fetch: Fetch) -> None:
        for start in range(0, len(fetch.records), SLICE_RECORDS):
            batch, _ = gate.decode(fetch.records[start : start + SLICE_RECORDS], watermarks)
            watermarks.update(batch.watermarks)
            use(batch)

    return take


def _run(job: Any) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(job)


def main() -> None:
    """Run one method; its figures are one line on standard output."""
    job, (method,) = job_of(sys.argv[1:])
    configure_logs()
    if method.startswith("engine"):
        from streams.learning import load_everything

        load_everything()
    total = job["total"] // COUNTED_TOGETHER * COUNTED_TOGETHER
    watch = Stopwatch(warm=job["warm"], total=total, limit_seconds=job["limit_seconds"])
    more = METHODS[method](job, watch)
    print(json.dumps(watch.figures() | more), flush=True)
    os._exit(0)  # threads of clients that are going away anyway need not be waited for


if __name__ == "__main__":
    main()

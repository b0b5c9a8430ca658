"""What a trainer's metrics say when nothing comes, and after a restart."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from serving.training import Shown, TrainerMetrics
from streams.broker import EmbeddedBroker
from streams.settings import Settings
from streams.trainer import Trainer
from tests.forked_trainer import TRAINER
from tests.traffic import Traffic
from tests.walks import walks

EVENTS = 300


def shown_in_time(settings: Settings) -> bool:
    """Run a trainer until its metrics show everything as learnt; tell whether they did."""
    metrics = TrainerMetrics()

    async def run() -> bool:
        told, deadline = asyncio.Event(), time.monotonic() + 20
        running = asyncio.create_task(Trainer(settings, Shown(metrics)).run(told))
        while (metrics.events, metrics.lag) != (EVENTS, 0) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        shown = (metrics.events, metrics.lag) == (EVENTS, 0)
        told.set()
        await running
        return shown

    return asyncio.run(run())


def test_events_and_lag_are_right_when_idle_and_after_a_restart(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    traffic = Traffic(embedded_broker.address)
    for number, (_, user, item, at) in enumerate(walks(EVENTS)):
        traffic.send({"event_id": f"w{number}", "timestamp": at, "user": user, "item": item})
    traffic.flush()
    settings = Settings(
        broker=embedded_broker.address,
        state_dir=tmp_path / "state",
        snapshot_dir=tmp_path / "snapshots",
        trainer=TRAINER,  # type: ignore[arg-type]
    )
    assert shown_in_time(settings)
    assert shown_in_time(settings), "after a restart, with nothing new"

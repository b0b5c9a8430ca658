"""What lifelong learning is told by the settings."""

from __future__ import annotations

from typing import Any

from learners.deep.config import FineTuneConfig, SequenceConfig
from learners.deep.gate import GateConfig
from learners.deep.memory import LifelongConfig
from streams.settings import Settings

__all__ = ["lifelong_config", "shape_of"]


def lifelong_config(settings: Settings) -> LifelongConfig:
    """Return what lifelong learning is told by the settings."""
    given = settings.trainer
    return LifelongConfig(
        model=SequenceConfig(
            architecture=given.architecture, width=given.width, feed_forward=2 * given.width
        ),
        tuning=FineTuneConfig(
            seed=given.seed,
            epochs=given.epochs,
            epochs_first=given.epochs_first,
            rehearsed=given.rehearsed,
            distillation=given.distillation,
            propagation=given.propagation,
            threads=given.threads,
        ),
        gate=GateConfig(
            targets=given.gate_targets, verdicts=given.gate_verdicts, chance=given.gate_chance
        ),
        first_events=given.first_events,
        every_events=given.every_events,
        every_minutes=given.every_minutes,
        least_events=min(given.every_events, LifelongConfig().least_events),
        at_alarms=given.at_alarms,
        users=given.users,
        items=given.items,
        newest=given.newest,
        reservoir=given.reservoir,
        session_gap_seconds=settings.engine.session_gap_seconds,
        evaluate_one_in=given.evaluate_one_in,
        hold_out_one_in=given.hold_out_one_in,
        retire_days=given.retire_days,
    )


def shape_of(config: LifelongConfig) -> dict[str, Any]:
    """Return what a stored state depends on."""
    return {
        "width": config.model.width,
        "architecture": config.model.architecture,
        "users": config.users,
        "items": config.items,
        "newest": config.newest,
        "reservoir": config.reservoir,
        "hold_out_one_in": config.hold_out_one_in,
    }

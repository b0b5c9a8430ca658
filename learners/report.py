"""What an engine tells of itself: counts, prequential figures, alarms, as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learners.base import CLICK, PURCHASE
from learners.store.frequency import KEPT_OUT

if TYPE_CHECKING:
    from learners.engine import Engine

__all__ = ["report_of"]


def report_of(engine: Engine) -> dict[str, object]:
    """Return an engine's report; `metrics` and its like are by source."""
    memory, evaluation, drift = engine.memory, engine.evaluation, engine.drift
    return {
        "events": sum(engine.learnt.values()),
        "learnt": dict(engine.learnt),
        "duplicates": engine.duplicates,
        "kept_out": int(memory.frequency.book[KEPT_OUT]),  # their items were met too seldom
        "rejected": dict(engine.rejected),
        "users": len(memory.users),
        "items": len(memory.items),
        "clock": engine.clock,
        "snapshot": engine.snapshot,
        "metrics": evaluation.metrics(seen=memory.seen),
        "clicks": evaluation.metrics(CLICK),
        "purchases": evaluation.metrics(PURCHASE),
        "recent": evaluation.recent(),
        "windows": evaluation.windows(),
        "alarms": drift.report(),
        "alarms_raised": dict(drift.raised),
        "outcomes": memory.outcomes.report(),
    }

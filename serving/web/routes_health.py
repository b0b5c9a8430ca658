"""Is the node alive, has it learnt everything, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query
from starlette.responses import Response

from serving.live import Serving
from serving.metrics import CONTENT_TYPE_LATEST
from serving.web.answers import Alive, Health, Problem, json
from serving.web.openapi import answers

__all__ = ["Fingerprint", "add_routes"]


class Fingerprint:
    """The fingerprint of what was learnt: kept while nothing moves, else computed sparingly.

    Hashing the whole state costs, and learning waits meanwhile. So a node that is asked in passing
    spends at most a fiftieth of its time on it; `?fingerprint=1` always gets one.
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.positions: dict[str, int] | None = None
        self.text: str | None = None
        self.next_at = 0.0  # seconds of the monotonic clock
        self.lock = asyncio.Lock()

    async def read(self, *, asked: bool, idle: bool) -> str | None:
        """The fingerprint if it was asked for or costs little, else None."""
        async with self.lock:
            if self.positions == self.serving.engine.positions:
                return self.text
            if not asked and not (idle and time.monotonic() >= self.next_at):
                return None
            started = time.monotonic()
            self.text = await self.serving.between_batches(self._compute)
            done = time.monotonic()
            self.next_at = done + 50 * (done - started)
            return self.text

    def _compute(self) -> str:
        engine = self.serving.engine
        self.positions = dict(engine.positions)
        return engine.fingerprint()


def add_routes(app: FastAPI, serving: Serving) -> None:
    """Add the routes for whoever watches the node."""
    fingerprint = Fingerprint(serving)
    plain = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get(
        "/health/live", tags=["health"], summary="Is the process alive?", responses=answers(Alive)
    )
    async def live() -> Response:
        """200 as long as requests are answered at all; restart the node when this fails."""
        return json(Alive())

    @app.get(
        "/health/ready",
        tags=["health"],
        summary="Has the node learnt everything?",
        responses=answers(Health, 422) | {503: answers(Health)[200]},
    )
    async def ready(
        fingerprint_wanted: Annotated[
            bool,
            Query(alias="fingerprint", description="hash the learnt state, even while it moves"),
        ] = False,
    ) -> Response:
        """503 with the reasons while the node catches up or the broker is away.

        It answers all the same, from what it knows. `fingerprint` is there once there is nothing
        left to learn; two nodes with the same fingerprint have learnt the same.
        """
        seen = serving.live.ready()
        idle = bool(seen["ready"]) and seen.get("lag") == 0
        text = await fingerprint.read(asked=fingerprint_wanted, idle=idle)
        return _health(seen, text)

    @app.get("/metrics", tags=["health"], summary="Figures for Prometheus", responses={200: plain})
    async def metrics() -> Response:
        """Counts, lag, freshness, times to learn and to answer, prequential figures per source."""
        return Response(serving.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _health(seen: Mapping[str, Any], fingerprint: str | None) -> Response:
    ready = bool(seen["ready"])
    reasons = list(seen["reasons"])
    answer = Health(
        ready=ready,
        reasons=reasons,
        lag=seen.get("lag"),
        positions=dict(seen.get("positions", {})),
        last_checkpoint=seen.get("last_checkpoint"),
        checkpoint_problems=list(seen.get("checkpoint_problems", ())),
        missing_topics=list(seen.get("missing_topics", ())),
        fingerprint=fingerprint,
        error=None if ready else Problem("not_ready", "; ".join(reasons) or "starting", reasons),
    )
    return json(answer, 200 if ready else 503)

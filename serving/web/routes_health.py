"""Is the node alive, has it learnt everything, and its figures for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Annotated, Any, NamedTuple

from fastapi import FastAPI, Query
from starlette.responses import Response

from serving.live import Serving
from serving.metrics import CONTENT_TYPE_LATEST
from serving.web.answers import Alive, Health, Problem, json
from serving.web.openapi import answers

__all__ = ["Fingerprint", "Known", "add_routes"]


COST = 50  # of the node's time, at most one part in so many goes into fingerprints
WAIT_SECONDS = 5.0


class Known(NamedTuple):
    """A fingerprint, and the next offsets of the partitions that it belongs to."""

    text: str
    positions: dict[str, int]


class Fingerprint:
    """The fingerprint of what was learnt: kept while nothing moves, else computed sparingly.

    Hashing the whole state costs, and learning waits meanwhile. So a node spends at most a fiftieth
    of its time on it, however often it is asked. `?fingerprint=1` asks while events arrive, too: it
    waits some seconds for its turn, and then gets the last one, which tells what it belongs to.
    """

    def __init__(self, serving: Serving, wait_seconds: float = WAIT_SECONDS) -> None:
        self.serving = serving
        self.wait_seconds = wait_seconds
        self.last: Known | None = None
        self.next_at = 0.0  # seconds of the monotonic clock
        self.lock = asyncio.Lock()

    async def read(self, *, asked: bool, idle: bool) -> Known | None:
        """The fingerprint if it is that of now, or was asked for; None while there is none."""
        if asked:
            await self._turn()
        async with self.lock:
            if not self._is_of_now() and (asked or idle) and monotonic() >= self.next_at:
                started = monotonic()
                self.last = await self.serving.between_batches(self._compute)
                done = monotonic()
                self.next_at = done + (COST - 1) * (done - started)
            return self.last if asked or self._is_of_now() else None

    async def _turn(self) -> None:
        """Wait until another may be computed, unless that is not needed or takes too long."""
        deadline = monotonic() + self.wait_seconds
        while not self._is_of_now() and monotonic() < self.next_at <= deadline:
            await asyncio.sleep(self.next_at - monotonic())

    def _is_of_now(self) -> bool:
        return self.last is not None and self.last.positions == self.serving.engine.positions

    def _compute(self) -> Known:
        engine = self.serving.engine
        return Known(engine.fingerprint(), dict(engine.positions))


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
            Query(alias="fingerprint", description="tell the last one even while events arrive"),
        ] = False,
    ) -> Response:
        """503 with the reasons while the node catches up or the broker is away.

        It answers all the same, from what it knows. `fingerprint` is there once there is nothing
        left to learn; two nodes with the same fingerprint have learnt the same. Making one holds
        up learning, so it is made seldom: one that was asked for while events arrive can be older
        than `positions`, and `fingerprint_positions` says what it belongs to.
        """
        seen = serving.live.ready()
        idle = bool(seen["ready"]) and seen.get("lag") == 0
        known = await fingerprint.read(asked=fingerprint_wanted, idle=idle)
        return _health(serving.live.ready(), known)

    @app.get("/metrics", tags=["health"], summary="Figures for Prometheus", responses={200: plain})
    async def metrics() -> Response:
        """Counts, lag, freshness, times to learn and to answer, prequential figures per source."""
        return Response(serving.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _health(seen: Mapping[str, Any], known: Known | None) -> Response:
    ready = bool(seen["ready"])
    reasons = list(seen["reasons"])
    answer = Health(
        ready=ready,
        reasons=reasons,
        lag=seen.get("lag"),
        positions=dict(seen.get("positions", {})),
        last_checkpoint=seen.get("last_checkpoint"),
        checkpoint_problems=list(seen.get("checkpoint_problems", ())),
        snapshot=str(seen.get("snapshot", "")),
        snapshot_problem=str(seen.get("snapshot_problem", "")),
        missing_topics=list(seen.get("missing_topics", ())),
        fingerprint=known.text if known else None,
        fingerprint_positions=known.positions if known else None,
        error=None if ready else Problem("not_ready", "; ".join(reasons) or "starting", reasons),
    )
    return json(answer, 200 if ready else 503)

"""The HTTP API of a node: what it knows, who reads it, who writes.

Read on in `serving.recommend` (lists of items) and in `serving.web`: `routes_events` (writes),
`routes_users`, `routes_snapshots`, `routes_health`; `limits` bounds every request, `errors` gives
every failure one shape, `openapi` describes it all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from serving import recommend
from serving.live import BetweenBatches, Live, Serving
from serving.metrics import Metrics
from serving.recommend import RecommendToUser
from serving.web import (
    errors,
    openapi,
    routes_events,
    routes_health,
    routes_snapshots,
    routes_users,
)
from serving.web.docs_page import page
from serving.web.limits import RequestLimits

if TYPE_CHECKING:
    from learners.engine import Engine
    from streams.order import TopicPart
    from streams.publisher import Publisher
    from streams.settings import Settings

__all__ = ["make_api"]

DESCRIPTION = """
Clicks and purchases go in through `POST /events` (or straight to Kafka); the next answer of
`GET /recommend/{user}` knows them. To read your own write, pass the token of the write as
`?after=`. Every failure has the same shape: `{"error": {"code", "message", "detail"}}`.
"""
TAGS = [
    {"name": "recommend", "description": "Lists of items; each answer is logged as an impression."},
    {"name": "events", "description": "Write: published to Kafka, learnt by every node."},
    {"name": "users", "description": "What is held of a user, and forgetting it."},
    {"name": "snapshots", "description": "Versions of the deep model, and which of them serves."},
    {"name": "health", "description": "For load balancers, operators and Prometheus."},
]


class AnyText(PathConvertor):
    """A part of the path that is an id: any text, with slashes and line ends."""

    regex = r"[\s\S]*"


class SnapshotId(PathConvertor):
    """A part of the path that names a snapshot, well or not: all but another route's word."""

    regex = r"(?!rollback$)[^/]+"


def make_api(
    engine: Engine,
    publisher: Publisher,
    settings: Settings,
    live: Live,
    *,
    impressions: Publisher | None = None,
    metrics: Metrics | None = None,
    after_seconds: float = 5.0,
    waiters: int = 512,
    partitions: Callable[[], Collection[TopicPart]] = tuple,
    between_batches: BetweenBatches = asyncio.to_thread,
) -> FastAPI:
    """Build the API of one node.

    Parameters
    ----------
    engine, publisher, settings
        What answers, what writes to Kafka, and how the node is set.
    live
        The running node: whether it is ready and what it has learnt.
    impressions
        What writes impressions, which nobody waits for; by default the same publisher.
    metrics
        Where the node counts; by default the API counts alone.
    after_seconds
        How long a read waits for the position in `?after=`.
    waiters
        How many reads may wait for one at the same time: each is looked at after every batch.
    partitions
        Tells the partitions that the node reads; a position in any other is refused.
    between_batches
        Runs a function where nothing is being learnt meanwhile (`Learning.between_batches`).
    """
    serving = Serving(
        engine=engine,
        publisher=publisher,
        impressions=impressions or publisher,
        settings=settings,
        live=live,
        metrics=metrics or Metrics(engine, live),
        after_seconds=after_seconds,
        between_batches=between_batches,
        partitions=partitions,
        places=asyncio.Semaphore(waiters),
    )
    app = _app()
    register_url_convertor("id", AnyText())
    register_url_convertor("snapshot", SnapshotId())
    app.first = recommend.add_routes(app, serving)
    for part in (routes_events, routes_users, routes_snapshots, routes_health):
        part.add_routes(app, serving)
    errors.install(app)
    openapi.install(app)
    app.add_route("/docs", _docs, include_in_schema=False)
    app.add_route("/", _start, include_in_schema=False)
    app.add_middleware(RequestLimits)
    return app


class Api(FastAPI):
    """The framework's application, behind the one route that cannot wait for it."""

    first: RecommendToUser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        body = self.at_once(scope)
        if body is None:
            await super().__call__(scope, receive, send)
        else:
            await recommend.send_json(send, body)

    def at_once(self, scope: Scope) -> bytes | None:
        """Answer a request that nobody has to wait for; JSON, `None` for any other request."""
        return self.first.at_once(scope) if scope["type"] == "http" else None


def _app() -> Api:
    return Api(
        title="everlearn",
        version=version("everlearn"),
        description=DESCRIPTION.strip(),
        openapi_tags=TAGS,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )


async def _docs(request: Request) -> Response:
    text = page(request.app.openapi(), f"{request.url.scheme}://{request.url.netloc}")
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return HTMLResponse(text, headers=headers)


async def _start(_: Request) -> Response:
    return RedirectResponse("/docs")

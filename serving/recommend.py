"""Lists of items for a user, a visitor without an id, beside an item, and for everybody.

`GET /recommend/{user}` is asked most, so it is a plain ASGI endpoint: no request object, no
dependencies, msgspec for the answer; the protocol (`serving.web.http`) and `serving.api` ask it
before the framework. It is documented in `serving.web.openapi`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Annotated, NamedTuple
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec
from fastapi import FastAPI, Query
from pydantic import BeforeValidator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from learners.base import Recommendation
from learners.explore import Slots
from serving.live import Serving
from serving.web.answers import AnonymousEvent, AnonymousEvents, AnonymousQuery, Answer, json
from serving.web.errors import Refusal, invalid
from serving.web.limits import (
    K_DEFAULT,
    K_MAX,
    SHOWN,
    exclusions,
    has_body,
    id_in_bounds,
    read_json,
)
from serving.web.openapi import After, ItemPath, accepts, answers
from streams.events import Impression

__all__ = [
    "ANONYMOUS",
    "Ask",
    "Impressions",
    "RecommendToUser",
    "add_routes",
    "as_of",
    "parse_ask",
    "send_json",
]

ANONYMOUS = "anonymous"
PREFIX = "/recommend/"
FAILED = "everlearn.failed"  # key of a scope: why the answer could not be made at once

Exclude = Annotated[str, Query(description="leave out items `seen`, `bought` or `seen,bought`")]


def parse_k(text: str) -> int:
    """How many items a list has; a refusal that names the bounds if it is no such number.

    >>> parse_k("3")
    3
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= K_MAX):
        raise invalid(f"k must be a whole number from 1 to {K_MAX}, not {text[:64]!r}")
    return int(text)


K = Annotated[int, BeforeValidator(parse_k), Query(ge=1, le=K_MAX, description="how many items")]


class Ask(NamedTuple):
    """The query string of a list."""

    k: int = K_DEFAULT
    exclude: frozenset[str] = frozenset()
    after: str | None = None


class Impressions:
    """Turns lists into answers and tells Kafka what was shown, without waiting for it."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.topic = serving.settings.topics["impressions"].name
        self.encode = msgspec.json.Encoder().encode
        self.share = serving.settings.explore_share
        # A random number for each id would be a system call, in which other threads take the GIL.
        self.prefix = uuid4().hex[:16]
        self.count = itertools.count()

    def next_id(self) -> str:
        """The id of an answer still to be made: its slots of exploration are drawn by it."""
        return f"{self.prefix}{next(self.count):016x}"

    def answer(
        self,
        user: str | None,
        ask: Callable[[], Sequence[Recommendation]],
        impression_id: str | None = None,
    ) -> Answer:
        """The answer with the list asked for, its impression published where somebody sees it."""
        impression_id = impression_id or self.next_id()
        snapshot, items = self._of_one_snapshot(ask)
        shown = Impression(
            event_id=impression_id,
            timestamp=time.time(),
            user=user or ANONYMOUS,
            items=[entry.item for entry in items],
            impression_id=impression_id,
            explored=_explored(items) if self.share else None,
        )
        if SHOWN.get():
            key = (user or impression_id).encode()
            sent = self.serving.impressions.publish_nowait(self.topic, key, self.encode(shown))
            self.serving.metrics.shown(sent is not False)
        return Answer(
            as_of=as_of(self.serving.engine.clock),
            impression_id=impression_id,
            snapshot=snapshot,
            items=list(items),
        )

    def _of_one_snapshot(
        self, ask: Callable[[], Sequence[Recommendation]]
    ) -> tuple[str, Sequence[Recommendation]]:
        """Ask, and name who has answered: once more where another took its place meanwhile."""
        engine = self.serving.engine
        while True:
            snapshot, items = engine.snapshot, ask()
            if engine.snapshot == snapshot:
                return snapshot, items


class RecommendToUser:
    """`GET /recommend/{user}` as an ASGI endpoint."""

    def __init__(self, serving: Serving, impressions: Impressions) -> None:
        self.serving = serving
        self.impressions = impressions
        self.encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that the framework has routed."""
        if FAILED in scope:
            raise scope[FAILED]
        body = await self.answer(scope["path_params"]["user"], scope["query_string"])
        await send_json(send, body)

    def at_once(self, scope: Scope) -> bytes | None:
        """Answer without the framework, whose way takes as long as the answer itself.

        `None` for whatever is not the plain case, or fails: that is left to the framework.
        """
        path = scope.get("path", "")
        if not path.startswith(PREFIX) or scope["method"] != "GET" or "\ufffd" in path:
            return None
        if FAILED in scope:
            return None
        if b"after" in scope["query_string"] or b"%" in scope["query_string"] or has_body(scope):
            return None  # to wait may fail, and nobody should wait twice
        try:
            return self.answer_now(path[len(PREFIX) :], parse_ask(scope["query_string"]))
        except Exception as error:
            scope[FAILED] = error  # is raised, once, where it is told
            return None

    async def answer(self, user: str, query: bytes) -> bytes:
        """The answer as JSON, once what it must know is learnt."""
        ask = parse_ask(query)
        if ask.after is not None:
            await self.serving.wait(ask.after)
        return self.answer_now(user, ask)

    def answer_now(self, user: str, ask: Ask) -> bytes:
        """The answer as JSON, its impression published."""
        id_in_bounds("user", user)
        serving = self.serving
        started = time.perf_counter()
        impression_id = self.impressions.next_id()
        slots = Slots(self.impressions.share, impression_id) if self.impressions.share else None
        asked = partial(serving.engine.recommend, user, k=ask.k, exclude=ask.exclude, explore=slots)
        body = self.encode(self.impressions.answer(user, asked, impression_id))
        serving.metrics.answered("recommend", time.perf_counter() - started)
        return body


def _explored(items: Sequence[Recommendation]) -> dict[str, float] | None:
    """The propensities of the explored items of a list, none where nothing was explored."""
    found = {one.item: one.sources["explore"] for one in items if "explore" in one.sources}
    return found or None


async def send_json(send: Send, body: bytes) -> None:
    """Send an answer by ASGI."""
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def as_of(clock: float) -> float | None:
    """The engine's clock for an answer: none before the first event."""
    return float(clock) if math.isfinite(clock) and clock > 0 else None


@lru_cache(maxsize=256)
def parse_ask(query: bytes) -> Ask:
    """The query string of a list, checked; clients send few different ones.

    >>> parse_ask(b"k=3&exclude=seen")
    Ask(k=3, exclude=frozenset({'seen'}), after=None)
    """
    if not query:
        return Ask()
    given = dict(parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True))
    k = parse_k(given.get("k", str(K_DEFAULT)))
    return Ask(k, exclusions(given.get("exclude", "")), given.get("after"))


def add_routes(app: FastAPI, serving: Serving) -> RecommendToUser:
    """Add the routes that answer a list of items; return the one that is asked most."""
    impressions = Impressions(serving)
    engine, metrics = serving.engine, serving.metrics
    to_user = RecommendToUser(serving, impressions)
    app.router.routes.append(Route(PREFIX + "{user:id}", to_user, methods=["GET"]))

    @app.post(
        "/recommend",
        tags=["recommend"],
        summary="Items for a visitor, from their events alone",
        responses=answers(Answer, 413, 415, 422, 503, 504),
        openapi_extra=accepts(AnonymousEvents | AnonymousQuery),
    )
    async def recommend_to_visitor(
        request: Request, k: K = K_DEFAULT, exclude: Exclude = "", after: After = None
    ) -> Response:
        """Nothing is kept of the visitor: the list of events is the whole question."""
        body = await read_json(request, AnonymousEvents | AnonymousQuery)
        query = body if isinstance(body, AnonymousQuery) else AnonymousQuery(events=body)
        await serving.wait(after)
        left_out = exclusions(exclude) if query.exclude is None else frozenset(query.exclude)
        with metrics.answering("recommend_visitor"):
            asked = partial(
                engine.recommend,
                events=_events(query.events, engine.clock),
                k=query.k or k,
                exclude=left_out,
            )
            return json(impressions.answer(None, asked))

    @app.get(
        "/items/{item:id}/similar",
        tags=["recommend"],
        summary="Items that belong to an item",
        responses=answers(Answer, 404, 422, 503, 504),
    )
    async def similar(item: ItemPath, k: K = K_DEFAULT, after: After = None) -> Response:
        """What people who look at this item look at as well."""
        id_in_bounds("item", item)
        await serving.wait(after)
        if not engine.knows_item(item):
            raise Refusal(404, f"no event has named the item {item!r} yet", code="unknown_item")
        with metrics.answering("similar"):
            return json(impressions.answer(None, partial(engine.similar, item, k)))

    @app.get(
        "/trending",
        tags=["recommend"],
        summary="What is popular now",
        responses=answers(Answer, 422, 503, 504),
    )
    async def trending(k: K = K_DEFAULT, after: After = None) -> Response:
        """The same list for everybody, from time-decayed counts."""
        await serving.wait(after)
        with metrics.answering("trending"):
            return json(impressions.answer(None, partial(engine.trending, k)))

    return to_user


def _events(events: Sequence[AnonymousEvent], now: float) -> list[tuple[str, str, float]]:
    for event in events:
        id_in_bounds("item", event.item)
    latest = as_of(now) or 0.0
    return [(e.item, e.type, latest if e.timestamp is None else e.timestamp) for e in events]

"""Nodes in memory, behind the real web server, for the tests that speak HTTP to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from learners.engine import Engine
from serving.api import make_api
from streams.settings import Settings
from tests.fakes import SMALL, START, LogInMemory, NodeInMemory, learn
from tests.served import serving

__all__ = ["ITEMS", "TOKEN", "Node", "click", "error_of", "nodes", "shopping"]

TOKEN = "correct-horse-battery"  # noqa: S105
ITEMS = [f"item-{place}" for place in range(20)]


@dataclass
class Node:
    client: httpx.Client
    engine: Engine
    publisher: LogInMemory
    live: NodeInMemory
    settings: Settings

    def published(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for _, _, value in self.publisher.sent]

    def learn(self) -> None:
        """Learn what has been published."""
        learn(self.engine, self.publisher.sent, self.settings)

    def send(self, *events: dict[str, Any]) -> str:
        """Publish events through the API; return their token."""
        answer = self.client.post("/events", json=list(events)).json()
        assert answer["rejected"] == []
        return str(answer["token"])

    def items(self, path: str, **query: Any) -> list[str]:
        """The items of an answer that is a list."""
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return [entry["item"] for entry in answer.json()["items"]]


@contextmanager
def nodes() -> Iterator[Callable[..., Node]]:
    """One server; the function makes a node with settings, and is served from then on."""
    with serving() as served, ExitStack() as clients:

        def make(after_seconds: float = 0.05, waiters: int = 512, **more: Any) -> Node:
            engine, publisher, settings = Engine(SMALL), LogInMemory(), Settings(**more)
            live = NodeInMemory(engine)
            app = make_api(
                engine,
                publisher,  # type: ignore[arg-type]
                settings,
                live,
                after_seconds=after_seconds,
                waiters=waiters,
                partitions=lambda: [(topic, 0) for topic in settings.event_topics()],
            )
            client = clients.enter_context(served.client(app))
            return Node(client, engine, publisher, live, settings)

        yield make


def shopping() -> list[dict[str, Any]]:
    """Six users who walk through the items: all begin with the first, fewer reach the later."""
    events = []
    for user in range(6):
        for place in range(20 - 3 * user):
            seconds = START + 1000.0 * user + place
            events.append(click(user=f"user-{user}", item=ITEMS[place], timestamp=seconds))
    return events


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "detail"}
    return dict(answer.json()["error"])


def click(**more: Any) -> dict[str, Any]:
    return {"type": "click", "user": "ada", "item": "tea"} | more

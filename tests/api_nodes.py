"""Nodes that are only an API, on stand-ins, for the tests that speak HTTP to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from serving.api import make_api
from streams.settings import Settings
from tests.fakes import FakeEngine, FakeLive, FakePublisher
from tests.served import serving

__all__ = ["TOKEN", "Node", "click", "error_of", "nodes"]

TOKEN = "correct-horse-battery"  # noqa: S105


@dataclass
class Node:
    client: httpx.Client
    engine: FakeEngine
    publisher: FakePublisher
    live: FakeLive

    def published(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for _, _, value in self.publisher.sent]


@contextmanager
def nodes() -> Iterator[Callable[..., Node]]:
    """One server; the function makes a node with settings, and is served from then on."""
    with serving() as served, ExitStack() as clients:

        def make(**settings: Any) -> Node:
            engine, publisher, live = FakeEngine(), FakePublisher(), FakeLive()
            app = make_api(engine, publisher, Settings(**settings), live, after_seconds=0.05)
            return Node(clients.enter_context(served.client(app)), engine, publisher, live)

        yield make


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "detail"}
    return answer.json()["error"]


def click(**more: Any) -> dict[str, Any]:
    return {"type": "click", "user": "ada", "item": "tea"} | more

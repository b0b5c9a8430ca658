"""An ASGI app behind the node's real web server, on a thread, for tests that speak HTTP to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from serving.web.http import HttpServer, bind

__all__ = ["Served", "serving"]


class Served:
    """A running server whose app a test can exchange."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def client(self, app: Any) -> httpx.Client:
        """Serve this app from now on; close the client after use."""
        self.app = app
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False)


@contextmanager
def serving() -> Iterator[Served]:
    """Start the server; it is stopped at the end."""
    served = Served()
    listener = bind("127.0.0.1", 0)
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        server = HttpServer(served, listener)
        await server.start()
        served.url = server.url
        started.set()
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()

"""The web server, as a service of the Faust worker: uvicorn on the worker's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, cast

import structlog
import uvicorn
from mode import Service
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from learners.errors import SettingsError

__all__ = ["HttpServer", "bind"]

STOP_SECONDS = 3
KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep an idle connection to a server

log = structlog.get_logger("everlearn.api")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Binding first fails early, with a cure."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only a socket that is TCP by name is told not to hold back the second half of an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        cure = "choose another port with --port or EVERLEARN_PORT, 0 takes a free one"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            cure = "give an address of this machine with --host or EVERLEARN_HOST"
        raise SettingsError(
            f"the API cannot listen on {host}:{port} ({error.strerror}): {cure}"
        ) from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the worker, which stops this service as well."""
        yield


class _Corked:
    """A transport that sends what was written in one turn of the loop in one piece.

    Head and body of an answer are two writes: a system call and a packet each cost more than half
    of what ranking does.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def _send(self) -> None:
        if self._written:
            written, self._written = self._written, []
            self._transport.write(b"".join(written))

    @property
    def is_idle(self) -> bool:
        """Whether nothing was written in this turn of the loop."""
        return not self._written

    def close(self) -> None:
        self._send()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    corked: _Corked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hand a new connection to the answers."""
        super().connection_made(transport)
        self.corked = _Corked(transport, self.loop)
        self.transport = cast(asyncio.Transport, self.corked)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer at once what the app can: a task and its way through ASGI cost as much again."""
        body = None
        plain = cycle.keep_alive and not cycle.waiting_for_100_continue and not self.pipeline
        # One answer a turn of the loop, to somebody who reads: the others queue up as tasks.
        if plain and self.corked.is_idle and not self.flow.write_paused:
            body = app.at_once(cycle.scope) if hasattr(app, "at_once") else None
        if body is None:
            self._unset_keepalive_if_required()  # that of an answer in this very turn
            super()._start_asgi_task(cycle, app)
            return
        length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        head = [STATUS_LINE[200], length]
        head += [b"%b: %b\r\n" % header for header in cycle.default_headers]
        self.transport.write(b"".join([*head, b"\r\n", body]))
        cycle.response_started = cycle.response_complete = True
        cycle.on_response()


class HttpServer(Service):
    """Serves an ASGI app on a socket until the worker stops.

    Parameters
    ----------
    app
        The ASGI application.
    listener
        A socket from `bind`.
    """

    def __init__(self, app: Any, listener: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self.listener = listener
        self.server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                access_log=False,
                proxy_headers=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self.serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the API answers."""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def on_start(self) -> None:
        """Begin to answer."""
        self.serving = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        while not self.server.started and not self.serving.done():
            await asyncio.sleep(0.01)
        log.info("the API answers", url=self.url, docs=f"{self.url}/docs")

    async def on_stop(self) -> None:
        """Finish the requests under way, then close."""
        self.server.should_exit = True
        if self.serving is not None:
            await asyncio.wait([self.serving], timeout=STOP_SECONDS + 1)

    @Service.task
    async def _watch(self) -> None:
        """End the node when the web server ends by itself."""
        if self.serving is not None:
            await asyncio.wait([self.serving])
        if not self.should_stop:
            raise RuntimeError("the web server ended")

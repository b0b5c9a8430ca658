"""A node: the engine, the Faust app that feeds it, and services such as the API, in one process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import faust
import structlog
from mode import Service

from learners.engine import Engine
from learners.errors import EventsLostError, EverlearnError
from streams.app import make_app
from streams.learning import Learning
from streams.logs import configure_logs
from streams.settings import Settings

__all__ = ["NodeRuntime", "run_node"]

log = structlog.get_logger("everlearn.node")

READY_LAG = 5_000  # records behind with which a node still counts as up to date
PROBE_SECONDS = 0.5
REBUILD_SECONDS = 1.0
# An app that is just joining its group can only end when the group is complete: some seconds after
# a start, when a former process was killed. A process that ends anyway need not wait for that.
STOP_APP_SECONDS = 8.0
LEAVE_APP_SECONDS = 1.0
STOP_SECONDS = 14.0
# How long a thread may keep the interpreter from the others: the loop's answers go first.
SWITCH_SECONDS = 0.0005


class NodeRuntime(Service):
    """Runs a node in the current event loop, and keeps it running.

    The engine outlives its Faust app: when the app fails, because the broker is gone for longer
    than its clients bear, another is built and goes on where the engine stands. Answers go on.

    Parameters
    ----------
    settings
        Everything a node can be told.
    engine
        The engine to teach; a new one by default.
    services
        More services of the process, such as the API: started when the state is loaded, before
        the broker is looked for. `add_dependency` adds one that needs the runtime itself.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        services: Sequence[Service] = (),
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.learning = Learning(settings, engine)
        self.engine = self.learning.engine
        self.publisher = self.learning.publisher
        self.app: faust.App | None = None
        self.broker_problem = ""
        self.stop_app_seconds = STOP_APP_SECONDS
        super().__init__(**kwargs)
        for service in (self.learning, *services):
            self.add_dependency(service)

    def ready(self) -> dict[str, Any]:
        """Tell whether the node is up to date, why not, how far behind, and where it stands."""
        flow = self.learning.flow
        reasons = self._reasons()
        return {
            "ready": not reasons,
            "reasons": reasons,
            "lag": flow.lag if flow and flow.source.next_offsets else None,
            "positions": dict(self.engine.positions),
            "last_checkpoint": self.learning.last_checkpoint,
            "checkpoint_problems": list(self.learning.checkpoint_problems),
            "missing_topics": flow.source.missing_topics if flow else [],
        }

    def _reasons(self) -> list[str]:
        flow = self.learning.flow
        broker = self.settings.broker
        if not self.learning.loaded:
            return ["starting: the state is being loaded"]
        if self.broker_problem:
            return [f"broker {broker} cannot be reached: {self.broker_problem}"]
        if flow is None:
            return ["starting: the app is being built"]
        if not flow.source.connected:
            problem = flow.source.problem
            return [f"broker {broker} cannot be reached: {problem}"]
        if not flow.source.next_offsets:
            return ["no event topic exists yet: `everlearn topics create` makes them"]
        reasons = [flow.problem] if flow.problem else []
        if flow.lag > READY_LAG:
            reasons.append(f"catching up: {flow.lag} records behind")
        return reasons

    async def learnt(self, positions: Mapping[str, int]) -> None:
        """Return when the event at each offset, by partition label, has been learnt."""
        await self.learning.learnt(positions)

    async def on_started(self) -> None:
        """Begin to learn, now that state and services are there."""
        self.add_future(self._keep_learning())

    async def on_stop(self) -> None:
        """Stop learning and write the last checkpoint first; services stop afterwards."""
        if self.learning.flow is not None:
            self.learning.flow.close()
            await self.learning.save()
        await self._stop_app()
        await self.learning.stop()

    async def _keep_learning(self) -> None:
        """Run one Faust app after the other until the node stops."""
        while not self.should_stop:
            await self._wait_for_broker()
            if self.should_stop:
                return
            self.app = make_app(self.settings, self.learning)
            reason = await self._run(self.app)
            await self._stop_app()
            if self.should_stop:
                return
            if isinstance(reason, EventsLostError):
                await self.crash(reason)
                return
            log.warning("the app ended and is built anew", reason=repr(reason))
            await self.sleep(REBUILD_SECONDS)

    async def _run(self, app: faust.App) -> BaseException | None:
        """Run an app until it ends; return why."""
        starting = asyncio.ensure_future(app.start())
        ended = asyncio.ensure_future(app.wait_until_stopped())
        try:
            await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is None:
                await ended
            failed = starting.exception() if starting.done() else None
            return app.crash_reason or failed
        finally:
            for task in (starting, ended):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    async def _stop_app(self) -> None:
        """Stop the app, not longer than it may take, and wait for the batch being learnt."""
        app, self.app = self.app, None
        if app is None:
            return
        if self.learning.flow is not None:
            self.learning.flow.close()
            await self.learning.flow.source.stop()
        stopping = asyncio.ensure_future(app.stop())
        done, _ = await asyncio.wait({stopping}, timeout=self.stop_app_seconds)
        if not done:
            stopping.cancel()
        elif error := stopping.exception():
            log.warning("the app did not stop in order", problem=repr(error))
        await self.learning.end()

    async def _wait_for_broker(self) -> None:
        """Wait until somebody listens at the broker's address."""
        since = time.monotonic()
        while not self.should_stop:
            problem = await probe(self.settings.broker)
            if problem and not self.broker_problem:
                log.warning("waiting for the broker", broker=self.settings.broker, problem=problem)
            if not problem and self.broker_problem:
                waited = round(time.monotonic() - since, 1)
                log.info("broker there", broker=self.settings.broker, waited_seconds=waited)
            self.broker_problem = problem
            if not problem:
                return
            await self.sleep(PROBE_SECONDS)


async def probe(broker: str) -> str:
    """Return why none of the addresses accepts a connection, or nothing if one does."""
    problems = []
    for address in broker.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            async with asyncio.timeout(3.0):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            problems.append(error.strerror or str(error) or "no answer within 3 s")
            continue
        writer.close()
        return ""
    return "; ".join(problems)


def run_node(
    settings: Settings,
    services: Callable[[NodeRuntime], Sequence[Service]] = lambda runtime: (),
) -> int:
    """Run a node until SIGTERM, Ctrl-C or a failure; return the process's exit code.

    Parameters
    ----------
    settings
        Everything a node can be told.
    services
        Makes more services, such as the API, for the runtime.

    Raises
    ------
    EverlearnError
        The node cannot start: the message says why.
    """
    import uvloop

    configure_logs()
    sys.setswitchinterval(SWITCH_SECONDS)
    told = asyncio.Event()
    deadline = threading.Timer(STOP_SECONDS, _end_now)
    deadline.daemon = True

    def stop() -> None:
        if not told.is_set():
            told.set()
            deadline.start()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number in (signal.SIGTERM, signal.SIGINT):
            runner.get_loop().add_signal_handler(number, stop)
        code = runner.run(_run_until_told(settings, services, told))
    deadline.cancel()
    return code


async def _run_until_told(
    settings: Settings, services: Callable[[NodeRuntime], Sequence[Service]], told: asyncio.Event
) -> int:
    runtime = NodeRuntime(settings)
    runtime.stop_app_seconds = LEAVE_APP_SECONDS
    for service in services(runtime):
        runtime.add_dependency(service)
    log.info("node starts", node=settings.node_name, broker=settings.broker)
    try:
        await runtime.start()
        await runtime.wait(told.wait())
    finally:
        started = time.monotonic()
        await runtime.stop()
        log.info("node stopped", seconds=round(time.monotonic() - started, 2))
    if isinstance(runtime.crash_reason, EverlearnError):
        raise runtime.crash_reason
    return 1 if runtime.crash_reason else 0


def _end_now() -> None:
    log.error("the node did not stop in time: it ends now", seconds=STOP_SECONDS)
    os._exit(1)

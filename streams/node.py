"""A node: the engine, the Faust app that feeds it, and services such as the API, in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import faust
import structlog
from mode import Service
from mode.threads import ServiceThread

from learners.engine import Engine
from learners.errors import EventsLostError, EverlearnError
from streams.app import make_app
from streams.champion import Champion
from streams.learning import Learning
from streams.logs import configure_logs
from streams.settings import Settings

__all__ = ["NodeRuntime", "run_node"]

log = structlog.get_logger("everlearn.node")

READY_LAG = 5_000  # records behind with which a node still counts as up to date
PROBE_SECONDS = 0.5
REBUILD_SECONDS = 1.0
PATIENT_SECONDS = 8.0
STOP_SECONDS = 14.0


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
        self.champion = Champion(settings, self.learning)
        self.engine = self.learning.engine
        self.publisher = self.learning.publisher
        self.app: RunningApp | None = None
        self.broker_problem = ""
        self.patient = True
        self.in_order = True
        super().__init__(**kwargs)
        for service in (self.learning, self.champion, *services):
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
            "snapshot": self.engine.snapshot,
            "snapshot_problem": self.champion.problem,
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
            self.app = RunningApp(make_app(self.settings, self.learning, self.champion))
            reason = await self.app.until_ended()
            await self._stop_app()
            if self.should_stop:
                return
            if isinstance(reason, EventsLostError):
                await self.crash(reason)
                return
            log.warning("the app ended and is built anew", reason=repr(reason))
            await self.sleep(REBUILD_SECONDS)

    async def _stop_app(self) -> None:
        """Stop the app, not longer than it may take, and wait for the batch being learnt."""
        app, self.app = self.app, None
        if app is None:
            return
        if self.learning.flow is not None:
            self.learning.flow.close()
            await self.learning.flow.source.stop()
        self.in_order &= await app.stop(patient=self.patient)
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


class RunningApp:
    """A Faust app from its start to its end, in a loop that outlives it."""

    def __init__(self, app: faust.App) -> None:
        self.app = app
        self._starting = asyncio.ensure_future(app.start())

    async def until_ended(self) -> BaseException | None:
        """Wait until the app has stopped or failed, while it starts or later; return why."""
        ended = asyncio.ensure_future(self.app.wait_until_stopped())
        await asyncio.wait({self._starting, ended}, return_when=asyncio.FIRST_COMPLETED)
        failed = self._starting.exception() if self._starting.done() else None
        if failed is None:
            await ended
        ended.cancel()
        return self.app.crash_reason or failed

    async def stop(self, *, patient: bool) -> bool:
        """Stop the app, and tell whether all of it has ended.

        A patient caller lets it finish its start first, or it leaves connections open. An app that
        joins its group can only end when the group is complete: some seconds after a start, when a
        former process was killed. A process that ends anyway need not wait for that.
        """
        if patient:
            await asyncio.wait({self._starting}, timeout=PATIENT_SECONDS)
        stopping = asyncio.ensure_future(self.app.stop())
        await asyncio.wait({stopping}, timeout=PATIENT_SECONDS if patient else 1.0)
        in_order = self._starting.done() and stopping.done()
        for task in (self._starting, stopping):
            if not task.done():
                task.cancel()
            elif not task.cancelled() and (error := task.exception()):
                log.warning("the app did not stop in order", problem=repr(error))
        close_loops(self.app)
        return in_order


def close_loops(app: faust.App) -> None:
    """Close the loops of an app's threads that it failed to start.

    Nobody else does, and a broker that keeps on failing would use up the process's files.
    """
    for node in app.beacon.traverse():
        service = getattr(node, "data", None)
        if isinstance(service, ServiceThread) and not service.started:
            service.thread_loop.close()


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
    told = asyncio.Event()
    deadline = threading.Timer(STOP_SECONDS, _end_now)
    deadline.daemon = True

    def stop() -> None:
        if not told.is_set():
            told.set()
            deadline.start()

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        runner.get_loop().add_signal_handler(number, stop)
    outcome = runner.run(_run_until_told(settings, services, told))
    if outcome.in_order:
        runner.close()
        deadline.cancel()
    else:  # nobody waits for what is left, nor wants to hear of it
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if isinstance(outcome.error, EverlearnError):
        raise outcome.error
    return 1 if outcome.error else 0


class Outcome(NamedTuple):
    """How a node ended: why, if by itself, and whether everything in its loop has ended."""

    error: BaseException | None
    in_order: bool


async def _run_until_told(
    settings: Settings, services: Callable[[NodeRuntime], Sequence[Service]], told: asyncio.Event
) -> Outcome:
    runtime = NodeRuntime(settings)
    runtime.patient = False
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
    return Outcome(runtime.crash_reason, runtime.in_order)


def _end_now() -> None:
    log.error("the node did not stop in time: it ends now", seconds=STOP_SECONDS)
    os._exit(1)

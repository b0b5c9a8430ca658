"""Learning as a service: the engine and its thread, checkpoints, the watchdog, token waits."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, TypeVar

import msgspec
import numpy as np
import structlog
from mode import Service
from numpy.typing import NDArray

from learners.checkpoint import Capture, CheckpointStore, hold_folder
from learners.drift import Alarm
from learners.engine import Engine
from learners.errors import CheckpointError
from streams.decode import Gate
from streams.flow import Decoded, Flow
from streams.publisher import Publisher
from streams.settings import Settings
from streams.source import BatchSource
from streams.warmup import warm_up
from streams.watchdog import Watchdog

__all__ = ["Learning", "LearntHook"]

log = structlog.get_logger("everlearn.learning")

CLOSE_PUBLISHER_SECONDS = 3.0
# How long a thread may keep the interpreter while another waits for it: the learner comes back from
# a kernel several times a millisecond, and must not queue each time behind the loop's decoding.
SWITCH_SECONDS = 0.0001
OWN_FOLDER = "give each node a folder of its own with EVERLEARN_STATE_DIR"
COLLECT_AFTER = 20_000  # new objects
REST = 10.0  # writing checkpoints takes at most the tenth part of the time

T = TypeVar("T")

LearntHook = Callable[[float, NDArray[np.float64]], None]


class Learning(Service):
    """Owns the engine: one thread learns, another writes checkpoints, anyone may ask.

    Parameters
    ----------
    settings
        State folder, checkpoints, watchdog, broker and topics, the engine's own settings.
    engine
        The engine to teach; a new one by default. On start it becomes what the newest checkpoint
        that verifies holds.
    on_learnt
        Called on the loop after each batch with the seconds that learning took and the batch's
        record times (seconds UTC).

    Attributes
    ----------
    last_checkpoint : float or None
        When the newest checkpoint was written, seconds UTC.
    checkpoint_problems : list of str
        Checkpoints that were refused at the start, and why the latest could not be written.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine | None = None,
        *,
        on_learnt: LearntHook | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.engine = engine or Engine(settings.engine)
        self.publisher = Publisher(settings.broker, settings)
        self.store = CheckpointStore(settings.state_dir, settings.checkpoint_keep)
        self.hooks: list[LearntHook] = [on_learnt] if on_learnt else []
        self.flow: Flow | None = None
        self.loaded = False
        self.in_doubt = False
        self.last_checkpoint: float | None = None
        self.checkpoint_problems: list[str] = []
        self._saved_positions: dict[str, int] = {}
        self._write_seconds = 0.0
        self._gate = Gate(settings.event_topics())
        self._learner = ThreadPoolExecutor(1, "everlearn-learner")
        self._writer = ThreadPoolExecutor(1, "everlearn-checkpoint")
        self._moved = asyncio.Event()
        self._writing = asyncio.Lock()
        self._watchdog = Watchdog(settings.watchdog_seconds, self._signs_of_life)
        self._lock: TextIO | None = None
        super().__init__(**kwargs)

    def begin(self, source: BatchSource) -> Flow:
        """Open the way for a source; a former one is closed."""
        if self.flow is not None:
            self.flow.close()
        self.flow = Flow(
            source=source,
            gate=self._gate,
            letters=self.publisher,
            letters_topic=self.settings.topics["dead_letters"].name,
            learn=self._learn,
            progress=self.engine,
        )
        return self.flow

    async def end(self) -> None:
        """Close the way, and wait for the batch that is being learnt."""
        if self.flow is not None:
            self.flow.close()
        await self.between_batches(lambda: None)

    async def fail(self, error: Exception) -> None:
        """End the service after an error on the way of an event: to go on would leave it out."""
        self.in_doubt = True
        await self.crash(error)

    async def between_batches(self, job: Callable[[], T]) -> T:
        """Run a job on the learner's thread, where nothing is being learnt meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._learner, job)

    async def learnt(self, positions: Mapping[str, int]) -> None:
        """Return when the record at each of these offsets has been learnt."""
        while not self.has_learnt(positions):
            await self._moved.wait()

    def has_learnt(self, positions: Mapping[str, int]) -> bool:
        """Tell whether the record at each of these offsets has been learnt."""
        stands = self.engine.positions
        return all(stands.get(label, 0) > offset for label, offset in positions.items())

    async def checkpoint(self) -> Path | None:
        """Write a checkpoint, unless nothing was learnt since the last.

        Learning stands still while the state is copied, not while it is written.
        """
        async with self._writing:  # a capture's buffers serve the next one, too
            if self.engine.positions == self._saved_positions:
                return None
            return await self._checkpoint()

    async def _checkpoint(self) -> Path:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        await self.between_batches(self.engine.memory.clear_marks)
        await loop.run_in_executor(self._writer, self.store.copy_ahead, self.engine)
        asked = time.perf_counter()
        capture = await self.between_batches(self._capture)
        waited = time.perf_counter() - asked
        folder = await loop.run_in_executor(self._writer, self.store.write, capture)
        self._write_seconds = time.perf_counter() - started
        self._saved_positions = dict(capture.manifest["positions"])
        self.last_checkpoint = time.time()
        self.checkpoint_problems = list(self.store.problems)
        log.info(
            "checkpoint",
            folder=str(folder),
            events=capture.manifest["events"],
            waited_milliseconds=round(1000 * waited, 1),
            seconds=round(time.perf_counter() - started, 3),
        )
        return folder

    async def on_start(self) -> None:
        """Take the state folder, load the newest checkpoint, start the threads."""
        sys.setswitchinterval(SWITCH_SECONDS)
        self._lock = hold_folder(self.settings.state_dir, "node", OWN_FOLDER)
        started = time.perf_counter()
        folder = await self.between_batches(lambda: self.store.load(self.engine))
        self.checkpoint_problems = list(self.store.problems)
        for problem in self.checkpoint_problems:
            log.warning("checkpoint refused", problem=problem)
        self._saved_positions = dict(self.engine.positions)
        if folder is not None:
            self.last_checkpoint = folder.stat().st_mtime
        log.info(
            "state loaded" if folder else "no checkpoint: learning from the beginning",
            folder=str(folder or self.settings.state_dir),
            events=sum(self.engine.learnt.values()),
            seconds=round(time.perf_counter() - started, 3),
        )
        await self.between_batches(load_everything)
        spare_the_collector()
        # The first capture is slow, because memory for the copy must be found; nobody waits now.
        await self.between_batches(lambda: self.store.capture(self.engine))
        self.publisher.start()
        self._watchdog.start()
        self.loaded = True

    async def on_stop(self) -> None:
        """Write a last checkpoint, and end the threads."""
        self._watchdog.stop()
        await self.end()
        await self.save()
        self._learner.shutdown(wait=False)
        self._writer.shutdown(wait=False)
        await asyncio.to_thread(self.publisher.close, CLOSE_PUBLISHER_SECONDS)
        if self._lock is not None:
            self._lock.close()

    @Service.task
    async def _keep_checkpoints(self) -> None:
        while not self.should_stop:
            await self.sleep(max(self.settings.checkpoint_seconds, REST * self._write_seconds))
            if not self.should_stop:
                await self.save()

    async def save(self) -> None:
        """Write a checkpoint if there is anything to save.

        Not after an error in learning, which has left the engine in doubt. A full disk is told,
        and stops nobody from learning.
        """
        if not self.loaded or self.in_doubt:
            return
        try:
            await self.checkpoint()
        except CheckpointError as error:
            self.checkpoint_problems = [str(error)]
            log.error("checkpoint failed", problem=str(error))

    async def _learn(self, decoded: Decoded) -> None:
        seconds, alarms = await self.between_batches(lambda: self._timed(decoded))
        for alarm in alarms:
            told = msgspec.structs.asdict(alarm)
            told["events"] = told.pop("event")  # the log's own word for its message
            log.warning("drift alarm", acted=self.settings.engine.drift_action, **told)
        self._moved.set()
        self._moved = asyncio.Event()
        for hook in self.hooks:
            hook(seconds, decoded.times)

    def _timed(self, decoded: Decoded) -> tuple[float, list[Alarm]]:
        """Learn a batch; return the seconds it took, and the alarms that it raised."""
        self._refuse_doubt()
        started, before = time.perf_counter(), self.engine.memory.events
        try:
            self.engine.learn(decoded.batch)
        except BaseException:
            self.in_doubt = True  # now: the next batch is waiting behind this one
            raise
        return time.perf_counter() - started, self.engine.drift.since(before)

    def _capture(self) -> Capture:
        self._refuse_doubt()
        return self.store.capture(self.engine)

    def _refuse_doubt(self) -> None:
        if self.in_doubt:
            raise CheckpointError("an error in learning left the engine in doubt")

    @Service.task
    async def _beat(self) -> None:
        """Show the watchdog that the loop turns."""
        while not self.should_stop:
            self._watchdog.beat()
            await self.sleep(self._watchdog.interval)

    def _signs_of_life(self) -> tuple[bool, object]:
        flow = self.flow
        if flow is None:
            return False, None
        # A broker that is away, or refuses dead letters, is not mended by another process.
        work = flow.source.connected and flow.lag > 0 and not flow.problem
        return work, (flow.learnt_records, flow.source.sent_records, flow.source.unread)


def spare_the_collector() -> None:
    """Take what is loaded by now out of the garbage collector's rounds.

    They went over half a million objects of libraries several times a minute, at 100 to 170 ms in
    which nobody was answered; records and events are no cycles and need no collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 100)


def load_everything() -> None:
    """Load now what would make learning and answers stand still for seconds when first used."""
    warm_up()
    import_module("river.drift")

"""The trainer: reads the log that the nodes read, and lets the deep model learn all its life.

A thin shell around `learners.deep.lifelong`: one thread learns, judges and writes checkpoints,
another holds lessons. Its checkpoint carries the offsets, so that a killed trainer goes on where
its state stands. A snapshot is judged only when a checkpoint knows of it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from learners.base import ERASURE
from learners.checkpoint import Capture, CheckpointStore, hold_folder
from learners.deep.lesson import Lesson, Progress, Trained, hold
from learners.deep.lifelong import Lifelong
from learners.deep.memory import Happening
from learners.deep.registry import Registry
from learners.errors import CheckpointError, EverlearnError, SnapshotError
from streams.announce import KEY, announcement
from streams.decode import Gate
from streams.flow import Decoded, Flow
from streams.logs import configure_logs
from streams.publisher import Publisher
from streams.settings import Settings
from streams.source import BatchSource, Fetch
from streams.trainer_config import lifelong_config, shape_of
from streams.watchdog import Watchdog

__all__ = ["Trainer", "Watcher", "run_trainer"]

log = structlog.get_logger("everlearn.trainer")

FORMAT = 2  # of the state: to be raised with every change of its arrays
LOOK_SECONDS = 0.2
FETCHES = 2  # wait to be learnt
REST = 10.0  # writing checkpoints takes at most the tenth part of the time
CLOSE_PUBLISHER_SECONDS = 3.0
OWN_FOLDER = "give each trainer a folder of its own with EVERLEARN_STATE_DIR"
OWN_SNAPSHOTS = "give each trainer a folder of its own with EVERLEARN_SNAPSHOT_DIR"
SILENT = ("begun", "alarm", "failed", "problem")  # told in the log only

T = TypeVar("T")


class Watcher(Protocol):
    """Who shows how the trainer does."""

    def learnt(self, trainer: Trainer) -> None:
        """So far learning is: told after every batch, and again and again without any."""

    def trained(self, done: int, of: int) -> None:
        """A lesson has taken so many steps; called on its thread."""

    def happened(self, told: Happening) -> None:
        """Something became of a lesson or a snapshot."""


class _Nobody:
    def learnt(self, trainer: Trainer) -> None: ...
    def trained(self, done: int, of: int) -> None: ...
    def happened(self, told: Happening) -> None: ...


class _NoLetters:
    """Dead letters are the nodes' to write."""

    async def publish(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, 0


class _StoppedError(Exception):
    """A lesson ends because the trainer does."""


class Trainer:
    """A trainer in the current event loop.

    Parameters
    ----------
    settings
        Everything it can be told.
    watcher
        Who shows how it does.
    hold
        How a lesson is held.

    Attributes
    ----------
    lifelong : Lifelong
        What learns and judges.
    """

    def __init__(
        self,
        settings: Settings,
        watcher: Watcher | None = None,
        hold: Callable[[Lesson, Progress], Trained] = hold,
    ) -> None:
        self.settings = settings
        self.watcher: Watcher = watcher or _Nobody()
        self.registry = Registry(settings.snapshot_dir, settings.trainer.keep)
        self.lifelong = Lifelong(
            lifelong_config(settings),
            self.registry,
            submit=self._submit,
            hold=hold,
            progress=self._progress,
        )
        self.store = CheckpointStore(
            settings.state_dir / "trainer", settings.checkpoint_keep, form=FORMAT
        )
        self.flow: Flow | None = None
        self._publisher = Publisher(settings.broker, settings)
        self._learner = ThreadPoolExecutor(1, "everlearn-learner")
        self._teacher = ThreadPoolExecutor(1, "everlearn-teacher")
        self._stopping = threading.Event()
        self._saved: dict[str, int] | None = None  # until the state is loaded
        self._save_at = 0.0  # seconds of the monotonic clock
        self._followed: str | None = None  # id of the champion, as last told

    @property
    def lag(self) -> int | None:
        """Records in Kafka that are not learnt yet, `None` before it is known."""
        return self.flow.lag if self.flow and self.flow.source.next_offsets else None

    async def run(self, told: asyncio.Event) -> None:
        """Learn until told to stop, or until something fails.

        Raises
        ------
        EverlearnError
            A folder is somebody else's or cannot be written, the state cannot be read, or events
            are lost.
        """
        root = self.registry.root
        with (
            hold_folder(self.store.folder, "trainer", OWN_FOLDER),
            hold_folder(root, "trainer", OWN_SNAPSHOTS, held="snapshots", name="trainer.lock"),
        ):
            try:
                await self._on_learner(self._load)
                self._publisher.start()
                await self._learn_until(told)
            finally:
                self._stopping.set()
                self._teacher.shutdown(wait=True)
                await self._on_learner(self._last_checkpoint)
                self._learner.shutdown()
                await asyncio.to_thread(self._publisher.close, CLOSE_PUBLISHER_SECONDS)

    async def _learn_until(self, told: asyncio.Event) -> None:
        fetches: asyncio.Queue[Fetch] = asyncio.Queue(FETCHES)
        source = BatchSource(self.settings, self.lifelong, fetches.put)
        self.flow = flow = Flow(
            source=source,
            gate=Gate(self.settings.event_topics()),
            letters=_NoLetters(),
            letters_topic="",
            learn=self._learn,
            progress=self.lifelong,
        )
        watchdog = Watchdog(self.settings.watchdog_seconds, self._signs_of_life)
        watchdog.start()
        await source.start()
        try:
            while not told.is_set() and not source.crash_reason:
                watchdog.beat()
                await self._on_learner(self._look)
                self.watcher.learnt(self)
                with suppress(TimeoutError):
                    fetch = await asyncio.wait_for(fetches.get(), LOOK_SECONDS)
                    async for decoded in flow.decode(fetch):
                        await flow.learn(decoded)
                        self.watcher.learnt(self)
                        watchdog.beat()
                        if told.is_set():
                            break
        finally:
            watchdog.stop()
            flow.close()
            await source.stop()
        if source.crash_reason:
            raise source.crash_reason

    async def _learn(self, decoded: Decoded) -> None:
        await self._on_learner(lambda: self._learn_now(decoded))

    async def _on_learner(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._learner, job)

    # On the learner's thread

    def _learn_now(self, decoded: Decoded) -> None:
        self._look()
        self._tell(self.lifelong.learn(decoded.batch))
        if erasures := int((decoded.batch.kind == ERASURE).sum()):
            log.info("users forgotten", erasures=erasures)

    def _look(self) -> None:
        """Take in a lesson that has ended; nobody judges what no checkpoint knows of."""
        told = self.lifelong.look()
        born = any(each.what == "born" for each in told)
        if born or (time.monotonic() >= self._save_at and self.lifelong.positions != self._saved):
            self._save()
        self._tell(told)

    def _tell(self, happened: list[Happening]) -> None:
        champion, before = self.lifelong.champion, self._followed
        self._followed = champion.id if champion else None
        own = any(told.what in ("promoted", "rolled_back") for told in happened)
        if self._followed != before and not own:
            log.info("follows another champion", champion=self._followed, before=before)
        for told in happened:
            write = log.warning if told.what in ("alarm", "failed", "problem") else log.info
            plain = {**told._asdict(), **told.figures}
            del plain["figures"]
            write(f"snapshot {told.what}" if told.snapshot else told.what, **plain)
            self.watcher.happened(told)
            if told.what not in SILENT:
                self._announce(told)

    def _announce(self, told: Happening) -> None:
        try:
            message = announcement(
                self.registry,
                told.what,
                told.snapshot,
                why=told.why,
                figures=told.figures,
                time=time.time(),
            )
        except SnapshotError as error:
            log.warning("not announced", problem=str(error))
            return
        topic = self.settings.topics["snapshots"].name
        self._publisher.publish_nowait(topic, KEY, msgspec.json.encode(message))

    def _load(self) -> None:
        found = self.store.newest()
        for problem in self.store.problems:
            log.warning("checkpoint refused", problem=problem)
        if found is not None:
            _, manifest, state = found
            self._check(manifest["config"])
            self.lifelong.load_state(state)
        self._saved = dict(self.lifelong.positions)
        champion = self.lifelong.champion
        self._followed = champion.id if champion else None
        events, broker = self.lifelong.books.events, self.settings.broker
        log.info("trainer starts", events=events, champion=self._followed, broker=broker)

    def _check(self, stored: dict[str, Any]) -> None:
        """Refuse a state that was made for another model or other capacities."""
        shape = shape_of(self.lifelong.config)
        for name, value in stored.items():
            if shape.get(name) != value:
                raise CheckpointError(
                    f"{self.store.folder} was made with trainer.{name} = {value}, the settings say "
                    f"{shape.get(name)}: set it back, or give EVERLEARN_STATE_DIR another folder"
                )

    def _save(self) -> None:
        started = time.perf_counter()
        books = self.lifelong.books
        manifest = {
            "format": FORMAT,
            "events": books.events,
            "clock": books.clock,
            "positions": dict(books.positions),
            "watermarks": dict(books.watermarks),
            "ledger": books.ledger(),
            "config": shape_of(self.lifelong.config),
        }
        while True:
            try:
                self.store.write(Capture(self.lifelong.state(), manifest))
                break
            except CheckpointError as error:  # until there is room again
                log.error("checkpoint failed", problem=str(error))
                if self._stopping.wait(REST):
                    return
        self._saved = dict(books.positions)
        took = time.perf_counter() - started
        self._save_at = time.monotonic() + max(self.settings.checkpoint_seconds, REST * took)

    def _last_checkpoint(self) -> None:
        if self._saved is not None and self.lifelong.positions != self._saved:
            self._save()
        log.info("trainer stopped", events=self.lifelong.books.events)

    # On the teacher's thread

    def _submit(self, lesson: Callable[[], Trained]) -> Future[Trained]:
        return self._teacher.submit(lesson)

    def _progress(self, done: int, of: int) -> None:
        if self._stopping.is_set():
            raise _StoppedError
        self.watcher.trained(done, of)

    def _signs_of_life(self) -> tuple[bool, object]:
        flow = self.flow
        if flow is None:
            return False, None
        work = flow.source.connected and flow.lag > 0
        return work, (flow.learnt_records, flow.source.sent_records, flow.source.unread)


def run_trainer(
    settings: Settings,
    watcher: Watcher | None = None,
    hold: Callable[[Lesson, Progress], Trained] = hold,
) -> int:
    """Run a trainer until SIGTERM, Ctrl-C or a failure; return the process's exit code.

    Raises
    ------
    EverlearnError
        It cannot start, or cannot go on: the message says why.
    """
    configure_logs()
    trainer = Trainer(settings, watcher, hold)

    async def run() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        await trainer.run(told)

    try:
        asyncio.run(run())
    except EverlearnError:
        raise
    except Exception:
        log.exception("the trainer failed")
        return 1
    sys.stdout.flush()
    return 0

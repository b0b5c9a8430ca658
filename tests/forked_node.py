"""A node in a process of its own that starts in a moment: forked where all modules are loaded.

It is what `everlearn node` runs, without the API. What it learnt is read from its checkpoints.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from learners.checkpoint import CheckpointStore
from tests import waiting

DEADLINE_SECONDS = 90.0


def run(settings: Mapping[str, Any], log: Path, fake: Callable[[], Any] | None) -> None:
    """Run a node in this process until it ends; its log goes to a file."""
    from learners.errors import EverlearnError
    from streams import learning
    from streams.node import run_node
    from streams.settings import Settings

    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    if fake is not None:
        learning.Engine = lambda config: fake()  # type: ignore[assignment,misc,return-value]
    try:
        code = run_node(Settings(**settings))
    except EverlearnError as error:
        print(f"everlearn: {error}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)  # no goodbye to the parent's test session


class ForkedNode:
    """A node that can be killed; start it again and it goes on from its checkpoint.

    Parameters
    ----------
    folder
        Takes the checkpoints (`state`) and the log (`node.log`).
    settings
        Arguments of `Settings`.
    fake_engine
        Makes another engine than the node's own; a function of a test module.
    """

    def __init__(
        self, folder: Path, *, fake_engine: Callable[[], Any] | None = None, **settings: Any
    ) -> None:
        self.state_dir = folder / "state"
        self.log = folder / "node.log"
        self.settings = {"state_dir": self.state_dir, "checkpoint_seconds": 0.2, **settings}
        self.fake_engine = fake_engine
        self.process: BaseProcess | None = None

    def start(self) -> ForkedNode:
        """Start the process."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.warm_modules"])
        self.process = context.Process(
            target=run, args=(self.settings, self.log, self.fake_engine), daemon=True
        )
        self.process.start()
        return self

    def kill(self) -> None:
        """End the process at once, wherever it is (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """End the process in order (SIGTERM); return its exit code."""
        return self._signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until the process ends by itself; return its exit code."""
        assert self.process is not None
        self.process.join(DEADLINE_SECONDS)
        assert self.process.exitcode is not None, f"it still runs:\n{self.log_text()}"
        return self.process.exitcode

    def _signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        assert self.process.pid is not None
        assert self.process.is_alive(), f"it has ended:\n{self.log_text()}"
        os.kill(self.process.pid, number)
        return self.wait()

    def log_text(self) -> str:
        """What the node has logged so far."""
        return self.log.read_text() if self.log.exists() else ""

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Entries of the log with this event."""
        lines = [line for line in self.log_text().splitlines() if line.startswith("{")]
        return [entry for line in lines if (entry := json.loads(line))["event"] == event]

    def manifest(self) -> dict[str, Any]:
        """Manifest of the newest checkpoint; empty without one."""
        return CheckpointStore(self.state_dir).newest_manifest() or {}

    def positions(self) -> dict[str, int]:
        """Next offsets in the newest checkpoint."""
        return dict(self.manifest().get("positions", {}))

    def until_learnt(self, ends: Mapping[str, int], seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until the process reads and a checkpoint holds everything before these offsets."""
        self.until_started()
        self.until(
            lambda: all(self.positions().get(label, 0) >= end for label, end in ends.items()),
            f"positions {dict(ends)}",
            seconds,
        )

    def until_started(self) -> None:
        """Wait until the process listens to signals."""
        self.until(lambda: bool(self._since_start("node starts")), "start")

    def until_reading(self) -> None:
        """Wait until the process reads from Kafka."""
        self.until(lambda: bool(self._since_start("reading")), "reading")

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process is not None
        assert self.process.pid is not None
        return self.process.pid

    def _since_start(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries(event) if entry["process"] == self.pid]

    def until(
        self, condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Wait for a condition; fail with the log when the process ends or the deadline is over."""
        process = self.process
        assert process is not None

        def holds() -> bool:
            if condition():
                return True
            assert process.is_alive(), f"it ended before {what}:\n{self.log_text()}"
            return False

        waiting.until(holds, seconds, lambda: f"no {what} in time:\n{self.log_text()}")

"""A trainer in a process of its own that starts in a moment, as `ForkedNode` is a node."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from learners.checkpoint import CheckpointStore
from learners.deep.lesson import Lesson, Progress, Trained, hold
from learners.deep.registry import Registry
from streams.trainer import FORMAT
from tests.forked_node import ForkedNode

__all__ = ["TRAINER", "ForkedTrainer"]

Hold = Callable[[Lesson, Progress], Trained]

# As `tests.walks.CONFIG`.
TRAINER: dict[str, Any] = {
    "width": 16,
    "epochs_first": 20,
    "epochs": 6,
    "first_events": 1500,
    "every_events": 1500,
    "every_minutes": 0,
    "users": 100,
    "items": 200,
    "newest": 400,
    "reservoir": 400,
    "evaluate_one_in": 1,
    "hold_out_one_in": 8,
    "gate_targets": 200,
    "gate_verdicts": 2,
}


def run(settings: Mapping[str, Any], log: Path, held: Hold) -> None:
    """Run a trainer in this process until it ends; its log goes to a file."""
    from learners.errors import EverlearnError
    from streams.settings import Settings
    from streams.trainer import run_trainer

    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    try:
        code = run_trainer(Settings(**settings), hold=held)
    except EverlearnError as error:
        print(f"everlearn: {error}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)  # no goodbye to the parent's test session


class ForkedTrainer(ForkedNode):
    """A trainer that can be killed; start it again and it goes on from its checkpoint.

    Parameters
    ----------
    folder
        Takes the state, the snapshots and the log.
    held
        How lessons are held; a function of a test module.
    settings
        Arguments of `Settings`.
    """

    def __init__(self, folder: Path, *, held: Hold = hold, **settings: Any) -> None:
        given = {"trainer": TRAINER, "snapshot_dir": folder / "snapshots", **settings}
        super().__init__(folder, **given)
        self.held = held
        self.registry = Registry(given["snapshot_dir"])

    def start(self) -> ForkedTrainer:
        """Start the process."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.warm_modules"])
        self.process = context.Process(
            target=run, args=(self.settings, self.log, self.held), daemon=True
        )
        self.process.start()
        return self

    def manifest(self) -> dict[str, Any]:
        """Manifest of the newest checkpoint; empty without one."""
        return self.store().newest_manifest() or {}

    def store(self) -> CheckpointStore:
        """The folder of its checkpoints."""
        return CheckpointStore(self.state_dir / "trainer", form=FORMAT)

    def until_started(self) -> None:
        """Wait until the state is loaded."""
        self.until(lambda: bool(self._since_start("trainer starts")), "start")

    def until_told(self, what: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many snapshots had this fate; return what the log tells of them."""
        self.until(lambda: len(self.entries(f"snapshot {what}")) >= count, f"{count} {what}")
        return self.entries(f"snapshot {what}")

"""The deep half of a replay: trained, judged and put into service at the same events every time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from learners.base import Batch
from learners.deep.lifelong import Lifelong
from learners.deep.memory import Happening
from learners.deep.registry import Registry
from learners.deep.served.deep import Deep
from learners.engine import Engine
from learners.errors import DataError
from streams.settings import Settings
from streams.trainer_config import lifelong_config

__all__ = ["DeepReplay", "deep_replay", "serve_champion"]

WRONG = {"failed": "the lesson failed", "problem": "a problem with the snapshots"}


def serve_champion(engine: Engine, registry: Registry) -> None:
    """Let the engine answer with whom the registry names, if that is another by now."""
    champion = registry.alias("champion") or ""
    if champion != engine.snapshot:
        held = registry.read(champion) if champion else None
        engine.serve(Deep(engine.config.items, held))


class DeepReplay:
    """What a trainer and a node do together, batch after batch.

    Parameters
    ----------
    engine : Engine
        Answers with the champion from the batch on that follows its promotion.
    settings : Settings
        `trainer` says how models are trained and judged.
    folder : Path
        Of the snapshots; new ones are written there.
    tell
        Called with what went wrong.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        folder: Path,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.engine = engine
        self.registry = Registry(folder, settings.trainer.keep)
        self.lifelong = Lifelong(lifelong_config(settings), self.registry)
        self.happened: list[Happening] = []
        self._tell = tell

    def learn(self, batch: Batch) -> None:
        """Learn a batch that the engine has just learnt."""
        happened = self.lifelong.learn(batch)
        for told in happened:
            if told.what in WRONG:
                self._tell(f"at event {told.events:,}: {WRONG[told.what]}: {told.why}")
        self.happened += happened
        serve_champion(self.engine, self.registry)

    def report(self) -> list[dict[str, Any]]:
        """Return what became of lessons and snapshots, as plain values, oldest first."""
        return [{**told._asdict(), "figures": dict(told.figures)} for told in self.happened]


@contextmanager
def deep_replay(
    engine: Engine,
    settings: Settings,
    folder: Path | None,
    trains: bool,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[DeepReplay | None]:
    """Lend the deep half of a replay that `trains`; else let a folder's champion answer.

    Snapshots are dropped at the end where no folder is named.

    Raises
    ------
    DataError
        The folder has snapshots already: the replay would go on from them.
    """
    if not trains:
        if folder is not None:
            serve_champion(engine, Registry(folder))
        yield None
        return
    if folder is not None and Registry(folder).ids():
        raise DataError(f"{folder} has snapshots already: name another folder with --snapshots")
    with TemporaryDirectory(prefix="everlearn-") as temporary:
        yield DeepReplay(engine, settings, folder or Path(temporary), tell)

"""Follow the champion: whoever the registry says serves, this node answers with.

A snapshot is read, verified and made ready beside the answers; then it takes the place of the one
before between two batches, and between two answers. What cannot be read is told, and the node goes
on with what it has.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from mode import Service

from learners.deep.registry import Registry
from learners.deep.served.deep import Deep
from learners.errors import SnapshotError
from streams.learning import Learning
from streams.settings import Settings

__all__ = ["Champion"]

log = structlog.get_logger("everlearn.champion")

LOOK_SECONDS = 1.0  # the registry may be moved by a command that announces nothing


class Champion(Service):
    """Keeps an engine's snapshot the registry's champion.

    Parameters
    ----------
    settings
        Where the snapshots are.
    learning
        Owns the engine.

    Attributes
    ----------
    problem : str
        Why the champion cannot be served; empty when it is.
    """

    def __init__(self, settings: Settings, learning: Learning, **kwargs: Any) -> None:
        self.registry = Registry(settings.snapshot_dir)
        self.learning = learning
        self.problem = ""
        self._told = asyncio.Event()
        super().__init__(**kwargs)

    def look(self) -> None:
        """Look at the registry now: somebody has announced something."""
        self._told.set()

    async def on_start(self) -> None:
        """Answer with the champion from the first answer on."""
        await self.follow()

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), LOOK_SECONDS)
            self._told.clear()
            await self.follow()

    async def follow(self) -> None:
        """Serve the champion, if it is another one by now."""
        engine = self.learning.engine
        try:
            champion = await asyncio.to_thread(self.registry.alias, "champion") or ""
            if champion != engine.snapshot:
                deep = await asyncio.to_thread(self._ready, champion)
                await self.learning.between_batches(lambda: engine.serve(deep))
                log.info("snapshot serves", snapshot=champion, items=int(deep.arrays.book[0]))
        except SnapshotError as error:
            if str(error) != self.problem:
                log.warning("snapshot refused", problem=str(error), serving=engine.snapshot)
            self.problem = str(error)
        else:
            self.problem = ""

    def _ready(self, champion: str) -> Deep:
        items = self.learning.engine.config.items
        return Deep(items, self.registry.read(champion) if champion else None)

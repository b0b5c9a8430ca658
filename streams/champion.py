"""Follow the champion: whoever the registry says serves, this node answers with.

A snapshot is read, verified and made ready beside the answers; then it takes the place of the one
before between two batches, and between two answers. What cannot be read is told, once, and the node
goes on with what it has; where that is nothing, with the champion before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from mode import Service

from learners.deep.refusals import Refusals
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
        self._refusals = Refusals(self.registry)
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
        """Serve the champion, if it is another one by now; while it cannot serve, say why."""
        try:
            problem = await self._serve_who_is_named()
        except Exception as error:  # whatever it is, the node goes on with what it has
            problem = str(error) or repr(error)
        if problem and problem != self.problem:
            serving = self.learning.engine.snapshot
            log.warning("snapshot refused", problem=problem, serving=serving)
        self.problem = problem

    async def _serve_who_is_named(self) -> str:
        """Serve the champion, or where nobody serves the one before it; return what is wrong."""
        engine = self.learning.engine
        aliases = await asyncio.to_thread(self.registry.aliases, serving=engine.snapshot)
        champion, previous = aliases["champion"] or "", aliases["previous"]
        if champion == engine.snapshot:
            return ""
        try:
            await self._serve(champion)
            return ""
        except SnapshotError as error:
            problem = str(error)
        if previous and not engine.snapshot:
            try:
                await self._serve(previous)
            except SnapshotError as error:
                return f"{problem}; and {error}"
        if previous and previous == engine.snapshot:
            return f"{problem}; until then {previous} serves, the champion before it"
        return problem

    async def _serve(self, id: str) -> None:
        engine = self.learning.engine
        deep = await asyncio.to_thread(self._ready, id)
        await self.learning.between_batches(lambda: engine.serve(deep))
        log.info("snapshot serves", snapshot=id, items=int(deep.arrays.book[0]))

    def _ready(self, id: str) -> Deep:
        items = self.learning.engine.config.items
        return self._refusals.read(id, lambda held: Deep(items, held)) if id else Deep(items)

"""The engine as a contestant: its own kernels over rows, without ids, books and checkpoints."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.ader_stream import Part, Stream
from learners.base import EngineConfig
from learners.blend import blend_state, load_blend
from learners.frozen import LISTING, list_best, test_frozen
from learners.prequential import Events, make_tested, test_then_learn
from learners.ranks import CONTENT, LIST, SOURCES
from learners.sources.content import NO_LISTING
from learners.store.memory import Memory

__all__ = ["EngineContestant"]


class EngineContestant:
    """All sources and the blend; a session is a user who comes once.

    While a period is tested, a copy of the blend learns from its queries; it takes over when the
    test has ended.

    Parameters
    ----------
    stream : Stream
        What is learnt; there is room for all its sessions and items.
    config : EngineConfig
        The engine's constants; there are no purchases, and clicks are the objective.
    """

    methods = SOURCES[:CONTENT]  # the weeks have no catalogue
    trains = True

    def __init__(self, stream: Stream, config: EngineConfig) -> None:
        self.stream = stream
        defaults = asdict(EngineConfig())
        told = asdict(config).items()
        self.constants = {name: value for name, value in told if value != defaults[name]}
        self.config = replace(
            config.of_clicks_alone(),
            users=int(stream.session.max()) + 1,
            items=max(int(stream.clicks.item.max()) + 1, LIST),
            dedupe_events=0,
        )
        self.memory = Memory.make(self.config)
        self.learner = deepcopy(self.memory.blend)
        self._covered = np.zeros((len(SOURCES), self.config.items), np.uint8)
        self._nobody = np.zeros(1, np.int64)

    def learn(self, begin: int, end: int) -> None:
        """Learn a run of the stream's clicks."""
        self._run(begin, np.zeros(end - begin, np.bool_))

    def test(self, part: Part, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rank the targets at the state learnt so far; (m, sources)."""
        memory = self.memory
        ranks = np.empty((len(targets), len(SOURCES)))
        test_frozen(
            memory.handle,
            self.learner,
            part.clicks,
            targets,
            self.config.candidates,
            ranks,
            self._covered,
        )
        return ranks

    def end_test(self) -> None:
        """Rank from now on with what the blend's copy has learnt from the test's queries."""
        load_blend(self.memory.blend, blend_state(self.learner))

    def test_then_learn(self, begin: int, tested: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Rank each tested click of a run from `begin` on, then learn it; (n, sources)."""
        return self._run(begin, tested)

    def answer(self, method: str, part: Part, targets: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the best item rows for the session before each target; (m, LIST)."""
        memory = self.memory
        best = np.empty((len(targets), LIST), np.int32)
        list_best(
            memory.handle,
            part.clicks,
            targets,
            self.config.candidates,
            SOURCES.index(method),
            best,
        )
        return best

    def can_answer(self, method: str) -> bool:
        """Tell whether a source can be asked alone."""
        return SOURCES.index(method) in LISTING

    def _run(self, begin: int, tested: NDArray[np.bool_]) -> NDArray[np.float64]:
        memory, clicks = self.memory, self.stream.clicks
        run = slice(begin, begin + len(tested))
        session = self.stream.session[run]
        events = Events(
            session,
            clicks.item[run],
            np.zeros(len(tested), np.uint8),
            clicks.time[run],
            session.astype(np.uint64) + np.uint64(1),
            tested,
            np.zeros(len(tested), np.bool_),
            NO_LISTING,
            np.zeros(len(tested), np.float32),
        )
        found = make_tested(len(tested), self._covered)
        test_then_learn(
            memory.handle,
            events,
            found,
            self.config.session_gap_seconds,
            self.config.candidates,
            0,
            len(tested),
            self._nobody,
        )
        return found.rank

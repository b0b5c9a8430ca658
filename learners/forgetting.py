r"""What an alarm does: forget once, where it was raised; then all goes on as before.

Evidence decays as :math:`2^{-(t - r)/h}`. To move r back by J half-lives h makes all that was
learnt so far weigh :math:`2^{-J}` of itself, at once and at no cost; what comes next weighs as
ever. So forgetting is raised by a known amount and has settled when it is done. The blend learns
faster for a while: Adagrad's sums of squares (Duchi, Hazan and Singer 2011, the steps' lengths) are
taken down, and grow again by themselves.

- overall: transitions and neighbours forget, the blend quickens; r moves by slow half-lives, so
  what transitions count at the fast one is as good as gone;
- in a category: what follows its items, and what goes before them, is forgotten;
- in a segment of users: the blend quickens; what items follow what is everybody's.

Popularity is left alone, as its half-lives are short anyhow; so is the factorisation, whose steps
have a sum for each row: longer ones brought nothing that could be told from chance. The docs' log
of experiments has what the actions together are worth, and what was tried besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig, no_pause
from learners.blend import Blend
from learners.drift import OVERALL, Alarm, Drift
from learners.prequential import Events, Tested
from learners.ranks import LIST
from learners.sources.transitions import TransitionsState
from learners.store.catalogue import Catalogue, Told
from learners.store.memory import Memory
from learners.store.turnstile import Turnstile

__all__ = [
    "ACT_EVERY",
    "Watch",
    "forget_followers",
    "forget_overall",
    "quicken",
]

# Alarms are acted on at each multiple of so many clicks and purchases, however batches are cut: at
# least as many that 64 of them are tested in the mean, as fewer tell little, and each part costs.
ACT_EVERY, TESTED = 256, 64
QUICKENED = np.float32(0.01)  # of the sums of squares is left: steps are ten times as long
ROWS_AT_ONCE = 2_000  # forgotten before others may ask


class Watch:
    """Shows an engine's tested events to its detectors, and acts on their alarms where it is due.

    Parameters
    ----------
    config : EngineConfig
        Whether alarms act, and by how much.
    drift, memory, catalogue, turn
        The engine's; the turn is taken for an action.

    Attributes
    ----------
    every : int
        Alarms are acted on at each multiple of so many clicks and purchases.
    """

    def __init__(
        self,
        config: EngineConfig,
        drift: Drift,
        memory: Memory,
        catalogue: Catalogue,
        turn: Turnstile,
    ) -> None:
        self.every = max(ACT_EVERY, TESTED * config.evaluate_one_in)
        self._config = config
        self._drift = drift
        self._memory = memory
        self._catalogue = catalogue
        self._turn = turn

    def parts(self, n: int) -> Iterator[tuple[int, int]]:
        """Cut the next n clicks and purchases where alarms are acted on, into (start, end)."""
        start = 0
        while start < n:
            end = min(n, start + self.every - (self._memory.events + start) % self.every)
            yield start, end
            start = end

    def reach(self, acts: NDArray[np.bool_]) -> int:
        """Return how many events may be learnt at once, for an action to find its catalogue.

        Of `acts` (n,), those that are no click or purchase are item events.
        """
        if acts.all():
            return len(acts)
        places = np.flatnonzero(acts)
        left = self.every - self._memory.events % self.every
        return int(places[left - 1]) + 1 if left <= len(places) else len(acts)

    def look(
        self,
        events: Events,
        tested: Tested,
        told: Told,
        start: int,
        end: int,
    ) -> None:
        """Look at events from `start` to `end`, which come after `memory.events` others.

        `told` are categories that are not those of the catalogue as it is by now.
        """
        learnt = self._memory.events
        for i in (start + np.flatnonzero(tested.valid[start:end])).tolist():
            known = told[i] if i in told else self._catalogue.category(events.item.item(i))
            self._drift.update(
                tested.rank.item(i, 0) <= LIST,
                learnt + i + 1,
                events.time.item(i),
                known=tested.known.item(i),
                category=known,
            )
        due = self._config.drift_action and (learnt + end) % self.every == 0
        if due and (alarms := self._drift.since(learnt + end - self.every)):
            self.act_on(alarms)

    def act_on(self, alarms: Sequence[Alarm]) -> None:
        """Forget where drift was found, and let the blend learn faster."""
        memory, half_lives = self._memory, self._config.drift_half_lives
        overall = any(alarm.where == OVERALL for alarm in alarms)
        categories = {alarm.category for alarm in alarms if alarm.category is not None}
        # Only this thread writes what is read here, so it needs no turn; all forgets these, too.
        rows = self._catalogue.rows_of(() if overall else categories)
        with self._turn:
            if overall:
                forget_overall(memory, half_lives)
            following = memory.following.arrays
            forget_followers(following, rows, half_lives, self._turn.let_through)
            if overall or any(alarm.category is None for alarm in alarms):
                quicken(memory.blend)


def forget_overall(memory: Memory, half_lives: float) -> None:
    """Let what transitions and neighbours have learnt weigh 2^-half_lives of itself."""
    for state in (memory.following.arrays, memory.near.arrays):
        reference = state.reference
        if reference[0] != 0.0:  # which stands for: nothing learnt yet
            reference[0] -= half_lives * state.half_life[0]
            if reference[0] == 0.0:
                reference[0] = -1.0


def forget_followers(
    state: TransitionsState,
    rows: NDArray[np.int64],
    half_lives: float,
    pause: Callable[[], None] = no_pause,
) -> None:
    """Let what some items are followed by and preceded by weigh 2^-half_lives of itself.

    `pause` is called between steps after each of which every answer is a sound one.
    """
    share = np.float32(2.0**-half_lives)
    for table in (state.forward, state.backward):
        for first in range(0, len(rows), ROWS_AT_ONCE):
            heads = table.rows.head[rows[first : first + ROWS_AT_ONCE]]
            held = heads["held"]
            within = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held)
            slots = np.repeat(heads["start"], held) + within
            table.slow[slots] *= share
            table.fast[slots] *= share
            pause()


def quicken(blend: Blend) -> None:
    """Let the blend take long steps again, until it has seen enough."""
    for name in Blend._fields:
        if name.endswith("_squares"):
            getattr(blend, name)[...] *= QUICKENED

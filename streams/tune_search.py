"""The search of `everlearn tune`: one constant at a time, kept only where it gains beyond chance.

First the sources that can be tried alone, cheaply; then, by the blend, what came of that and every
other constant. Steps are factors (summands for powers) that shrink from sweep to sweep. What is
tried depends on results and seed, never on the clock, so a number of trials can be repeated.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.prequential import Events
from learners.ranks import BLEND, LIST, NEIGHBOURS, SOURCES, TRANSITIONS
from learners.trials import Trial, try_config
from streams.settings.texts import ENGINE_BOUNDS

__all__ = ["KNOBS", "Knob", "Limit", "Search", "Stopped", "Trials", "value_of", "worth"]

POLL_SECONDS = 0.1
SWEEPS_ALONE, MOST_SWEEPS = 2, 5
ERRORS = 2.0  # standard errors that a change must gain
DIGITS = 3  # that a found value has


class Knob(NamedTuple):
    """A constant and how it is varied; `place` is that in a tuple, else all are scaled together."""

    name: str
    step: float  # of the first sweep: a factor or, if `adds`, a summand
    adds: bool = False
    place: int | None = None


KNOBS: dict[int, tuple[Knob, ...]] = {
    TRANSITIONS: (Knob("transition_half_lives_seconds", 3.0),),
    NEIGHBOURS: (
        Knob("neighbour_idf_power", 0.5, adds=True),
        Knob("neighbour_query_scale", 1.6),
        Knob("neighbour_length_power", 0.2, adds=True),
        Knob("neighbour_vote_scale", 1.6),
        Knob("neighbour_vote_idf_power", 0.3, adds=True),
        Knob("neighbour_after_scale", 1.6),
        Knob("neighbour_before_scale", 1.6),
        Knob("neighbour_half_life_seconds", 3.0),
        Knob("neighbours", 1.5),
    ),
    BLEND: (
        Knob("popularity_half_lives_seconds", 3.0),
        Knob("transition_half_lives_seconds", 3.0),
        Knob("transition_half_lives_seconds", 3.0, place=1),
        Knob("factor_rate", 1.6),
        Knob("factor_correction", 0.3, adds=True),
        Knob("blend_rate", 1.6),
        Knob("hidden_units", 2.0),
        Knob("neighbour_half_life_seconds", 3.0),
        Knob("neighbour_length_power", 0.2, adds=True),
        Knob("neighbour_idf_power", 0.5, adds=True),
    ),
}
"""Constants by the source whose own figures they are chosen by."""


def value_of(config: EngineConfig, knob: Knob) -> float:
    """Return a knob's value; the first one of a tuple that is scaled as a whole."""
    value = getattr(config, knob.name)
    return float(value[knob.place or 0] if isinstance(value, tuple) else value)


def moved(config: EngineConfig, knob: Knob, steps: int, sweep: int) -> EngineConfig:
    """Return the configuration some steps away, within the setting's bounds.

    >>> knob = Knob("neighbour_idf_power", 0.5, adds=True)
    >>> moved(EngineConfig(), knob, -1, 0).neighbour_idf_power
    1.0
    """
    old = value_of(config, knob)
    if knob.adds:
        new = old + steps * knob.step / 2**sweep
    else:
        new = old * knob.step ** (steps / 2**sweep)
    low, high = map(float, ENGINE_BOUNDS[knob.name])
    new = min(max(float(f"{new:.{DIGITS}g}"), low), high)
    value = getattr(config, knob.name)
    if isinstance(value, tuple):
        ratio = new / old
        told: Any = tuple(
            min(max(float(f"{each * ratio:.{DIGITS}g}"), low), high)
            if knob.place in (None, i)
            else each
            for i, each in enumerate(value)
        )
    else:
        told = round(new) if isinstance(value, int) else new
    change: dict[str, Any] = {knob.name: told}
    return replace(config, **change)


def worth(rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each target counts, the mean of its share in HR@20 and in MRR@20.

    >>> worth(np.array([1.0, 4.0, 21.0])).tolist()
    [1.0, 0.625, 0.0]
    """
    return np.where(rank <= LIST, (1.0 + 1.0 / rank) / 2.0, 0.0)


@dataclass(slots=True)
class Limit:
    """How much may be tried: a number of trials or, without one, seconds of wall clock."""

    seconds: float
    trials: int | None = None
    reserved_seconds: float = 0.0  # for what comes after the search
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def passed_seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def allows(self, made: int, more: int, seconds: float) -> bool:
        """Tell whether further trials, of so many seconds together, are still to be made."""
        if self.trials is not None:
            return made + more <= self.trials
        return self.passed_seconds + seconds + self.reserved_seconds <= self.seconds


class Stopped(Exception):
    """Somebody asked to stop while trials ran."""


class _Enough(Exception):
    """The limit is reached."""


class Trials:
    """Runs trials side by side, on as many threads as there are processors.

    Parameters
    ----------
    threads
        How many; results do not depend on it.
    stop
        Set by whoever wants no more; running trials then end at once.
    beat
        Called some times a second while trials run.
    """

    def __init__(self, threads: int, stop: threading.Event, beat: Callable[[], None]) -> None:
        self.threads = threads
        self._stop = stop
        self._beat = beat

    def run(self, jobs: Sequence[tuple[EngineConfig, Events, int]]) -> list[Trial]:
        """Return what came of each job: a configuration, events, and the source it is tried by.

        Raises
        ------
        Stopped
            Before all had ended.
        """
        halt = np.zeros(1, np.int64)
        with ThreadPoolExecutor(self.threads, "trial") as pool:
            running: list[Future[Trial]] = [pool.submit(try_config, *job, halt) for job in jobs]
            waiting: set[Future[Trial]] = set(running)
            try:
                while waiting and not self._stop.is_set():
                    done, waiting = wait(waiting, POLL_SECONDS, FIRST_EXCEPTION)
                    for each in done:
                        each.result()
                    self._beat()
            finally:
                if waiting:
                    halt[0] = 1
                    pool.shutdown(cancel_futures=True)
            if waiting:
                raise Stopped
        return [each.result() for each in running]


class Search:
    """Looks for a better configuration than the one it is given, on some events.

    Parameters
    ----------
    base
        Where it begins, and what everything is compared with.
    events
        The tested ones from `measured_from` on are the targets; the blend learns from all tested.
    trials, limit, seed
        What runs them, how many, and what orders the constants.
    """

    def __init__(
        self,
        base: EngineConfig,
        events: Events,
        measured_from: int,
        trials: Trials,
        limit: Limit,
        seed: int,
    ) -> None:
        self.base = base
        self.best = base
        self.made = 0
        self.doing = ""
        late = np.arange(len(events.item)) >= measured_from
        self._events = {
            source: events if source == BLEND else events._replace(tested=events.tested & late)
            for source in KNOBS
        }
        self._late = late
        self._trials = trials
        self._limit = limit
        self._order = np.random.default_rng(seed)
        self._known: dict[tuple[int, EngineConfig], NDArray[np.float64]] = {}
        self._seconds: dict[int, float] = {}  # of a trial, by source

    def run(self) -> None:
        """Search until the limit or until nothing gains any more; `best` is what was found.

        Raises
        ------
        Stopped
            `best` is what was found until then.
        """
        try:
            self._measure([self.base], BLEND)
            alone = [self._alone(source) for source in (TRANSITIONS, NEIGHBOURS)]
            self._join(alone)
            for sweep in range(MOST_SWEEPS):
                before = self.best
                self._sweep(self.best, BLEND, sweep, reach=1)
                if self.best == before and sweep > 1:
                    return
        except _Enough:
            return

    def gain(self) -> float | None:
        """Return the mean that `best` gains over `base` by the blend, if both were tried by it."""
        new, old = (self._known.get((BLEND, config)) for config in (self.best, self.base))
        return None if new is None or old is None else float(np.mean(new - old))

    @property
    def targets(self) -> int:
        """How many events the blend's figures are of."""
        return len(self._known.get((BLEND, self.base), ()))

    def trial_seconds(self, source: int) -> float:
        """Return the wall time of one trial beside others, as measured."""
        return self._seconds.get(source, 0.0)

    def _alone(self, source: int) -> EngineConfig:
        """Tune a source by its own figures; `best` is that too until the blend has judged."""
        config = self.base
        for sweep in range(SWEEPS_ALONE):
            config = self._sweep(config, source, sweep, reach=2 - sweep)
        return config

    def _join(self, alone: Sequence[EngineConfig]) -> None:
        """Keep what was found for each source, for both or for none, as the blend gains by it."""
        choices = list(dict.fromkeys([self.base, *alone, self.best]))
        self.doing = "sources in the blend"
        means = [float(np.mean(found)) for found in self._measure(choices, BLEND)]
        self.best = choices[int(np.argmax(means))]

    def _sweep(self, config: EngineConfig, source: int, sweep: int, *, reach: int) -> EngineConfig:
        """Vary each constant of a source once; `best` follows at once."""
        for place in self._order.permutation(len(KNOBS[source])):
            knob = KNOBS[source][place]
            self.doing = f"{SOURCES[source]}: {knob.name}"
            config = self._climb(config, knob, source, sweep, reach)
            found: dict[str, Any] = {knob.name: getattr(config, knob.name)}
            self.best = replace(self.best, **found)
        return config

    def _climb(
        self, config: EngineConfig, knob: Knob, source: int, sweep: int, reach: int
    ) -> EngineConfig:
        """Move a constant both ways, and on as long as it gains."""
        start, (score,) = config, self._measure([config], source)
        steps = [sign * step for sign in (1, -1) for step in range(1, reach + 1)]
        while steps:
            tried = {moved(start, knob, step, sweep): step for step in steps}
            tried.pop(config, None)
            choices = list(tried)
            scores = self._measure(choices, source)
            if not choices:
                return config
            best = int(np.argmax([found.mean() for found in scores]))
            if not _gains(scores[best], score):
                return config
            config, score = choices[best], scores[best]
            at = tried[config]
            sign = 1 if at > 0 else -1
            edge = abs(at) == max(map(abs, steps))
            steps = [at + sign * step for step in range(1, reach + 1)] if edge else []
        return config

    def _measure(self, configs: Sequence[EngineConfig], source: int) -> list[NDArray[np.float64]]:
        """Return what each target is worth by each configuration; tries those that are new."""
        new = [config for config in configs if (source, config) not in self._known]
        rounds = math.ceil(len(new) / self._trials.threads)
        if new and not self._limit.allows(self.made, len(new), rounds * self.trial_seconds(source)):
            raise _Enough
        started = time.monotonic()
        events = self._events[source]
        for config, trial in zip(
            new, self._trials.run([(config, events, source) for config in new]), strict=True
        ):
            self._known[source, config] = worth(trial.rank[trial.valid & self._late])
        if new:
            self._seconds[source] = (time.monotonic() - started) / rounds
            self.made += len(new)
        return [self._known[source, config] for config in configs]


def _gains(new: NDArray[np.float64], old: NDArray[np.float64]) -> bool:
    """Tell whether it is better by more than twice the standard error of the paired difference."""
    gain = new - old
    error = float(gain.std()) / math.sqrt(max(len(gain), 1))
    return float(gain.mean()) > ERRORS * error

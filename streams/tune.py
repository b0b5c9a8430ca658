"""Tuning: find an engine's constants on its own recorded log, and say what they gain.

The log is cut in three. Its first half is only learnt; the search goes by how well the third
quarter is foreseen, test-then-learn, as it would have been live; what it finds is then compared
with the settings it began with on the last quarter, which the search has never seen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.base import PURCHASE, EngineConfig
from learners.errors import DataError
from learners.prequential import Events
from learners.ranks import BLEND, LIST, NEIGHBOURS, TRANSITIONS
from learners.sources.content import NO_LISTING
from learners.store.texts import keys_64
from learners.trials import Trial, try_config
from streams.replay import open_source
from streams.replay_sources import ReplaySource
from streams.settings import Settings, load_settings
from streams.targets import write_whole
from streams.tune_search import Limit, Search, Stopped, Trials, worth
from streams.warmup import warm_up
from streams.words import counted

__all__ = ["Tuned", "tune_log", "write_tuned"]

TARGETS = 50_000  # events tested of a quarter, at most
EARLY = 4  # times fewer are tested in the first half: the blend only learns from them
LEAST_TARGETS = 100  # of a quarter
RESAMPLES = 2_000
MOST_THREADS = 4
CONFIRMING = 1.6  # a run over the whole log, in trials over three quarters, with room to spare

Progress = Callable[[float, float, str], None]  # done, in all, what is being tried


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came out of tuning.

    Attributes
    ----------
    base, best : EngineConfig
        Where it began, and what was found.
    trials : int
        How many were made: the same number and seed find the same.
    searched_gain : float or None
        Mean of HR@20 and MRR@20 that the blend gains on the quarter searched, flattered by the
        search; None where it ended before that was tried.
    figures : dict
        On the quarter not searched: `hr@20`, `mrr@20` of `base` and `best`, `n` targets.
    gain, low, high : float
        Mean of both figures gained there, with its 95 % interval.
    stopped : bool
        It was stopped before it could confirm; there are no figures.
    """

    base: EngineConfig
    best: EngineConfig
    events: int
    trials: int
    seconds: float
    searched_targets: int
    searched_gain: float | None
    figures: Mapping[str, Mapping[str, float]]
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    stopped: bool = False

    @property
    def gains(self) -> bool:
        """Whether the settings found are better, or may be where nothing could be confirmed."""
        return self.best != self.base and (self.stopped or self.low > 0.0)

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """Return the old and the new value of each setting that differs."""
        pairs = {
            each.name: (getattr(self.base, each.name), getattr(self.best, each.name))
            for each in fields(EngineConfig)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def tune_log(
    path: str | Path,
    *,
    dataset: str | None = None,
    settings: Settings | str | Path | None = None,
    until: float | None = None,
    budget_seconds: float = 300.0,
    trials: int | None = None,
    seed: int = 1,
    progress: Progress = lambda done, total, doing: None,
    tell: Callable[[str], None] = lambda text: None,
    stopping: AbstractContextManager[threading.Event] | None = None,
) -> Tuned:
    """Search for better constants on a recorded log.

    Parameters
    ----------
    path, dataset, settings
        As `streams.replay.replay_log` takes them; the search begins at the engine's settings.
    until
        Only the first so many events; below 1, that share of the log.
    budget_seconds
        Wall clock, once the log is read; confirming included. Not where `trials` is given.
    trials
        Instead, how many configurations are tried: the same number finds the same.
    seed
        Orders the constants, and draws the interval.
    progress
        Called some times a second.
    tell
        Called with what a person who waits should know.
    stopping
        Entered while it searches; it ends soon after the event that this lends is set.

    Raises
    ------
    DataError, SettingsError, BrokerError, TopicError
        The log cannot be read, or holds too little to tune by.
    """
    if not isinstance(settings, Settings):
        settings = load_settings(settings)
    source = open_source(path, dataset, settings)
    events = _chosen(_interactions(source, _stop_at(source, until)))
    base = source.engine
    warm_up(tell)
    _load(base)
    with stopping or nullcontext(threading.Event()) as stop:
        return _tune(base, events, Limit(budget_seconds, trials), seed, stop, progress)


def _tune(
    base: EngineConfig,
    events: Events,
    limit: Limit,
    seed: int,
    stop: threading.Event,
    progress: Progress,
) -> Tuned:
    n = len(events.item)
    half, most = n // 2, 3 * n // 4

    def beat() -> None:
        doing = f"{counted(search.made, 'trial')}, {search.doing}"
        if limit.trials is None:
            progress(min(limit.passed_seconds, limit.seconds), limit.seconds, doing)
        else:
            progress(search.made, limit.trials, doing)
        limit.reserved_seconds = (
            CONFIRMING * search.trial_seconds(BLEND) * max(2 / runner.threads, 1)
        )

    runner = Trials(min(MOST_THREADS, len(os.sched_getaffinity(0))), stop, beat)
    columns = [name for name in Events._fields if name != "listing"]
    searched = events._replace(**{name: getattr(events, name)[:most] for name in columns})
    search = Search(base, searched, half, runner, limit, seed)
    confirmed: list[Trial] = []
    stopped = False
    try:
        search.run()
        search.doing = "confirming"
        if search.best != base:
            confirmed = runner.run([(config, events, BLEND) for config in (base, search.best)])
    except Stopped:
        stopped = True
    tuned = Tuned(
        base,
        search.best,
        n,
        search.made,
        limit.passed_seconds,
        search.targets,
        search.gain(),
        {},
        stopped=stopped,
    )
    return _compared(tuned, events, confirmed, most, seed) if confirmed else tuned


def _stop_at(source: ReplaySource, until: float | None) -> int:
    if until is None:
        return len(source)
    return int(until * len(source)) if until < 1 else int(until)


def _interactions(source: ReplaySource, stop_at: int) -> tuple[Events, NDArray[np.uint64]]:
    """Read clicks and purchases, users and items numbered as they come; and their ids' hashes."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    columns: list[tuple[NDArray[Any], ...]] = []
    for batch in source.batches({}, stop_at):
        acts = np.flatnonzero(batch.kind <= PURCHASE).tolist()
        user = [users.setdefault(batch.user[i], len(users)) for i in acts]
        item = [items.setdefault(batch.item[i], len(items)) for i in acts]
        session = keys_64([batch.session[i] for i in acts])
        named = (np.array(user, np.int32), np.array(item, np.int32), batch.kind[acts])
        columns.append((*named, batch.timestamp[acts], session, batch.event_hash[acts]))
    if not any(len(column[0]) for column in columns):
        why = f": {source.first_rejected}" if source.first_rejected else ""
        raise DataError(f"the log holds no click or purchase to tune by{why}")
    *read, hashes = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    first = np.sort(np.unique(hashes, return_index=True)[1])  # later ones were delivered twice
    hashes = hashes[first]
    n = len(hashes)
    rest = (np.ones(n, np.bool_), np.zeros(n, np.bool_), NO_LISTING, np.zeros(n, np.float32))
    return Events._make([*(column[first] for column in read), *rest]), hashes


def _chosen(read: tuple[Events, NDArray[np.uint64]]) -> Events:
    """Choose by hash what is tested, so that a long log takes no longer to search than it must."""
    events, hashes = read
    n = len(hashes)
    one_in = max(n // 4 // TARGETS, 1)
    late = np.arange(n) >= n // 2
    tested = hashes % np.uint64(one_in) == 0
    tested &= late | (hashes // np.uint64(one_in) % np.uint64(EARLY) == 0)
    known = np.zeros(n, np.bool_)
    known[np.unique(events.user, return_index=True)[1]] = True
    for begin, end in ((n // 2, 3 * n // 4), (3 * n // 4, n)):
        targets = int((tested & ~known)[begin:end].sum())
        if targets < LEAST_TARGETS:
            raise DataError(
                f"of {counted(n, 'event')}, a quarter has {counted(targets, 'target')} (events of "
                f"users seen before): tuning needs {LEAST_TARGETS}; give a longer log"
            )
    return events._replace(tested=tested)


def _load(base: EngineConfig) -> None:
    """Compile what else a trial runs; this takes seconds."""
    n = 64
    row = np.arange(n, dtype=np.int32) % 8
    events = Events(
        row,
        row,
        np.zeros(n, np.uint8),
        np.arange(n, dtype=np.float64) + 1.0,
        np.zeros(n, np.uint64),
        np.ones(n, np.bool_),
        np.zeros(n, np.bool_),
        NO_LISTING,
        np.zeros(n, np.float32),
    )
    for source in (BLEND, NEIGHBOURS, TRANSITIONS):
        try_config(replace(base, sessions=16), events, source)


def _compared(tuned: Tuned, events: Events, trials: list[Trial], begin: int, seed: int) -> Tuned:
    """Compare both runs on the last quarter, with a bootstrap over users (Efron 1979)."""
    chosen = np.flatnonzero(trials[0].valid)
    chosen = chosen[chosen >= begin]
    ranks = [trial.rank[chosen] for trial in trials]
    figures = {
        name: {
            f"hr@{LIST}": float((rank <= LIST).mean()),
            f"mrr@{LIST}": float(np.where(rank <= LIST, 1.0 / rank, 0.0).mean()),
            "n": len(chosen),
        }
        for name, rank in zip(("base", "best"), ranks, strict=True)
    }
    gain = worth(ranks[1]) - worth(ranks[0])
    _, user = np.unique(events.user[chosen], return_inverse=True)
    sums, counts = np.bincount(user, gain), np.bincount(user)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = generator.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return replace(
        tuned, figures=figures, gain=float(gain.mean()), low=float(low), high=float(high)
    )


def write_tuned(tuned: Tuned, path: Path, command: str) -> None:
    """Write the settings that were found, with what they gain, as TOML.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    lines = [f"# Found by: {command}", *(f"# {line}" for line in _gained(tuned)), "", "[engine]"]
    defaults = EngineConfig()
    for each in fields(EngineConfig):
        new, old = getattr(tuned.best, each.name), getattr(tuned.base, each.name)
        if new != old:
            lines.append(f"{each.name} = {_toml(new)} # before: {_toml(old)}")
        elif new != getattr(defaults, each.name) and each.name != "evaluate_one_in":
            lines.append(f"{each.name} = {_toml(new)}")
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _toml(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _gained(tuned: Tuned) -> list[str]:
    """Say in words what the settings gain."""
    if not tuned.figures:
        return ["Stopped before this could be confirmed on events that the search had not seen."]
    base, best = tuned.figures["base"], tuned.figures["best"]
    return [
        f"On {counted(int(best['n']), 'later target')} that the search had not seen, HR@{LIST} "
        f"{base[f'hr@{LIST}']:.4f} became {best[f'hr@{LIST}']:.4f},",
        f"MRR@{LIST} {base[f'mrr@{LIST}']:.4f} became {best[f'mrr@{LIST}']:.4f}; the mean of both "
        f"rose by {tuned.gain:.4f} (95 %: {tuned.low:.4f} to {tuned.high:.4f}).",
    ]

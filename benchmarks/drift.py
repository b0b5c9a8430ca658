r"""What drift costs, and who gets over it: four methods through four scripts of a synthetic shop.

`everlearn` acts at alarms here (`drift_action`); `no_drift_action` is what the defaults do.

Hit rates are prequential: shares of targets that stood among the first 20 before anything was
learnt of them. Figures, each a mean over the seeds:

- `recovery_events`: from a change until the hit rate of the last SMOOTH events is back at 90 % of
  the method's own one of the OLD events before the change, after its lowest point; 0 where it never
  fell below. A run that does not come back counts with all the events that it had, and is counted
  in `not_recovered`. With several changes, their mean. `recovery_events_common` is the same, but
  until 90 % of everlearn's old rate: else who was worse before has less to come back to.
- `regret`: over the shoppers asked about after the first change, the chance that the next pick is
  in the best possible list of 20, less the chance that it is in the method's:
  :math:`\sum_u [\sum_{i \in best_{20}(u)} p_u(i) - \sum_{i \in list(u)} p_u(i)]`, with p the true
  taste at that moment.
- `detections`: changes followed by an alarm in time (`Scenario.spans`); `false_alarms`: all other
  alarms; `delay_events`: from a change to its first alarm.

A refit comes at fixed events, and how soon after a drift that is, is luck: over the seeds the drift
comes at equally spaced places between two refits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_methods import METHODS, REFIT_EVERY, WINDOW, Online
from benchmarks.drift_stream import BIN, Scenario, Story, scenarios, tell
from benchmarks.rows import Row, make_row
from learners.base import EngineConfig
from streams.warmup import warm_up

__all__ = ["Course", "config_of", "figures_of", "follow", "run"]

SMOOTH = 512  # events
OLD = 5_000
FOUND_EVENTS = 24_000
RECOVERED = 0.9
REFIT = next(name for name in METHODS if name.startswith("refit"))
TARGET = {
    "target_sudden_recovery_ratio": 0.333,
    "target_found_share": 0.95,
    "target_false_alarms_per_million": 1.0,
}


@dataclass(frozen=True, slots=True)
class Course:
    """How a method went through a story."""

    scenario: Scenario
    hits: NDArray[np.int64]  # (bins,) of BIN events
    targets: NDArray[np.int64]  # (bins,)
    regret: NDArray[np.float64]  # (bins,) summed over those asked
    asked: int  # each bin
    alarms: Sequence[tuple[str, int]]  # where, event


def run(
    *,
    users: int,
    items: int,
    events: int,
    seeds: int,
    found_seeds: int,
    sample: int,
    plot: Path | None,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield a row for each scenario and method, and one for what the detectors found.

    Parameters
    ----------
    users, items
        Of the shop.
    events
        Of a run; the drift comes in the middle.
    seeds
        Shops that every method meets.
    found_seeds
        Shops, other ones, in which only the detectors are judged.
    sample
        One event in so many is tested.
    plot
        Where to draw the hit rates.
    say
        Told what happens.
    """
    warm_up(say)
    config = config_of(users, items, sample)
    courses: dict[str, dict[str, list[Course]]] = {}
    recovery: dict[tuple[str, str], dict[str, object]] = {}
    for name in scenarios(events):
        found, seconds = _follow_all(name, config, users, items, events, seeds, say)
        courses[name] = found
        for method, each in found.items():
            figures = figures_of(each, found["everlearn"])
            recovery[name, method] = figures
            frame: dict[str, object] = {"scenario": name, "seeds": seeds, "events": events}
            frame |= {"users": users, "items": items, "sample": sample}
            frame["changes_at"] = [course.scenario.changes for course in each]
            yield make_row("drift", method, {**frame, **figures}, seconds[method])
    if plot is not None:
        from benchmarks.drift_plot import plot_courses

        plot_courses(courses, plot)
    started = time.perf_counter()
    figures = {"refit_window_events": WINDOW, **TARGET}
    for key in ("recovery_events", "recovery_events_common"):
        ours, theirs = (float(str(recovery["sudden", m][key])) for m in ("everlearn", REFIT))
        figures[f"sudden_{key}_ratio_to_refit"] = round(ours / max(theirs, 1.0), 3)
    figures |= _found(config, users, items, seeds, found_seeds, say)
    yield make_row("drift", "summary", figures, time.perf_counter() - started)


def _follow_all(
    name: str,
    config: EngineConfig,
    users: int,
    items: int,
    events: int,
    seeds: int,
    say: Callable[[str], None],
) -> tuple[dict[str, list[Course]], dict[str, float]]:
    """Take every method through a scenario's stories; return the courses and seconds of each."""
    found: dict[str, list[Course]] = {method: [] for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for seed in range(1, seeds + 1):
        say(f"{name}, seed {seed} of {seeds}")
        scenario = scenarios(events, _later(seed, seeds))[name]
        story = tell(scenario, users=users, items=items, seed=seed)
        for method in METHODS:
            started = time.perf_counter()
            found[method].append(follow(method, story, config))
            seconds[method] += time.perf_counter() - started
    return found, seconds


def config_of(users: int, items: int, sample: int = 1) -> EngineConfig:
    """Return the defaults, with room for a shop before and after a catalogue shock."""
    return EngineConfig(
        users=users + 1,
        items=2 * items + 1,
        sessions=16_384,
        dedupe_events=16_384,
        evaluate_one_in=sample,
        drift_action=True,
    )


def follow(method: str, story: Story, config: EngineConfig) -> Course:
    """Take a method through a story."""
    if method == "no_drift_action":
        config = replace(config, drift_action=False)
    contestant = METHODS[method](config, story.scenario)
    hits, targets, regret = [], [], []
    for i, batch in enumerate(story.batches):
        hit, target = contestant.learn(batch)
        hits.append(hit)
        targets.append(target)
        if story.questions:
            question = story.questions[i]
            regret.append(question.regret(contestant.lists(question.users)))
    drift = contestant.engine.drift
    alarms = [(alarm.where, alarm.event) for alarm in drift.alarms]
    return Course(
        story.scenario,
        np.array(hits),
        np.array(targets),
        np.array(regret),
        len(story.questions[0].users) if story.questions else 0,
        alarms if isinstance(contestant, Online) else [],
    )


def _later(seed: int, seeds: int) -> int:
    """Events by which a seed's drift comes later: places between two refits, equally spaced."""
    return round(REFIT_EVERY * ((seed - 1) / seeds - 0.5 * (seeds - 1) / seeds))


def figures_of(courses: Sequence[Course], reference: Sequence[Course]) -> dict[str, object]:
    """Return the means over courses of one scenario; see the module's words.

    `reference` are everlearn's, for the common level of recovery.
    """
    each = [_recoveries(course, course) for course in courses]
    common = [_recoveries(*pair) for pair in zip(courses, reference, strict=True)]
    spans = [_span_figures(course) for course in courses]
    delays = [delay for span in spans for delay in span["delays"]]
    regret = [course.regret[_bin(course.scenario.at) :] for course in courses]
    asked = sum(len(part) for part in regret) * courses[0].asked
    return {
        "recovery_events": round(float(np.mean([events for one in each for events, _ in one]))),
        "not_recovered": sum(not back for one in each for _, back in one),
        "recovery_events_common": round(float(np.mean([n for one in common for n, _ in one]))),
        "not_recovered_common": sum(not back for one in common for _, back in one),
        "regret": round(float(np.mean([part.sum() for part in regret])), 2),
        "regret_per_answer": round(float(sum(part.sum() for part in regret)) / max(asked, 1), 4),
        "hr@20_before": round(float(np.mean([_rate(c, _bin(c.scenario.at)) for c in courses])), 4),
        "hr@20_after": round(float(np.mean([_after(c) for c in courses])), 4),
        "hr@20_end": round(float(np.mean([_rate(c, len(c.hits)) for c in courses])), 4),
        "changes": sum(len(course.scenario.changes) for course in courses),
        "detections": sum(len(span["delays"]) for span in spans),
        "false_alarms": sum(len(span["false"]) for span in spans),
        "delay_events": round(float(np.mean(delays))) if delays else None,
        "alarms": sum(len(course.alarms) for course in courses),
    }


def _bin(event: int) -> int:
    return -(-event // BIN)


def _rate(course: Course, end: int) -> float:
    """Hit rate of the OLD events before a bin."""
    part = slice(max(end - OLD // BIN, 0), end)
    return float(course.hits[part].sum() / max(course.targets[part].sum(), 1))


def _after(course: Course) -> float:
    """Hit rate of as many events after the first change."""
    first = _bin(course.scenario.at)
    return _rate(course, min(first + OLD // BIN, len(course.hits)))


def _recoveries(course: Course, reference: Course) -> list[tuple[int, bool]]:
    """For each change, the events until recovery, and whether there was one."""
    starts = [*map(_bin, course.scenario.changes), len(course.hits)]
    found = []
    width = SMOOTH // BIN
    for first, stop in pairwise(starts):
        level = RECOVERED * _rate(reference, first)
        hits, targets = course.hits[first:stop], course.targets[first:stop]
        ones = np.ones(width)
        smooth = np.convolve(hits, ones, "valid") / np.convolve(targets, ones, "valid")
        below = np.flatnonzero(smooth < level)
        lowest = int(smooth.argmin())
        back = np.flatnonzero(smooth[lowest:] >= level)
        if not len(below):
            found.append((0, True))
        elif len(back):
            found.append(((lowest + int(back[0]) + width) * BIN, True))
        else:
            found.append(((stop - first) * BIN, False))
    return found


def _span_figures(course: Course) -> dict[str, list[int]]:
    """Delays of the changes that were found, and the alarms that belong to none."""
    spans = course.scenario.spans()
    events = sorted(event for _, event in course.alarms)
    firsts = [next((e for e in events if low < e <= high), None) for low, high in spans]
    strays = [e for e in events if not any(low < e <= high for low, high in spans)]
    delays = [e - low for e, (low, _) in zip(firsts, spans, strict=True) if e is not None]
    return {"delays": delays, "false": strays}


def _found(
    config: EngineConfig,
    users: int,
    items: int,
    after: int,
    seeds: int,
    say: Callable[[str], None],
) -> dict[str, object]:
    """What the detectors find in shops after the first ones: short runs, nobody is asked."""
    scripts = scenarios(FOUND_EVENTS)
    found = dict.fromkeys(scripts, 0)
    changes = dict.fromkeys(scripts, 0)
    delays: dict[str, list[int]] = {name: [] for name in scripts}
    false, stationary = 0, 0
    for seed in range(after + 1, after + seeds + 1):
        say(f"detection, seed {seed - after} of {seeds}")
        for name, scenario in scripts.items():
            story = tell(scenario, users=users, items=items, seed=seed, ask=False)
            spans = _span_figures(follow("everlearn", story, config))
            found[name] += len(spans["delays"])
            changes[name] += len(scenario.changes)
            delays[name] += spans["delays"]
            false += len(spans["false"])
            drifting = sum(min(high, scenario.events) - low for low, high in scenario.spans())
            stationary += scenario.events - drifting
    return {
        "found_seeds": seeds,
        "changes": sum(changes.values()),
        "found": sum(found.values()),
        "found_share": round(sum(found.values()) / max(sum(changes.values()), 1), 4),
        **{f"found_share_{name}": round(found[name] / max(changes[name], 1), 4) for name in found},
        **{f"delay_median_{name}": float(np.median(each)) for name, each in delays.items() if each},
        "stationary_events": stationary,
        "false_alarms": false,
        "false_alarms_per_million": round(1e6 * false / max(stationary, 1), 2),
    }

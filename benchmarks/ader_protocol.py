"""The protocol of ADER, and its stronger sister that learns each click right after its test.

*per_period*: for cycle t = 1, 2, ... periods 0 to t-1 are learnt, then all of period t is tested
and nothing learnt meanwhile. Clicks on items never learnt are dropped from the test, then sessions
of one click. Who learns from queries does so in a first test that counts for nothing, on the end of
period 0, and from each period's queries after its test. *per_event*: each click, those of period 0
included, is tested and at once learnt; it is a target if its item was clicked before.

In both, every click of a session from the second on is a target, given the session before it; all
items clicked so far are ranked, repeats are not filtered, and ties count at their mean rank.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.ader_stream import Part, Stream

__all__ = [
    "PROTOCOLS",
    "Contestant",
    "Outcome",
    "Progress",
    "ProtocolName",
    "figures_of",
    "run_protocol",
]

ProtocolName = Literal["per_period", "per_event"]
PROTOCOLS: tuple[ProtocolName, ...] = ("per_period", "per_event")
WARM_UP_SHARE = 0.2  # of period 0, its end: a first test, which counts for nothing
AT_ONCE = 1_000  # targets, between two updates of the progress bar
TIMED = 500  # queries a cycle that are asked again for their time alone

Progress = Callable[[int], None]  # further targets done


class Contestant(Protocol):
    """Whoever takes part: it learns and is tested on runs of one stream."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of what it ranks with."""

    @property
    def trains(self) -> bool:
        """Whether it learns from queries, too."""

    @property
    def constants(self) -> Mapping[str, object]:
        """What it was told, as far as it is not the default."""

    def learn(self, begin: int, end: int) -> None:
        """Learn a run of the stream's clicks."""

    def test(self, part: Part, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return each method's mean rank of the targets; (m, methods)."""

    def end_test(self) -> None:
        """Take note that a period has been tested and may now be learnt."""

    def test_then_learn(self, begin: int, tested: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Rank each tested click of a run, then learn it; (n, methods)."""

    def can_answer(self, method: str) -> bool:
        """Tell whether `answer` can be asked of a method."""

    def answer(self, method: str, part: Part, targets: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the best item rows for the session before each target; (m, k)."""


@dataclass(slots=True)
class Outcome:
    """What came out: ranks by cycle, and times."""

    constants: Mapping[str, object]
    ranks: list[NDArray[np.float64]] = field(default_factory=list)  # each (targets, methods)
    learnt: int = 0  # clicks in `learn_seconds`
    learn_seconds: float = 0.0
    query_seconds: dict[str, list[float]] = field(default_factory=dict)  # of one query, by cycle


def figures_of(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Return recall and mean reciprocal rank in percent, of mean ranks (n,).

    >>> figures_of(np.array([1.0, 4.0, 15.0, np.inf]))
    {'recall@20': 75.0, 'mrr@20': 32.917, 'recall@10': 50.0, 'mrr@10': 31.25}
    """
    figures: dict[str, float] = {}
    for k in (20, 10):
        listed = ranks <= k
        figures[f"recall@{k}"] = round(100 * float(listed.mean()), 3)
        figures[f"mrr@{k}"] = round(100 * float(np.where(listed, 1 / ranks, 0.0).mean()), 3)
    return figures


def run_protocol(
    name: ProtocolName,
    stream: Stream,
    make: Callable[[], Contestant],
    cycles: int,
    progress: Progress = lambda targets: None,
) -> Outcome:
    """Run the first cycles with a fresh contestant."""
    contestant = make()
    outcome = Outcome(contestant.constants)
    if name == "per_period":
        _per_period(stream, contestant, cycles, outcome, progress)
    else:
        _per_event(stream, contestant, cycles, outcome, progress)
        _time_learning(make(), 0, int(stream.starts[cycles + 1]), outcome)
    return outcome


def _per_period(
    stream: Stream, contestant: Contestant, cycles: int, outcome: Outcome, progress: Progress
) -> None:
    starts = [int(start) for start in stream.starts[: cycles + 2]]
    learnt = int(starts[1] * (1 - WARM_UP_SHARE)) if contestant.trains else starts[1]
    _time_learning(contestant, 0, learnt, outcome)
    if learnt < starts[1]:
        part = stream.unlearnt(learnt, starts[1])
        contestant.test(part, part.targets())
        contestant.end_test()
        _time_learning(contestant, learnt, starts[1], outcome)
    for t in range(1, cycles + 1):
        part = stream.unlearnt(starts[t], starts[t + 1])
        targets = part.targets()
        ranks = []
        for chunk in _chunks(targets):
            ranks.append(contestant.test(part, chunk))
            progress(len(chunk))
        outcome.ranks.append(np.concatenate(ranks))
        _time_answers(contestant, part, targets, outcome)
        contestant.end_test()
        if t < cycles:
            _time_learning(contestant, starts[t], starts[t + 1], outcome)


def _per_event(
    stream: Stream, contestant: Contestant, cycles: int, outcome: Outcome, progress: Progress
) -> None:
    tested = stream.seen_before()
    targets = np.zeros(len(tested), np.bool_)
    targets[stream.targets()] = True
    targets &= tested
    for t in range(cycles + 1):
        period = targets[stream.starts[t] : stream.starts[t + 1]]
        if t == 0 and not contestant.trains:
            contestant.learn(0, len(period))
            continue
        ranks = []
        for begin in range(0, len(period), AT_ONCE):
            chosen = period[begin : begin + AT_ONCE]
            found = contestant.test_then_learn(int(stream.starts[t]) + begin, chosen)
            ranks.append(found[chosen])
            progress(int(chosen.sum()) if t else 0)
        if t:
            outcome.ranks.append(np.concatenate(ranks))
            places = stream.starts[t] + np.flatnonzero(period)
            _time_answers(contestant, stream, places, outcome)


def _chunks(targets: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for begin in range(0, len(targets), AT_ONCE):
        yield targets[begin : begin + AT_ONCE]


def _time_learning(contestant: Contestant, begin: int, end: int, outcome: Outcome) -> None:
    started = time.perf_counter()
    contestant.learn(begin, end)
    outcome.learn_seconds += time.perf_counter() - started
    outcome.learnt += end - begin


def _time_answers(
    contestant: Contestant, part: Part, targets: NDArray[np.int64], outcome: Outcome
) -> None:
    """Ask some of a cycle's queries again, for nothing but the list, and note the time of each."""
    if not len(targets):
        return
    asked = np.ascontiguousarray(targets[:: max(len(targets) // TIMED, 1)][:TIMED])
    for method in filter(contestant.can_answer, contestant.methods):
        started = time.perf_counter()
        contestant.answer(method, part, asked)
        seconds = (time.perf_counter() - started) / len(asked)
        outcome.query_seconds.setdefault(method, []).append(seconds)

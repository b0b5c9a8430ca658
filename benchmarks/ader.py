"""The engine's sources, its blend and V-SKNN under the protocol of ADER, on the week-long periods.

Microseconds a query are those of a list of 20 from a session's items: what the method needs for
it and nothing else, asked again for up to 500 queries a cycle; the median of the cycles counts.
Microseconds to learn are those of learning alone, without any test; all sources of the engine learn
together, so its rows show the same. `of_vsknn` relates both to V-SKNN's of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.ader_engine import EngineContestant
from benchmarks.ader_protocol import (
    PROTOCOLS,
    Contestant,
    Outcome,
    Progress,
    ProtocolName,
    figures_of,
    run_protocol,
)
from benchmarks.ader_stream import Stream, make_stream, read_stream
from benchmarks.ader_together import TOGETHER, TogetherContestant
from benchmarks.rows import Row, make_row
from benchmarks.vsknn import VSKNN
from learners.base import EngineConfig
from learners.deep.config import SequenceConfig
from learners.errors import DataError
from learners.ranks import CONTENT, SOURCES

__all__ = ["METHODS", "PROTOCOLS", "run"]

METHODS = (*VSKNN.methods, *reversed(SOURCES[:CONTENT]))  # the weeks have no catalogue
Bar = Callable[[str], AbstractContextManager[Callable[[int, int | None, str], None]]]


def run(
    path: Path,
    *,
    config: EngineConfig,
    methods: Sequence[str] = METHODS,
    protocols: Sequence[ProtocolName] = PROTOCOLS,
    cycles: int | None = None,
    sample: int = 1,
    models: Path | None = None,
    model: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
    bar: Bar,
) -> Iterator[Row]:
    """Yield a row for each protocol and method.

    Parameters
    ----------
    path
        `diginetica-weekly.parquet`.
    config
        The engine's constants; there is room for all users and items whatever it says.
    methods, protocols
        What is wanted; the engine's sources are tested together, so one costs as much as all.
    cycles
        Only the first so many; default: all.
    sample
        Test one session in so many; the blend learns from these alone.
    models, model
        Folder of the deep model of each week, for the method `together`; what these are to be.
    bar
        Makes a progress bar.

    Raises
    ------
    DataError
        The file is not that data set, or nothing in it is to be tested; the models are others.
    """
    stream = read_stream(path, sample)
    cycles = min(cycles or stream.periods - 1, stream.periods - 1)
    expected = sum(_targets(stream, t) for t in range(1, cycles + 1))
    peers: dict[str, Row] = {}
    for names, make, alike in _contestants(config, models, model):
        wanted = [method for method in (*METHODS, *TOGETHER) if method in {*methods} & {*names}]
        for protocol in protocols if wanted else ():
            with bar(f"{' '.join(wanted)}, {protocol}") as update:
                progress = _progress(update, expected)
                _compile(alike, protocol)
                started = perf_counter()
                outcome = run_protocol(protocol, stream, partial(make, stream), cycles, progress)
                seconds = perf_counter() - started
            for method in wanted:
                figures = _figures(outcome, names.index(method), method)
                about = {"protocol": protocol, **figures, "sample": sample}
                about["constants"] = outcome.constants
                row = make_row("ader", method, about, seconds)
                if method in VSKNN.methods:
                    peers[protocol] = row
                elif protocol in peers:
                    row["of_vsknn"] = _ratios(row, peers[protocol])
                yield row


Maker = Callable[[Stream], Contestant]


def _contestants(
    config: EngineConfig, models: Path | None, model: SequenceConfig
) -> Iterator[tuple[tuple[str, ...], Maker, Maker]]:
    """Yield names of methods, who ranks by them, and one with the same kernels for any stream."""
    engine = partial(EngineContestant, config=config)
    yield VSKNN.methods, VSKNN, VSKNN
    yield SOURCES, engine, engine
    if models is not None:
        deep = partial(TogetherContestant, config=config, models=models, model=model)
        yield TOGETHER, deep, engine


def _targets(stream: Stream, cycle: int) -> int:
    """Count what a cycle foresees before anything of it is learnt."""
    begin, end = map(int, stream.starts[cycle : cycle + 2])
    if found := len(stream.unlearnt(begin, end).targets()):
        return found
    raise DataError(f"period {cycle} has nothing that could be foreseen: take more sessions")


def _ratios(row: Row, peer: Row) -> dict[str, float | None]:
    """Relate times to those of another method."""
    names = ("microseconds_per_learn", "microseconds_per_query")
    pairs: dict[str, Any] = {name: (row[name], peer[name]) for name in names}
    return {name: round(a / b, 3) if a and b else None for name, (a, b) in pairs.items()}


def _progress(update: Callable[[int, int | None, str], None], expected: int) -> Progress:
    done = 0

    def progress(targets: int) -> None:
        nonlocal done
        done += targets
        update(done, max(expected, done), "")

    return progress


def _compile(make: Callable[[Stream], Contestant], protocol: ProtocolName) -> None:
    """Run a few clicks through every kernel, so that none is compiled while others wait."""
    period, session, item = np.array([[0] * 10 + [1] * 4, [*range(5)] * 2 + [5, 6] * 2, [1, 2] * 7])
    time = np.arange(14.0) + 1.0
    stream = make_stream(period, session, item, time, np.ones(14, np.bool_))
    run_protocol(protocol, stream, partial(make, stream), 1)


def _figures(outcome: Outcome, place: int, method: str) -> dict[str, Any]:
    """Plain means of the cycles, times, and each cycle's figures."""
    by_cycle = [figures_of(ranks[:, place]) for ranks in outcome.ranks]
    columns = {name: [figures[name] for figures in by_cycle] for name in by_cycle[0]}
    means = {name: round(float(np.mean(values)), 3) for name, values in columns.items()}
    targets = [len(ranks) for ranks in outcome.ranks]
    times = outcome.query_seconds.get(method)
    return {
        **means,
        "microseconds_per_learn": round(1e6 * outcome.learn_seconds / outcome.learnt, 3),
        "microseconds_per_query": round(1e6 * float(np.median(times)), 3) if times else None,
        "n": sum(targets),
        "cycles": {**columns, "n": targets},
    }

"""The architectures of the deep model: the same data, steps and seed for each.

Trained on week 0 of diginetica, tested on week 1 as ADER's protocol does it. `parameters` are of
the encoder, beside the table of items, which all have alike. A query is one session of week 1: its
user vector, the scores of all items and the best 20, by torch on one thread; the median of some.
Seconds are of the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.ader_deep import sessions_of, target_ranks
from benchmarks.ader_protocol import figures_of
from benchmarks.ader_stream import read_stream
from benchmarks.rows import Row, make_row, percentiles
from learners.base import CLICK
from learners.deep.config import ARCHITECTURES, Architecture, FineTuneConfig, SequenceConfig
from learners.deep.finetune import fine_tune
from learners.deep.histories import Histories
from learners.deep.sequence import SequenceModel
from learners.ranks import LIST

__all__ = ["METHODS", "run"]

METHODS = ARCHITECTURES
ASKED = 300  # queries that are timed
Bar = Callable[[str], AbstractContextManager[Callable[[int, int | None, str], None]]]


def run(
    path: Path,
    *,
    methods: Sequence[Architecture] = METHODS,
    config: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
    training: FineTuneConfig = FineTuneConfig(threads=1),  # noqa: B008
    sample: int = 1,
    bar: Bar,
) -> Iterator[Row]:
    """Yield a row for each architecture.

    Parameters
    ----------
    path
        `diginetica-weekly.parquet`.
    config, training
        The rest of the model, and how it is trained.
    sample
        Test one session in so many.

    Raises
    ------
    DataError
        The file is not that data set.
    """
    stream = read_stream(path, sample)
    end, later = map(int, stream.starts[1:3])
    sessions = sessions_of(stream.clicks.item[:end], stream.session[:end])
    part = stream.unlearnt(end, later)
    tested = sessions_of(part.clicks.item[part.sampled], part.session[part.sampled])
    for method in methods:
        told = replace(config, architecture=method)
        model = SequenceModel(told, stream.known_before(end), training.seed)
        with bar(method) as update:
            started = time.process_time()
            done = fine_tune(
                model,
                sessions,
                None,
                training,
                first=True,
                progress=lambda step, of, update=update: update(step, of, ""),  # type: ignore[misc]
            )
            seconds = time.process_time() - started
        figures = {
            **figures_of(target_ranks(model, tested)),
            "train_seconds": round(seconds, 3),
            "targets_per_second": round(done.targets / seconds),
            "steps": done.steps,
            "loss": round(done.loss, 4),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "items": model.items,
            **{f"query_{k}": v for k, v in percentiles(_query_seconds(model, tested), 50).items()},
            "seed": training.seed,
            "n": tested.targets,
            "sample": sample,
        }
        yield make_row("architectures", method, figures, seconds)


@torch.no_grad()
def _query_seconds(model: SequenceModel, sessions: Histories) -> list[float]:
    """Ask for some sessions, one after the other; return the seconds of each."""
    x = model.unit(model.table)
    taken = []
    for session in np.linspace(0, len(sessions) - 1, ASKED, dtype=np.int64):
        one = sessions.take(np.array([session]))
        started = time.process_time()
        u = torch.from_numpy(model.vectors(one)[0, CLICK])
        (x @ u).topk(min(LIST, model.items))
        taken.append(time.process_time() - started)
    return taken

"""The deep model alone under the protocol of ADER, per period, fine-tuned in four ways.

* deep_finetune: each week the model goes on with that week's sessions.
* deep_rehearsal: the same, and older sessions are rehearsed, drawn from all weeks so far.
* deep_distilled: and on these the model before has a say.
* deep_joint: each week a model from nothing, on all sessions so far, with the passes of a first
  training.

`old_weeks` tells how well the first weeks are foreseen by the last model, which has trained on
them: what is lower than with other methods has been forgotten. Seconds are of training alone,
of the processor: one thread, so they are those of a clock where nothing else runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ader_protocol import WARM_UP_SHARE, figures_of
from benchmarks.ader_stream import Stream, read_stream
from benchmarks.rows import Row, make_row
from learners.base import CLICK
from learners.deep.config import FineTuneConfig, SequenceConfig
from learners.deep.finetune import fine_tune
from learners.deep.growth import first_rows
from learners.deep.histories import Histories, batches, windows
from learners.deep.rehearsal import ReplayBuffer
from learners.deep.sequence import SequenceModel

__all__ = ["METHODS", "PROTOCOLS", "run", "sessions_of", "target_ranks"]

PROTOCOLS = ("per_period",)
METHODS = ("deep_finetune", "deep_rehearsal", "deep_distilled", "deep_joint")
DISTILLATION = 0.5  # weight where it has one and the configuration says none
OLD_WEEKS = 4
AT_ONCE = 128  # sessions that are ranked together
Update = Callable[[int, int | None, str], None]
Bar = Callable[[str], AbstractContextManager[Update]]


def run(
    path: Path,
    *,
    config: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
    training: FineTuneConfig = FineTuneConfig(threads=1),  # noqa: B008
    methods: Sequence[str] = METHODS,
    cycles: int | None = None,
    sample: int = 1,
    save: Path | None = None,
    bar: Bar,
) -> Iterator[Row]:
    """Yield a row for each method.

    Parameters
    ----------
    path
        `diginetica-weekly.parquet`.
    config, training
        The model and how it is trained; `training.rehearsed` older sessions for each new one.
    cycles
        Only the first so many; default: all.
    sample
        Test one session in so many; all are trained on.
    save
        A folder for the model of every cycle: weights, and what they are of. A model of number 0
        has trained on the first 80 % of week 0. Rows of the table are items as they first come.

    Raises
    ------
    DataError
        The file is not that data set.
    """
    stream = read_stream(path, sample)
    cycles = min(cycles or stream.periods - 1, stream.periods - 1)
    for method in methods:
        started = perf_counter()
        with bar(method) as update:
            learner = _Learner(stream, method, config, training, cycles, update)
            if save is not None:
                _save(save / method, 0, learner.warm_up(), {"method": method})
            found = [_cycle(learner, cycle, save) for cycle in range(1, cycles + 1)]
            weeks = range(min(OLD_WEEKS, cycles))  # the model has rows for what it has learnt
            old = [learner.test(_all_sessions(stream, week)) for week in weeks]
        yield make_row("ader", method, _figures(found, old, sample), perf_counter() - started)


@dataclass(slots=True)
class _Found:
    """Of one cycle."""

    ranks: NDArray[np.float64]
    train_seconds: float
    targets_trained: int


@dataclass(slots=True)
class _Learner:
    """One method, week after week."""

    stream: Stream
    method: str
    config: SequenceConfig
    training: FineTuneConfig
    cycles: int
    update: Update
    model: SequenceModel = field(init=False)
    buffer: ReplayBuffer = field(init=False)

    def __post_init__(self) -> None:
        sessions = int(self.stream.session.max()) + 1
        longest = self.config.most_events + 1  # there is room for all
        self.buffer = ReplayBuffer(newest=1, reservoir=2 * sessions, longest=longest)

    def warm_up(self) -> SequenceModel:
        """Return a model of the first part of week 0, on whose end a blend can learn."""
        end = int(self.stream.starts[1] * (1 - WARM_UP_SHARE))
        return self._from_nothing(end, 0)[0]

    def train(self, cycle: int) -> tuple[float, int]:
        """Learn the week before a cycle; return seconds, and targets that were trained on."""
        begin, end = map(int, self.stream.starts[cycle - 1 : cycle + 1])
        started = process_time()
        new = windows(_sessions(self.stream, begin, end), self.config.most_events)
        if cycle == 1 or self.method == "deep_joint":
            self.model, targets = self._from_nothing(end, cycle)
        else:
            targets = self._go_on(new, end, cycle)
        seconds = process_time() - started
        self.buffer.add(np.arange(1, len(new) + 1, dtype=np.uint64), new)
        return seconds, targets

    def _from_nothing(self, end: int, cycle: int) -> tuple[SequenceModel, int]:
        model = SequenceModel(self.config, self.stream.known_before(end), self.training.seed)
        sessions = _sessions(self.stream, 0, end)
        done = fine_tune(
            model, sessions, None, self.training, first=True, progress=self._progress(cycle)
        )
        return model, done.targets

    def _go_on(self, new: Histories, end: int, cycle: int) -> int:
        champion = copy.deepcopy(self.model) if self.method == "deep_distilled" else None
        training = replace(self.training, seed=self.training.seed + cycle)
        if champion is not None:
            weight = training.distillation or DISTILLATION
            training = replace(training, distillation=weight)
        items = self.stream.known_before(end)
        table = self.model.trained.cpu().numpy()
        self.model.grow(first_rows(table, new, items, training.seed, self.config.table_std))
        rehearsed = None if self.method == "deep_finetune" else self.buffer
        told = self._progress(cycle)
        done = fine_tune(self.model, new, rehearsed, training, champion=champion, progress=told)
        return done.targets

    def test(self, sessions: Histories) -> NDArray[np.float64]:
        """Rank what is to be foreseen in some sessions."""
        return target_ranks(self.model, sessions)

    def _progress(self, cycle: int) -> Callable[[int, int], None]:
        whole = 1000  # of a cycle

        def progress(done: int, of: int) -> None:
            at = whole * max(cycle - 1, 0) + whole * done // of
            self.update(at, whole * self.cycles, f"week {cycle}")

        return progress


def _cycle(learner: _Learner, cycle: int, save: Path | None) -> _Found:
    seconds, targets = learner.train(cycle)
    begin, end = map(int, learner.stream.starts[cycle : cycle + 2])
    part = learner.stream.unlearnt(begin, end)
    sampled = part.sampled
    ranks = learner.test(sessions_of(part.clicks.item[sampled], part.session[sampled]))
    found = _Found(ranks, seconds, targets)
    if save is not None:
        about = {"method": learner.method, **figures_of(ranks), "train_seconds": seconds}
        _save(save / learner.method, cycle, learner.model, about)
    return found


def sessions_of(item: NDArray[np.int32], session: NDArray[np.int32]) -> Histories:
    """Return clicks in time order (n,) as one sequence a session, in the order of their numbers."""
    order = np.argsort(session, kind="stable")
    begin = np.flatnonzero(np.diff(session[order], prepend=-1))
    return Histories(
        item[order],
        np.full(len(item), CLICK, np.uint8),
        np.full(len(item), np.nan),  # the times of these weeks are made up
        np.append(begin, len(item)),
    )


def _sessions(stream: Stream, begin: int, end: int) -> Histories:
    return sessions_of(stream.clicks.item[begin:end], stream.session[begin:end])


def _all_sessions(stream: Stream, week: int) -> Histories:
    return _sessions(stream, *map(int, stream.starts[week : week + 2]))


@torch.no_grad()
def target_ranks(model: SequenceModel, sessions: Histories) -> NDArray[np.float64]:
    """Return the mean rank of each target among all items of the model, (n,)."""
    model.eval()
    x = model.unit(model.table)
    found: list[NDArray[np.float64]] = []
    for batch in batches(windows(sessions, model.config.most_events), AT_ONCE):
        sequence, event = np.nonzero(batch.target)
        users = model.encode_padded(batch, heads=1, events=-1)
        asked = torch.from_numpy(sequence), torch.from_numpy(event - 1)
        score = users[:, :, CLICK][asked] @ x.T  # (n, items)
        target = torch.from_numpy(batch.item[sequence, event].astype(np.int64))
        own = score.gather(1, target.to(score.device)[:, None])
        better, alike = (  # numpy counts five times as fast as torch
            np.count_nonzero(chosen.cpu().numpy(), axis=1) for chosen in (score > own, score == own)
        )
        found.append(better + (alike + 1) / 2)
    return np.concatenate(found)


def _figures(
    found: Sequence[_Found], old: Sequence[NDArray[np.float64]], sample: int
) -> dict[str, object]:
    """Plain means of the cycles, and each cycle's figures."""
    columns: dict[str, list[float]] = {}
    for cycle in found:
        for name, value in figures_of(cycle.ranks).items():
            columns.setdefault(name, []).append(value)
        columns.setdefault("train_seconds", []).append(round(cycle.train_seconds, 3))
        columns.setdefault("targets_trained", []).append(cycle.targets_trained)
    weeks = [figures_of(ranks) for ranks in old]
    return {
        "protocol": "per_period",
        **{name: round(float(np.mean(values)), 3) for name, values in columns.items()},
        "n": sum(len(cycle.ranks) for cycle in found),
        "sample": sample,
        "old_weeks": {name: [week[name] for week in weeks] for name in weeks[0]},
        "cycles": {**columns, "n": [len(cycle.ranks) for cycle in found]},
    }


def _save(folder: Path, cycle: int, model: SequenceModel, about: dict[str, object]) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.arrays(), folder / f"cycle-{cycle:02d}.safetensors")
    told = {**about, "cycle": cycle, "items": model.items, "config": asdict(model.config)}
    (folder / f"cycle-{cycle:02d}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")

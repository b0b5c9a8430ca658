"""A lesson: what a fine-tune is given, all of it copied, so that it can run beside the learner.

Torch is imported when a lesson is held, not before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import FineTuneConfig, SequenceConfig
from learners.deep.growth import first_rows
from learners.deep.histories import Histories
from learners.deep.likeness import Listed, alike
from learners.deep.packing import Arrays, pack, unpack
from learners.deep.questions import Pupil, in_rows_of
from learners.deep.registry import Snapshot
from learners.deep.trails import no_histories
from learners.store.vocab import Vocabulary

__all__ = [
    "Lesson",
    "Progress",
    "Remembered",
    "Trained",
    "hold",
    "lesson_of",
    "pupil_of",
]

TAUGHT_A_LISTED = 16
LEAST_STEPS = 16  # of a round, where batches need not become smaller than that
LEAST_BATCH = 8  # sequences
Progress = Callable[[int, int], None]  # steps done, of how many


class Remembered(Protocol):
    """Who remembers older sequences, in rows of the vocabulary."""

    def sample(self, n: int, generator: np.random.Generator) -> Histories:
        """Return n sequences, or fewer where there are fewer."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a model is to be taught: sequences in rows of the vocabulary, and whose model it is."""

    parent: Pupil | None  # None: from nothing
    items: list[str]  # by row of the model: the parent's that are still known, then new ones
    kept: NDArray[np.int64]  # rows of the parent's table that stay
    row_of: NDArray[np.int32]  # row of the model by row of the vocabulary, -1 for none
    token: NDArray[np.int32]  # (items, TOKENS) what the catalogue says of them
    listed: list[str]  # items that nobody has clicked yet
    listed_token: NDArray[np.int32]  # (listed, TOKENS)
    new: Histories
    older: Remembered | None
    model: SequenceConfig
    tuning: FineTuneConfig


class Trained(NamedTuple):
    """What came out of a lesson."""

    arrays: Arrays
    items: list[str]
    taught: int  # the first so many of them were trained
    figures: dict[str, Any]


class _Translated:
    """Older sequences in rows of the model."""

    def __init__(self, older: Remembered, row_of: NDArray[np.int32]) -> None:
        self.older, self.row_of = older, row_of

    def sample(self, n: int, generator: np.random.Generator) -> Histories:
        return in_rows_of(self.older.sample(n, generator), self.row_of).trainable()


def lesson_of(
    parent: Pupil | None,
    vocabulary: Vocabulary,
    listed: Listed,
    new: Histories,
    older: Remembered | None,
    model: SequenceConfig,
    tuning: FineTuneConfig,
) -> Lesson:
    """Prepare a lesson; every item that was clicked gets a row, those that are gone lose theirs.

    The newest of those that are only listed get one afterwards, near those that they are like: at
    most one for `TAUGHT_A_LISTED` others, as each stands in the way of one that is clicked. A
    parent of another shape cannot be fine-tuned: then a model begins from nothing. Few sequences
    are taken in smaller batches.
    """
    batch = min(max(len(new) // LEAST_STEPS, LEAST_BATCH), tuning.batch)
    if parent is not None and parent.config != asdict(model):
        parent = None
    unused = set(vocabulary.unused)
    rows = np.array([row for row in range(vocabulary.used) if row not in unused], np.int64)
    known = np.full(len(rows), -1) if parent is None else parent.row_of[rows]
    taught = vocabulary.last_seen[rows] > 0
    if parent is not None:
        taught |= (known >= 0) & (known < parent.taught)
    fresh = listed.newest(rows[~taught], int(taught.sum()) // TAUGHT_A_LISTED)
    rows, known = rows[taught], known[taught]
    order = np.concatenate([rows[known >= 0][np.argsort(known[known >= 0])], rows[known < 0]])
    row_of = np.full(vocabulary.capacity, -1, np.int32)
    row_of[order] = np.arange(len(order))
    return Lesson(
        parent=parent,
        items=[vocabulary.ids[row] for row in order.tolist()],
        kept=np.sort(known[known >= 0]).astype(np.int64),
        row_of=row_of,
        token=listed.token[order],
        listed=[vocabulary.ids[row] for row in fresh.tolist()],
        listed_token=listed.token[fresh],
        new=new,
        older=older,
        model=model,
        tuning=replace(tuning, batch=batch),
    )


def at_once(lesson: Callable[[], Trained]) -> Future[Trained]:
    """Hold a lesson here and now."""
    held: Future[Trained] = Future()
    held.set_result(lesson())
    return held


def hold(lesson: Lesson, progress: Progress = lambda done, of: None) -> Trained:
    """Train a model, on the accelerator where there is one."""
    import torch

    from learners.deep.finetune import fine_tune
    from learners.deep.sequence import SequenceModel

    new = in_rows_of(lesson.new, lesson.row_of).trainable()
    seed, parent = lesson.tuning.seed, lesson.parent
    champion: SequenceModel | None = None
    if parent is None:
        model = SequenceModel(lesson.model, len(lesson.items), seed)
    else:
        champion = cast(SequenceModel, copy.deepcopy(parent.encoder))
        champion.keep(lesson.kept)
        model = copy.deepcopy(champion)
        table, known = model.trained.numpy(), len(lesson.kept)
        near = alike(lesson.token[known:], lesson.token[:known])
        std = lesson.model.table_std
        model.grow(first_rows(table, new, len(lesson.items), seed, std, near))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tuned = fine_tune(
        model,
        new,
        _Translated(lesson.older, lesson.row_of) if lesson.older else None,
        lesson.tuning,
        champion=champion and champion.to(model.table.device),
        first=parent is None,
        progress=progress,
    )
    figures = {
        "sequences": len(new),
        "steps": tuned.steps,
        "skipped_steps": tuned.skipped,
        "targets": tuned.targets,
        "loss": round(tuned.loss, 5) if np.isfinite(tuned.loss) else None,
    }
    return _with_listed(tuned.model.arrays(), figures, lesson)


def _with_listed(
    arrays: dict[str, NDArray[np.float32]], figures: dict[str, Any], lesson: Lesson
) -> Trained:
    """Give rows to items that nobody has clicked, near those that the catalogue likens them to."""
    near = alike(lesson.listed_token, lesson.token)
    some = np.flatnonzero(near[:, 0] >= 0)
    table, items = arrays["table"], [lesson.listed[place] for place in some.tolist()]
    many, seed, std = len(table) + len(some), lesson.tuning.seed, lesson.model.table_std
    rows = first_rows(table, no_histories(), many, seed, std, near[some])
    arrays["table"] = np.append(table, rows, axis=0)
    if len(arrays["own"]):
        arrays["own"] = np.append(arrays["own"], rows, axis=0)
    packed = pack(arrays)
    told = figures | {"listed": len(items)}
    return Trained(packed, lesson.items + items, len(lesson.items), told)


def pupil_of(snapshot: Snapshot, vocabulary: Vocabulary) -> Pupil:
    """Make a snapshot ready to be asked; its items get rows in the vocabulary while there is room.

    Raises
    ------
    TypeError, KeyError, RuntimeError
        The weights are not those of such a model.
    """
    from learners.deep.sequence import SequenceModel

    config = SequenceConfig(**snapshot.config)
    model = SequenceModel(config, len(snapshot.items))
    arrays = unpack(snapshot.arrays, config.width)
    model.load_arrays(arrays)
    table = arrays["table"]
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    room = vocabulary.room(snapshot.items)
    rows = np.concatenate(
        [vocabulary.assign(snapshot.items[:room]), vocabulary.rows(snapshot.items[room:])]
    )
    row_of = np.full(vocabulary.capacity, -1, np.int32)
    row_of[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return Pupil(
        snapshot.id,
        snapshot.config,
        model.eval(),
        table,
        snapshot.items,
        int(snapshot.manifest.get("events", 0)),
        row_of,
        {snapshot.items[row]: row for row in np.flatnonzero(rows < 0).tolist()},
        int(snapshot.manifest.get("taught", len(snapshot.items))),
    )

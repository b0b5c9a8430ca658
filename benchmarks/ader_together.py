"""The engine with a deep model among its sources, under the protocol of ADER.

The models are those that `ader_deep` saves: number t has trained on weeks 0 to t-1 and serves in
week t, without learning in it; number 0 has trained on the first 80 % of week 0 and serves while
the blend learns on the rest of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ader_engine import EngineContestant
from benchmarks.ader_protocol import WARM_UP_SHARE
from benchmarks.ader_stream import Part, Stream
from learners.base import EngineConfig
from learners.deep.config import SequenceConfig
from learners.deep.packing import pack
from learners.deep.served.deep import Deep
from learners.errors import DataError
from learners.ranks import BLEND, SOURCES
from learners.store.texts import keys_64

__all__ = ["TOGETHER", "TogetherContestant"]

CURE = "name another folder with --save, where models are trained anew"
TOGETHER = ("together",)  # names of the first of a contestant's columns


class TogetherContestant(EngineContestant):
    """All sources, the deep model among them, and the blend.

    Parameters
    ----------
    stream, config
        As for `EngineContestant`.
    models : Path
        Folder of saved models.
    model : SequenceConfig
        What they are to be.

    Raises
    ------
    DataError
        One is of another configuration, or of another stream.
    """

    def __init__(
        self,
        stream: Stream,
        config: EngineConfig,
        models: Path,
        model: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(stream, config)
        self.methods = TOGETHER
        warm_up = int(stream.starts[1] * (1 - WARM_UP_SHARE))
        self._begins = [warm_up, *map(int, stream.starts[1:-1])]  # of each model's service
        self._models = models
        for number, begin in enumerate(self._begins):
            _check(models, number, stream.known_before(begin), model)
        self._serving = -1

    def learn(self, begin: int, end: int) -> None:
        super().learn(begin, end)
        self._serve_from(end)

    def test_then_learn(self, begin: int, tested: NDArray[np.bool_]) -> NDArray[np.float64]:
        self._serve_from(begin)
        return super().test_then_learn(begin, tested)

    def can_answer(self, method: str) -> bool:
        return True

    def answer(self, method: str, part: Part, targets: NDArray[np.int64]) -> NDArray[np.int32]:
        return super().answer(SOURCES[BLEND], part, targets)

    def _serve_from(self, place: int) -> None:
        """Serve the model whose service begins at a place of the stream, or has begun."""
        due = int(np.searchsorted(self._begins, place, side="right")) - 1
        if due > self._serving:
            self._serving = due
            self.memory.serve(_read(self._models, due, self.config.items))


def _about(folder: Path, number: int) -> dict[str, Any]:
    path = folder / f"cycle-{number:02d}.json"
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; {CURE}") from error
    return about


def _check(folder: Path, number: int, items: int, model: SequenceConfig) -> None:
    """Refuse a saved model that is not what would be trained now; it need not be there."""
    if not (path := folder / f"cycle-{number:02d}.json").exists():
        return
    about = _about(folder, number)
    if about.get("items") != items:
        raise DataError(f"{path} knows {about.get('items')} items, the file has {items}; {CURE}")
    for name, wanted in asdict(model).items():
        if (saved := about.get("config", {}).get(name)) != wanted:
            raise DataError(f"{path} has {name} {saved!r}, wanted is {wanted!r}; {CURE}")


def _read(folder: Path, number: int, items: int) -> Deep:
    from safetensors.numpy import load_file

    about, path = _about(folder, number), folder / f"cycle-{number:02d}.safetensors"
    try:
        arrays = pack(load_file(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; {CURE}") from error
    if len(arrays["code"]) != about["items"]:
        told = f"{len(arrays['code'])} rows, {path.stem}.json says {about['items']}"
        raise DataError(f"{path} has {told}; {CURE}")
    rows = np.arange(len(arrays["code"]), dtype=np.int32)
    names = list(map(str, rows.tolist()))
    deep = Deep(
        items, SimpleNamespace(id=str(number), arrays=arrays, items=names, config=about["config"])
    )
    deep.lead(rows, keys_64(names))
    return deep

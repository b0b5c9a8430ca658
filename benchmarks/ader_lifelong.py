"""ADER's protocol for the deep model alone, for the blend without it, and for both together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ader, ader_deep
from benchmarks.ader_protocol import PROTOCOLS, ProtocolName
from benchmarks.ader_together import TOGETHER
from benchmarks.rows import Row
from learners.base import EngineConfig
from learners.deep.config import SequenceConfig

__all__ = ["METHODS", "PROTOCOLS", "run"]

MODELS = "deep_rehearsal"  # whose models answer together with the blend
BLENDS = ("blend", *TOGETHER)
METHODS = (*ader_deep.METHODS, *BLENDS)


def run(
    path: Path,
    *,
    config: EngineConfig,
    methods: Sequence[str] = METHODS,
    protocols: Sequence[ProtocolName] = PROTOCOLS,
    save: Path | None = None,
    model: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
    **told: Any,
) -> Iterator[Row]:
    """Yield a row for each method; the deep ones know the protocol per_period alone.

    Parameters
    ----------
    path, config, told
        As `ader.run` and `ader_deep.run` want them.
    save
        Folder of the models. `together` takes those of `deep_rehearsal` that stand there already,
        however they were trained; where that folder is missing, it trains them.
    model
        What the models are.

    Raises
    ------
    DataError
        The models that stand there are of another file, or not what they are to be.
    """
    with TemporaryDirectory(prefix="everlearn-") as temporary:
        folder = save or Path(temporary)
        deep = [method for method in ader_deep.METHODS if method in methods]
        if "together" in methods and MODELS not in deep and not (folder / MODELS).is_dir():
            deep.append(MODELS)
        yield from ader_deep.run(path, config=model, methods=deep, save=folder, **told)
        for blend in BLENDS:
            if blend in methods:
                yield from ader.run(
                    path,
                    config=config,
                    methods=[blend],
                    protocols=protocols,
                    models=folder / MODELS,
                    model=model,
                    **told,
                )

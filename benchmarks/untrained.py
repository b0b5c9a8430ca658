"""Deep models that nobody has trained: their answers take as long as those of any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from learners.deep.config import SequenceConfig
from learners.deep.packing import pack
from learners.deep.registry import Registry
from learners.deep.served.weights import parts_of

__all__ = ["write_untrained"]


def write_untrained(
    registry: Registry,
    items: Sequence[str],
    seed: int,
    config: SequenceConfig = SequenceConfig(),  # noqa: B008 - frozen
) -> str:
    """Write a snapshot of random numbers for some items; return its id."""
    generator = np.random.default_rng(seed)
    shapes = {**parts_of(config), "table": (len(items), config.width)}
    arrays = {
        name: generator.standard_normal(shape, np.float32) * np.float32(0.1)
        for name, shape in shapes.items()
    }
    return registry.write(pack(arrays), items, {"config": asdict(config), "events": 0})

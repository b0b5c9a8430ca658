"""Deep models that nobody has trained: their answers take as long as those of any other."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from learners.deep.config import SequenceConfig
from learners.deep.packing import pack
from learners.deep.registry import Registry
from learners.deep.served.weights import parts_of
from streams.shop_events import item_name

__all__ = ["write_untrained"]


def write_untrained(registry: Registry, items: int, seed: int) -> str:
    """Write a snapshot of random numbers for the shop's items; return its id."""
    generator = np.random.default_rng(seed)
    config = SequenceConfig()
    shapes = {**parts_of(config), "table": (items, config.width)}
    arrays = {
        name: generator.standard_normal(shape, np.float32) * np.float32(0.1)
        for name, shape in shapes.items()
    }
    names = [item_name(item) for item in range(items)]
    return registry.write(pack(arrays), names, {"config": asdict(config), "events": 0})

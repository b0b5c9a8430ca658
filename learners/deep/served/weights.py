"""An encoder's weights as kernels read them: in one array, matrices as (in, out).

Widths are filled up to whole vectors with zeros, which change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import ARCHITECTURES, SequenceConfig
from learners.deep.served.products import whole
from learners.lanes import LANES

__all__ = ["Weights", "make_weights", "no_weights"]

CORE, TRANSFORMER, RECURRENT, DENSE = range(4)  # places in ARCHITECTURES
ARCHITECTURE, WIDTH, WHOLE, INNER, PLACES = range(5)  # of `Weights.shape`

# Names of a model's arrays in the order of `Weights.start`; a matrix is (out, in) there.
PLACE, KIND, GAP = range(3)
BLOCK = 3
NORM_1, NORM_1_B, ATTENTION, ATTENTION_B, MIXED, MIXED_B = range(BLOCK, BLOCK + 6)
NORM_2, NORM_2_B, UP, UP_B, DOWN, DOWN_B, NORM_3, NORM_3_B = range(BLOCK + 6, BLOCK + 14)
QUERY, QUERY_B, KEY, REACH = range(BLOCK + 14, BLOCK + 18)
TO_GATES, TO_GATES_B, FROM_STATE, FROM_STATE_B = range(BLOCK, BLOCK + 4)
WIDE_UP, WIDE_UP_B, WIDE_DOWN, WIDE_DOWN_B = range(BLOCK, BLOCK + 4)
FIRST = ("place", "kind.weight", "gap.weight")
BLOCK_PARTS = tuple(
    f"encoder.block.{layer}.{part}"
    for layer in ("norm_1", "attention", "mixed", "norm_2", "up", "down", "norm_3")
    for part in ("weight", "bias")
)
PARTS: tuple[tuple[str, ...], ...] = (
    (
        *FIRST,
        *BLOCK_PARTS,
        "encoder.query.weight",
        "encoder.query.bias",
        "encoder.key.weight",
        "encoder.reach",
    ),
    (*FIRST, *BLOCK_PARTS),
    (
        *FIRST,
        "encoder.cell.weight_ih_l0",
        "encoder.cell.bias_ih_l0",
        "encoder.cell.weight_hh_l0",
        "encoder.cell.bias_hh_l0",
    ),
    (
        *FIRST,
        *(f"encoder.{layer}.{part}" for layer in ("up", "down") for part in ("weight", "bias")),
    ),
)
LOOKED_UP = frozenset(FIRST)  # and not multiplied with


class Weights(NamedTuple):
    """An encoder's weights; `scale` is the length of a user vector."""

    shape: NDArray[np.int64]  # (5,) ARCHITECTURE, WIDTH, WHOLE, INNER, PLACES
    scale: NDArray[np.float32]  # (1,)
    start: NDArray[np.int64]  # (parts,) where each begins
    number: NDArray[np.float32]  # (n,)


def make_weights(config: SequenceConfig, arrays: Mapping[str, NDArray[np.float32]]) -> Weights:
    """Take an encoder's weights out of a model's arrays.

    Raises
    ------
    KeyError
        An array is missing.
    """
    architecture = ARCHITECTURES.index(config.architecture)
    parts = [_part(config, name, arrays[name]) for name in PARTS[architecture]]
    lengths = [len(part) for part in parts]
    shape = [architecture, config.width, whole(config.width), whole(config.feed_forward)]
    return Weights(
        np.array([*shape, config.most_events], np.int64),
        np.array([config.scale], np.float32),
        np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        np.concatenate(parts),
    )


def no_weights() -> Weights:
    """Return the weights of no encoder."""
    shape = np.array([CORE, LANES, LANES, LANES, 1], np.int64)
    return Weights(shape, np.ones(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.float32))


def _part(config: SequenceConfig, name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an array as it stands in `Weights.number`: transposed, filled up, flat."""
    if name == "encoder.reach":
        return array
    layer = name.split(".")[-2:][0]
    filled = array
    for axis, length in enumerate(array.shape):
        if name in LOOKED_UP and axis == 0:
            continue
        inner = (layer, axis) in (("up", 0), ("down", 1))
        filled = _fill_up(filled, axis, length if inner else config.width)
    return (filled if name in LOOKED_UP else filled.T).reshape(-1)


def _fill_up(array: NDArray[np.float32], axis: int, run: int) -> NDArray[np.float32]:
    """Put zeros behind each run along an axis, so that it fills whole vectors."""
    runs = np.split(array, array.shape[axis] // run, axis=axis)
    behind = [(0, 0)] * array.ndim
    behind[axis] = (0, whole(run) - run)
    return np.concatenate([np.pad(part, behind) for part in runs], axis=axis)

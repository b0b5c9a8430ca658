"""An encoder's weights as kernels read them: in one array, matrices (in, out) in blocks.

They are gone through from front to back, as memory likes best. Widths are filled up to whole
vectors with zeros, which change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.config import ARCHITECTURES, HEADS, SequenceConfig
from learners.deep.histories import GAPS, KINDS
from learners.deep.served.products import blocks_of, whole

__all__ = ["Weights", "make_weights", "no_weights", "parts_of"]

CORE, TRANSFORMER, RECURRENT, DENSE, AVERAGE = range(5)  # places in ARCHITECTURES
ARCHITECTURE, WIDTH, WHOLE, INNER, PLACES = range(5)  # of `Weights.shape`

# Names of a model's arrays in the order of `Weights.start`; a matrix is (out, in) there.
PLACE, KIND, GAP = range(3)
BLOCK = 3
NORM_1, NORM_1_B, ATTENTION, ATTENTION_B, MIXED, MIXED_B = range(BLOCK, BLOCK + 6)
NORM_2, NORM_2_B, UP, UP_B, DOWN, DOWN_B, NORM_3, NORM_3_B = range(BLOCK + 6, BLOCK + 14)
QUERY, QUERY_B, KEY, REACH = range(BLOCK + 14, BLOCK + 18)
TO_GATES, TO_GATES_B, FROM_STATE, FROM_STATE_B = range(BLOCK, BLOCK + 4)
WIDE_UP, WIDE_UP_B, WIDE_DOWN, WIDE_DOWN_B = range(BLOCK, BLOCK + 4)
LONE_REACH, LONE_KIND, LONE_GAP = range(3)  # without those of events, numbers for each
FIRST = ("place", "kind.weight", "gap.weight")
LOOKED_UP = frozenset(FIRST)  # and not multiplied with
NUMBERS = frozenset({"encoder.reach", "encoder.kind", "encoder.gap"})  # not rows of numbers
ASKED_BACKWARDS = ("encoder.key.weight",)  # q . (K h) is (K^T q) . h, for all events at once


Shapes = dict[str, tuple[int, ...]]


def parts_of(config: SequenceConfig) -> Shapes:
    """Return the shapes of a model's arrays, but for table and offsets, in the order of `start`."""
    d, f, places = config.width, config.feed_forward, config.most_events
    if config.architecture == "core-ave":
        numbers = {"reach": places, "kind": KINDS, "gap": GAPS}
        return {f"encoder.{name}": (HEADS, length) for name, length in numbers.items()}
    of_events = dict(zip(FIRST, ((places, d), (KINDS, d), (GAPS, d)), strict=True))
    layers: Shapes
    if config.architecture == "gru":
        gates = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
        layers = {f"cell.{name}": ((3 * d, d), (3 * d,))["bias" in name] for name in gates}
    elif config.architecture == "mlp":
        layers = _linear("up", f, 2 * d) | _linear("down", d, f)
    else:
        layers = _norm("norm_1", d) | _linear("attention", 3 * d, d) | _linear("mixed", d, d)
        layers |= _norm("norm_2", d) | _linear("up", f, d) | _linear("down", d, f)
        layers = {f"block.{name}": shape for name, shape in (layers | _norm("norm_3", d)).items()}
        if config.architecture == "core":
            layers |= _linear("query", d, d) | {"key.weight": (d, d), "reach": (places,)}
    return of_events | {f"encoder.{name}": shape for name, shape in layers.items()}


def _linear(layer: str, out: int, inner: int) -> Shapes:
    return {f"{layer}.weight": (out, inner), f"{layer}.bias": (out,)}


def _norm(layer: str, width: int) -> Shapes:
    return {f"{layer}.weight": (width,), f"{layer}.bias": (width,)}


class Weights(NamedTuple):
    """An encoder's weights; `scale` is the length of a user vector."""

    shape: NDArray[np.int64]  # (5,) ARCHITECTURE, WIDTH, WHOLE, INNER, PLACES
    scale: NDArray[np.float32]  # (1,)
    start: NDArray[np.int64]  # (parts,) where each begins
    number: NDArray[np.float32]  # (n,)


def make_weights(config: SequenceConfig, arrays: Mapping[str, NDArray[np.generic]]) -> Weights:
    """Take an encoder's weights out of a model's arrays.

    Raises
    ------
    KeyError
        An array is missing.
    ValueError
        An array has another shape.
    """
    architecture = ARCHITECTURES.index(config.architecture)
    shapes = parts_of(config)
    for name, expected in shapes.items():
        if arrays[name].shape != expected:
            raise ValueError(f"{name} is {arrays[name].shape}, {expected} is meant")
    parts = [_part(config, name, np.asarray(arrays[name], np.float32)) for name in shapes]
    lengths = [len(part) for part in parts]
    inner = 0 if config.architecture == "core-ave" else whole(config.feed_forward)
    shape = [architecture, config.width, whole(config.width), inner]
    return Weights(
        np.array([*shape, config.most_events], np.int64),
        np.array([config.scale], np.float32),
        np.cumsum([0, *lengths[:-1]], dtype=np.int64),
        np.concatenate(parts),
    )


def no_weights() -> Weights:
    """Return the weights of no encoder."""
    shape = np.array([CORE, whole(1), whole(1), whole(1), 1], np.int64)
    return Weights(shape, np.ones(1, np.float32), np.zeros(1, np.int64), np.zeros(1, np.float32))


def _part(config: SequenceConfig, name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an array as it stands in `Weights.number`: filled up, in blocks, flat."""
    if name in NUMBERS:
        return array.reshape(-1)
    layer = name.split(".")[-2:][0]
    filled = array
    for axis, length in enumerate(array.shape):
        if name in LOOKED_UP and axis == 0:
            continue
        inner = (layer, axis) in (("up", 0), ("down", 1))
        filled = _fill_up(filled, axis, length if inner else config.width)
    if name in LOOKED_UP or filled.ndim == 1:
        return filled.reshape(-1)
    return blocks_of(filled if name in ASKED_BACKWARDS else filled.T)


def _fill_up(array: NDArray[np.float32], axis: int, run: int) -> NDArray[np.float32]:
    """Put zeros behind each run along an axis, so that it fills whole vectors."""
    runs = np.split(array, array.shape[axis] // run, axis=axis)
    behind = [(0, 0)] * array.ndim
    behind[axis] = (0, whole(run) - run)
    return np.concatenate([np.pad(part, behind) for part in runs], axis=axis)

r"""The blend: a tiny listwise scorer that learns which source to trust, test-then-learn.

A candidate with features x scores :math:`w \cdot x + v \cdot \max(W^\top x + c, 0)`; the loss is
the softmax cross-entropy of the clicked one among the candidates (ListNet's top-one loss, Cao et
al. 2007); Adagrad (Duchi et al. 2011) takes the steps. Nothing is learnt where the target is no
candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["Blend", "learn_one", "make_blend", "score"]

RATE = np.float32(0.05)
SMALL = np.float32(1e-8)
NEGLIGIBLE = np.float32(1e-4)  # a smaller gradient of a candidate's score is skipped


class Blend(NamedTuple):
    """Weights and Adagrad's sums of squares, of F features and U hidden units."""

    w: NDArray[np.float32]  # (F,)
    inner: NDArray[np.float32]  # (F, U) W
    bias: NDArray[np.float32]  # (U,) c
    outer: NDArray[np.float32]  # (U,) v
    w_squares: NDArray[np.float32]
    inner_squares: NDArray[np.float32]
    bias_squares: NDArray[np.float32]
    outer_squares: NDArray[np.float32]
    w_step: NDArray[np.float32]  # gradients of one event, working memory
    inner_step: NDArray[np.float32]
    bias_step: NDArray[np.float32]
    outer_step: NDArray[np.float32]


def make_blend(features: int, hidden_units: int, seed: int) -> Blend:
    """Return a scorer that has learnt nothing."""
    generator = np.random.default_rng(seed)
    inner = generator.standard_normal((features, hidden_units)) / np.sqrt(features)
    outer = generator.standard_normal(hidden_units) * 0.1
    shapes = [(features,), (features, hidden_units), (hidden_units,), (hidden_units,)]
    zeros = [[np.zeros(shape, np.float32) for shape in shapes] for _ in range(3)]
    return Blend(
        zeros[0][0],
        inner.astype(np.float32),
        zeros[0][2],
        outer.astype(np.float32),
        *zeros[1],
        *zeros[2],
    )


def blend_state(blend: Blend) -> dict[str, NDArray[np.generic]]:
    """Return the weights and sums as named arrays."""
    return {name: getattr(blend, name) for name in Blend._fields if not name.endswith("_step")}


def load_blend(blend: Blend, state: Mapping[str, NDArray[np.generic]]) -> None:
    """Become the scorer that gave this state."""
    for name, array in state.items():
        getattr(blend, name)[...] = array


@jit
def score(
    blend: Blend,
    x: NDArray[np.float32],
    n: int,
    hidden: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Score the first n candidates: x (n, F), hidden (n, U) is filled, out (n,) too."""
    w, inner, bias, outer = blend.w, blend.inner, blend.bias, blend.outer
    units = len(bias)
    h = np.empty(units, np.float32)
    for c in range(n):
        h[:] = bias
        total = np.float32(0.0)
        for f in range(x.shape[1]):
            value = x[c, f]
            if value != 0.0:
                total += w[f] * value
                for u in range(units):
                    h[u] += inner[f, u] * value
        for u in range(units):
            active = max(h[u], np.float32(0.0))
            hidden[c, u] = active
            total += outer[u] * active
        out[c] = total


@jit
def _softmax(scores: NDArray[np.float32], n: int) -> None:
    largest = scores[0]
    for c in range(n):
        largest = max(largest, scores[c])
    total = np.float32(0.0)
    for c in range(n):
        scores[c] = np.exp(scores[c] - largest)
        total += scores[c]
    for c in range(n):
        scores[c] /= total


@jit
def _step(
    weights: NDArray[np.float32], squares: NDArray[np.float32], step: NDArray[np.float32]
) -> None:
    for i in range(len(weights)):
        gradient = step[i]
        if gradient != 0.0:
            squares[i] += gradient * gradient
            weights[i] -= RATE * gradient / np.sqrt(squares[i] + SMALL)
            step[i] = 0.0


@jit
def learn_one(
    blend: Blend,
    x: NDArray[np.float32],
    n: int,
    hidden: NDArray[np.float32],
    scores: NDArray[np.float32],
    target: int,
) -> None:
    """Learn that candidate `target` was the one; `score` has just filled hidden and scores.

    `scores` becomes the softmax of itself.
    """
    _softmax(scores, n)
    outer, w_step, inner_step = blend.outer, blend.w_step, blend.inner_step
    bias_step, outer_step = blend.bias_step, blend.outer_step
    units = len(outer)
    g = np.empty(units, np.float32)
    for c in range(n):
        slope = scores[c] - np.float32(1.0 if c == target else 0.0)
        if abs(slope) < NEGLIGIBLE:
            continue
        for u in range(units):
            outer_step[u] += slope * hidden[c, u]
            g[u] = slope * outer[u] if hidden[c, u] > 0.0 else np.float32(0.0)
            bias_step[u] += g[u]
        for f in range(x.shape[1]):
            value = x[c, f]
            if value != 0.0:
                w_step[f] += slope * value
                for u in range(units):
                    inner_step[f, u] += value * g[u]
    _step(blend.w, blend.w_squares, blend.w_step)
    _step(blend.bias, blend.bias_squares, blend.bias_step)
    _step(blend.outer, blend.outer_squares, blend.outer_step)
    for f in range(x.shape[1]):
        _step(blend.inner[f], blend.inner_squares[f], blend.inner_step[f])

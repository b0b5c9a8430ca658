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
from learners.lanes import LANES, TOGETHER, add_products, hidden_layer, product
from learners.vector import exp_of, total_of

__all__ = ["Blend", "learn_one", "make_blend", "score"]

SMALL = np.float32(1e-8)
NEGLIGIBLE = np.float32(1e-4)  # a smaller gradient of a candidate's score is skipped
ONE, ZERO = np.float32(1.0), np.float32(0.0)


class Blend(NamedTuple):
    """Weights and Adagrad's sums of squares, of F features and U hidden units.

    U fills whole vectors: units that nobody asked for have no weights, and never get any.
    """

    rate: NDArray[np.float32]  # (1,) step length, a constant
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
    group: NDArray[np.float32]  # (TOGETHER, U) gradients of some candidates' hidden units, likewise


LEARNT = Blend._fields[1:9]


def make_blend(first: NDArray[np.float32], hidden_units: int, seed: int, rate: float) -> Blend:
    """Return a scorer that has learnt nothing: it ranks by the weights `first` (F,) alone."""
    features, units = len(first), -(-hidden_units // LANES) * LANES
    generator = np.random.default_rng(seed)
    inner = np.zeros((features, units), np.float32)
    inner[:, :hidden_units] = generator.standard_normal((features, hidden_units))
    inner /= np.float32(np.sqrt(features))
    shapes = [(features,), (features, units), (units,), (units,)]
    zeros = [[np.zeros(shape, np.float32) for shape in shapes] for _ in range(3)]
    weights = [first.copy(), inner, *zeros[0][2:]]
    group = np.zeros((TOGETHER, units), np.float32)
    return Blend._make([np.array([rate], np.float32), *weights, *zeros[1], *zeros[2], group])


def blend_state(blend: Blend) -> dict[str, NDArray[np.generic]]:
    """Return the weights and sums as named arrays."""
    return {name: getattr(blend, name) for name in LEARNT}


def load_blend(blend: Blend, state: Mapping[str, NDArray[np.generic]]) -> None:
    """Become the scorer that gave this state."""
    for name, array in state.items():
        getattr(blend, name)[...] = array


@jit
def _add_rows(
    x: NDArray[np.float32], weights: NDArray[np.float32], n: int, out: NDArray[np.float32]
) -> None:
    """Add the weighted rows of x (F, n) to out (n,); four at a time, to write out less often."""
    rows = len(x)
    for f in range(0, rows - 3, 4):
        w0, w1, w2, w3 = weights[f], weights[f + 1], weights[f + 2], weights[f + 3]
        x0, x1, x2, x3 = x[f], x[f + 1], x[f + 2], x[f + 3]
        for c in range(n):
            out[c] += w0 * x0[c] + w1 * x1[c] + w2 * x2[c] + w3 * x3[c]
    for f in range(rows - rows % 4, rows):
        for c in range(n):
            out[c] += weights[f] * x[f, c]


@jit
def score(
    blend: Blend,
    x: NDArray[np.float32],
    n: int,
    hidden: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Score the first n candidates: x (F, m), hidden (m, U) is filled, out (m,) too.

    There is room for whole vectors: m is at least n + LANES.
    """
    out[:n] = ZERO
    _add_rows(x, blend.w, n, out)
    for c in range(0, n, TOGETHER):
        for u in range(0, len(blend.bias), LANES):
            hidden_layer(x, c, blend.inner, blend.bias, blend.outer, u, hidden, out)


@jit
def _step(
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
    step: NDArray[np.float32],
    rate: np.float32,
) -> None:
    for i in range(len(weights)):
        squares[i] += step[i] * step[i]
        weights[i] -= rate * step[i] / np.sqrt(squares[i] + SMALL)
        step[i] = ZERO


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

    There is room for whole vectors: x is (F, m) with m at least n + LANES, `scores` (m,) too. It
    becomes the gradient of itself. Nothing is learnt from scores that are no numbers.
    """
    largest = scores[0]
    sound = True
    for c in range(n):
        sound = sound and np.isfinite(scores[c])
        largest = max(largest, scores[c])
    if not sound:
        return
    for c in range(n):
        scores[c] -= largest
    exp_of(scores, n)
    share = ONE / total_of(scores, n)
    for c in range(n):
        scores[c] *= share
    scores[target] -= ONE
    outer, w_step, inner_step = blend.outer, blend.w_step, blend.inner_step
    bias_step, outer_step, group = blend.bias_step, blend.outer_step, blend.group
    units = len(outer)
    for first in range(0, n, TOGETHER):
        telling = False
        for c in range(first, first + TOGETHER):
            slope = scores[c] if c < n and abs(scores[c]) >= NEGLIGIBLE else ZERO
            scores[c] = slope
            telling = telling or slope != ZERO
            for u in range(units):
                h = hidden[c, u] if slope != ZERO else ZERO
                outer_step[u] += slope * h
                g = slope * outer[u] if h > ZERO else ZERO
                group[c - first, u] = g
                bias_step[u] += g
        if telling:
            for u in range(0, units, LANES):
                add_products(x, first, group, u, inner_step)
    width, blocks = x.shape[1], (n + LANES - 1) // LANES
    scores[n : blocks * LANES] = ZERO
    for f in range(len(w_step)):
        w_step[f] = product(x, f * width, scores, blocks)
    rate = blend.rate[0]
    _step(blend.w, blend.w_squares, w_step, rate)
    _step(blend.bias, blend.bias_squares, bias_step, rate)
    _step(outer, blend.outer_squares, outer_step, rate)
    inner, squares = blend.inner.reshape(-1), blend.inner_squares.reshape(-1)
    _step(inner, squares, inner_step.reshape(-1), rate)

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

SMALL = np.float32(1e-8)
NEGLIGIBLE = np.float32(1e-4)  # a smaller gradient of a candidate's score is skipped


class Blend(NamedTuple):
    """Weights and Adagrad's sums of squares, of F features and U hidden units."""

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


def make_blend(first: NDArray[np.float32], hidden_units: int, seed: int, rate: float) -> Blend:
    """Return a scorer that has learnt nothing: it ranks by the weights `first` (F,) alone."""
    features = len(first)
    generator = np.random.default_rng(seed)
    inner = generator.standard_normal((features, hidden_units)) / np.sqrt(features)
    shapes = [(features,), (features, hidden_units), (hidden_units,), (hidden_units,)]
    zeros = [[np.zeros(shape, np.float32) for shape in shapes] for _ in range(3)]
    return Blend(
        np.array([rate], np.float32),
        first.copy(),
        inner.astype(np.float32),
        zeros[0][2],
        zeros[0][3],
        *zeros[1],
        *zeros[2],
    )


def blend_state(blend: Blend) -> dict[str, NDArray[np.generic]]:
    """Return the weights and sums as named arrays."""
    names = [name for name in Blend._fields if name != "rate" and not name.endswith("_step")]
    return {name: getattr(blend, name) for name in names}


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
    """Score the first n candidates: x (F, n), hidden (U, n) is filled, out (n,) too."""
    inner, bias, outer = blend.inner, blend.bias, blend.outer
    out[:n] = 0.0
    _add_rows(x, blend.w, n, out)
    for u in range(len(bias)):
        h = hidden[u]
        h[:n] = bias[u]
        _add_rows(x, inner[:, u], n, h)
        for c in range(n):
            h[c] = max(h[c], np.float32(0.0))
            out[c] += outer[u] * h[c]


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
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
    step: NDArray[np.float32],
    rate: np.float32,
) -> None:
    for i in range(len(weights)):
        squares[i] += step[i] * step[i]
        weights[i] -= rate * step[i] / np.sqrt(squares[i] + SMALL)
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

    `scores` becomes the softmax of itself. Nothing is learnt from scores that are no numbers.
    """
    for c in range(n):
        if not np.isfinite(scores[c]):
            return
    _softmax(scores, n)
    outer, w_step, inner_step = blend.outer, blend.w_step, blend.inner_step
    bias_step, outer_step = blend.bias_step, blend.outer_step
    units = len(outer)
    slopes, places, held = np.empty(4, np.float32), np.zeros(4, np.int64), 0
    g = np.empty((4, units), np.float32)
    for c in range(n):
        slope = scores[c] - np.float32(1.0 if c == target else 0.0)
        if abs(slope) >= NEGLIGIBLE:
            for u in range(units):
                outer_step[u] += slope * hidden[u, c]
                g[held, u] = slope * outer[u] if hidden[u, c] > 0.0 else np.float32(0.0)
                bias_step[u] += g[held, u]
            slopes[held], places[held] = slope, c
            held += 1
        if held < 4 and c < n - 1:
            continue
        slopes[held:], g[held:] = 0.0, 0.0
        for f in range(x.shape[0]):  # four at a time: what is written of a step serves all of them
            x0, x1, x2, x3 = x[f, places[0]], x[f, places[1]], x[f, places[2]], x[f, places[3]]
            w_step[f] += x0 * slopes[0] + x1 * slopes[1] + x2 * slopes[2] + x3 * slopes[3]
            for u in range(units):
                inner_step[f, u] += x0 * g[0, u] + x1 * g[1, u] + x2 * g[2, u] + x3 * g[3, u]
        held = 0
    rate = blend.rate[0]
    _step(blend.w, blend.w_squares, blend.w_step, rate)
    _step(blend.bias, blend.bias_squares, blend.bias_step, rate)
    _step(blend.outer, blend.outer_squares, blend.outer_step, rate)
    for f in range(x.shape[0]):
        _step(blend.inner[f], blend.inner_squares[f], blend.inner_step[f], rate)

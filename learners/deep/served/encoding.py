r"""From recent events to a user vector, as `learners.deep.sequence` does it, without torch.

The formulas are those of `learners.deep.encoders`, for one history and its last event only. GELU's
error function is that of Abramowitz and Stegun (1964, 7.1.26), to 1.5e-7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.deep.served.products import add_product, add_row, whole
from learners.deep.served.weights import (
    ARCHITECTURE,
    ATTENTION,
    AVERAGE,
    CORE,
    DENSE,
    DOWN,
    FROM_STATE,
    GAP,
    INNER,
    KEY,
    KIND,
    LONE_GAP,
    LONE_KIND,
    LONE_REACH,
    MIXED,
    NORM_1,
    NORM_2,
    NORM_3,
    PLACE,
    QUERY,
    REACH,
    RECURRENT,
    TO_GATES,
    TRANSFORMER,
    UP,
    WHOLE,
    WIDE_DOWN,
    WIDE_UP,
    WIDTH,
    Weights,
)
from learners.jit import jit
from learners.lanes import LANES, TOGETHER, product
from learners.store.history import MOST_QUERY
from learners.vector import exp_of, total_of

__all__ = ["Bench", "encode", "make_bench"]

EVENTS = whole(MOST_QUERY, TOGETHER)  # rows of a history in the working memory
ZERO, HALF, ONE, TWO = np.array([0.0, 0.5, 1.0, 2.0], np.float32)
SMALLEST = np.float32(1e-12)
NORM_EPS = np.float32(1e-5)
FURTHEST = np.float32(20.0)  # beyond, a sigmoid is 0 or 1
ROOT_HALF = np.float32(np.sqrt(0.5))
ERF_P = np.float32(0.3275911)
ERF_5, ERF_4, ERF_3, ERF_2, ERF_1 = np.array(
    [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], np.float32
)


class Bench(NamedTuple):
    """Working memory of one encoding; rows are events, oldest first."""

    row: NDArray[np.float32]  # (EVENTS, WHOLE) the items' unit rows, filled by the caller
    kind: NDArray[np.uint8]  # (EVENTS,)
    gap: NDArray[np.uint8]  # (EVENTS,)
    hidden: NDArray[np.float32]  # (EVENTS, WHOLE)
    normed: NDArray[np.float32]  # (EVENTS, WHOLE)
    wide: NDArray[np.float32]  # (EVENTS, widest)
    weight: NDArray[np.float32]  # (EVENTS,) shares of events
    user: NDArray[np.float32]  # (WHOLE,)


def make_bench(weights: Weights) -> Bench:
    """Return working memory for an encoder."""
    width, inner = int(weights.shape[WHOLE]), int(weights.shape[INNER])
    row, hidden, normed = (np.zeros((EVENTS, width), np.float32) for _ in range(3))
    kind, gap = np.zeros(EVENTS, np.uint8), np.zeros(EVENTS, np.uint8)
    wide = np.zeros((EVENTS, max(3 * width, inner)), np.float32)
    weight, user = np.zeros(EVENTS, np.float32), np.zeros(width, np.float32)
    return Bench(row, kind, gap, hidden, normed, wide, weight, user)


@jit
def _linear(
    weights: Weights, part: int, x: NDArray[np.float32], n: int, out: NDArray[np.float32]
) -> None:
    """Write x W + b of the first n rows; the bias is the part after the matrix."""
    bias = weights.number[weights.start[part + 1] :]
    for t in range(n):
        for k in range(out.shape[1]):
            out[t, k] = bias[k]
    add_product(x, n, weights.number[weights.start[part] :], out)


@jit
def _linear_row(
    weights: Weights, part: int, x: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write x W + b of one row."""
    bias = weights.number[weights.start[part + 1] :]
    for k in range(len(out)):
        out[k] = bias[k]
    add_row(x, 0, len(x), weights.number[weights.start[part] :], out)


@jit
def _norm(
    weights: Weights, part: int, x: NDArray[np.float32], n: int, out: NDArray[np.float32]
) -> None:
    """Write the layer norm of the first n rows (Ba, Kiros and Hinton 2016)."""
    width, size = weights.shape[WIDTH], x.shape[1]
    gain = weights.number[weights.start[part] :]
    bias = weights.number[weights.start[part + 1] :]
    for t in range(n):
        mean = total_of(x[t], width) / np.float32(width)
        for k in range(width):
            out[t, k] = x[t, k] - mean
        for k in range(width, size):
            out[t, k] = ZERO
        square = product(out, t * size, out[t], size // LANES)
        scale = ONE / np.sqrt(square / np.float32(width) + NORM_EPS)
        for k in range(size):
            out[t, k] = out[t, k] * scale * gain[k] + bias[k]


@jit
def _gelu(x: NDArray[np.float32], n: int, work: NDArray[np.float32]) -> None:
    """Replace the first n numbers x by x Phi(x) (Hendrycks and Gimpel 2016)."""
    for k in range(n):
        work[k] = -HALF * x[k] * x[k]
    exp_of(work, n)
    for k in range(n):
        t = ONE / (ONE + ERF_P * ROOT_HALF * abs(x[k]))
        tail = ((((ERF_5 * t + ERF_4) * t + ERF_3) * t + ERF_2) * t + ERF_1) * t * work[k]
        below = HALF * tail  # of the normal distribution, beyond |x|
        x[k] *= ONE - below if x[k] > ZERO else below


@jit
def _softmax(x: NDArray[np.float32], n: int) -> None:
    largest = x[0]
    for k in range(n):
        largest = max(largest, x[k])
    for k in range(n):
        x[k] -= largest
    exp_of(x, n)
    total = ZERO
    for k in range(n):
        total += x[k]
    for k in range(n):
        x[k] /= total


@jit
def _attend(bench: Bench, n: int, width: int, root: np.float32) -> None:
    """Mix, for each event, the values of those no later; queries, keys, values are in `wide`."""
    wide, weight, out = bench.wide.reshape(-1), bench.weight, bench.normed
    stride = 3 * width
    for t in range(n):
        query = wide[t * stride : t * stride + width]
        for j in range(t + 1):
            weight[j] = product(wide, j * stride + width, query, width // LANES) / root
        _softmax(weight, t + 1)
        for k in range(width):
            out[t, k] = ZERO
        for j in range(t + 1):
            value = wide[j * stride + 2 * width : j * stride + 3 * width]
            for k in range(width):
                out[t, k] += weight[j] * value[k]


@jit
def _add(x: NDArray[np.float32], more: NDArray[np.float32], n: int) -> None:
    for t in range(n):
        for k in range(x.shape[1]):
            x[t, k] += more[t, k]


@jit
def _block(weights: Weights, bench: Bench, n: int) -> None:
    """Send the first n rows of `hidden` through the causal block."""
    width, inner = weights.shape[WHOLE], weights.shape[INNER]
    hidden, normed, flat = bench.hidden, bench.normed, bench.wide.reshape(-1)
    root = np.float32(np.sqrt(np.float32(weights.shape[WIDTH])))
    events = len(hidden)
    _norm(weights, NORM_1, hidden, n, normed)
    wide = flat[: events * 3 * width].reshape(events, 3 * width)
    _linear(weights, ATTENTION, normed, n, wide)
    _attend(bench, n, width, root)
    mixed = flat[: events * width].reshape(events, width)
    _linear(weights, MIXED, normed, n, mixed)
    _add(hidden, mixed, n)
    _norm(weights, NORM_2, hidden, n, normed)
    up = flat[: events * inner].reshape(events, inner)
    _linear(weights, UP, normed, n, up)
    for t in range(n):
        _gelu(up[t], inner, bench.normed.reshape(-1))
    _linear(weights, DOWN, up, n, normed)
    _add(hidden, normed, n)
    _norm(weights, NORM_3, hidden, n, hidden)


@jit
def _mix(bench: Bench, n: int) -> None:
    """Write the mean of the first n item rows, weighed by a softmax of their weights."""
    user, weight = bench.user, bench.weight
    _softmax(weight, n)
    user[:] = ZERO
    for j in range(n):
        for k in range(len(user)):
            user[k] += weight[j] * bench.row[j, k]


@jit
def _core(weights: Weights, bench: Bench, n: int) -> None:
    """Weigh the item rows: softmax of q.k / sqrt(D) + reach, for the last event's q."""
    width, hidden, weight = weights.shape[WHOLE], bench.hidden, bench.weight
    query, wanted = bench.normed[0], bench.normed[1]
    _linear_row(weights, QUERY, hidden[n - 1], query)
    wanted[:] = ZERO
    add_row(query, 0, width, weights.number[weights.start[KEY] :], wanted)
    root = np.float32(np.sqrt(np.float32(weights.shape[WIDTH])))
    reach = weights.number[weights.start[REACH] :]
    for j in range(n):
        near = product(hidden, j * width, wanted, width // LANES)
        weight[j] = near / root + reach[n - 1 - j]
    _mix(bench, n)


@jit
def _average(weights: Weights, bench: Bench, n: int) -> None:
    """Weigh the item rows by how long ago they came, by kind, and by the gaps since."""
    reach = weights.number[weights.start[LONE_REACH] :]
    kind, gap = (
        weights.number[weights.start[LONE_KIND] :],
        weights.number[weights.start[LONE_GAP] :],
    )
    since = ZERO
    for j in range(n):
        since += gap[bench.gap[j]]
        bench.weight[j] = reach[n - 1 - j] + kind[bench.kind[j]] + since
    _mix(bench, n)


@jit
def _sigmoid(x: NDArray[np.float32], n: int) -> None:
    for k in range(n):
        x[k] = -max(min(x[k], FURTHEST), -FURTHEST)
    exp_of(x, n)
    for k in range(n):
        x[k] = ONE / (ONE + x[k])


@jit
def _recurrent(weights: Weights, bench: Bench, n: int) -> None:
    """Run the gated units; the gates stand as torch has them: reset, update, new."""
    width, user, flat = weights.shape[WHOLE], bench.user, bench.wide.reshape(-1)
    rows = flat[: len(bench.hidden) * 3 * width].reshape(len(bench.hidden), 3 * width)
    _linear(weights, TO_GATES, bench.hidden, n, rows)
    of_state = bench.normed.reshape(-1)[: 3 * width]
    user[:] = ZERO
    for t in range(n):
        _linear_row(weights, FROM_STATE, user, of_state)
        gate = rows[t]
        for k in range(2 * width):
            gate[k] += of_state[k]
        _sigmoid(gate, 2 * width)
        new = gate[2 * width :]
        for k in range(width):  # tanh(x) = 2 sigmoid(2 x) - 1
            new[k] = TWO * (new[k] + gate[k] * of_state[2 * width + k])
        _sigmoid(new, width)
        for k in range(width):
            keep = gate[width + k]
            user[k] = (ONE - keep) * (TWO * new[k] - ONE) + keep * user[k]


@jit
def _dense(weights: Weights, bench: Bench, n: int) -> None:
    """Send the last row and the mean of all through two dense layers."""
    width, hidden = weights.shape[WHOLE], bench.hidden
    up, mean = bench.wide.reshape(-1)[: weights.shape[INNER]], bench.normed[0]
    mean[:] = ZERO
    for t in range(n):
        for k in range(width):
            mean[k] += hidden[t, k] / np.float32(n)
    bias = weights.number[weights.start[WIDE_UP + 1] :]
    for k in range(len(up)):
        up[k] = bias[k]
    matrix = weights.number[weights.start[WIDE_UP] :]
    add_row(hidden[n - 1], 0, 2 * width, matrix, up)
    add_row(mean, width, 2 * width, matrix, up)
    _gelu(up, len(up), bench.normed.reshape(-1))
    _linear_row(weights, WIDE_DOWN, up, bench.user)


@jit
def _add_places(weights: Weights, bench: Bench, n: int) -> None:
    """Write item rows, with those of place, kind and gap added, into `hidden`."""
    width, hidden = weights.shape[WHOLE], bench.hidden
    place = weights.number[weights.start[PLACE] :]
    kind, gap = weights.number[weights.start[KIND] :], weights.number[weights.start[GAP] :]
    for t in range(n):
        of_kind, of_gap = bench.kind[t] * width, bench.gap[t] * width
        for k in range(width):
            added = place[t * width + k] + kind[of_kind + k] + gap[of_gap + k]
            hidden[t, k] = bench.row[t, k] + added


@jit
def encode(weights: Weights, bench: Bench, n: int) -> None:
    """Write into `bench.user` what is clicked after the first n events of `bench`, n >= 1."""
    width, user = weights.shape[WHOLE], bench.user
    architecture = weights.shape[ARCHITECTURE]
    if architecture != AVERAGE:
        _add_places(weights, bench, n)
    if architecture == AVERAGE:
        _average(weights, bench, n)
    elif architecture == RECURRENT:
        _recurrent(weights, bench, n)
    elif architecture == DENSE:
        _dense(weights, bench, n)
    elif architecture == CORE:
        _block(weights, bench, n)
        _core(weights, bench, n)
    elif architecture == TRANSFORMER:
        _block(weights, bench, n)
        for k in range(width):
            user[k] = bench.hidden[n - 1, k]
    square = product(user, 0, user, width // LANES)
    length = weights.scale[0] / max(np.sqrt(square), SMALLEST)
    for k in range(width):
        user[k] *= length

"""The blend's scores and its steps are those of the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.blend import NEGLIGIBLE, SMALL, Blend, learn_one, make_blend, score
from learners.lanes import LANES

FEATURES, RATE = 9, 0.05
Floats = NDArray[np.float32]


def _asked(n: int, units: int, seed: int) -> tuple[Blend, Floats, Floats, Floats]:
    """A blend with random weights, features of n candidates, room for hidden units and scores.

    Behind the candidates stands what must not be read.
    """
    generator = np.random.default_rng(seed)
    blend = make_blend(generator.standard_normal(FEATURES).astype(np.float32), units, seed, RATE)
    blend.bias[:units] = generator.standard_normal(units)
    blend.outer[:units] = generator.standard_normal(units)
    x = np.full((FEATURES, n + LANES), np.nan, np.float32)
    x[:, :n] = generator.standard_normal((FEATURES, n))
    hidden = np.full((n + LANES, len(blend.bias)), np.nan, np.float32)
    return blend, x, hidden, np.full(n + LANES, np.nan, np.float32)


@pytest.mark.parametrize(("n", "units"), [(1, 1), (5, 16), (16, 20), (103, 32)])
def test_scores_and_steps_are_those_of_the_formulas(n: int, units: int) -> None:
    blend, x, hidden, scores = _asked(n, units, seed=n)
    w, inner, bias, outer = (array.astype(np.float64) for array in blend[1:5])
    known = x[:, :n].astype(np.float64)
    units_of = np.maximum(known.T @ inner + bias, 0.0)
    expected = known.T @ w + units_of @ outer
    score(blend, x, n, hidden, scores)
    assert np.allclose(scores[:n], expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(hidden[:n], units_of, rtol=1e-4, atol=1e-5)
    target = n // 2
    learn_one(blend, x, n, hidden, scores, target)
    slope = np.exp(expected - expected.max())
    slope = slope / slope.sum() - (np.arange(n) == target)
    slope[abs(slope) < NEGLIGIBLE] = 0.0
    back = np.outer(slope, outer) * (units_of > 0.0)
    gradients = {
        "w": known @ slope,
        "inner": known @ back,
        "bias": back.sum(axis=0),
        "outer": slope @ units_of,
    }
    before = dict(zip(gradients, (w, inner, bias, outer), strict=True))
    for name, gradient in gradients.items():
        squares = getattr(blend, f"{name}_squares")
        assert np.allclose(squares, gradient**2, rtol=1e-3, atol=1e-6), name
        stepped = before[name] - RATE * gradient / np.sqrt(gradient**2 + SMALL)
        clear = abs(gradient) > 1e-3  # a first step is as long whatever the gradient: its sign
        assert np.allclose(getattr(blend, name)[clear], stepped[clear], atol=1e-3), name


def test_units_that_nobody_asked_for_stay_silent() -> None:
    blend, x, hidden, scores = _asked(20, 5, seed=3)
    for target in range(20):
        score(blend, x, 20, hidden, scores)
        learn_one(blend, x, 20, hidden, scores, target)
    assert blend.inner[:, :5].all()
    for array in (blend.inner, blend.bias, blend.outer):
        assert not array[..., 5:].any()


def test_nothing_is_learnt_from_scores_that_are_no_numbers() -> None:
    blend, x, hidden, scores = _asked(20, 16, seed=4)
    x[3, 7] = np.inf
    weights = blend.inner.copy()
    score(blend, x, 20, hidden, scores)
    learn_one(blend, x, 20, hidden, scores, 2)
    assert (blend.inner == weights).all()

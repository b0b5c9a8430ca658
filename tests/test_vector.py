"""The vector loops give what their plain counterparts give."""

from __future__ import annotations

import numpy as np
import pytest

from learners.selection import keep_best, kth_largest
from learners.vector import find, largest_of, log_of, smallest, total_of

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_find_and_smallest_look_at_their_run_only(n: int) -> None:
    values = GENERATOR.permutation(200).astype(np.int32)
    start = 40
    for place in range(200):
        inside = start <= place < start + n
        assert find(values, start, n, int(values[place])) == (place if inside else -1)
    weights = GENERATOR.random(200).astype(np.float32)
    assert smallest(weights, start, n) == start + weights[start : start + n].argmin()
    weights[start] = 0.0
    assert smallest(weights, start, n) == start
    assert find(values, start, 0, int(values[start])) == -1


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 99, 300])
def test_totals_and_largest(n: int) -> None:
    values = np.append(GENERATOR.random(n), 1e9).astype(np.float32)
    assert total_of(values, n) == pytest.approx(float(values[:n].astype(float).sum()), rel=1e-5)
    assert largest_of(values, n) == values[:n].max(initial=0.0)


def test_logarithms_are_right_over_all_magnitudes() -> None:
    values = np.exp(GENERATOR.uniform(-80, 80, 100_000)).astype(np.float32)
    values[:4] = [1.0, 0.5, 2.0, np.sqrt(0.5)]
    logs = values.copy()
    log_of(logs, len(logs))
    true = np.log(values.astype(np.float64))
    assert np.abs(logs - true).max() <= 1e-5
    assert np.abs(logs - true)[np.abs(true) < 5].max() <= 5e-7
    assert logs[0] == 0.0


@pytest.mark.parametrize("n", [1, 2, 20, 500])
def test_the_kth_largest_is_what_sorting_says(n: int) -> None:
    values = GENERATOR.standard_normal(n).astype(np.float32)
    values[GENERATOR.random(n) < 0.3] = np.float32(0.25)  # ties
    ordered = np.sort(values)[::-1]
    before = values.copy()
    for k in range(1, n + 1):
        assert kth_largest(values, n, k) == ordered[k - 1]
    assert np.array_equal(values, before)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 2), (50, 20), (50, 50), (20, 30)])
def test_the_best_are_kept_before_ties(n: int, k: int) -> None:
    for _ in range(50):
        values = GENERATOR.integers(0, 4, n).astype(np.float32)
        places = np.full(n, -1, np.int32)
        kept = keep_best(values, n, k, places)
        expected = np.sort(np.argsort(-values, kind="stable")[:k])
        assert places[:kept].tolist() == expected.tolist()


def test_the_kth_largest_of_extremes() -> None:
    values = np.array([-np.inf, np.inf, 0.0, -1e-38, 3e38, -3e38], np.float32)
    ordered = np.sort(values)[::-1]
    assert [kth_largest(values, 6, k) for k in range(1, 7)] == ordered.tolist()

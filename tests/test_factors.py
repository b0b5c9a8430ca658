"""The session factorisation: what it learns, that its steps are right and its numbers sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.base import Interactions, Query
from learners.checks import check_source, interactions, random_interactions
from learners.jit import jit
from learners.lanes import WIDTH, add_scaled, dot, empty_rows, largest, total
from learners.sources.factors import (
    ANSWER,
    ASKED,
    Factors,
    learn_one,
    query_vector,
    scores_of,
)
from learners.sources.negatives import HELD
from learners.store.history import CONTEXT
from learners.vector import exp_of


@pytest.mark.parametrize("correction", [0.0, 1.0])
def test_it_keeps_the_contract_of_a_source(correction: float) -> None:
    check_source(lambda: Factors(items=60, recent=500, correction=correction))


def _query(*items: int) -> Query:
    return Query(np.array(items, np.int32), now=0.0)


def _part(events: Interactions, part: slice) -> Interactions:
    item, kind, time, session, context = events
    return Interactions(item[part], kind[part], time[part], session[part], context[part])


def _same(a: Factors, b: Factors) -> bool:
    left, right = a.state(), b.state()
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.mark.parametrize("correction", [0.0, 1.0])
def test_it_finds_the_groups_that_sessions_stay_in(correction: float) -> None:
    """Sessions stay in one of eight groups of five items: the others there score best."""
    generator = np.random.default_rng(1)
    pairs = [
        (s, 5 * (s % 8) + int(i))
        for s in range(1500)
        for i in generator.permutation(5)[: 2 + s % 4]
    ]
    factors = Factors(items=40, correction=correction)
    factors.learn(interactions(pairs))
    for item in range(40):
        scores = factors.score(_query(item), 40)
        scores[item] = -np.inf
        assert set(np.argsort(-scores)[:4] // 5) == {item // 5}


def test_what_was_never_met_scores_nothing() -> None:
    factors = Factors(items=60)
    factors.learn(interactions([(s, i) for s in range(50) for i in (1, 2, 3)]))
    scores = factors.score(_query(1, 2), 60)
    assert np.flatnonzero(scores).tolist() == [1, 2, 3]
    assert not factors.score(_query(9), 60).any()
    assert not factors.score(_query(), 60).any()


def test_state_depends_neither_on_batches_nor_on_capacity() -> None:
    events = random_interactions(3, items=50, events=1200)
    whole, cut, larger = Factors(60, 300), Factors(60, 300), Factors(5000, 300)
    whole.learn(events)
    larger.learn(events)
    for begin in range(0, 1200, 7):
        cut.learn(_part(events, slice(begin, begin + 7)))
    assert _same(whole, cut)
    assert _same(whole, larger)
    other = Factors(60, 300, seed=2)
    other.learn(events)
    assert not _same(whole, other)


def test_new_rows_are_spread_as_stated() -> None:
    factors = Factors(items=2000)
    factors.learn(interactions([(s, s) for s in range(2000)]))
    numbers = factors.arrays.vectors.ravel()
    assert abs(numbers.mean()) < 0.001
    assert numbers.std() == pytest.approx(0.1, rel=0.01)
    assert (np.abs(numbers) < 0.1).mean() == pytest.approx(
        0.67, abs=0.02
    )  # a normal one's 0.683, nearly
    assert len(np.unique(numbers)) > 100_000
    across = np.corrcoef(factors.arrays.vectors[ASKED, :, 0], factors.arrays.vectors[ANSWER, :, 0])
    assert abs(across[0, 1]) < 0.1


def test_a_row_given_to_another_item_begins_anew() -> None:
    """Forgotten in the ring too: nobody meets the row as a negative before it is met again."""
    factors = Factors(items=60, recent=100)
    factors.learn(random_interactions(1))
    gone = np.arange(0, 20)
    factors.forget_items(gone)
    held = int(factors.arrays.book[HELD])
    assert not np.isin(factors.arrays.ring[:held], gone).any()
    assert factors.arrays.often.sum() == held < 100
    kept = random_interactions(2)
    factors.learn(_part(kept, slice(0, 0)))
    others = interactions([(s, 20 + i) for s in range(200) for i in (s % 30, (s + 1) % 30)])
    factors.learn(others)
    assert not factors.arrays.vectors[:, gone].any()
    assert not factors.arrays.sums[:, gone].any()
    assert int(factors.arrays.book[HELD]) == 100
    fresh = Factors(items=60)
    for each in (factors, fresh):
        each.learn(interactions([(900, 5)]))
    assert np.array_equal(factors.arrays.vectors[:, 5], fresh.arrays.vectors[:, 5])


def _sound(factors: Factors) -> None:
    arrays = factors.arrays
    for numbers in (arrays.vectors, arrays.sums):
        assert np.isfinite(numbers).all()
    assert np.abs(arrays.vectors).max() < 100.0
    assert (arrays.sums >= 0.0).all()
    assert np.isfinite(factors.score(_query(1, 2, 3), 60)).all()


ITEM = st.integers(0, 7)
RUN = st.tuples(ITEM, st.integers(1, 400))


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(RUN, min_size=1, max_size=8),
    one_session=st.booleans(),
    correction=st.sampled_from([0.0, 1.0]),
    rate=st.sampled_from([0.1, 1.0]),
)
def test_numbers_stay_sound_on_odd_streams(
    runs: list[tuple[int, int]], one_session: bool, correction: float, rate: float
) -> None:
    items = [item for item, length in runs for _ in range(length)]
    pairs = [(0 if one_session else i // 3, item) for i, item in enumerate(items)]
    factors = Factors(items=60, recent=50, rate=rate, correction=correction)
    factors.learn(interactions(pairs))
    _sound(factors)
    factors.forget_items(np.array([items[0]]))
    factors.learn(interactions(pairs))
    _sound(factors)


def test_numbers_stay_sound_over_a_long_run_of_two_items() -> None:
    factors = Factors(items=60, rate=1.0)
    item = np.tile(np.array([1, 2], np.int32), 50_000)
    context = np.tile(item[1 : CONTEXT + 1], (len(item), 1))
    context[1::2] = item[:CONTEXT]
    n = len(item)
    learn = Interactions(item, np.zeros(n, np.uint8), np.zeros(n), np.zeros(n, np.int64), context)
    factors.learn(learn)
    _sound(factors)


def test_unknown_rows_in_a_context_change_nothing() -> None:
    plain, holed = Factors(items=60), Factors(items=60)
    events = random_interactions(4)
    for each in (plain, holed):
        each.learn(events)
    nobody = np.full(CONTEXT, -1, np.int32)
    learn_one(plain.arrays, nobody, 0, 3)
    learn_one(holed.arrays, nobody, CONTEXT, 3)
    assert _same(plain, holed)


def _by_hand(
    factors: Factors, context: NDArray[np.int32], item: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One step as the formulas say, in float64 and without a row that comes twice."""
    arrays = factors.arrays
    query, answer = arrays.vectors.astype(np.float64)
    query_sum, answer_sum = arrays.sums.astype(np.float64)
    weight = 0.7 ** np.arange(len(context))
    weight /= np.sqrt((weight**2).sum())
    u = weight @ query[context]
    rows = np.append(arrays.upcoming[arrays.upcoming != item], item)
    logits = answer[rows] @ u
    gradient = np.exp(logits) / np.exp(logits).sum()
    gradient[-1] -= 1.0
    pull = gradient @ answer[rows]
    for row, g in zip(rows, gradient, strict=True):
        answer_sum[row] += g * g * (u @ u) / WIDTH
        answer[row] -= 0.1 * g * u / np.sqrt(answer_sum[row])
    for w, q in zip(weight, context, strict=True):
        query_sum[q] += w * w * (pull @ pull) / WIDTH
        query[q] -= 0.1 * w * pull / np.sqrt(query_sum[q])
    return query, answer


def test_a_step_is_the_one_of_the_formulas() -> None:
    factors = Factors(items=20_000)
    generator = np.random.default_rng(2)
    stream = interactions([(s // 4, int(i)) for s, i in enumerate(generator.permutation(20_000))])
    factors.learn(stream)
    steps = 0
    for _ in range(20):
        context, item = generator.integers(0, 20_000, 6).astype(np.int32), 77
        if len(np.unique(factors.arrays.upcoming)) < 32:
            learn_one(factors.arrays, context, 6, item)
            continue
        query, answer = _by_hand(factors, context, item)
        before = factors.arrays.vectors.copy()
        learn_one(factors.arrays, context, 6, item)
        assert not np.allclose(before[ANSWER], answer, atol=1e-4)
        assert np.allclose(factors.arrays.vectors[ASKED], query, atol=2e-5)
        assert np.allclose(factors.arrays.vectors[ANSWER], answer, atol=2e-5)
        steps += 1
    assert steps > 10


def test_the_kernels_of_a_query_give_what_the_source_scores() -> None:
    factors = Factors(items=60)
    factors.learn(random_interactions(5))
    context = np.array([4, -1, 2, 4, 1], np.int32)
    u, scores = empty_rows(1), np.zeros(30, np.float32)
    query_vector(factors.arrays, context, 5, u)
    weight = np.where(context >= 0, 0.7 ** np.arange(5), 0.0)
    expected = weight @ factors.arrays.vectors[ASKED][context] / np.sqrt((weight**2).sum())
    assert np.allclose(u[0], expected, atol=1e-6)
    items = np.arange(59, 29, -1, dtype=np.int32)
    scores_of(factors.arrays, u, items, 30, scores)
    assert np.allclose(scores, factors.score(_query(*context), 60)[items], atol=1e-6)
    assert np.allclose(scores, factors.arrays.vectors[ANSWER][items] @ u[0], atol=1e-5)


@jit
def _lanes(a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    out[0] = dot(a, 3 * WIDTH, b, WIDTH)
    out[1] = total(a, 3 * WIDTH)
    out[2] = largest(a, 3 * WIDTH)
    add_scaled(a, 0, np.float32(0.5), b, WIDTH)


def test_lanes_are_plain_arithmetic() -> None:
    generator = np.random.default_rng(6)
    a, b = (generator.standard_normal((4, WIDTH)).astype(np.float32) for _ in range(2))
    before, out = a.copy(), np.zeros(3, np.float32)
    _lanes(a, b, out)
    assert out[0] == pytest.approx(float(before[3] @ b[1]), abs=1e-5)
    assert out[1] == pytest.approx(float(before[3].sum()), abs=1e-5)
    assert out[2] == before[3].max()
    assert np.array_equal(a[0], before[0] + np.float32(0.5) * b[1])
    assert np.array_equal(a[1:], before[1:])


def test_powers_of_e() -> None:
    values = np.linspace(-25, 80, 10_001).astype(np.float32)
    powers = values.copy()
    exp_of(powers, len(powers))
    true = np.exp(values.astype(np.float64))
    above = values > -20
    assert np.abs(powers[above] / true[above] - 1).max() < 1e-6
    assert not powers[~above].any()

"""The replay buffer: what it keeps, draws, forgets, and gives back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.deep.histories import Histories
from learners.deep.rehearsal import ReplayBuffer


def numbered(begin: int, end: int) -> Histories:
    """Sequences of three events that all name their number."""
    return Histories.of([[number] * 3 for number in range(begin, end)])


def users(n: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.arange(1, n + 1, dtype=np.uint64)


def held(buffer: ReplayBuffer) -> list[int]:
    return sorted(buffer.sample(10**6, np.random.default_rng(1)).item[::3].tolist())


def same(first: ReplayBuffer, second: ReplayBuffer) -> bool:
    other = second.state()
    return all(np.array_equal(a, other[n], equal_nan=True) for n, a in first.state().items())


def test_the_newest_stay_and_older_ones_have_the_same_chance() -> None:
    times: Counter[int] = Counter()
    for seed in range(400):
        buffer = ReplayBuffer(newest=10, reservoir=20, longest=4, seed=seed)
        buffer.add(users(110), numbered(0, 110))
        assert held(buffer)[-10:] == list(range(100, 110))
        assert len(buffer) == 30
        times.update(held(buffer)[:-10])
    count = np.array([times[number] for number in range(100)])
    assert count.sum() == 400 * 20  # 80 each, with a standard deviation of 8
    assert np.abs(count - 80).max() < 4.5 * 8
    assert abs(count[:50].sum() - count[50:].sum()) < 4 * 90


def test_a_draw_is_of_all_that_ever_came() -> None:
    buffer = ReplayBuffer(newest=50, reservoir=50, longest=4)
    buffer.add(users(1050), numbered(0, 1050))
    generator = np.random.default_rng(3)
    new = sum(int((buffer.sample(5, generator).item >= 1000).sum()) // 3 for _ in range(400))
    assert 60 < new < 160  # 2,000 draws, of which 1 in 20.5 is of the newest 50
    drawn = buffer.sample(30, generator).item[::3]
    assert len(set(drawn.tolist())) == 30


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_it_does_not_matter_how_many_come_at_once(sizes: list[int]) -> None:
    whole, parts = (ReplayBuffer(newest=4, reservoir=6, longest=3, seed=2) for _ in range(2))
    n = sum(sizes)
    whole.add(users(n), numbered(0, n))
    begin = 0
    for size in sizes:
        parts.add(users(n)[begin : begin + size], numbered(begin, begin + size))
        begin += size
    assert same(whole, parts)


def test_an_erased_user_leaves_no_trace() -> None:
    buffer = ReplayBuffer(newest=5, reservoir=5, longest=3)
    buffer.add(np.array([7, 8] * 10, np.uint64), numbered(100, 120))
    mine = sum(number % 2 == 0 for number in held(buffer))
    assert buffer.erase(7) == mine > 0
    assert all(number % 2 for number in held(buffer))
    assert not (buffer.state()["user"] == 7).any()
    assert set(buffer.item[buffer.item > 0].tolist()) == set(held(buffer))
    assert buffer.erase(7) == 0
    buffer.add(np.array([9] * 50, np.uint64), numbered(200, 250))
    assert len(buffer) <= 10


def test_a_state_makes_the_same_buffer_again() -> None:
    first = ReplayBuffer(newest=3, reservoir=4, longest=5, seed=4)
    long = replace(Histories.of([range(1, 9)]), context=np.array([6]))
    first.add(users(9), numbered(0, 9))
    first.add(users(1), long)
    again = ReplayBuffer(newest=3, reservoir=4, longest=5)
    again.load_state(first.state())
    for buffer in (first, again):
        buffer.add(users(6), numbered(20, 26))
    assert same(first, again)
    kept = first.sample(9, np.random.default_rng(1))
    assert kept.lengths.max() <= 5
    with pytest.raises(ValueError, match="7 sequences, this buffer holds 8"):
        ReplayBuffer(newest=3, reservoir=5).load_state(first.state())


def test_a_long_sequence_keeps_its_newest_events() -> None:
    buffer = ReplayBuffer(newest=2, reservoir=1, longest=3)
    buffer.add(users(2), replace(Histories.of([range(8), []]), context=np.array([6, 1])))
    kept = buffer.sample(1, np.random.default_rng(1))
    assert (kept.item.tolist(), kept.looked_back.tolist()) == ([5, 6, 7], [1])

"""Histories: cutting, joining, padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.deep.growth import first_rows
from learners.deep.histories import GAPS, Histories, batches, gap_buckets, windows

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def counting(lengths: list[int]) -> Histories:
    """Sequences whose items count up over all of them, so that each event can be told."""
    ends = np.cumsum([0, *lengths])
    return Histories.of([range(a, b) for a, b in pairwise(ends)])


def target_items(histories: Histories) -> list[int]:
    found = []
    for batch in batches(histories, 3):
        found += batch.item[batch.target].tolist()
    return sorted(found)


@given(LENGTHS, st.integers(2, 12))
def test_windows_foresee_each_event_once_from_at_least_half_a_window(
    lengths: list[int], most: int
) -> None:
    histories = counting(lengths)
    cut = windows(histories, most)
    assert target_items(cut) == target_items(histories)
    assert len(target_items(cut)) == cut.targets == histories.targets
    assert cut.lengths.max(initial=0) <= most + 1
    whole = dict(
        zip(histories.item.tolist(), np.repeat(histories.start[:-1], lengths), strict=True)
    )
    for begin, context in zip(cut.start[:-1], cut.looked_back, strict=True):
        first = int(cut.item[begin])
        assert first == whole[first] or context >= most // 2


@given(LENGTHS, st.integers(1, 5))
def test_rows_of_a_batch_are_the_sequences(lengths: list[int], size: int) -> None:
    histories = counting([length + 1 for length in lengths])
    seen = []
    order = np.random.default_rng(1).permutation(len(histories))
    for batch in batches(histories, size, order):
        for which, item, target in zip(batch.which, batch.item, batch.target, strict=True):
            begin, end = histories.start[which : which + 2]
            assert item[: end - begin].tolist() == list(range(begin, end))
            assert (item[end - begin :] == end - 1).all()
            assert target.tolist() == [0 < i < end - begin for i in range(len(target))]
            seen.append(int(which))
    assert sorted(seen) == list(range(len(histories)))


def test_taking_and_joining_keep_events_and_what_is_only_looked_at() -> None:
    ours = replace(Histories.of([[1, 2, 3], [4]]), context=np.array([2, 1]))
    both = ours.and_then(Histories.of([[5, 6]])).take(np.array([2, 0]))
    assert both.item.tolist() == [5, 6, 1, 2, 3]
    assert both.looked_back.tolist() == [1, 2]
    assert both.targets == 2
    assert len(ours.trainable()) == 1


def test_gaps_need_a_clock_and_an_event_before() -> None:
    time = np.array([0.0, 59.0, 60.0 + 59.0, 1e9, 5.0, np.nan, 6.0])
    bucket = gap_buckets(time, np.array([0, 4, 4, 7]))
    assert bucket.tolist() == [0, 1, 2, GAPS - 1, 0, 0, 0]
    assert gap_buckets(np.empty(0), np.array([0])).tolist() == []
    backwards = gap_buckets(np.array([100.0, 40.0]), np.array([0, 2]))
    assert backwards.tolist() == [0, 1]


def test_a_new_item_begins_where_it_was_met_or_what_it_is_like() -> None:
    table = np.eye(3, 16, dtype=np.float32)
    met = Histories.of([[0, 1, 3], [3, 2], [4, 5], [2, 2]])
    alike = np.array([[2, -1], [0, 1], [-1, -1]], np.int32)
    rows = first_rows(table, met, 6, seed=1, std=1e-4, alike=alike)
    assert rows.shape == (3, 16)
    assert rows[0] == pytest.approx(0.7 * table.mean(axis=0), abs=1e-3)
    assert rows[1] == pytest.approx(0.7 * table[:2].mean(axis=0), abs=1e-3)
    assert 0 < np.abs(rows[2]).max() < 1e-3
    assert np.array_equal(rows, first_rows(table, met, 6, seed=1, std=1e-4, alike=alike))

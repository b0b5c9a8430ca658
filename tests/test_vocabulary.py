"""Vocabularies: ids get rows, full ones give up the oldest, whatever the hashes do."""

from __future__ import annotations

import numpy as np
import pytest

from learners.store.index import insert, look_up, make_index, remove
from learners.store.texts import hashes_128
from learners.store.vocab import Vocabulary


def test_an_index_is_a_dictionary_also_where_all_hashes_collide() -> None:
    """Keys of few slots at the table's end, in and out at random: runs wrap, holes are closed."""
    generator = np.random.default_rng(5)
    index, known = make_index(32), dict[tuple[int, int], int]()
    assert len(index.row) == 64
    for step in range(5000):
        key = (int(generator.choice([61, 62, 63, 0])) + 64 * int(generator.integers(9)), 7)
        hashes = np.array([key], np.uint64)
        if key in known and generator.random() < 0.5:
            remove(index, hashes)
            del known[key]
        elif len(known) < 32:
            known.setdefault(key, step)
            insert(index, hashes[0, 0], hashes[0, 1], known[key])
        keys = np.array([*known, (999, 999)], np.uint64)
        rows = np.empty(len(keys), np.int32)
        assert look_up(index, keys, rows) == 1
        assert rows.tolist() == [*known.values(), -1]
    assert np.count_nonzero(index.row) == len(known)


def test_a_vocabulary_keeps_its_rows_through_evictions_and_a_round_trip() -> None:
    generator = np.random.default_rng(6)
    vocabulary, rows_of = Vocabulary(64), dict[str, int]()
    for count in range(1, 400):
        names = [f"ü{n}" for n in generator.integers(0, 300, 20)]
        while (room := vocabulary.room(names)) < len(names):
            fewer = {name for name in names[: room + 1] if name not in rows_of}
            assert len(fewer) == vocabulary.capacity - len(vocabulary) + 1
            gone = vocabulary.oldest()
            assert len(gone) == len(vocabulary) // 8
            for row in gone:
                del rows_of[vocabulary.ids[row]]
            vocabulary.free(map(int, gone))
        rows = vocabulary.assign(names)
        vocabulary.last_seen[rows] = count
        for name, row in zip(names, rows.tolist(), strict=True):
            assert rows_of.setdefault(name, row) == row
        assert len(vocabulary) == len(rows_of)
    again = Vocabulary(64)
    again.load_state(
        {
            name: np.asarray(part() if callable(part) else part)
            for name, part in vocabulary.state().items()
        }
    )
    for each in (vocabulary, again):
        assert {name: each.row(name) for name in rows_of} == rows_of
        assert each.row("ü999") == -1
    assert again.assign(["new"]).tolist() == vocabulary.assign(["new"]).tolist()


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 10_000])
def test_any_text_may_be_asked_for(name: str) -> None:
    vocabulary = Vocabulary(4)
    vocabulary.assign(["a", "b"])
    assert vocabulary.row(name) == -1
    assert hashes_128([name]).shape == (1, 2)

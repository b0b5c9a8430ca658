"""Vocabularies: ids get rows, full ones give up the oldest, whatever the hashes do."""

from __future__ import annotations

import numpy as np
import pytest

from learners.store.index import hash_of
from learners.store.vocab import Vocabulary


def hash_of_name(name: str) -> int:
    raw = np.frombuffer(name.encode(), np.uint8)
    return int(hash_of(raw, 0, len(raw)))


def test_a_vocabulary_is_a_dictionary_also_where_hashes_collide() -> None:
    """Names of few slots at the table's end, in and out at random: runs wrap, holes are closed."""
    generator = np.random.default_rng(5)
    names = [name for name in map(str, range(1200)) if hash_of_name(name) % 64 in (61, 62, 63, 0)]
    vocabulary, known = Vocabulary(32), dict[str, int]()
    for _ in range(5000):
        name = names[int(generator.integers(len(names)))]
        if name in known and generator.random() < 0.5:
            vocabulary.free(np.array([known.pop(name)]))
        elif len(known) < 32:
            known.setdefault(name, int(vocabulary.assign([name])[0]))
        assert vocabulary.assign([*known]).tolist() == [*known.values()]
        assert len(vocabulary) == len(known)
    assert [vocabulary.row(name) for name in names] == [known.get(name, -1) for name in names]


def test_ids_of_one_hash_have_rows_of_their_own() -> None:
    """Among 200,000 ids some share all 32 bits: only their bytes tell them apart."""
    names = [f"id-{n}" for n in range(200_000)]
    hashes = np.array([hash_of_name(name) for name in names])
    _, first, count = np.unique(hashes, return_index=True, return_counts=True)
    assert (count > 1).any()
    alike = [name for at in first[count > 1] for name in np.array(names)[hashes == hashes[at]]]
    vocabulary = Vocabulary(len(alike))
    assert vocabulary.assign(alike).tolist() == list(range(len(alike)))
    vocabulary.free(np.array([0]))
    assert vocabulary.row(alike[0]) == -1
    assert [vocabulary.row(name) for name in alike[1:]] == list(range(1, len(alike)))


def test_what_is_forgotten_is_blanked_and_its_place_used_again() -> None:
    vocabulary = Vocabulary(8)
    long = ["x" * size for size in (16, 17, 128, 129, 1025, 70_000)]
    vocabulary.assign(long)
    assert [vocabulary.ids[row] for row in range(6)] == long
    taken = int(vocabulary.ids.heap.top[0])
    for _ in range(3):
        vocabulary.free(np.arange(6))
        assert ord("x") not in vocabulary.state()["text"]
        vocabulary.assign(long)
        assert int(vocabulary.ids.heap.top[0]) == taken
    assert [vocabulary.ids[vocabulary.row(name)] for name in long] == long


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
            vocabulary.free(gone)
        rows = vocabulary.assign(names)
        vocabulary.last_seen[rows] = count
        for name, row in zip(names, rows.tolist(), strict=True):
            assert rows_of.setdefault(name, row) == row
        assert len(vocabulary) == len(rows_of)
    again = Vocabulary(64)
    again.load_state({name: array.copy() for name, array in vocabulary.state().items()})
    for each in (vocabulary, again):
        assert {name: each.row(name) for name in rows_of} == rows_of
        assert each.row("ü999") == -1
    assert again.assign(["new"]).tolist() == vocabulary.assign(["new"]).tolist()


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 10_000])
def test_any_text_may_be_asked_for(name: str) -> None:
    vocabulary = Vocabulary(4)
    vocabulary.assign(["a", "b"])
    assert vocabulary.row(name) == -1
    assert vocabulary.assign([name]).tolist() == [2]
    assert vocabulary.row(name) == 2
    assert vocabulary.ids[2] == name

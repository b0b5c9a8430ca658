"""The books of exploration: what was shown and clicked counts once, in time, and is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from learners.base import CLICK, ERASURE, Batch
from learners.engine import Engine
from learners.explored import LATEST, MOST_ITEMS, OBJECT_BYTES, WINDOW_SECONDS, Explored
from tests.test_engine import batch_of
from tests.test_explore import CONFIG, ME, NOW, shows


def counted(*batches: Batch) -> list[int]:
    engine = Engine(CONFIG)
    for batch in batches:
        engine.learn(batch)
    return engine.explorer.books.counts["new0"]


def click(seconds: float, name: str = "c", user: str = ME, item: str = "new0") -> Batch:
    return batch_of([(CLICK, user, item, NOW + seconds)], name)


def test_a_click_answers_one_impression_of_its_own_user_in_time() -> None:
    show = shows(["new0"], ME, NOW, "s")
    assert counted(show) == [1, 0]
    assert counted(show, click(60.0)) == [1, 1]
    assert counted(show, click(60.0), click(61.0, "again")) == [1, 1]
    assert counted(show, click(60.0), click(60.0)) == [1, 1]
    assert counted(show, click(WINDOW_SECONDS + 1.0)) == [1, 0]
    assert counted(show, click(60.0, user="bob")) == [1, 0]
    assert counted(show, click(60.0, item="new1")) == [1, 0]
    assert counted(show, batch_of([(ERASURE, ME, "", NOW)], "e"), click(60.0)) == [1, 0]


def test_an_impression_that_comes_again_counts_once() -> None:
    show = shows(["new0"], ME, NOW, "s")
    assert counted(show, show, click(60.0), show) == [1, 1]
    assert counted(show, click(60.0), shows(["new0"], ME, NOW + 90.0, "t")) == [2, 1]


def test_a_click_that_overtook_its_impression_is_found() -> None:
    other = shows(["new1"], "bob", NOW - 5.0, "o")
    show = shows(["new0"], ME, NOW, "s")
    assert counted(other, click(0.1), show) == [1, 1]
    assert counted(other, click(-1.0), show) == [1, 0], "it was before the answer"
    assert counted(other, click(0.1), show, click(0.2, "again")) == [1, 1]


def test_books_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learners.explored.MOST_ITEMS", 50)
    monkeypatch.setattr("learners.explored.MOST_WAITING", 20)
    books = Explored()
    for i in range(500):
        books.show(f"u{i}", [f"i{i}"], float(i))
    assert list(books.counts) == [f"i{i}" for i in range(450, 500)]
    assert len(books.waiting) == 20
    books.answer("u499", "i499", 500.0)
    books.answer("u470", "i470", 500.0)
    assert (books.counts["i499"], books.counts["i470"]) == ([1, 1], [1, 0])
    sizes = {name: a.nbytes for name, a in books.state().items() if not callable(a)}
    assert sizes["click_user"] == 8 * LATEST


def test_full_books_take_no_more_than_is_foreseen() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        books = Explored()
        for i in range(MOST_ITEMS + 1000):
            books.show(f"user-{i:06d}", [f"item-{i:06d}"], i / 100)
        for i in range(300):
            books.show("somebody", [f"item-{MOST_ITEMS - 1:06d}"], 200.0 + i)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = sum(part.nbytes for part in vars(books).values() if isinstance(part, np.ndarray))
    assert taken < arrays + 3 * 8 * LATEST + OBJECT_BYTES

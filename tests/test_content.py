"""Content similarity: what is alike, what is new, and what an engine makes of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.base import CLICK, ITEM, CatalogueEntry, Query
from learners.checks import interactions
from learners.engine import Engine
from learners.sources.content import Content, look_for, name
from learners.sources.shelves import FRESH, LISTED
from learners.sources.tokens import NONE, TOKENS, tokens_of
from learners.store.memory import Memory
from tests.test_engine import CONFIG, batch_of, checkerboard


def known(entry: CatalogueEntry) -> set[int]:
    return {int(token) for token in tokens_of(entry) if token != NONE}


def listed(content: Content, entries: dict[int, CatalogueEntry], time: float = 1.0) -> None:
    rows = np.array(list(entries), np.int32)
    content.list_items(rows, list(entries.values()), np.full(len(rows), time))


def named(content: Content, *query: int) -> set[int]:
    scratch = content._scratch
    if not look_for(content.arrays, scratch, np.array(query, np.int32), len(query)):
        return set()
    return set(scratch.named[: name(content.arrays, scratch)].tolist())


def scores(content: Content, *query: int) -> NDArray[np.float64]:
    return content.score(Query(np.array(query, np.int32), now=9.0), 60)


def test_tokens_are_shared_where_entries_are_alike() -> None:
    tent = CatalogueEntry(category="Outdoor/Tents", price=99.0, title="Big tent, 2 persons")
    other = CatalogueEntry(category="outdoor|stoves", price=15.0, title="A stove beside a TENT")
    same_price = replace(tent, price=101.0, title=None)
    assert len(known(tent) & known(other)) == 2  # outdoor, tent
    assert len(known(tent) & known(same_price)) == 4  # the path, its two parts, the price
    assert not known(CatalogueEntry(title="tent")) & known(CatalogueEntry(category="tent"))
    assert not known(CatalogueEntry()) | known(replace(tent, deleted=True))
    assert not known(CatalogueEntry(price=0.0, title="2 & 3"))
    long = CatalogueEntry(title=" ".join(f"word{chr(97 + i)}{chr(97 + i)}" for i in range(26)))
    assert len(known(long)) == TOKENS


def test_the_rarer_what_two_items_share_the_more_alike_they_are() -> None:
    content = Content(items=60)
    entries = {i: CatalogueEntry(category="books", title="novel") for i in range(20)}
    entries |= {20: CatalogueEntry(category="books", title="novel about whales")}
    entries |= {21: CatalogueEntry(category="books", title="whales of the north")}
    entries |= {22: CatalogueEntry(category="tools", title="hammer")}
    entries |= {23: CatalogueEntry(category="tools", title="axe")}
    listed(content, entries)
    found = scores(content, 20)
    assert found[20] == pytest.approx(1.0, abs=1e-5)
    assert found[21] > 2 * found[3] > 0.0
    assert not found[22:].any()
    both = scores(content, 22, 20)
    assert both[22] == pytest.approx(1.0 / 1.7, abs=1e-3)  # the last item counts 1, the other 0.7


def test_an_item_that_nobody_clicked_is_named_until_it_is_gone() -> None:
    content = Content(items=60)
    tent = CatalogueEntry(category="tents")
    listed(content, {1: tent, 2: tent, 3: tent, 9: CatalogueEntry(category="stoves")})
    assert named(content, 1) == {1, 2, 3}
    listed(content, {2: replace(tent, available=False)})
    assert named(content, 1) == {1, 3}
    assert named(content, 2) == {1, 3}, "what cannot be had still tells what is liked"
    listed(content, {2: tent, 3: replace(tent, deleted=True)})
    assert named(content, 1) == {1, 2}
    assert not named(content, 3)
    listed(content, {1: CatalogueEntry(category="stoves")})
    assert named(content, 9) == {1, 9}
    content.forget_items(np.array([1, 2, 9]))
    assert not any(named(content, item) for item in range(60))
    assert not content.arrays.book.any()
    assert not content.arrays.often.any()
    assert not content.arrays.rows.head["held"].any()


def test_an_entry_that_comes_again_changes_nothing() -> None:
    once, again = Content(items=60), Content(items=60)
    entries = {i: CatalogueEntry(category=f"c{i % 3}", price=5.0 + i) for i in range(30)}
    for content in (once, again):
        listed(content, entries)
    listed(again, entries, time=7.0)
    left, right = once.state(), again.state()
    assert all(left[key].tobytes() == right[key].tobytes() for key in left)


def test_new_items_have_room_however_many_are_well_known() -> None:
    content = Content(items=400, most=30)
    shelf = CatalogueEntry(category="shelf")
    listed(content, dict.fromkeys(range(300), shelf))
    content.learn(interactions([(s, s) for s in range(200)]))
    assert len(named(content, 5)) == 30
    assert sum(item >= 200 for item in named(content, 5)) == 24
    assert sum(item < 200 for item in named(content, 5)) == 6
    off = Content(items=400, most=0)
    listed(off, dict.fromkeys(range(300), shelf))
    assert not named(off, 5)


def test_the_lists_hold_what_the_books_say_after_any_number_of_changes() -> None:
    content = Content(items=60)
    generator = np.random.default_rng(4)
    for step in range(300):
        item = int(generator.integers(40))
        if generator.random() < 0.1:
            content.forget_items(np.array([item]))
        entry = CatalogueEntry(
            category=f"c{generator.integers(4)}",
            price=float(generator.integers(1, 9)),
            available=bool(generator.random() < 0.8),
            deleted=bool(generator.random() < 0.1),
        )
        listed(content, {item: entry}, time=float(step + 1))
        content.learn(interactions([(step, int(generator.integers(40)))]))
    arrays = content.arrays
    status, met = arrays.status, arrays.met
    assert arrays.book[LISTED] == np.count_nonzero(status)
    assert arrays.book[FRESH] == np.count_nonzero((status > 0) & (met == 0))
    held: dict[int, set[int]] = {}
    for row in np.flatnonzero(arrays.rows.head["held"]):
        head = arrays.rows.head[row]
        items = arrays.item[head["start"] : head["start"] + head["held"]].tolist()
        assert len(items) == len(set(items))
        for item in items:
            assert bool(met[item]) == bool(row & 1)
            held.setdefault(item, set()).add(int(row) // 2)
    for item in range(60):
        tokens = {int(token) - 1 for token in arrays.token[item] if token}
        shown = status[item] & 2 == 0
        assert held.get(item, set()) == (tokens if shown else set())
    often = np.bincount(arrays.token[arrays.token > 0] - 1, minlength=len(arrays.often))
    assert np.array_equal(often, arrays.often)


def test_a_catalogue_far_larger_than_its_lists_is_bounded_and_sound() -> None:
    content = Content(items=3000)
    words = [f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    generator = np.random.default_rng(5)
    listed(
        content,
        {i: CatalogueEntry(title=" ".join(generator.choice(words, 14))) for i in range(3000)},
    )
    assert content.arrays.rows.top[0] <= len(content.arrays.item)
    assert len(named(content, 7)) == 24
    assert scores(content, 7)[7] == pytest.approx(1.0, abs=1e-4)


def shop_of(n: int, categories: Sequence[str]) -> dict[int, CatalogueEntry]:
    return {i: CatalogueEntry(category=categories[i % 2]) for i in range(n)}


def catalogue_first(engine: Engine) -> None:
    """List items i0 to i59, even and odd ones alike; people click i0 to i39."""
    events = [(ITEM, "", f"i{i}", 1.0) for i in range(60)]
    engine.learn(batch_of(events, "c", shop_of(60, ("even", "odd"))))
    engine.learn(batch_of(checkerboard(1500)))


def first_clicks(n: int = 200) -> list[tuple[int, str, str, float]]:
    """Users who stay with even or odd items click new ones of their kind."""
    return [
        (CLICK, f"u{i % 60}", f"i{40 + i % 20}" if i % 3 == 0 else f"i{i % 40}", 20_000.0 + i)
        for i in range(n)
    ]


def test_a_new_item_is_recommended_before_its_first_click() -> None:
    engine = Engine(replace(CONFIG, evaluate_one_in=1))
    catalogue_first(engine)
    entries = {0: CatalogueEntry(category="odd"), 1: CatalogueEntry(category="even")}
    new = [(ITEM, "", "new-odd", 16_001.0), (ITEM, "", "new-even", 16_001.0)]
    engine.learn(batch_of(new, "n", entries))
    answer = engine.recommend("u1", k=60)
    places = {each.item: place for place, each in enumerate(answer)}
    assert places["new-odd"] < 60
    sources = {each.item: each.sources for each in answer}
    assert sources["new-odd"]["content"] > 0.9
    assert "new-even" not in sources or "content" not in sources["new-even"]
    engine.learn(batch_of([(CLICK, "stranger", "new-even", 16_002.0)], "s"))
    visit = [("new-odd", "click", 16_003.0)]
    assert any(each.item.startswith("i") for each in engine.recommend(events=visit, k=5))
    assert engine.recommend("stranger", k=5)[0].item != "new-odd"
    gone = {0: CatalogueEntry(category="odd", available=False)}
    engine.learn(batch_of([(ITEM, "", "new-odd", 16_004.0)], "g", gone))
    assert "new-odd" not in {each.item for each in engine.recommend("u1", k=60)}


def test_a_first_click_is_a_hit_only_where_the_item_was_listed_and_ranked() -> None:
    hits = {}
    for told in ("listed", "unlisted", "off"):
        engine = Engine(
            replace(CONFIG, evaluate_one_in=1, content_candidates=0 if told == "off" else 30)
        )
        if told == "unlisted":
            engine.learn(batch_of(checkerboard(1500)))
        else:
            catalogue_first(engine)
        engine.learn(batch_of([(CLICK, "u2", "i2", 19_000.0)], "x"))
        before = engine.evaluation.books.total.sum(axis=0)[0, 1]
        new = [(CLICK, "u2", f"i{i}", 19_001.0 + i) for i in range(40, 60, 2)]
        engine.learn(batch_of(new, "y"))
        hits[told] = engine.evaluation.books.total.sum(axis=0)[0, 1] - before
    assert hits["unlisted"] == hits["off"] == 0
    assert hits["listed"] > 3


def test_the_engine_learns_entries_as_the_source_does_alone() -> None:
    engine = Engine(replace(CONFIG, evaluate_one_in=1))
    catalogue_first(engine)
    engine.learn(batch_of(first_clicks(), "f"))
    alone = Memory.make(CONFIG).content
    rows = [engine.memory.items.row(f"i{i}") for i in range(60)]
    entries = list(shop_of(60, ("even", "odd")).values())
    alone.list_items(np.array(rows, np.int32), entries, np.ones(60))
    clicks = [engine.memory.items.row(item) for _, _, item, _ in [*checkerboard(1500)]]
    clicks += [engine.memory.items.row(item) for _, _, item, _ in first_clicks()]
    alone.learn(interactions([(0, row) for row in clicks]))
    mine, theirs = alone.state(), engine.memory.content.state()
    assert all(mine[key].tobytes() == theirs[key].tobytes() for key in mine)


def test_entries_among_clicks_are_learnt_in_their_place_however_batches_are_cut() -> None:
    events: list[tuple[int, str, str, float]] = []
    entries: dict[int, CatalogueEntry] = {}
    for i, event in enumerate(checkerboard(900)):
        if i % 7 == 0:
            entries[len(events)] = CatalogueEntry(
                category=("even", "odd")[i % 2], price=1.0 + i % 5, available=i % 3 > 0
            )
            events.append((ITEM, "", f"i{(i * 5) % 60}", event[3]))
        events.append(event)
    whole = Engine(replace(CONFIG, evaluate_one_in=1))
    whole.learn(batch_of(events, "e", entries))
    part = batch_of(events, "e", entries)
    for size in (1, 64, 333):
        cut = Engine(replace(CONFIG, evaluate_one_in=1))
        for start in range(0, len(events), size):
            stop = min(start + size, len(events))
            columns = ("kind", "user", "item", "session", "timestamp", "event_hash", "log")
            cut.learn(
                replace(
                    part,
                    **{key: getattr(part, key)[start:stop] for key in columns},
                    catalogue={k - start: e for k, e in entries.items() if start <= k < stop},
                )
            )
        assert cut.fingerprint() == whole.fingerprint()


def test_a_restored_engine_goes_on_as_the_first_one() -> None:
    engine = Engine(CONFIG)
    catalogue_first(engine)
    other = Engine(replace(CONFIG, items=400))
    other.load_state({key: np.array(array) for key, array in engine.state().items()})
    for each in (engine, other):
        each.learn(batch_of(first_clicks(), "f"))
        each.learn(batch_of([(ITEM, "", "i3", 30_000.0)], "z", {0: CatalogueEntry(title="three")}))
    assert engine.fingerprint() == other.fingerprint()
    mine, theirs = (each.recommend("u1", k=20) for each in (engine, other))
    assert mine == theirs


def test_without_a_catalogue_content_says_nothing_and_covers_nothing() -> None:
    engine = Engine(replace(CONFIG, evaluate_one_in=1))
    engine.learn(batch_of(checkerboard(600)))
    metrics = engine.report()["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["content"]["hr@20"] == metrics["content"]["coverage@20"] == 0.0
    assert not np.isin(engine.memory.work.largest, [np.inf]).any()


def test_more_entries_than_capacity_leave_no_trace_of_the_old() -> None:
    engine = Engine(replace(CONFIG, items=50))
    for start in range(0, 400, 20):
        events = [(ITEM, "", f"i{start + i}", 1.0 + start) for i in range(20)]
        engine.learn(batch_of(events, f"c{start}-", shop_of(20, ("even", "odd"))))
        clicks = [(CLICK, f"u{i % 3}", f"i{start + i}", 2.0 + start) for i in range(6)]
        engine.learn(batch_of(clicks, f"k{start}-"))
    arrays = engine.memory.content.arrays
    listed = {row for row in range(50) if engine.catalogue.entry(row) is not None}
    assert arrays.book[LISTED] == np.count_nonzero(arrays.status) == len(listed)
    assert set(np.flatnonzero(arrays.status)) == listed

"""The engine as its users meet it: learns, answers, forgets, repeats itself exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from learners.base import (
    CLICK,
    ERASURE,
    IMPRESSION,
    ITEM,
    PURCHASE,
    Batch,
    CatalogueEntry,
    EngineConfig,
    Query,
)
from learners.candidates import (
    BACKWARD,
    FORWARD_SLOW,
    KNN,
    Asked,
    gather,
)
from learners.checks import interactions
from learners.engine import Engine
from learners.sources.transitions import BACKWARD_SHARE
from learners.store.memory import Memory

CONFIG = EngineConfig(
    users=200, items=300, sessions=256, dedupe_events=4096, evaluate_one_in=2, history_length=16
)


def batch_of(
    events: Sequence[tuple[int, str, str, float]],
    prefix: str = "e",
    catalogue: dict[int, CatalogueEntry] | None = None,
) -> Batch:
    """Return (kind, user, item, seconds) as a batch; ids are numbered from the prefix."""
    n = len(events)
    names = [f"{prefix}{i}" for i in range(n)]
    return Batch(
        kind=np.array([kind for kind, *_ in events], np.uint8),
        user=[user for _, user, _, _ in events],
        item=[item for _, _, item, _ in events],
        session=[""] * n,
        timestamp=np.array([time for *_, time in events]),
        event_hash=np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names], np.uint64),
        log=np.zeros(n, np.int32),
        logs=["clicks/0"],
        catalogue=catalogue or {},
        positions={"clicks/0": n},
    )


def checkerboard(n: int, seed: int = 3, users: int = 60) -> list[tuple[int, str, str, float]]:
    """Even users click even items, odd users odd ones; item j is followed by j + 2."""
    generator = np.random.default_rng(seed)
    at = {u: u % 2 + 2 * int(generator.integers(10)) for u in range(users)}
    events = []
    for i in range(n):
        user = int(generator.integers(users))
        at[user] = (at[user] + 2) % 40
        kind = PURCHASE if generator.random() < 0.05 else CLICK
        events.append((kind, f"u{user}", f"i{at[user]}", 1000.0 + 10.0 * i))
    return events


@pytest.fixture(scope="module")
def learnt() -> Engine:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(3000)))
    return engine


def test_a_click_changes_the_next_answer() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(2000)))
    before = [each.item for each in engine.recommend("newcomer", k=3)]
    engine.learn(batch_of([(CLICK, "newcomer", "i7", 21_000.0)], "n"))
    after = engine.recommend("newcomer", k=3)
    assert after[0].item == "i9"
    assert [each.item for each in after] != before
    assert after[0].sources.keys() <= {"neighbours", "transitions", "popularity"}
    assert sum(each.score for each in after) <= 1.0 + 1e-6


def test_the_blend_foresees_what_popularity_cannot(learnt: Engine) -> None:
    metrics = learnt.report()["metrics"]
    assert metrics["blend"]["mrr@20"] > 0.9
    assert metrics["blend"]["mrr@20"] > metrics["popularity"]["mrr@20"]
    assert learnt.report()["purchases"]["blend"]["n"] > 20


def test_somebody_unknown_gets_what_is_popular() -> None:
    engine = Engine(CONFIG)
    events = checkerboard(1500)
    loved = [(CLICK, f"fan{i}", f"i{i % 3}", 16_000.0 + i) for i in range(300)]
    engine.learn(batch_of([*events, *loved]))
    for answer in (
        engine.recommend("nobody", k=3),
        engine.recommend(events=[("?", "click", 1.0)], k=3),
    ):
        assert {each.item for each in answer} == {"i0", "i1", "i2"}
        assert [each.score for each in answer] == sorted((e.score for e in answer), reverse=True)


def test_an_anonymous_visitor_is_served_from_the_session_alone(learnt: Engine) -> None:
    answer = learnt.recommend(events=[("i2", "click", 1.0), ("i4", "click", 2.0)], k=2)
    assert answer[0].item == "i6"
    assert learnt.recommend(events=[("never seen", "click", 1.0)], k=5)


def test_an_answer_is_as_long_as_asked_for(learnt: Engine) -> None:
    for k in (1, 10, 40):
        items = [each.item for each in learnt.recommend("u1", k=k)]
        assert len(items) == len(set(items)) == k
    assert len(learnt.recommend("u1", k=500)) == 40


def test_reading_changes_nothing(learnt: Engine) -> None:
    before = learnt.fingerprint()
    learnt.recommend("u1", k=50, exclude=["seen"])
    learnt.recommend("nobody")
    learnt.similar("i1")
    learnt.trending(7)
    learnt.user("u1")
    learnt.report()
    assert learnt.fingerprint() == before


def test_similar_and_trending(learnt: Engine) -> None:
    assert learnt.similar("i10", 1)[0].item == "i12"
    assert learnt.similar("unknown") == []
    trending = learnt.trending(40)
    assert len(trending) == 40
    assert [each.score for each in trending] == sorted((e.score for e in trending), reverse=True)


def test_what_was_seen_or_bought_can_be_left_out(learnt: Engine) -> None:
    view = learnt.user("u3")
    assert view is not None
    seen = {item for item, _, _ in view.events}
    bought = {item for item, kind, _ in view.events if kind == "purchase"}
    assert not seen & {each.item for each in learnt.recommend("u3", k=30, exclude=["seen"])}
    assert not bought & {each.item for each in learnt.recommend("u3", k=30, exclude=["bought"])}


def test_unavailable_items_are_never_shown() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(1000)))
    off = CatalogueEntry(available=False)
    engine.learn(batch_of([(ITEM, "", "i9", 12_000.0)], "off", {0: off}))
    engine.learn(batch_of([(CLICK, "x", "i7", 12_001.0)], "x"))
    assert "i9" not in [each.item for each in engine.recommend("x", k=40)]
    assert "i9" not in [each.item for each in engine.trending(40)]
    on = CatalogueEntry(available=True, title="Back again")
    engine.learn(batch_of([(ITEM, "", "i9", 12_002.0)], "on", {0: on}))
    assert engine.recommend("x", k=1)[0].item == "i9"
    entry = engine.entry("i9")
    assert entry is not None
    assert entry.title == "Back again"


def test_a_shop_that_is_mostly_sold_out_still_answers_in_full() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(1000)))
    gone = {f"i{i}" for i in range(30)}
    off = {place: CatalogueEntry(available=False) for place in range(len(gone))}
    engine.learn(batch_of([(ITEM, "", item, 12_000.0) for item in sorted(gone)], "off", off))
    for answer in (
        engine.recommend("u1", k=10),
        engine.trending(10),
        engine.recommend("new", k=10),
    ):
        assert len(answer) == 10
        assert not gone & {each.item for each in answer}


def test_how_events_are_cut_into_batches_changes_nothing(learnt: Engine) -> None:
    events = checkerboard(3000)
    whole = batch_of(events)
    other = Engine(CONFIG)
    generator = np.random.default_rng(5)
    start = 0
    while start < len(events):
        stop = min(len(events), start + int(generator.integers(1, 700)))
        other.learn(cut(whole, start, stop))
        start = stop
    assert other.fingerprint() == learnt.fingerprint()
    assert other.ledger() == learnt.ledger()


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Return a part of a batch."""
    columns = ("kind", "user", "item", "session", "timestamp", "event_hash", "log")
    return replace(batch, **{name: getattr(batch, name)[start:stop] for name in columns})


def test_a_repeated_event_is_learnt_once() -> None:
    once, twice = Engine(CONFIG), Engine(CONFIG)
    batch = batch_of(checkerboard(500))
    assert once.learn(batch) == 500
    assert twice.learn(batch) == 500
    assert twice.learn(batch) == 0
    assert twice.report()["duplicates"] == 500
    assert twice.ledger() == once.ledger()
    assert [e.item for e in twice.recommend("u1")] == [e.item for e in once.recommend("u1")]


def test_impressions_do_not_crowd_out_what_is_known_of_clicks() -> None:
    engine = Engine(replace(CONFIG, dedupe_events=100))
    click = batch_of([(CLICK, "u", "i1", 1.0)], "click")
    engine.learn(click)
    engine.learn(batch_of([(IMPRESSION, "u", "", 2.0)] * 1000, "seen"))
    assert engine.learn(click) == 0
    assert engine.report()["learnt"]["impression"] == 1000
    assert engine.ledger()["clicks/0"]["count"] == 1001


@pytest.mark.parametrize("dedupe_events", [0, 1])
def test_the_smallest_memory_of_ids_still_learns(dedupe_events: int) -> None:
    engine = Engine(replace(CONFIG, dedupe_events=dedupe_events))
    assert engine.learn(batch_of(checkerboard(200))) == 200


def test_any_number_of_partitions_has_its_books() -> None:
    engine = Engine(CONFIG)
    whole = batch_of(checkerboard(500))
    names = [f"clicks/{i}" for i in range(500)]
    engine.learn(replace(whole, log=np.arange(500, dtype=np.int32), logs=names))
    ledger = engine.ledger()
    assert len(ledger) == 500
    assert all(sums["count"] == 1 for sums in ledger.values())
    assert ledger["clicks/499"]["xor"] == int(whole.event_hash[499])


def test_more_candidates_or_a_longer_answer_than_there_is_room_for() -> None:
    engine = Engine(replace(CONFIG, candidates=5000))
    engine.learn(batch_of(checkerboard(500)))
    assert len(engine.recommend("u1", k=2000)) == 40
    small = Engine(CONFIG)
    small.learn(batch_of(checkerboard(500)))
    assert len(small.recommend("u1", k=2000)) == len(small.trending(2000)) == 40


def test_the_engine_learns_and_scores_as_its_sources_do_alone() -> None:
    config = replace(CONFIG, evaluate_one_in=1)
    engine = Engine(config)
    pairs = [(s, (s * 7 + step * step) % 40) for s in range(150) for step in range(1 + s % 9)]
    events = [(CLICK, f"u{s}", f"i{item}", 1000.0 + i) for i, (s, item) in enumerate(pairs)]
    engine.learn(batch_of(events))
    rows = [(s, engine.memory.items.row(f"i{item}")) for s, item in pairs]
    learnt = interactions(rows, start_seconds=1000.0)
    memory = engine.memory
    alone = Memory.make(config)
    query = Query(np.array([3, 5, 11], np.int32), now=5000.0)
    for name in ("near", "following", "popular"):
        source, driven = getattr(alone, name), getattr(memory, name)
        source.learn(learnt)
        mine, theirs = source.state(), driven.state()
        for key in mine.keys() - {"session.head"}:  # whose owners only the engine knows
            assert mine[key].tobytes() == theirs[key].tobytes(), (name, key)
        assert np.array_equal(source.score(query, 40), driven.score(query, 40))
    asked = Asked(3, 3, query.now, -1, -1, 0)
    memory.work.query[:3] = query.items
    touched = gather(memory.models, memory.work, asked)
    order = memory.work.item[:touched]
    column = memory.work.column[:, :touched]
    assert np.allclose(memory.near.score(query, 40)[order], column[KNN])
    following = column[FORWARD_SLOW] + BACKWARD_SHARE * column[BACKWARD]
    assert np.allclose(memory.following.score(query, 40)[order], following)


def test_an_item_event_is_the_whole_entry() -> None:
    engine = Engine(CONFIG)
    named = CatalogueEntry(title="Tent", available=False)
    engine.learn(batch_of([(ITEM, "", "tent", 1.0)], "a", {0: named}))
    engine.learn(batch_of([(ITEM, "", "tent", 2.0)], "b", {0: CatalogueEntry(price=9.0)}))
    assert engine.entry("tent") == CatalogueEntry(price=9.0)
    assert [each.item for each in engine.trending(1)] == ["tent"]


def test_an_erased_user_leaves_no_trace() -> None:
    engine = Engine(CONFIG)
    events = checkerboard(1000)
    engine.learn(batch_of(events))
    engine.learn(batch_of([(CLICK, "secret-user", "i3", 11_000.0)] * 1, "s"))
    engine.learn(batch_of([(CLICK, "secret-user", "i5", 11_001.0)] * 1, "t"))
    assert engine.user("secret-user") is not None
    owned = int(np.count_nonzero(engine.memory.near.sessions.head["owner"]))
    engine.learn(batch_of([(ERASURE, "secret-user", "", 11_002.0)], "z"))
    assert engine.user("secret-user") is None
    assert int(np.count_nonzero(engine.memory.near.sessions.head["owner"])) == owned - 1
    state = engine.state()
    assert all(b"secret-user" not in array.tobytes() for array in state.values())
    as_stranger = [each.item for each in engine.recommend("stranger")]
    assert [each.item for each in engine.recommend("secret-user")] == as_stranger


def test_more_ids_than_capacity_keep_memory_flat_and_answers_sane() -> None:
    config = replace(CONFIG, users=50, items=64)
    engine, other = Engine(config), Engine(config)
    generator = np.random.default_rng(2)
    events = [
        (CLICK, f"u{generator.integers(400)}", f"i{generator.integers(500)}", 1000.0 + i)
        for i in range(4000)
    ]
    whole = batch_of(events)
    engine.learn(whole)
    for start in range(0, 4000, 333):
        other.learn(cut(whole, start, min(start + 333, 4000)))
    assert other.fingerprint() == engine.fingerprint()
    assert engine.report()["users"] <= 50
    assert engine.report()["items"] <= 64
    answer = engine.recommend(events[-1][1], k=10)
    assert len({each.item for each in answer}) == 10
    assert all(engine.knows_item(each.item) for each in answer)

"""The engine at its bounds: clocks that jump, half-lives, silences, capacities, who waits."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread
from time import monotonic

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.base import CLICK, ITEM, CatalogueEntry, EngineConfig
from learners.candidates import HALF_LIVES, POPULAR, make_workspace
from learners.engine import Engine
from learners.prequential import LEAST
from learners.sources.transitions import QUERY_ITEMS
from learners.store.history import MOST_QUERY, begin
from learners.store.turnstile import Turnstile
from tests.test_engine import CONFIG, batch_of, checkerboard, cut


@pytest.mark.parametrize("jump_seconds", [0.0, -5e8, 86400.0 * 365 * 20])
def test_clock_jumps_and_stragglers_never_corrupt_a_sum(jump_seconds: float) -> None:
    engine = Engine(replace(CONFIG, evaluate_one_in=1))
    events = [(kind, user, item, 1.7e9 + time) for kind, user, item, time in checkerboard(800)]
    late = [(kind, f"late-{user}", item, time + jump_seconds) for kind, user, item, time in events]
    engine.learn(batch_of(events))
    engine.learn(batch_of(late, "late"))
    engine.learn(batch_of(events, "again"))
    for array in engine.state().values():
        fields = [array[name] for name in array.dtype.names] if array.dtype.names else [array]
        assert all(np.isfinite(field.astype(np.float64)).all() for field in fields)
    for user in ("u1", "late-u1"):
        assert engine.recommend(user, k=1)[0].score > 0
    figures = engine.evaluation.metrics()["blend"]
    assert 0 < figures["mrr@20"] <= figures["hr@20"] <= 1


def test_half_lives_may_stand_in_either_order() -> None:
    lives = (60.0, 86_400.0)
    config = replace(CONFIG, transition_half_lives_seconds=lives, evaluate_one_in=1)
    engine = Engine(config)
    spread = [(kind, user, item, 1000 * time) for kind, user, item, time in checkerboard(800)]
    engine.learn(batch_of(spread))
    assert all(np.isfinite(array).all() for array in engine.memory.blend)
    assert engine.evaluation.metrics()["blend"]["mrr@20"] <= 1


@pytest.mark.parametrize("slots", [4, 8, 64, 512])
def test_the_work_memory_holds_whatever_the_sources_can_name(slots: int) -> None:
    for neighbours in range(1, 80):
        work = make_workspace(8, 8, 4, neighbours, slots, 8, 16)
        most = neighbours * 20 + 2 * QUERY_ITEMS * slots + MOST_QUERY + HALF_LIVES * POPULAR
        assert len(work.item) > most


def test_items_met_too_seldom_get_no_row_however_batches_are_cut() -> None:
    config = replace(CONFIG, admit_items_after=3)
    often = [(CLICK, f"u{i % 9}", f"item{i % 3}", 1e9 + i) for i in range(90)]
    seldom = [(CLICK, f"u{i % 9}", f"rare{i // 2}", 1e9 + i) for i in range(90)]
    events = [event for pair in zip(often, seldom, strict=True) for event in pair]
    engine, pieces = Engine(config), Engine(config)
    whole = batch_of(events)
    engine.learn(whole)
    for start in range(0, len(events), 7):
        pieces.learn(cut(whole, start, start + 7))
    assert engine.fingerprint() == pieces.fingerprint()
    assert [engine.knows_item(item) for item in ("item0", "item2", "rare0", "rare44")] == [
        True,
        True,
        False,
        False,
    ]
    report = engine.report()
    assert (report["items"], report["kept_out"]) == (3, 6 + 90)


def test_ids_that_nobody_meets_again_are_kept_out_for_ever_and_the_catalogue_never() -> None:
    config = replace(CONFIG, admit_items_after=2)  # 300 items
    engine = Engine(config)
    listing = batch_of([(ITEM, "", "listed", 1e9)], "list", {0: CatalogueEntry(category="tea")})
    engine.learn(listing)
    once = [(CLICK, f"u{i % 9}", f"once{i}", 1e9 + i) for i in range(20_000)]
    engine.learn(batch_of(once))
    kept_out = engine.report()["kept_out"]
    assert isinstance(kept_out, int)
    assert kept_out > 0.98 * len(once)
    engine.learn(batch_of([(CLICK, "u1", "listed", 2e9)], "late"))
    assert engine.report()["kept_out"] == kept_out


def test_capacity_is_stated_before_anything_is_learnt() -> None:
    small, large = Engine(CONFIG), Engine(replace(CONFIG, users=400))
    assert 0 < small.capacity_bytes() < large.capacity_bytes()


class Crowded(Turnstile):
    """A turnstile at which somebody always waits."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0

    def __enter__(self) -> None:
        super().__enter__()
        self.turns += 1
        self.waiting[0] = 1


def test_who_waits_is_let_through_and_changes_nothing() -> None:
    alone, crowded = Engine(CONFIG), Engine(CONFIG)
    crowded._turn = turnstile = Crowded()
    for engine in (alone, crowded):
        engine.learn(batch_of(checkerboard(1000)))
    assert turnstile.turns == -(-1000 // LEAST)
    assert crowded.fingerprint() == alone.fingerprint()
    assert crowded.report() == alone.report()


def test_a_thread_that_has_to_wait_says_so() -> None:
    turnstile = Turnstile()
    with turnstile:
        asker = Thread(target=lambda: turnstile.__enter__())
        asker.start()
        deadline = monotonic() + 10
        while not turnstile.waiting[0]:
            assert monotonic() < deadline
    asker.join(10)
    assert not asker.is_alive()


def blend_after(events: int, share: EngineConfig) -> tuple[NDArray[np.float32], float, float]:
    """The blend's weights then; how many of 1,000 events were evaluated; what the lists covered."""
    engine, clicks = Engine(share), checkerboard(1000)
    engine.learn(batch_of(clicks[:events], "first"))
    weights = engine.memory.blend.w.copy()
    engine.learn(batch_of(clicks[events:], "later"))
    figures = engine.evaluation.metrics(seen=40)["popularity"]
    return weights, figures["n"], figures["coverage@20"]


def test_the_blend_learns_from_all_events_of_its_warm_up_and_the_figures_are_of_a_sample() -> None:
    all_of_them = replace(CONFIG, evaluate_one_in=1, blend_warmup_events=0)
    warmed = replace(CONFIG, evaluate_one_in=10, blend_warmup_events=400)
    sampled = replace(CONFIG, evaluate_one_in=10, blend_warmup_events=0)
    whole, *_ = blend_after(400, all_of_them)
    warm, evaluated, covered = blend_after(400, warmed)
    cold, *as_much = blend_after(400, sampled)
    assert warm.tobytes() == whole.tobytes() != cold.tobytes()
    assert 50 < evaluated < 150
    assert [evaluated, covered] == as_much


def test_who_comes_back_after_a_silence_is_asked_about_as_in_a_new_session() -> None:
    engine = Engine(CONFIG)
    engine.learn(batch_of(checkerboard(1000)))
    back, gap = engine.clock + 30 * 86400.0, CONFIG.session_gap_seconds
    engine.learn(batch_of([(CLICK, "somebody", "i1", back)], "late"))
    answer = engine.recommend("u1", k=5)
    row = engine.memory.users.row("u1")
    assert begin(engine.memory.history, row, np.uint64(0), back, gap)
    assert engine.recommend("u1", k=5) == answer
    engine.memory.history.head["session_length"][row] = 8
    assert engine.recommend("u1", k=5) == answer
    engine.memory.history.head["last"][row] = back
    assert engine.recommend("u1", k=5) != answer

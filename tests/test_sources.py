"""Every source of candidates passes the generic checks, and the checks can fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.base import EngineConfig, Interactions, Query, Source, no_pause
from learners.checks import ITEMS, check_source, interactions, random_interactions
from learners.errors import CheckFailedError
from learners.sources.content import Content
from learners.sources.neighbours import Neighbours
from learners.sources.popularity import TOP, Popularity, mean_rank
from learners.sources.rings import Weighing
from learners.sources.transitions import Transitions

SOURCES = {
    "popularity": lambda: Popularity(items=60),
    "transitions": lambda: Transitions(items=60, slots_a_row=8),
    "neighbours": lambda: Neighbours(items=60, sessions=128, slots_a_row=16, k=20),
    "content": lambda: Content(items=60),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_a_source_keeps_the_contract(make: Callable[[], Source]) -> None:
    check_source(make)


class Forgetful(Source):
    """Counts clicks, but keeps a promise less than it should."""

    name = "forgetful"

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.counts = np.zeros(60)
        self.log = np.zeros(0, np.int32)

    def learn(self, events: Interactions) -> None:
        np.add.at(self.counts, events.item, 1.0)
        self.log = np.concatenate([self.log, events.item])

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        if self.broken == "reading":
            self.counts[0] += 1
        if self.broken == "unknown" and (query.items < 0).any():
            return np.full(n_items, np.nan)
        return self.counts[:n_items].copy()

    def state(self) -> dict[str, NDArray[np.generic]]:
        if self.broken == "memory":
            return {"counts": self.counts, "log": self.log}
        return {"counts": self.counts}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        if self.broken != "state":
            self.counts = np.array(state["counts"], np.float64)
            self.log = np.array(state.get("log", np.zeros(0)), np.int32)

    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        if self.broken != "forget":
            self.counts[rows] = 0


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("reading", "reading_is_pure"),
        ("unknown", "unknown_ids"),
        ("state", "state_round_trip"),
        ("forget", "forgotten_items"),
        ("memory", "memory_is_bounded"),
    ],
)
def test_a_broken_source_is_named_with_the_check_it_fails(broken: str, check: str) -> None:
    with pytest.raises(CheckFailedError, match=f"'forgetful' fails {check}"):
        check_source(lambda: Forgetful(broken))


def test_a_sound_source_of_a_user_passes() -> None:
    check_source(lambda: Forgetful("nothing"))


def test_the_top_list_is_exact_for_every_rank_that_counts() -> None:
    popularity = Popularity(items=400)
    generator = np.random.default_rng(1)
    for seed in range(5):
        popularity.learn(random_interactions(seed, items=400, events=2000))
        weight = popularity.arrays.weight[:, 2]
        for item in generator.integers(0, 400, 50):
            above, equal = (weight > weight[item]).sum(), (weight == weight[item]).sum()
            true_rank = above + (equal + 1) / 2
            rank = mean_rank(popularity.arrays, 2, int(item))
            assert rank == true_rank or (rank > TOP / 2 and true_rank > TOP / 2)


def _by_formula(events: Interactions, query: list[int], w: Weighing, now: float) -> list[float]:
    """Votes of all sessions, straight from the module's formulas; T is 100 s, k without a limit."""
    sessions: dict[int, list[int]] = {}
    last: dict[int, float] = {}
    for item, time, session in zip(events.item, events.time, events.session, strict=True):
        held = sessions.setdefault(int(session), [])
        held += [int(item)] if item not in held else []
        last[int(session)] = float(time)
    begun = max(sessions) + 1
    rarity = [0.0] * ITEMS
    for item in range(ITEMS):
        if holders := sum(item in held for held in sessions.values()):
            rarity[item] = math.log(1 + begun / holders)
    scores = [0.0] * ITEMS
    for number, held in sessions.items():
        met = [(d, item) for d, item in enumerate(query) if item in held]
        if not met:
            continue
        likeness = sum(math.exp(-d / w.query_scale) * rarity[i] ** w.idf_power for d, i in met)
        likeness *= len(held) ** -w.length_power * 2 ** (-(now - last[number]) / 100.0)
        latest = held.index(met[0][1])
        for place, item in enumerate(held):
            away = place - latest
            scale = w.after_scale if away >= 0 else w.before_scale
            vote = likeness * math.exp(-met[0][0] / w.vote_scale) * math.exp(-abs(away) / scale)
            scores[item] += vote * rarity[item] ** w.vote_idf_power
    return scores


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"query_scale": 0.7},
        {"idf_power": 0.0},
        {"length_power": 1.0},
        {"vote_scale": 0.8},
        {"vote_idf_power": 0.4},
        {"after_scale": 1.0},
        {"before_scale": 1.0},
    ],
)
def test_neighbours_vote_as_the_formulas_say(change: dict[str, float]) -> None:
    weighing = replace(Weighing.of(EngineConfig()), **change)
    neighbours = Neighbours(60, 128, 64, 100, half_life_seconds=100.0, weighing=weighing)
    events = random_interactions(3, items=ITEMS, events=250)
    neighbours.learn(events)
    query = [1, 4, 2, 7]
    scores = neighbours.score(Query(np.array(query, np.int32), now=260.0), ITEMS)
    expected = np.array(_by_formula(events, query, weighing, now=260.0))
    assert scores.any()
    assert np.allclose(scores, expected, rtol=1e-4)
    if change:
        plain = np.array(_by_formula(events, query, Weighing.of(EngineConfig()), now=260.0))
        assert not np.allclose(expected, plain, rtol=1e-2), "the constant makes a difference"


def test_session_numbers_may_pass_32_bits() -> None:

    pairs = [(s, item) for s in range(60) for item in (1, 2)]
    plain, late = (Neighbours(items=60, sessions=128, slots_a_row=16) for _ in range(2))
    plain.learn(interactions(pairs))
    begun = 2**32 - 30
    late.sessions.begun[0] = begun
    late.learn(interactions([(begun + s, item) for s, item in pairs]))
    query = Query(np.array([1], np.int32), now=200.0)
    assert late.score(query, 60)[2] > 0
    assert np.array_equal(late.score(query, 60) > 0, plain.score(query, 60) > 0)


def test_a_session_longer_than_its_slot_leaves_others_alone() -> None:

    neighbours = Neighbours(items=60, sessions=4, slots_a_row=16)
    neighbours.learn(interactions([(0, 1), (0, 2), *((1, i) for i in range(3, 59))]))
    assert neighbours.sessions.head["length"].tolist() == [2, 20, 0, 0]
    assert neighbours.score(Query(np.arange(60, dtype=np.int32), now=99.0), 10).shape == (10,)


def test_transitions_of_a_full_row_keep_the_strongest() -> None:
    transitions = Transitions(items=60, slots_a_row=8)

    pairs = [(s, item) for s in range(40) for item in (1, 2)]
    pairs += [(100 + s, item) for s in range(30) for item in (1, 10 + s)]
    transitions.learn(interactions(pairs))
    scores = transitions.score(Query(np.array([1], np.int32), now=200.0), 60)
    assert scores.argmax() == 2
    assert np.count_nonzero(scores) == 8


def test_transitions_survive_jumps_of_the_clock() -> None:
    """Far beyond what a float32 weight could grow to, and back: the newest lead, all is finite."""
    day = 86_400.0
    transitions = Transitions(items=60, slots_a_row=8)
    for start in (1.0, 1000 * day, 40_000 * day, 39_000 * day, 41_000 * day):
        transitions.learn(interactions([(0, 1), (0, 2)], start_seconds=start))
    transitions.learn(interactions([(0, 1), (0, 3)], start_seconds=41_030 * day))
    scores = transitions.score(Query(np.array([1], np.int32), now=41_030 * day + 1), 60)
    assert np.isfinite(scores).all()
    assert scores[3] == pytest.approx(1.0, rel=1e-3)
    assert scores[2] == pytest.approx(0.5, rel=1e-3)  # a half-life ago; what was before is gone
    early = transitions.score(Query(np.array([1], np.int32), now=1.0), 60)
    assert np.isfinite(early).all()
    for table in (transitions.arrays.forward, transitions.arrays.backward):
        assert np.isfinite(table.slow).all()
        assert np.isfinite(table.fast).all()

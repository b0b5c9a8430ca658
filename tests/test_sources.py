"""Every source of candidates passes the generic checks, and the checks can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.base import Interactions, Query, Source
from learners.checks import check_source, random_interactions
from learners.errors import CheckFailedError
from learners.sources.neighbours import Neighbours
from learners.sources.popularity import TOP, Popularity, mean_rank
from learners.sources.transitions import Transitions

SOURCES = {
    "popularity": lambda: Popularity(items=60),
    "transitions": lambda: Transitions(items=60, slots_a_row=8),
    "neighbours": lambda: Neighbours(items=60, sessions=128, slots_a_row=16, k=20),
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

    def learn(self, interactions: Interactions) -> None:
        np.add.at(self.counts, interactions.item, 1.0)

    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        if self.broken == "reading":
            self.counts[0] += 1
        if self.broken == "unknown" and (query.items < 0).any():
            return np.full(n_items, np.nan)
        return self.counts[:n_items].copy()

    def state(self) -> dict[str, NDArray[np.generic]]:
        return {"counts": self.counts}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        if self.broken != "state":
            self.counts = np.array(state["counts"], np.float64)

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        if self.broken != "forget":
            self.counts[rows] = 0


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("reading", "reading_is_pure"),
        ("unknown", "unknown_ids"),
        ("state", "state_round_trip"),
        ("forget", "forgotten_items"),
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


def test_transitions_of_a_full_row_keep_the_strongest() -> None:
    transitions = Transitions(items=60, slots_a_row=8)
    from learners.checks import interactions

    pairs = [(s, item) for s in range(40) for item in (1, 2)]
    pairs += [(100 + s, item) for s in range(30) for item in (1, 10 + s)]
    transitions.learn(interactions(pairs))
    scores = transitions.score(Query(np.array([1], np.int32), now=200.0), 60)
    assert scores.argmax() == 2
    assert np.count_nonzero(scores) == 8

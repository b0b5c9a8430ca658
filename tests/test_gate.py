"""The gate: who is promoted, who stays on trial, who is discarded, on ranks made for it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.deep.gate import GateConfig, Paired, Verdict, is_worse, judge

CONFIG = GateConfig(targets=500, verdicts=3)
SEEDS = range(40)


def users(n: int, each: int = 4) -> NDArray[np.uint64]:
    return (np.arange(n) // each).astype(np.uint64)


def ranks(n: int, hit_rate: float, seed: int) -> NDArray[np.float64]:
    """Ranks of a model that finds the target among the first 20 so often."""
    chance = np.random.default_rng(seed)
    near, far = chance.integers(1, 21, n), chance.integers(21, 500, n)
    return np.where(chance.random(n) < hit_rate, near, far).astype(np.float64)


def paired(champion: float, challenger: float, n: int = 1000, seed: int = 1) -> Paired:
    return Paired(users(n), ranks(n, champion, 2 * seed), ranks(n, challenger, 2 * seed + 1))


NOTHING = paired(0.5, 0.5, n=0)


def judged(following: Paired, old: Paired = NOTHING, verdict: int = 1) -> Verdict:
    return judge(following, old, CONFIG, verdict=verdict)


@pytest.mark.parametrize("seed", range(5))
def test_a_clear_winner_is_promoted(seed: int) -> None:
    verdict = judged(paired(0.4, 0.55, seed=seed), paired(0.4, 0.4, seed=seed + 50))
    assert verdict.decision == "promote", verdict
    assert verdict.figures["challenger_hr@20"] > verdict.figures["champion_hr@20"]
    assert verdict.figures["p_better"] < 0.05
    assert verdict.figures["old_targets"] == 1000


def test_an_equal_one_is_on_trial_and_discarded_at_the_bound() -> None:
    equal = paired(0.5, 0.5)
    assert [judged(equal, verdict=turn).decision for turn in (1, 2, 3)] == [
        "trial",
        "trial",
        "discard",
    ]
    assert "after 3 verdicts" in judged(equal, verdict=3).reason


def test_equal_ones_are_seldom_promoted() -> None:
    promoted = [judged(paired(0.5, 0.5, 400, seed)).decision == "promote" for seed in SEEDS]
    assert sum(promoted) <= 3, "the level of a verdict is 1.7 %"


def test_one_busy_user_proves_nothing() -> None:
    """A thousand targets of one user are one observation."""
    alike = paired(0.3, 0.6)._replace(user=np.zeros(1000, np.uint64))
    assert judged(alike).decision == "trial"


@pytest.mark.parametrize("where", ["following", "old"])
def test_scores_that_are_no_numbers_are_discarded(where: str) -> None:
    sound, broken = paired(0.3, 0.9), paired(0.3, 0.9)
    broken.challenger[17] = np.nan
    verdict = judged(broken, sound) if where == "following" else judged(sound, broken)
    assert (verdict.decision, verdict.reason) == ("discard", "its scores are no numbers")


def test_one_trained_on_shuffled_labels_is_discarded_at_once() -> None:
    verdict = judged(paired(0.4, 0.04))
    assert verdict.decision == "discard"
    assert "worse than the champion" in verdict.reason


def test_better_on_what_follows_but_worse_on_old_targets_is_discarded() -> None:
    verdict = judged(paired(0.4, 0.6), paired(0.5, 0.3))
    assert verdict.decision == "discard"
    assert "it forgot" in verdict.reason
    assert verdict.figures["old_challenger_hr@20"] < verdict.figures["old_champion_hr@20"]


def test_a_loss_on_old_targets_that_may_be_chance_is_borne() -> None:
    assert judged(paired(0.4, 0.6), paired(0.42, 0.4, n=120)).decision == "promote"
    few = paired(0.9, 0.1, n=CONFIG.least_old - 1)
    assert judged(paired(0.4, 0.6), few).decision == "promote"


def test_the_first_challenger_must_beat_popularity() -> None:
    """The ranks of who serves now are those of the most popular items."""
    assert judged(paired(0.1, 0.3)).decision == "promote"
    assert judged(paired(0.3, 0.1)).decision == "discard"


def test_unknown_items_are_misses() -> None:
    knows_more = paired(0.0, 0.5)
    knows_more.champion[:] = np.inf
    assert judged(knows_more).decision == "promote"


def test_a_champion_that_has_to_go_is_replaced_by_one_that_is_not_worse() -> None:
    assert judge(paired(0.5, 0.5), NOTHING, CONFIG, replace=True).decision == "promote"
    assert judge(paired(0.5, 0.2), NOTHING, CONFIG, replace=True).decision == "discard"


def test_worse_live_is_told_from_chance() -> None:
    assert is_worse(paired(0.5, 0.3), CONFIG)
    assert not is_worse(paired(0.3, 0.5), CONFIG)
    assert sum(is_worse(paired(0.5, 0.5, 400, seed), CONFIG) for seed in SEEDS) <= 1
    assert not is_worse(NOTHING, CONFIG)


def test_the_same_ranks_give_the_same_verdict() -> None:
    assert judged(paired(0.5, 0.52)) == judged(paired(0.5, 0.52))

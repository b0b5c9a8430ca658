"""The gate: a challenger serves only when it has proved better than who serves now.

Both are asked for the same targets, which neither has learnt. A target counts 1 where it is among
the first `LIST` and its reciprocal rank besides. Differences are summed by user, whose targets are
not independent of each other, and tested by flipping their signs (a permutation test for pairs;
Fisher 1935, section 21): that is exact, and needs no distribution. Targets of an old time show
whether the challenger has forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIST", "Decision", "GateConfig", "Paired", "Verdict", "is_worse", "judge"]

LIST = 20
FLIPS = 2_000
FLIPPED_AT_ONCE = 4_000_000  # signs

Decision = Literal["promote", "trial", "discard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What counts as better, and how long a challenger may try."""

    targets: int = 1_000  # between two verdicts
    verdicts: int = 4  # after which a challenger that is not better is discarded
    chance: float = 0.05  # of promoting one that is no better, over all its verdicts
    rollback_chance: float = 0.001  # of taking back one that is no worse, at each look
    forgetting: float = 0.01  # hit rate that may be lost on old targets
    least_old: int = 100  # old targets, below which they say nothing
    seed: int = 1


class Paired(NamedTuple):
    """Ranks of the same targets by two models: from 1, infinite where the item is unknown."""

    user: NDArray[np.uint64]  # (n,) whose target it is
    champion: NDArray[np.float64]  # (n,)
    challenger: NDArray[np.float64]  # (n,)

    def figures(self) -> dict[str, float]:
        """Return hit rates and mean reciprocal ranks, as plain values."""
        told: dict[str, float] = {"targets": len(self.user), "users": len(np.unique(self.user))}
        for name in ("champion", "challenger"):
            hit, reciprocal = _worth(getattr(self, name))
            told[f"{name}_hr@{LIST}"] = round(float(hit.mean()), 5) if len(hit) else 0.0
            told[f"{name}_mrr@{LIST}"] = round(float(reciprocal.mean()), 5) if len(hit) else 0.0
        return told


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a challenger, why, and the numbers."""

    decision: Decision
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


def judge(
    following: Paired,
    old: Paired,
    config: GateConfig = GateConfig(),
    *,
    verdict: int = 1,
    replace: bool = False,
) -> Verdict:
    """Judge a challenger.

    Parameters
    ----------
    following
        Targets that came after everything both have learnt.
    old
        Targets of an old time, which neither has learnt.
    verdict
        Which verdict on this challenger it is, from 1.
    replace
        Whether the champion has to go: then a challenger that is not worse takes its place.

    Examples
    --------
    >>> user = np.arange(200, dtype=np.uint64)
    >>> bad, good = np.full(200, 50.0), np.full(200, 5.0)
    >>> none = Paired(user[:0], bad[:0], good[:0])
    >>> judge(Paired(user, bad, good), none).decision
    'promote'
    >>> judge(Paired(user, good, good), none).reason
    'not better by more than chance, p = 1'
    """
    if np.isnan(following.challenger).any() or np.isnan(old.challenger).any():
        return Verdict("discard", "its scores are no numbers", following.figures())
    better = _chance(following, config.seed)
    worse = _chance(_swapped(following), config.seed)
    forgot = _forgetting(old, config)
    figures = {**following.figures(), "p_better": better, "p_worse": worse}
    figures |= {f"old_{name}": value for name, value in old.figures().items()}
    level = config.chance / config.verdicts  # Bonferroni's: each verdict is a test of its own
    if forgot > config.forgetting and _chance(_swapped(old), config.seed) < config.chance:
        return Verdict("discard", f"it forgot: {100 * forgot:.1f} points on old targets", figures)
    if worse < level:
        return Verdict("discard", f"worse than the champion, p = {worse:.2g}", figures)
    if better < level:
        return Verdict("promote", f"better than the champion, p = {better:.2g}", figures)
    if replace:
        return Verdict("promote", "not worse than the champion, which has to go", figures)
    told = f"not better by more than chance, p = {better:.2g}"
    if verdict >= config.verdicts:
        return Verdict("discard", f"{told}, after {verdict} verdicts", figures)
    return Verdict("trial", told, figures)


def is_worse(
    live: Paired,
    config: GateConfig = GateConfig(),
) -> bool:
    """Tell whether who was promoted (the `challenger`) is worse live than who served before."""
    return _chance(_swapped(live), config.seed) < config.rollback_chance


def _worth(rank: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return whether each target was among the first, and its reciprocal rank if so."""
    hit = (rank <= LIST).astype(np.float64)
    return hit, hit / np.maximum(rank, 1.0)


def _swapped(pairs: Paired) -> Paired:
    return Paired(pairs.user, pairs.challenger, pairs.champion)


def _forgetting(old: Paired, config: GateConfig) -> float:
    """Return the hit rate that was lost on old targets; 0 where there are too few."""
    if len(old.user) < config.least_old:
        return 0.0
    return float(_worth(old.champion)[0].mean() - _worth(old.challenger)[0].mean())


def _chance(pairs: Paired, seed: int) -> float:
    """Return the chance of a gain as large as this one if both were alike; one-sided."""
    gain = np.sum(_worth(pairs.challenger), axis=0) - np.sum(_worth(pairs.champion), axis=0)
    _, owner = np.unique(pairs.user, return_inverse=True)
    by_user = np.bincount(owner, gain)
    by_user = by_user[by_user != 0.0]
    if not len(by_user):
        return 1.0
    generator = np.random.default_rng(seed)
    observed, reached, done = by_user.sum(), 0, 0
    while done < FLIPS:
        count = min(max(FLIPPED_AT_ONCE // len(by_user), 1), FLIPS - done)
        flipped = generator.integers(0, 2, (count, len(by_user)), np.int8) * 2.0 - 1.0
        reached += int(np.count_nonzero(flipped @ by_user >= observed - 1e-9))
        done += count
    return (1 + reached) / (1 + FLIPS)

"""Do purchases and value come nearer when they are the objective? The same log under each of three.

The engine is the same but for its objective, which changes no source and not the blend (drift's
alarms, which go by the final ranking, do not act here), so every purchase is ranked three times
from the same knowledge, and differences are paired. Intervals come from a bootstrap over users
(their purchases depend on each other), 95 %, percentiles.

Where a data set has no clicks, there are no outcomes to learn from: the probability of a purchase
is the same for every item, and the objectives click and purchase rank alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row, make_row
from learners.base import CLICK, PURCHASE, EngineConfig
from learners.engine import Engine
from learners.evaluate import Prequential
from streams.datasets import Dataset, load_dataset
from streams.warmup import warm_up

__all__ = ["OBJECTIVES", "Found", "differences", "run"]

OBJECTIVES = {"click": (1.0, 0.0, 0.0), "purchase": (0.0, 1.0, 0.0), "value": (0.0, 0.0, 1.0)}
RESAMPLES = 2_000
Floats = NDArray[np.float64]


class _Kept(Prequential):
    """Keeps where the blend ranked each event."""

    def __init__(self, items: int) -> None:
        super().__init__(items)
        self.ranks: list[Floats] = []
        self.tested: list[NDArray[np.bool_]] = []

    def record(
        self,
        rank: Floats,
        valid: NDArray[np.bool_],
        kind: NDArray[np.uint8],
        time: Floats,
        events_before: int,
    ) -> None:
        super().record(rank, valid, kind, time, events_before)
        self.ranks.append(rank[:, 0].copy())
        self.tested.append(valid.copy())


@dataclass(frozen=True, slots=True)
class Found:
    """The purchases that were ranked, under one objective."""

    user: NDArray[np.int64]  # (n,) numbers from 0
    hit: Floats  # (n,) 1 where it stood among the first 20
    value: Floats  # (n,) what was paid, 0 where that is not told


def differences(
    found: Found, other: Found, seed: int = 1, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Compare the hits of the same purchases, and their values', by a paired bootstrap over users.

    Returns
    -------
    dict
        `hr@20_gain` and `hr@20_gain_95`, `value_hr@20_gain` and `value_hr@20_gain_95`, the last two
        `None` where no value is told.
    """
    users = int(found.user.max()) + 1
    better = found.hit - other.hit
    weights = {"hr@20": np.ones(len(better)), "value_hr@20": found.value}
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(users, np.full(users, 1.0 / users), size=resamples)
    result: dict[str, Any] = {}
    for name, weight in weights.items():
        if not weight.sum():
            result |= {f"{name}_gain": None, f"{name}_gain_95": None}
            continue
        gained = np.bincount(found.user, better * weight, users)
        whole = np.bincount(found.user, weight, users)
        shares = (drawn @ gained) / np.maximum(drawn @ whole, 1e-300)
        low, high = np.percentile(shares, [2.5, 97.5])
        result[f"{name}_gain"] = round(float(gained.sum() / whole.sum()), 5)
        result[f"{name}_gain_95"] = [round(float(low), 5), round(float(high), 5)]
    return result


def run(
    path: Path,
    dataset: str,
    *,
    sample: int,
    plot: Path | None,
    say: Callable[[str], None],
    config: EngineConfig | None = None,
) -> Iterator[Row]:
    """Yield a row for each objective.

    Parameters
    ----------
    path, dataset
        The file, and which data set it is.
    sample
        Rank one event in so many.
    plot
        Where to draw how probabilities came true, if anywhere.
    say
        Told what goes on.
    config
        The engine, but for its objective and sample; default: the defaults.
    """
    warm_up(say)
    data = load_dataset(dataset, path)
    first: Found | None = None
    told: dict[str, Any] = {}
    for objective, weights in OBJECTIVES.items():
        say(f"learning {len(data):,} events with objective {objective}")
        click, purchase, value = weights
        engine = Engine(
            replace(
                config or EngineConfig(),
                evaluate_one_in=sample,
                drift_action=False,
                objective_click=click,
                objective_purchase=purchase,
                objective_value=value,
            )
        )
        started = time.perf_counter()
        found = _learn(engine, data)
        seconds = time.perf_counter() - started
        first = first or found
        figures = _figures(engine, found, first)
        told = told or figures["outcomes"]
        yield make_row("purchases", objective, {"dataset": dataset, **figures}, seconds)
    if plot is not None and told.get("reliability"):
        from benchmarks.purchases_plot import plot_reliability

        plot_reliability(told, dataset, plot)


def _learn(engine: Engine, data: Dataset) -> Found:
    """Learn all, and return the purchases that were ranked."""
    kept = engine.evaluation = _Kept(engine.config.items)
    numbers: dict[str, int] = {}
    user, hit, value = [], [], []
    for batch in data.batches():
        engine.learn(batch)
        ranks, tested = np.concatenate(kept.ranks), np.concatenate(kept.tested)
        kept.ranks.clear()
        kept.tested.clear()
        acts = np.flatnonzero(batch.kind <= PURCHASE)
        chosen = tested & (batch.kind[acts] == PURCHASE)
        names = [batch.user[place] for place in acts[chosen].tolist()]
        user += [numbers.setdefault(name, len(numbers)) for name in names]
        hit.append(ranks[chosen] <= 20.0)
        value.append(np.nan_to_num(batch.value[acts[chosen]].astype(np.float64)))
    return Found(
        np.array(user, np.int64), np.concatenate(hit).astype(np.float64), np.concatenate(value)
    )


def _figures(engine: Engine, found: Found, clicks: Found) -> dict[str, Any]:
    """Figures of the purchases, of clicks, and of the probability of a purchase."""
    report = engine.report()
    bought = engine.evaluation.metrics(PURCHASE)["blend"]
    clicked = engine.evaluation.metrics(CLICK)["blend"]
    spent = float(found.value.sum())
    outcomes: dict[str, Any] = report["outcomes"]  # type: ignore[assignment]
    return {
        "objective": _name(engine.config),
        "n": len(found.hit),
        "hr@20": round(bought["hr@20"], 5),
        "value_hr@20": round(float(found.hit @ found.value) / spent, 5) if spent else None,
        "mrr@20": round(bought["mrr@20"], 5),
        "click_n": clicked["n"],
        "click_hr@20": round(clicked["hr@20"], 5) if clicked["n"] else None,
        **differences(found, clicks),
        "calibration_error": outcomes.get("calibration_error"),
        "outcomes": outcomes,
        "fingerprint": engine.fingerprint(),
    }


def _name(config: EngineConfig) -> str:
    weights = (config.objective_click, config.objective_purchase, config.objective_value)
    return next(name for name, known in OBJECTIVES.items() if known == weights)

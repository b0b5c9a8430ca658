"""What follows a click: does who clicks an item buy it, within a time?

A click is described when it comes and waits in a queue of bounded size; a purchase by the same user
marks it. When its time is over its outcome is known, and River's pipeline (standardised features, a
logistic regression) learns from it: purchases and others alike only then, so that probabilities
stay calibrated. When the queue is full, half of all pairs of user and item are left out by their
hash, until it has emptied: any rate of clicks is learnt from within the same memory and time.
Kernels ask a copy of the weights, which changes every `BLOCK` events, wherever batches are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK, PURCHASE, EngineConfig
from learners.calibration import BINS, reliability
from learners.jit import jit
from learners.past import (
    FEATURES,
    PRICE,
    REACH,
    Books,
    Past,
    base_rate,
    describe_item,
    make_books,
    make_past,
    note_event,
)
from learners.sources.shelves import Listing
from learners.store.rows import refill
from learners.store.turnstile import Turnstile

__all__ = ["BLOCK", "Outcomes", "OutcomesState", "note", "probability"]

BLOCK = 1024  # events between two updates of the weights that kernels read
OPEN = 32_768  # clicks that wait for their outcome at most
REFILL = 8  # a queue emptier than one part in so many takes more pairs again
CLOSED_AT_ONCE = 2  # outcomes that become known with an event at most
RATE = 0.003  # step length of the regression and of its intercept
SCALE = 20.0  # bins of a probability's logit, of each unit
MOST_DEVIATIONS = 5.0  # from the mean: a feature that hardly ever varied must not decide alone
NOBODY = -1
KEPT = (
    *("on", "queue", "key", "time", "told", "bought", "described"),
    *("known", "known_described", "known_bought", "bins", "weights"),
)  # of the state, besides the books


class OutcomesState(NamedTuple):
    """Clicks whose outcome is open or not yet learnt, the weights, the books, working memory."""

    objective: NDArray[np.float64]  # (3,) weights of click, purchase and value
    on: NDArray[np.int64]  # (2,) whether it learns and ranks at all; events since the last update
    window: NDArray[np.float64]  # (1,) seconds
    books: Books
    queue: NDArray[np.int64]  # (3,) clicks that left and entered ever, halvings in force
    key: NDArray[np.int64]  # (OPEN,) user << 32 | item, -1 for one that is to be forgotten
    time: NDArray[np.float64]  # (OPEN,) seconds
    told: NDArray[np.float32]  # (OPEN,) probability when it came
    bought: NDArray[np.uint8]  # (OPEN,)
    described: NDArray[np.float32]  # (OPEN, F)
    known: NDArray[np.int64]  # (1,) outcomes that are known and not yet learnt
    known_described: NDArray[np.float32]  # (CLOSED_AT_ONCE * BLOCK, F)
    known_bought: NDArray[np.uint8]  # (CLOSED_AT_ONCE * BLOCK,)
    bins: NDArray[np.float64]  # (BINS, 3) outcomes, sum of their probabilities, purchases
    weights: NDArray[np.float64]  # (F + 1, 3) mean, 1 / deviation, weight; last constant, learnt, -
    past: Past
    feature: NDArray[np.float32]  # (F,)
    final_item: NDArray[np.int32]  # (most + REACH,) rows of the final ranking
    final_score: NDArray[np.float32]  # (most + REACH,)


@jit
def probability(outcomes: OutcomesState, feature: NDArray[np.float32], base: float) -> float:
    """Probability that who clicks buys; the base rate until an outcome has been learnt."""
    weights = outcomes.weights
    n = len(feature)
    if weights[n, 1] == 0.0:
        return base
    logit = weights[n, 0]
    for f in range(n):
        deviations = (feature[f] - weights[f, 0]) * weights[f, 1]
        logit += weights[f, 2] * min(max(deviations, -MOST_DEVIATIONS), MOST_DEVIATIONS)
    return float(1.0 / (1.0 + np.exp(-min(max(logit, -12.0), 12.0))))


@jit
def _is_chosen(key: int, halvings: int) -> bool:
    """Tell whether a pair of user and item is among those that are learnt from (SplitMix64)."""
    x = np.uint64(key) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return halvings == 0 or x >> np.uint64(64 - min(halvings, 63)) == np.uint64(0)


@jit
def _close(outcomes: OutcomesState, now: float) -> None:
    """Take the clicks out whose time is over, a few at a time."""
    queue, window = outcomes.queue, outcomes.window[0]
    for _ in range(CLOSED_AT_ONCE):
        slot = queue[0] % OPEN
        if queue[0] == queue[1] or outcomes.time[slot] + window >= now:
            return
        if outcomes.key[slot] != NOBODY:
            n = outcomes.known[0]
            for f in range(outcomes.described.shape[1]):
                outcomes.known_described[n, f] = outcomes.described[slot, f]
            outcomes.known_bought[n] = outcomes.bought[slot]
            outcomes.known[0] = n + 1
            told = float(outcomes.told[slot])
            logit = np.log(told / (1.0 - told))
            line = min(max(int(SCALE * logit) + BINS // 2, 0), BINS - 1)
            outcomes.bins[line, 0] += 1.0
            outcomes.bins[line, 1] += told
            outcomes.bins[line, 2] += outcomes.bought[slot]
        queue[0] += 1


@jit
def _halve(outcomes: OutcomesState) -> None:
    """Leave half of the pairs out, from now on and of those that wait."""
    queue = outcomes.queue
    queue[2] += 1
    end = queue[0]
    for place in range(queue[0], queue[1]):
        old, new = place % OPEN, end % OPEN
        key = outcomes.key[old]
        if key != NOBODY and _is_chosen(key, queue[2]):
            outcomes.key[new] = key
            outcomes.time[new] = outcomes.time[old]
            outcomes.told[new] = outcomes.told[old]
            outcomes.bought[new] = outcomes.bought[old]
            for f in range(outcomes.described.shape[1]):
                outcomes.described[new, f] = outcomes.described[old, f]
            end += 1
    queue[1] = end


@jit
def _open(outcomes: OutcomesState, key: int, item: int, time: float) -> None:
    """Describe a click and let it wait."""
    queue = outcomes.queue
    waiting = queue[1] - queue[0]
    if queue[2] > 0 and waiting * REFILL < OPEN:
        queue[2] -= 1
    if waiting == OPEN:
        _halve(outcomes)
    if not _is_chosen(key, queue[2]) or queue[1] - queue[0] == OPEN:
        return
    slot = queue[1] % OPEN
    base = base_rate(outcomes.books)
    described = outcomes.described[slot]
    describe_item(outcomes.books, outcomes.past, item, time, base, described)
    outcomes.key[slot] = key
    outcomes.time[slot] = time
    outcomes.told[slot] = probability(outcomes, described, base)
    outcomes.bought[slot] = 0
    queue[1] += 1


@jit
def note(
    outcomes: OutcomesState, user: int, item: int, kind: int, time: float, value: float
) -> None:
    """Enter an event before it is learnt elsewhere; `outcomes.past` is what came before it.

    `user` and `item` are rows, `time` is in seconds, `value` is that of a purchase, NaN where it is
    not told.
    """
    queue = outcomes.queue
    _close(outcomes, time)
    key = (np.int64(user) << np.int64(32)) | np.int64(item)
    if kind == CLICK:
        _open(outcomes, int(key), item, time)
    elif kind == PURCHASE:
        for place in range(queue[0], queue[1]):
            slot = place % OPEN
            if outcomes.key[slot] == key and outcomes.time[slot] + outcomes.window[0] >= time:
                outcomes.bought[slot] = 1
    note_event(outcomes.books, item, kind == PURCHASE, value, time)
    outcomes.on[1] += 1


def _bounded(features: dict[str, float]) -> dict[str, float]:
    """Bound standardised features, as the kernels do."""
    return {
        name: min(max(deviations, -MOST_DEVIATIONS), MOST_DEVIATIONS)
        for name, deviations in features.items()
    }


class Outcomes:
    """The queue, the regression and the books; with clicks as the whole objective, nothing.

    Examples
    --------
    >>> outcomes = Outcomes(EngineConfig(items=8, objective_purchase=1.0), most_candidates=10)
    >>> for i in range(400):
    ...     time = 1e5 * i
    ...     note(outcomes.arrays, 0, i % 2, CLICK, time, 0.0)
    ...     if i % 8 == 0:
    ...         note(outcomes.arrays, 0, 0, PURCHASE, time + 1.0, 20.0)
    >>> outcomes.update(Turnstile())
    >>> outcomes.report()["outcomes"], outcomes.report()["bought"]
    (399, 50)
    """

    def __init__(self, config: EngineConfig, most_candidates: int) -> None:
        objective = (config.objective_click, config.objective_purchase, config.objective_value)
        self.on = config.objective_purchase > 0.0 or config.objective_value > 0.0
        size, features = (OPEN, len(FEATURES)) if self.on else (1, 1)
        known = CLOSED_AT_ONCE * (BLOCK if self.on else 1)
        final = (most_candidates if self.on else 0) + REACH
        self.arrays = OutcomesState(
            objective=np.array(objective),
            on=np.array([self.on, 0], np.int64),
            window=np.array([config.outcome_window_seconds]),
            books=make_books(
                config.items if self.on else 1, config.popularity_half_lives_seconds[-1]
            ),
            queue=np.zeros(3, np.int64),
            key=np.zeros(size, np.int64),
            time=np.zeros(size),
            told=np.zeros(size, np.float32),
            bought=np.zeros(size, np.uint8),
            described=np.zeros((size, features), np.float32),
            known=np.zeros(1, np.int64),
            known_described=np.zeros((known, features), np.float32),
            known_bought=np.zeros(known, np.uint8),
            bins=np.zeros((BINS, 3)),
            weights=np.zeros((features + 1, 3)),
            past=make_past(),
            feature=np.zeros(features, np.float32),
            final_item=np.zeros(final, np.int32),
            final_score=np.zeros(final, np.float32),
        )
        self._regression = np.zeros((features + 1, 3))  # mean, variance, weight; n, -, constant
        self._pipeline: Any = None

    def update_where_due(self, turn: Turnstile) -> None:
        """Change the weights if so many events have come since the last change."""
        if self.on and self.arrays.on[1] >= BLOCK:
            self.update(turn)

    def update(self, turn: Turnstile) -> None:
        """Learn the outcomes that are known; under `turn`, give the kernels the new weights."""
        arrays = self.arrays
        n = int(arrays.known[0])
        for described, bought in zip(
            arrays.known_described[:n].tolist(), arrays.known_bought[:n].tolist(), strict=True
        ):
            if self._pipeline is None:
                self._pipeline = self._build()
            self._pipeline.learn_one(dict(zip(FEATURES, described, strict=True)), bool(bought))
        if n:
            self._read_pipeline()
        with turn:
            self._export()
        arrays.known[0] = arrays.on[1] = 0

    def _build(self) -> Any:
        """Build River's pipeline from what was read of it, or from nothing at the base rate."""
        from river import compose, linear_model, optim, preprocessing

        base = base_rate(self.arrays.books)
        scaler = preprocessing.StandardScaler()
        regression = linear_model.LogisticRegression(
            optimizer=optim.SGD(RATE),
            l2=0.0,
            intercept_init=float(np.log(base / (1.0 - base))),
            intercept_lr=RATE,
        )
        count = int(self._regression[-1, 0])
        if count:
            for name, (mean, variance, weight) in zip(
                FEATURES, self._regression[:-1].tolist(), strict=True
            ):
                scaler.counts[name] = count
                scaler.means[name] = mean
                scaler.vars[name] = variance
                regression._weights[name] = weight
            regression.intercept = float(self._regression[-1, 2])
            regression.optimizer.n_iterations = count
        return scaler | compose.FuncTransformer(_bounded) | regression

    def _read_pipeline(self) -> None:
        scaler = self._pipeline["StandardScaler"]
        regression = self._pipeline["LogisticRegression"]
        for f, name in enumerate(FEATURES):
            weight = regression.weights[name]
            self._regression[f] = scaler.means[name], scaler.vars[name], weight
        self._regression[-1] = scaler.counts[FEATURES[0]], 0.0, regression.intercept

    def _export(self) -> None:
        weights = self.arrays.weights
        weights[:-1] = self._regression[:-1]
        varied = weights[:-1, 1] > 0.0
        weights[:-1, 1] = np.where(varied, 1.0 / np.sqrt(np.where(varied, weights[:-1, 1], 1.0)), 0)
        weights[-1] = self._regression[-1, 2], self._regression[-1, 0], 0.0

    def list_all(self, listing: Listing) -> None:
        """Enter what item events say that items cost, in order."""
        if self.on:
            self.arrays.books.item[listing.item, PRICE] = listing.price

    def forget_users(self, rows: NDArray[np.int64]) -> None:
        """Drop the open clicks of some users."""
        if self.on:
            self.arrays.key[np.isin(self.arrays.key >> 32, rows)] = NOBODY

    def forget_items(self, rows: NDArray[np.int64]) -> None:
        """Drop the books and the open clicks of some items."""
        if self.on:
            self.arrays.books.item[rows] = 0.0
            self.arrays.key[np.isin(self.arrays.key & 0xFFFFFFFF, rows)] = NOBODY

    def report(self) -> dict[str, Any]:
        """Return how far the probabilities told before each outcome came true; {} where off."""
        told = {"left_out_halvings": int(self.arrays.queue[2])}
        return reliability(self.arrays.bins) | told if self.on else {}

    def state(self, items: int) -> dict[str, NDArray[np.generic]]:
        """Return all that the next event reads, of the first `items` rows; nothing where off."""
        if not self.on:
            return {}
        arrays = self.arrays
        return {
            **{name: getattr(arrays, name) for name in KEPT},
            "regression": self._regression,
            "items": arrays.books.item[:items],
            "total": arrays.books.total,
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the outcomes that gave this state."""
        if not self.on:
            return
        for name, array in state.items():
            if name not in ("regression", "items", "total"):
                getattr(self.arrays, name)[...] = array
        self._regression[...] = state["regression"]
        self._pipeline = self._build() if self._regression[-1, 0] else None
        refill(self.arrays.books.item, state["items"])
        self.arrays.books.total[:] = state["total"]

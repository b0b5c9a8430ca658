"""What the blend is told of a candidate: 29 numbers, most of them between 0 and 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.candidates import (
    COLUMNS,
    EVIDENCE,
    FORWARD_LAST,
    KNN,
    Asked,
    Models,
    Workspace,
)
from learners.jit import jit

__all__ = ["describe"]

SHARE_FLOOR = 3e-4
SHARE_SHIFT = 8.1  # -ln(SHARE_FLOOR), so that a share of nothing is 0


@jit
def _describe_scores(
    score: NDArray[np.float64],
    largest: NDArray[np.float64],
    total: NDArray[np.float64],
    x: NDArray[np.float32],
) -> int:
    """Each column's share of its maximum, log of its share of the sum; the evidence itself."""
    f = 0
    for c in range(COLUMNS):
        if score[c] > 0.0:
            share = score[c] / total[c]
            x[f] = score[c] / largest[c]
            x[f + 1] = (np.log(share + SHARE_FLOOR) + SHARE_SHIFT) / SHARE_SHIFT
        else:
            x[f] = 0.0
            x[f + 1] = 0.0
        f += 2
    for c in EVIDENCE:
        x[f] = 0.5 * np.log(1.0 + score[c]) if score[c] > 0.0 else 0.0
        f += 1
    return f


@jit
def _describe_repeats(
    query: NDArray[np.int32],
    kind: NDArray[np.uint8],
    asked: Asked,
    item: int,
    f: int,
    x: NDArray[np.float32],
) -> int:
    """In the session, its last item, nearness, how often; before the session; bought."""
    for i in range(f, f + 6):
        x[i] = 0.0
    often = 0
    for j in range(asked.items):
        if query[j] != item:
            continue
        if kind[j] == 1:
            x[f + 5] = 1.0
        if j >= asked.in_session:
            x[f + 4] = 1.0
            continue
        if often == 0:
            x[f] = 1.0
            x[f + 1] = 1.0 if j == 0 else 0.0
            x[f + 2] = np.exp(-j / 3.0)
        often += 1
    x[f + 3] = np.log(1.0 + often) if often > 0 else 0.0
    return f + 6


@jit
def describe(models: Models, work: Workspace, asked: Asked, kept: int) -> None:
    """Write the features of the `kept` candidates into `work.feature` (kept, FEATURES)."""
    popular = models.popularity
    weight, facts = popular.weight, popular.item
    items, column, candidate, feature = work.item, work.column, work.candidate, work.feature
    query, kind, largest, total = work.query, work.query_kind, work.largest, work.total
    lives = weight.shape[1]
    decay = np.empty(lives)
    for life in range(lives):
        age = (asked.now - popular.reference[life]) / popular.half_life[life]
        decay[life] = 2.0 ** -min(max(age, -1000.0), 1000.0)
    short = np.float32(1.0 / max(asked.in_session, 1))
    for c in range(kept):
        place = candidate[c]
        item = items[place]
        x = feature[c]
        f = _describe_scores(column[place], largest, total, x)
        for life in range(lives):
            x[f] = 0.2 * np.log(1.0 + weight[item, life] * decay[life])
            f += 1
        x[f] = 0.3 * np.log(1.0 + max(asked.now - facts[item].first, 0.0) / 3600.0)
        x[f + 1] = 0.3 * np.log(1.0 + max(asked.now - facts[item].last, 0.0) / 600.0)
        repeats = f + 2
        f = _describe_repeats(query, kind, asked, item, repeats, x)
        x[f] = short
        x[f + 1] = short * x[2 * KNN + 1]
        x[f + 2] = short * x[2 * FORWARD_LAST + 1]
        x[f + 3] = short * x[repeats]

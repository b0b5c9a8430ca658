"""What the blend is told of a candidate: 45 numbers, most of them between 0 and 1.

They are written feature by feature, so that each is one loop over all candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.base import PURCHASE
from learners.candidates import (
    COLUMNS,
    CONTENT,
    DEEP,
    EVIDENCE,
    FORWARD_LAST,
    KNN,
    TINY,
    Asked,
    Models,
    Workspace,
    latest,
)
from learners.deep.served.source import score_items
from learners.jit import jit
from learners.nearness import describe_nearness
from learners.sources import content, factors
from learners.store.history import MOST_QUERY
from learners.vector import exp_of, find, log_of

__all__ = ["describe", "score_factors"]

SHARE_FLOOR = np.float32(3e-4)
SHARE_SHIFT = np.float32(8.1)  # -ln(SHARE_FLOOR), so that a share of nothing is 0
ONE, ZERO = np.float32(1.0), np.float32(0.0)
NEARNESS = np.exp(-np.arange(MOST_QUERY) / 3.0).astype(np.float32)


@jit
def _log1p(x: NDArray[np.float32], n: int, scale: float) -> None:
    """Replace x by scale ln(1 + x)."""
    for k in range(n):
        x[k] += ONE
    log_of(x, n)
    for k in range(n):
        x[k] *= np.float32(scale)


@jit
def _weigh_content(models: Models, work: Workspace, kept: int) -> None:
    """Score every candidate by its entry, not only those that were named for it."""
    similarity, largest, total = work.similarity, ZERO, ZERO
    if work.content.tokens[0] == 0:
        similarity[:kept] = ZERO
        return
    content.similarities(models.content, work.content, work.chosen, kept, similarity)
    for k in range(kept):
        work.column[CONTENT, work.candidate[k]] = similarity[k]
        largest = max(largest, similarity[k])
        total += similarity[k]
    work.largest[CONTENT], work.total[CONTENT] = largest, total


@jit
def _weigh_deep(models: Models, work: Workspace, kept: int) -> None:
    """Score every candidate by the deep model, as shares of a softmax over those it has."""
    deep, share, largest, total = work.deep, work.value, np.float32(-np.inf), ZERO
    score_items(models.deep, work.chosen, kept, deep)
    for k in range(kept):
        largest = max(largest, deep[k])
    if largest == -np.inf:
        return
    for k in range(kept):
        share[k] = deep[k] - largest
    exp_of(share, kept)
    for k in range(kept):
        work.column[DEEP, work.candidate[k]] = share[k]
        total += share[k]
    work.largest[DEEP], work.total[DEEP] = ONE, total


@jit
def _describe_scores(work: Workspace, kept: int) -> int:
    """Each column's share of its maximum, log of its share of the sum; the evidence itself."""
    column, candidate, feature = work.column, work.candidate, work.feature
    for c in range(COLUMNS):
        of_largest = ONE / max(work.largest[c], TINY)
        of_total = ONE / max(work.total[c], TINY)
        of_each, share = feature[2 * c], feature[2 * c + 1]
        for k in range(kept):
            of_each[k] = column[c, candidate[k]] * of_largest
            share[k] = column[c, candidate[k]] * of_total + SHARE_FLOOR
        log_of(share, kept)
        for k in range(kept):
            share[k] = (share[k] + SHARE_SHIFT) / SHARE_SHIFT if of_each[k] > ZERO else ZERO
    f = 2 * COLUMNS
    for c in EVIDENCE:
        evidence = feature[f]
        for k in range(kept):
            evidence[k] = column[c, candidate[k]]
        _log1p(evidence, kept, 0.5)
        f += 1
    return f


@jit
def _describe_items(models: Models, work: Workspace, now: float, kept: int, f: int) -> int:
    """Decayed counts at each half-life; how long ago the item was met first, and last.

    One without a click was met when it was listed.
    """
    popular, since = models.popularity, models.content.since
    weight, facts = popular.weight, popular.item
    chosen, feature = work.chosen, work.feature
    for life in range(weight.shape[1]):
        age = (now - popular.reference[life]) / popular.half_life[life]
        decay = 2.0 ** -min(max(age, 0.0), 1000.0)
        count = feature[f]
        for k in range(kept):
            count[k] = weight[chosen[k], life] * decay
        _log1p(count, kept, 0.2)
        f += 1
    first, last = feature[f], feature[f + 1]
    for k in range(kept):
        met = facts[chosen[k]]
        listed = since[chosen[k]]
        first[k] = max(now - (met.first if met.events > 0 else listed), 0.0) / 3600.0
        last[k] = max(now - (met.last if met.events > 0 else listed), 0.0) / 600.0
    _log1p(first, kept, 0.3)
    _log1p(last, kept, 0.3)
    return f + 2


@jit
def _describe_repeats(work: Workspace, asked: Asked, kept: int, f: int) -> int:
    """In the session, its last item, nearness, how often; before the session; bought."""
    query, kind, feature = work.query, work.query_kind, work.feature
    feature[f : f + 6, :kept] = ZERO
    for j in range(asked.items):
        k = find(work.chosen, 0, kept, query[j])
        if k < 0:
            continue
        if kind[j] == PURCHASE:
            feature[f + 5, k] = ONE
        if j >= asked.in_session:
            feature[f + 4, k] = ONE
            continue
        if feature[f + 3, k] == ZERO:
            feature[f, k] = ONE
            feature[f + 1, k] = ONE if j == 0 else ZERO
            feature[f + 2, k] = NEARNESS[j]
        feature[f + 3, k] += ONE
    _log1p(feature[f + 3], kept, 1.0)
    return f + 6


@jit
def score_factors(models: Models, work: Workspace, asked: Asked, kept: int) -> None:
    """Write the factorisation's scores of the `kept` candidates into `work.factor`.

    Its query is the running session, or what came before where none runs.
    """
    factors.query_vector(models.factors, work.query, latest(asked), work.wanted)
    factors.scores_of(models.factors, work.wanted, work.chosen, kept, work.factor)


@jit
def _describe_factors(work: Workspace, kept: int, f: int) -> int:
    """The factorisation's score, and by how many standard deviations it is above the mean."""
    factor, plain, relative = work.factor, work.feature[f], work.feature[f + 1]
    mean = ZERO
    for k in range(kept):
        mean += factor[k]
    mean /= np.float32(max(kept, 1))
    square = ZERO
    for k in range(kept):
        relative[k] = factor[k] - mean
        square += relative[k] * relative[k]
    scale = np.float32(0.3) / max(np.sqrt(square / np.float32(max(kept, 1))), TINY)
    for k in range(kept):
        plain[k] = np.float32(0.2) * factor[k]
        relative[k] *= scale
    return f + 2


@jit
def _describe_content(models: Models, work: Workspace, kept: int, f: int) -> int:
    """How few clicks the item has had, similarity, and the two together."""
    facts, chosen, feature = models.popularity.item, work.chosen, work.feature
    fresh, similar, both, share = feature[f], feature[f + 1], feature[f + 2], feature[2 * CONTENT]
    for k in range(kept):
        fresh[k] = ONE / np.float32(1 + facts[chosen[k]].events)
        similar[k] = work.similarity[k]
        both[k] = fresh[k] * share[k]
    return f + 3


@jit
def _describe_deep(work: Workspace, kept: int, f: int) -> int:
    """The deep model's log share, however small, and how far above the mean it is."""
    deep, share, relative = work.deep, work.feature[f], work.feature[f + 1]
    known, mean, square, largest = 0, ZERO, ZERO, np.float32(-np.inf)
    for k in range(kept):
        if deep[k] > -np.inf:
            known += 1
            mean += deep[k]
            largest = max(largest, deep[k])
    mean /= np.float32(max(known, 1))
    for k in range(kept):
        relative[k] = deep[k] - mean if deep[k] > -np.inf else ZERO
        square += relative[k] * relative[k]
    scale = np.float32(0.3) / max(np.sqrt(square / np.float32(max(known, 1))), TINY)
    below = SHARE_SHIFT - largest - np.log(max(work.total[DEEP], TINY))
    for k in range(kept):
        share[k] = (deep[k] + below) / SHARE_SHIFT if deep[k] > -np.inf else ZERO
        relative[k] *= scale
    return f + 2


@jit
def describe(models: Models, work: Workspace, asked: Asked, kept: int) -> None:
    """Write the features of the `kept` candidates into `work.feature` (FEATURES, kept)."""
    _weigh_content(models, work, kept)
    _weigh_deep(models, work, kept)
    score_factors(models, work, asked, kept)
    f = _describe_factors(work, kept, _describe_scores(work, kept))
    f = describe_nearness(
        models.factors, work.query, asked.items, work.chosen, kept, work.value, work.feature, f
    )
    f = _describe_content(models, work, kept, f)
    f = _describe_deep(work, kept, f)
    repeats = _describe_items(models, work, asked.now, kept, f)
    f = _describe_repeats(work, asked, kept, repeats)
    feature = work.feature
    short = np.float32(1.0 / max(asked.in_session, 1))
    for k in range(kept):
        feature[f, k] = short
        feature[f + 1, k] = short * feature[2 * KNN + 1, k]
        feature[f + 2, k] = short * feature[2 * FORWARD_LAST + 1, k]
        feature[f + 3, k] = short * feature[repeats, k]
        feature[f + 4, k] = short * feature[2 * DEEP + 1, k]

"""Answers for people: ids in, ids out, what must not be shown left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK, KINDS, PURCHASE, Recommendation, UserView
from learners.blend import Blend
from learners.candidates import BACKWARD, FORWARD_SLOW, KNN, Asked, Models, Workspace
from learners.jit import jit
from learners.prequential import SCORED_LIFE, ask_user, rank
from learners.sources.transitions import BACKWARD_SHARE
from learners.store.catalogue import Catalogue
from learners.store.history import MOST_QUERY, History
from learners.store.memory import MOST_CANDIDATES, Memory

__all__ = ["Answers"]

PARTS = ("neighbours", "transitions", "popularity")
TRENDING_LIFE = 1  # which half-life says what is trending


@jit
def _answer(
    history: History,
    models: Models,
    blend: Blend,
    work: Workspace,
    user: int,
    anonymous: int,
    now: float,
    most: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Rank for a user row, or for the `anonymous` items in the workspace where it is negative.

    Returns item rows (n,) best first, softmax shares (n,) and each source's part (n, PARTS).
    """
    asked = Asked(anonymous, anonymous, now, -1)
    if user >= 0:
        asked = ask_user(history, work, user, now)
    touched, kept = rank(models, blend, work, asked, most)
    column, items, largest = work.column, work.item, work.largest
    following = 1e-300
    for i in range(touched):
        both = column[i, FORWARD_SLOW] + BACKWARD_SHARE * column[i, BACKWARD]
        following = max(following, both)
    weight, top = models.popularity.weight, models.popularity.top[SCORED_LIFE, 0]
    peak = max(weight[top - 1, SCORED_LIFE], 1e-300) if top > 0 else 1.0
    score = work.score[:kept].astype(np.float64)
    order = np.argsort(-score, kind="mergesort")
    rows = np.empty(kept, np.int32)
    shares = np.exp(score - score[order[0]])[order] if kept > 0 else score
    parts = np.empty((kept, 3))
    for i in range(kept):
        place = work.candidate[order[i]]
        both = column[place, FORWARD_SLOW] + BACKWARD_SHARE * column[place, BACKWARD]
        rows[i] = items[place]
        parts[i, 0] = column[place, KNN] / max(largest[KNN], 1e-300)
        parts[i, 1] = both / following
        parts[i, 2] = weight[items[place], SCORED_LIFE] / peak
    return rows, shares / max(shares.sum(), 1e-300), parts


class Answers:
    """Asks the kernels and turns rows into recommendations; never changes what was learnt."""

    def __init__(self, memory: Memory, catalogue: Catalogue, candidates: int) -> None:
        self.memory = memory
        self.catalogue = catalogue
        self.candidates = candidates

    def recommend(
        self,
        now: float,
        user: str | None,
        events: Sequence[tuple[str, str, float]],
        k: int,
        exclude: Collection[str],
    ) -> list[Recommendation]:
        """Answer for a user, or for anonymous events (oldest first)."""
        row = -1 if user is None else self.memory.users.row(user)
        if row < 0:
            latest = list(events)[-1 : -MOST_QUERY - 1 : -1]
            self._ask([item for item, *_ in latest], [kind for _, kind, _ in latest])
        hidden = self.catalogue.hidden
        if exclude:
            hidden = hidden | self._excluded(row, events, exclude)
        return self._best(row, 0 if row >= 0 else min(len(events), MOST_QUERY), now, k, hidden)

    def similar(self, now: float, item: str, k: int) -> list[Recommendation]:
        """Answer as if somebody had just clicked on one item."""
        row = self.memory.items.row(item)
        if row < 0:
            return []
        self._ask([item], [KINDS[CLICK]])
        return self._best(-1, 1, now, k, self.catalogue.hidden | {row})

    def trending(self, now: float, k: int) -> list[Recommendation]:
        """Answer with what is popular lately; the score is the decayed count."""
        arrays = self.memory.popular.arrays
        age = (now - arrays.reference[TRENDING_LIFE]) / arrays.half_life[TRENDING_LIFE]
        decay = 2.0 ** -min(max(age, -1000.0), 1000.0)
        best = self._popular(k, self.catalogue.hidden, TRENDING_LIFE)
        return [
            Recommendation(
                self.memory.items.ids[row],
                float(arrays.weight[row, TRENDING_LIFE] * decay),
                {"popularity": 1.0},
            )
            for row in best
        ]

    def user(self, user: str) -> UserView | None:
        """Return what is held of a user."""
        row = self.memory.users.row(user)
        if row < 0:
            return None
        head, ring = self.memory.history.head[row], self.memory.history.event[row]
        total, length = int(head["total"]), len(ring)
        kept = [ring[i % length] for i in range(max(total - length, 0), total)]
        events = [
            (self.memory.items.ids[(code >> 1) - 1], KINDS[code & 1], float(time))
            for code, time in (event.item() for event in kept)
            if code > 1
        ]
        return UserView(user, events, total, int(head["session_length"]))

    def _ask(self, items: Sequence[str], kinds: Sequence[str]) -> None:
        """Write an anonymous query into the workspace, most recent first."""
        work = self.memory.work
        work.query[: len(items)] = [self.memory.items.row(item) for item in items]
        work.query_kind[: len(kinds)] = [KINDS.index(kind) for kind in kinds]

    def _excluded(
        self, row: int, events: Sequence[tuple[str, str, float]], exclude: Collection[str]
    ) -> set[int]:
        if not exclude:
            return set()
        if row < 0:
            seen = {self.memory.items.row(item): kind for item, kind, _ in events}
            bought = {item for item, kind in seen.items() if kind == KINDS[PURCHASE]}
            return set(seen) if "seen" in exclude else bought
        code = self.memory.history.event["code"][row]
        if "seen" not in exclude:
            code = code[code & 1 == PURCHASE]
        return set(((code >> 1) - 1).tolist())

    def _best(
        self, user: int, asked: int, now: float, k: int, hidden: Collection[int]
    ) -> list[Recommendation]:
        """Rank, leave out the hidden, and fill up with what is popular."""
        memory = self.memory
        most = min(max(self.candidates, k + len(hidden)), MOST_CANDIDATES)
        rows, shares, parts = _answer(
            memory.history, memory.models, memory.blend, memory.work, user, asked, now, most
        )
        ids = memory.items.ids
        best: list[Recommendation] = []
        for row, share, part in zip(rows.tolist(), shares.tolist(), parts.tolist(), strict=True):
            if row in hidden:
                continue
            if len(best) == k:
                break
            sources = {name: round(p, 4) for name, p in zip(PARTS, part, strict=True) if p > 0.0}
            best.append(Recommendation(ids[row], share, sources))
        if len(best) < k:
            for row in self._popular(k - len(best), {*hidden, *rows.tolist()}, SCORED_LIFE):
                best.append(Recommendation(ids[row], 0.0, {}))
        return best

    def _popular(self, k: int, hidden: Iterable[int], life: int) -> list[int]:
        """Return the k most popular rows that may be shown, best first."""
        arrays = self.memory.popular.arrays
        used = self.memory.items.used
        blocked = set(hidden)
        top = [row for row in (arrays.top[life] - 1).tolist() if row >= 0 and row not in blocked]
        if len(top) >= k:
            return top[:k]
        order = np.argsort(-arrays.weight[:used, life], kind="stable").tolist()
        ids = self.memory.items.ids
        return [row for row in order if row not in blocked and ids[row]][:k]

"""Answers for people: ids in, ids out, what must not be shown left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import KINDS, PURCHASE, Recommendation, UserView
from learners.candidates import BACKWARD, FORWARD_SLOW, KNN, Asked
from learners.catalogue import Catalogue
from learners.history import MOST_QUERY
from learners.memory import MOST_CANDIDATES, Memory
from learners.prequential import SCORED_LIFE, ask_user, rank
from learners.transitions import BACKWARD_SHARE

__all__ = ["Answers"]

CANDIDATES = 100
TRENDING_LIFE = 1  # which half-life says what is trending


class Answers:
    """Asks the kernels and turns rows into recommendations; never changes what was learnt."""

    def __init__(self, memory: Memory, catalogue: Catalogue) -> None:
        self.memory = memory
        self.catalogue = catalogue

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
        if row >= 0:
            asked = ask_user(self.memory.history, self.memory.work, row, now)
        else:
            asked = self._ask_events(events, now)
        hidden = self.catalogue.hidden | self._excluded(row, events, exclude)
        return self._best(asked, k, hidden)

    def similar(self, now: float, item: str, k: int) -> list[Recommendation]:
        """Answer as if somebody had just clicked on one item."""
        row = self.memory.items.row(item)
        if row < 0:
            return []
        return self._best(self._ask_rows([row], [0], now), k, self.catalogue.hidden | {row})

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

    def _ask_events(self, events: Sequence[tuple[str, str, float]], now: float) -> Asked:
        latest = list(events)[-1 : -MOST_QUERY - 1 : -1]
        rows = [self.memory.items.row(item) for item, _, _ in latest]
        return self._ask_rows(rows, [KINDS.index(kind) for _, kind, _ in latest], now)

    def _ask_rows(self, rows: Sequence[int], kinds: Sequence[int], now: float) -> Asked:
        work = self.memory.work
        work.query[: len(rows)] = rows
        work.query_kind[: len(rows)] = kinds
        return Asked(len(rows), len(rows), now, -1)

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

    def _best(self, asked: Asked, k: int, hidden: set[int]) -> list[Recommendation]:
        """Rank, leave out the hidden, and fill up with what is popular."""
        memory, work = self.memory, self.memory.work
        most = min(max(CANDIDATES, k + len(hidden)), MOST_CANDIDATES)
        _, kept = rank(memory.models, memory.blend, work, asked, most)
        scores = work.score[:kept].astype(np.float64)
        shares = np.exp(scores - scores.max()) if kept else scores
        shares /= max(float(shares.sum()), 1e-300)
        places = work.candidate[:kept]
        rows = work.item[places].tolist()
        order = [c for c in np.argsort(-scores, kind="stable").tolist() if rows[c] not in hidden][
            :k
        ]
        explain = self._explainer(places)
        ids = memory.items.ids
        best = [Recommendation(ids[rows[c]], float(shares[c]), explain(c)) for c in order]
        if len(best) < k:
            shown = hidden | {rows[c] for c in order}
            for row in self._popular(k - len(best), shown, SCORED_LIFE):
                best.append(Recommendation(ids[row], 0.0, {"popularity": 0.0}))
        return best

    def _explainer(self, places: NDArray[np.int32]) -> Callable[[int], dict[str, float]]:
        """Return a function that tells each source's part of a candidate's evidence."""
        work, popular = self.memory.work, self.memory.popular.arrays
        column = work.column[places]
        following = column[:, FORWARD_SLOW] + BACKWARD_SHARE * column[:, BACKWARD]
        weight = popular.weight[work.item[places], SCORED_LIFE]
        top = popular.top[SCORED_LIFE, 0]
        peak = popular.weight[top - 1, SCORED_LIFE] if top else 1.0
        parts = np.stack(
            [
                column[:, KNN] / max(work.largest[KNN], 1e-300),
                following / max(float(following.max(initial=0.0)), 1e-300),
                weight / max(float(peak), 1e-300),
            ],
            axis=1,
        )
        names = ("neighbours", "transitions", "popularity")

        def explain(c: int) -> dict[str, float]:
            return {
                name: round(part, 4)
                for name, part in zip(names, parts[c].tolist(), strict=True)
                if part > 0.0
            }

        return explain

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

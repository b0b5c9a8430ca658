"""Answers for people: ids in, ids out, what must not be shown left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import CLICK, KINDS, PURCHASE, EngineConfig, Recommendation, UserView
from learners.blend import Blend
from learners.candidates import COLUMNS, CONTENT, DEEP, KNN, TINY, Asked, Models, Workspace, gather
from learners.explore import Explorer, Slots
from learners.handle import Handle, state_of
from learners.jit import jit, jit_brief_counted
from learners.objective import order
from learners.past import recall, recall_query
from learners.prequential import ask_user, rank
from learners.ranks import SCORED_LIFE, score_transitions
from learners.selection import best_places
from learners.store.catalogue import Catalogue
from learners.store.history import MOST_QUERY, History, under_way
from learners.store.memory import Memory
from learners.vector import largest_of

__all__ = ["Answers"]

NOTHING = np.empty(0, np.int32)
TRENDING_LIFE = 1  # which half-life says what is trending


@jit
def _drop(
    work: Workspace, touched: int, hidden: NDArray[np.bool_], excluded: NDArray[np.int32]
) -> int:
    """Take the items that must not be shown from those touched; return how many are left."""
    items, column = work.item, work.column
    left = 0
    for i in range(touched):
        item = items[i]
        shown = not hidden[item]
        for j in range(len(excluded)):
            shown = shown and excluded[j] != item
        if shown and left < i:
            items[left] = item
            for c in range(COLUMNS):
                column[c, left] = column[c, i]
        left += shown
    return left


@jit
def _rank_for(
    history: History,
    models: Models,
    blend: Blend,
    work: Workspace,
    user: int,
    anonymous: int,
    now: float,
    gap_seconds: float,
    most: int,
    k: int,
    hidden: NDArray[np.bool_],
    excluded: NDArray[np.int32],
) -> int:
    """Rank for a user row, or for the `anonymous` items in the workspace where it is negative.

    Fills `work.answer`, the k best first; returns how many there are.
    """
    in_session = anonymous
    asked = Asked(anonymous, in_session, now, -1, -1, 0)
    if user >= 0:
        in_session = under_way(history, user, now, gap_seconds)
        asked = ask_user(history, work, user, now, in_session)
    touched = _drop(work, gather(models, work, asked), hidden, excluded)
    kept = rank(models, blend, work, asked, touched, most)
    chosen, score, n = work.chosen, work.score, kept
    by_outcome = models.outcomes.on[0] != 0
    if by_outcome:
        outcomes = models.outcomes
        if user >= 0:
            recall(outcomes.past, history, user, now, in_session)
        else:
            recall_query(outcomes.past, work.query, work.query_kind, anonymous)
        n = order(outcomes, chosen, work.score, kept, now, hidden, excluded)
        chosen, score = outcomes.final_item, outcomes.final_score
    column, largest, answer = work.column, work.largest, work.answer
    score_transitions(work, touched)
    following = max(largest_of(work.value, touched), TINY)
    weight, top = models.popularity.weight, models.popularity.top[SCORED_LIFE, 0]
    peak = max(weight[top - 1, SCORED_LIFE], 1e-300) if top > 0 else 1.0
    found = best_places(score, n, min(k, n, len(work.best)), work.best)
    best = score[work.best[0]] if found > 0 else np.float32(0.0)
    total = 0.0
    for i in range(n):
        total += _weight(score[i], best, by_outcome)
    for i in range(found):
        at, place = answer[i], work.best[i]
        at.row = chosen[place]
        at.share = _weight(score[place], best, by_outcome) / max(total, 1e-300)
        at.popularity = _rounded(weight[chosen[place], SCORED_LIFE] / peak)
        at.neighbours = at.transitions = at.content = at.deep = 0.0
        if place < kept:  # else no source has named it
            named = work.candidate[place]
            at.neighbours = _rounded(column[KNN, named] / max(largest[KNN], TINY))
            at.transitions = _rounded(work.value[named] / following)
            at.content = _rounded(column[CONTENT, named] / max(largest[CONTENT], TINY))
            at.deep = _rounded(column[DEEP, named] / max(largest[DEEP], TINY))
    return found


@jit
def _weight(score: np.float32, best: np.float32, by_outcome: bool) -> float:
    """Return what a score counts in an answer: itself by outcome, else its part of a softmax."""
    return float(score) if by_outcome else float(np.exp(np.float64(score - best)))


@jit
def _rounded(part: float) -> float:
    """Round a part of 1 as people read it."""
    return float(np.floor(part * 1e4 + 0.5) / 1e4)


@jit_brief_counted
def _answer(
    handle: Handle,
    user: int,
    anonymous: int,
    now: float,
    gap_seconds: float,
    most: int,
    k: int,
    hidden: NDArray[np.bool_],
    excluded: NDArray[np.int32],
) -> int:
    """Call `_rank_for` with what a handle refers to."""
    state = state_of(handle)
    history, models, blend, work = state.history, state.models, state.blend, state.work
    return _rank_for(
        history,
        models,
        blend,
        work,
        user,
        anonymous,
        now,
        gap_seconds,
        most,
        k,
        hidden,
        excluded,
    )


class Answers:
    """Asks the kernels and turns rows into recommendations; never changes what was learnt."""

    def __init__(
        self, memory: Memory, catalogue: Catalogue, config: EngineConfig, explorer: Explorer
    ) -> None:
        self.memory = memory
        self.catalogue = catalogue
        self.config = config
        self.explorer = explorer

    def recommend(
        self,
        now: float,
        user: str | None,
        events: Sequence[tuple[str, str, float]],
        k: int,
        exclude: Collection[str],
        explore: Slots | None = None,
    ) -> list[Recommendation]:
        """Answer for a user, or for anonymous events (oldest first), of whom none is explored for.

        A visitor's clicks would come under another name, and every slot would count as a miss.
        """
        row = -1 if user is None else self._known(user)
        if row < 0:
            latest = list(events)[-1 : -MOST_QUERY - 1 : -1]
            self._ask(latest)
        excluded = self._excluded(row, events, exclude)
        asked = 0 if row >= 0 else min(len(events), MOST_QUERY)
        if row < 0 and not (self.memory.work.query[:asked] >= 0).any():
            best = self._cold(k, excluded)
        else:
            best = self._best(row, asked, now, k, excluded)
        if explore is None or user is None:
            return best
        return self.explorer.fill(best, k, explore, self._excluded(row, (), ("seen",)))

    def similar(self, now: float, item: str, k: int) -> list[Recommendation]:
        """Answer as if somebody had just clicked on one item."""
        row = self.memory.items.row(item)
        if row < 0:
            return []
        self._ask([(item, KINDS[CLICK], now)])
        return self._best(-1, 1, now, k, np.array([row], np.int32))

    def trending(self, now: float, k: int) -> list[Recommendation]:
        """Answer with what is popular lately; the score is the decayed count."""
        arrays = self.memory.popular.arrays
        age = (now - arrays.reference[TRENDING_LIFE]) / arrays.half_life[TRENDING_LIFE]
        decay = 2.0 ** -min(max(age, 0.0), 1000.0)
        best = self._popular(k, NOTHING, TRENDING_LIFE)
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
        row = self._known(user)
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

    def _known(self, user: str) -> int:
        """Return a user's row, -1 before their first event: names get rows a batch at a time."""
        row = self.memory.users.row(user)
        return row if row >= 0 and self.memory.history.head["total"][row] else -1

    def _ask(self, latest: Sequence[tuple[str, str, float]]) -> None:
        """Write an anonymous query into the workspace, most recent first."""
        work, n = self.memory.work, len(latest)
        work.query[:n] = [self.memory.items.row(item) for item, _, _ in latest]
        work.query_kind[:n] = [KINDS.index(kind) for _, kind, _ in latest]
        work.query_time[:n] = [time for _, _, time in latest]

    def _excluded(
        self, row: int, events: Sequence[tuple[str, str, float]], exclude: Collection[str]
    ) -> NDArray[np.int32]:
        """Return the rows of what was seen or bought."""
        if not exclude:
            return NOTHING
        if row >= 0:
            code = self.memory.history.event["code"][row]
        else:
            pairs = [(self.memory.items.row(item), KINDS.index(kind)) for item, kind, _ in events]
            code = np.array([2 * (item + 1) + kind for item, kind in pairs], np.int32)
        if "seen" not in exclude:
            code = code[code & 1 == PURCHASE]
        return np.asarray((code >> 1) - 1, np.int32)

    def _best(
        self, user: int, asked: int, now: float, k: int, excluded: NDArray[np.int32]
    ) -> list[Recommendation]:
        """Rank, and fill up with what is popular."""
        memory = self.memory
        found = _answer(
            memory.handle,
            user,
            asked,
            now,
            self.config.session_gap_seconds,
            min(max(self.config.candidates, k), len(memory.work.candidate)),
            k,
            self.catalogue.hidden,
            excluded,
        )
        ids, answer = memory.items.ids, memory.work.answer[:found]
        best: list[Recommendation] = []
        for row, share, neighbours, transitions, popularity, content, deep in answer.tolist():
            sources = {}  # one by one: a sixth of the time of a comprehension
            if neighbours > 0.0:
                sources["neighbours"] = neighbours
            if transitions > 0.0:
                sources["transitions"] = transitions
            if popularity > 0.0:
                sources["popularity"] = popularity
            if content > 0.0:
                sources["content"] = content
            if deep > 0.0:
                sources["deep"] = deep
            best.append(Recommendation(ids[row], share, sources))
        if len(best) < k:
            shown = np.concatenate([excluded, answer["row"]])
            for row in self._popular(k - len(best), shown, SCORED_LIFE):
                best.append(Recommendation(ids[row], 0.0, {}))
        return best

    def _cold(self, k: int, excluded: NDArray[np.int32]) -> list[Recommendation]:
        """Answer somebody of whom nothing is known: the blend has learnt from queries only."""
        best = self._popular(k, excluded, SCORED_LIFE)
        weight = self.memory.popular.arrays.weight[best, SCORED_LIFE]
        shares = weight / max(float(weight.sum()), 1e-300)
        parts = weight / max(float(weight.max(initial=0.0)), 1e-300)
        return [
            Recommendation(self.memory.items.ids[row], share, {"popularity": round(part, 4)})
            for row, share, part in zip(best, shares.tolist(), parts.tolist(), strict=True)
        ]

    def _popular(self, k: int, shown: NDArray[np.int32], life: int) -> list[int]:
        """Return the k most popular rows that may be shown, best first."""
        popular, items = self.memory.popular.arrays, self.memory.items
        weight = popular.weight[: items.used, life]
        allowed = ~self.catalogue.hidden[: len(weight)]
        allowed[shown[shown >= 0]] = False
        allowed[items.unused] = False
        top = popular.top[life][popular.top[life] > 0] - 1
        best = top[allowed[top]][:k]
        if len(best) == k:
            return [int(row) for row in best]
        rows = np.flatnonzero(allowed)
        if k < len(rows):
            rows = np.sort(rows[np.argpartition(-weight[rows], k)[:k]])
        return [int(row) for row in rows[np.argsort(-weight[rows], kind="stable")]]

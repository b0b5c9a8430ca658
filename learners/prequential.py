"""Test, then learn, one event at a time: the kernel through which every click and purchase goes.

For a tested event the engine first ranks all items for the user as if asked, notes where the true
item stood, lets the blend learn from that very query, and only then learns the event. So no figure
has ever seen its own target, and cutting the stream into batches changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners import blend as scorer
from learners.blend import Blend
from learners.candidates import (
    KNN,
    Asked,
    Models,
    Workspace,
    choose,
    gather,
    score_transitions,
)
from learners.features import describe
from learners.handle import Handle
from learners.jit import jit, prefetch
from learners.lanes import prefetch_row
from learners.objective import order, rank_of
from learners.outcomes import BLOCK, note
from learners.past import note_prices, recall
from learners.selection import kth_largest
from learners.sources import factors, popularity, rings, shelves, transitions
from learners.sources.shelves import Listing
from learners.store.history import CONTEXT, MOST_QUERY, SHORT_QUERY, History, append, begin, recent
from learners.store.sessions import SESSION_LENGTH, Sessions, open_session
from learners.vector import find

__all__ = [
    "LEAST",
    "LIST",
    "SCORED_LIFE",
    "SOURCES",
    "Events",
    "Tested",
    "ask_user",
    "make_tested",
    "note_ranks",
    "rank",
    "session_number",
    "source_rank",
    "test_then_learn",
]

SOURCES = ("blend", "neighbours", "transitions", "popularity", "factors", "content")
BLEND, NEIGHBOURS, TRANSITIONS, POPULARITY, FACTORS, CONTENT = range(6)
LEAST = 32  # events learnt before somebody who waits is let through: a third of a millisecond
SHOWN, NOT_EXCLUDED = np.zeros(0, np.bool_), np.zeros(0, np.int32)  # all items are ranked
LIST = 20  # length of the lists whose coverage is counted
SCORED_LIFE = 2  # the half-life by which popularity is judged as a source


class Events(NamedTuple):
    """Clicks and purchases of a batch as rows, in learning order, item events among them."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    kind: NDArray[np.uint8]
    time: NDArray[np.float64]  # seconds
    session: NDArray[np.uint64]  # hash of the event's session, 0 for none
    tested: NDArray[np.bool_]  # chosen for evaluation
    listing: Listing
    value: NDArray[np.float32]  # of a purchase, NaN where it is not told


class Tested(NamedTuple):
    """What testing found, an entry per event of the batch; `covered` adds up over all batches."""

    rank: NDArray[np.float64]  # (n, sources) mean rank of the true item, inf where it is a miss
    valid: NDArray[np.bool_]  # (n,) whether the event was tested at all
    known: NDArray[np.int64]  # (n,) events of its user before
    covered: NDArray[np.uint8]  # (sources, items) 1 where an item was in a list of LIST


def make_tested(n: int, covered: NDArray[np.uint8]) -> Tested:
    """Return room for what testing n events finds."""
    rank = np.full((n, len(SOURCES)), np.inf)
    return Tested(rank, np.zeros(n, np.bool_), np.zeros(n, np.int64), covered)


@jit
def ask_user(history: History, work: Workspace, user: int, now: float) -> Asked:
    """Write a user's query into the workspace: the session so far, or more where that is short."""
    head = history.head[user]
    in_session = min(int(head.session_length), MOST_QUERY)
    n = recent(history, user, work.query, work.query_kind, max(in_session, SHORT_QUERY))
    own = int(head.session_number - 1)
    return Asked(n, min(in_session, n), now, own)


@jit
def rank(
    models: Models, blend: Blend, work: Workspace, asked: Asked, touched: int, most: int
) -> int:
    """Choose candidates among the gathered, describe and score them; return how many."""
    kept = choose(models, work, asked, touched, most)
    describe(models, work, asked, kept)
    scorer.score(blend, work.feature, kept, work.hidden, work.score)
    return kept


@jit
def source_rank(work: Workspace, source: int, touched: int, item: int, seen: int) -> float:
    """Rank of an item by one source among all `seen` items; those it says nothing of tie at 0.

    Leaves the scores in `work.value`.
    """
    items, value = work.item, work.value
    if source == NEIGHBOURS:
        value[:touched] = work.column[KNN, :touched]
    else:
        score_transitions(work, touched)
    place = find(items, 0, touched, item)
    score = value[place] if place >= 0 else np.float32(0.0)
    above = equal = positive = 0
    for i in range(touched):
        positive += value[i] > 0.0
        above += value[i] > score
        equal += value[i] == score
    if score == 0.0:
        equal = seen - positive
    return above + (equal + 1) / 2


@jit
def _cover(work: Workspace, covered: NDArray[np.uint8], touched: int) -> None:
    """Mark the LIST best items by the scores that `source_rank` left in `work.value`."""
    items, value = work.item, work.value
    least = kth_largest(value, touched, LIST) if touched > LIST else np.float32(0.0)
    for i in range(touched):
        covered[items[i]] |= value[i] >= least and value[i] > 0.0


@jit
def _candidate_rank(
    work: Workspace,
    score: NDArray[np.float32],
    kept: int,
    covered: NDArray[np.uint8],
    target: int,
) -> float:
    """Rank of a candidate among the candidates; a miss where it is none."""
    chosen = work.chosen
    least = kth_largest(score, kept, LIST) if kept > LIST else np.float32(-np.inf)
    for c in range(kept):
        covered[chosen[c]] |= score[c] >= least and score[c] > -np.inf
    if target < 0 or not np.isfinite(score[target]):
        return np.inf
    above = equal = 0
    for c in range(kept):
        above += score[c] > score[target]
        equal += score[c] == score[target]
    return above + (equal + 1) / 2


@jit
def note_ranks(
    models: Models,
    work: Workspace,
    touched: int,
    kept: int,
    item: int,
    ranks: NDArray[np.float64],
    covered: NDArray[np.uint8],
) -> int:
    """Note where each source, and the blend that has just scored, rank an item.

    Where purchases or value are an objective, the blend's place is left to the caller. Fills
    `ranks` (sources,) and marks the lists in `covered` (sources, items); returns the item's place
    among the candidates, -1 where it is none.
    """
    target = find(work.chosen, 0, kept, item)
    popular, listed = models.popularity, models.content
    seen = popular.seen[0] + listed.book[shelves.FRESH]
    if not models.outcomes.on:  # else the final ranking is another one
        ranks[BLEND] = _candidate_rank(work, work.score, kept, covered[BLEND], target)
    ranks[FACTORS] = _candidate_rank(work, work.factor, kept, covered[FACTORS], target)
    ranks[CONTENT] = np.inf
    if work.content.tokens[0] > 0:
        similarity = work.similarity
        for c in range(kept):
            similarity[c] = similarity[c] if similarity[c] > 0.0 else -np.inf
        ranks[CONTENT] = _candidate_rank(work, similarity, kept, covered[CONTENT], target)
    for source in (NEIGHBOURS, TRANSITIONS):
        ranks[source] = source_rank(work, source, touched, item, seen)
        _cover(work, covered[source], touched)
    ranks[POPULARITY] = popularity.mean_rank(popular, SCORED_LIFE, item)
    for place in range(LIST):
        if popular.top[SCORED_LIFE, place] > 0:
            covered[POPULARITY, popular.top[SCORED_LIFE, place] - 1] = 1
    if popular.item[item].events == 0 and listed.status[item] == 0:
        ranks[:] = np.inf
    return target


@jit
def _test(
    models: Models,
    blend: Blend,
    work: Workspace,
    asked: Asked,
    item: int,
    most: int,
    ranks: NDArray[np.float64],
    covered: NDArray[np.uint8],
) -> None:
    touched = gather(models, work, asked)
    kept = rank(models, blend, work, asked, touched, most)
    if models.outcomes.on:
        outcomes = models.outcomes.state
        n = order(outcomes, work.chosen, work.score, kept, asked.now, SHOWN, NOT_EXCLUDED)
        ranks[BLEND] = rank_of(outcomes, n, item, covered[BLEND])
    target = note_ranks(models, work, touched, kept, item, ranks, covered)
    if target >= 0:
        scorer.learn_one(blend, work.feature, kept, work.hidden, work.score, target)


@jit
def session_number(history: History, sessions: Sessions, user: int) -> int:
    """Return the number of a user's running session in the store; begin one where it has none."""
    head = history.head[user]
    capacity = len(sessions.head)
    number = int(head.session_number - 1)
    stale = number < 0 or number < sessions.begun[0] - capacity
    if stale or sessions.head[number % capacity].length == SESSION_LENGTH:
        number = open_session(sessions, user)
        head.session_number = number + 1
    return number


@jit
def _learn(
    history: History, models: Models, work: Workspace, user: int, item: int, kind: int, time: float
) -> None:
    head = history.head[user]
    in_session = min(int(head.session_length), CONTEXT)
    n = recent(history, user, work.query, work.query_kind, in_session)
    transitions.learn_one(models.transitions, work.query, n, item, time)
    factors.learn_one(models.factors, work.query, n, item)
    number = session_number(history, models.sessions, user)
    rings.learn_one(models.neighbours, models.sessions, number, item, time)
    popularity.learn_one(models.popularity, item, kind, time)
    shelves.learn_one(models.content, item)
    append(history, user, item, kind, time)


@jit
def _prefetch(history: History, models: Models, events: Events, i: int) -> None:
    """Ask for the records that the next events will meet, in the order in which they lead on."""
    n = len(events.item)
    if i + 3 < n:
        item = events.item[i + 3]
        prefetch(history.head, events.user[i + 3])
        prefetch(models.neighbours.rows.head, item)
        prefetch(models.transitions.backward.rows.head, item)
        prefetch(models.popularity.weight, item * models.popularity.weight.shape[1])
        prefetch(models.popularity.item, item)
        prefetch(models.content.met, item)
        prefetch_row(models.factors.vectors, len(models.factors.often) + item)
    if i + 2 < n:
        user = events.user[i + 2]
        length = history.event.shape[1]
        last = (history.head[user].total - 1) % length
        prefetch(history.event, user * length + last)
        prefetch(history.event, user * length + max(last - 7, 0))
        transitions.prefetch_row(models.transitions.backward, events.item[i + 2])
        slot = (history.head[user].session_number - 1) % len(models.sessions.head)
        prefetch(models.sessions.head, slot)
        prefetch(models.sessions.item, slot * SESSION_LENGTH)
    if i + 1 < n:
        event = history.event
        user = events.user[i + 1]
        length = event.shape[1]
        total = history.head[user].total
        heads = models.transitions.forward.rows.head
        for back in range(min(history.head[user].session_length, CONTEXT)):
            row = (event[user, (total - 1 - back) % length].code >> 1) - 1
            if row >= 0:
                prefetch(heads, row)
                prefetch_row(models.factors.vectors, row)


@jit
def test_then_learn(
    handle: Handle,
    events: Events,
    tested: Tested,
    gap_seconds: float,
    most: int,
    start: int,
    end: int,
    waiting: NDArray[np.int64],
) -> int:
    """Test the chosen events from `start` to `end` and learn all, in order; `tested` is filled.

    Stops after `LEAST` events where somebody is `waiting`, (1,), and where the outcomes of clicks
    are due to be learnt; returns where to go on. A target is an event from a user's second on
    (`learners.evaluate` states the protocol).
    """
    history, models, blend, work = handle.state
    follows = models.outcomes.on != 0
    listing, listed = events.listing, 0
    while listed < len(listing.after) and listing.after[listed] < start:
        listed += 1
    for i in range(start, end):
        if waiting[0] != 0 and i >= start + LEAST:
            return i
        if follows and models.outcomes.state.on[1] >= BLOCK:
            return i
        first, listed = listed, shelves.list_until(models.content, listing, listed, i)
        if follows and listed > first:
            note_prices(models.outcomes.state.books, listing, first, listed)
        _prefetch(history, models, events, i)
        user, item, time = events.user[i], events.item[i], events.time[i]
        tested.known[i] = history.head[user].total
        begin(history, user, events.session[i], time, gap_seconds)
        tested.valid[i] = tested.known[i] > 0 and events.tested[i]
        if follows:
            recall(models.outcomes.state.past, history, user, max(time, history.head[user].last))
        if tested.valid[i]:
            now = max(time, history.head[user].last)
            asked = ask_user(history, work, user, now)
            _test(models, blend, work, asked, item, most, tested.rank[i], tested.covered)
        if follows:
            note(models.outcomes.state, user, item, events.kind[i], time, events.value[i])
        _learn(history, models, work, user, item, events.kind[i], time)
    if end == len(events.item):
        first, listed = listed, shelves.list_until(models.content, listing, listed, end)
        if follows and listed > first:
            note_prices(models.outcomes.state.books, listing, first, listed)
    return end

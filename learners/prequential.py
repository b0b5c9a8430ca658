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
    Asked,
    Models,
    Workspace,
    gather,
)
from learners.features import describe
from learners.handle import Handle, state_of
from learners.jit import jit, jit_counted, prefetch
from learners.lanes import prefetch_row
from learners.objective import order
from learners.outcomes import BLOCK, note
from learners.past import note_prices, recall
from learners.prescore import choose
from learners.ranks import SOURCES, Ranking, note_ranks
from learners.sources import factors, popularity, rings, shelves, transitions
from learners.sources.shelves import Listing
from learners.store.history import (
    CONTEXT,
    MOST_QUERY,
    SHORT_QUERY,
    History,
    append,
    begin,
    recent,
    times_of,
)
from learners.store.sessions import SESSION_LENGTH, Sessions, open_session
from learners.vector import find

__all__ = [
    "LEAST",
    "Events",
    "Tested",
    "ask_user",
    "make_tested",
    "rank",
    "session_number",
    "test_then_learn",
]

LEAST = 32  # events learnt before somebody who waits is let through: a fifth of a millisecond
SHOWN, NOT_EXCLUDED = np.zeros(0, np.bool_), np.zeros(0, np.int32)  # all items are ranked


class Events(NamedTuple):
    """Clicks and purchases of a batch as rows, in learning order, item events among them."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    kind: NDArray[np.uint8]
    time: NDArray[np.float64]  # seconds
    session: NDArray[np.uint64]  # hash of the event's session, 0 for none
    tested: NDArray[np.bool_]  # chosen for evaluation; the blend learns from these
    taught: NDArray[np.bool_]  # and, without evaluation, from these
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
def ask_user(history: History, work: Workspace, user: int, now: float, in_session: int) -> Asked:
    """Write a user's query into the workspace: the session so far, or more where that is short."""
    in_session = min(in_session, MOST_QUERY)
    n = recent(history, user, work.query, work.query_kind, max(in_session, SHORT_QUERY))
    times_of(history, user, work.query_time, n)
    head = history.head[user]
    own = int(head.session_number - 1) if in_session > 0 else -1
    version = 0 + head.total  # 64 bits, as every number of a question has
    return Asked(n, min(in_session, n), now, own, 0 + user, version)


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
    final = Ranking(work.chosen, work.score, kept)
    if models.outcomes.on[0] != 0:
        outcomes = models.outcomes
        n = order(outcomes, work.chosen, work.score, kept, asked.now, SHOWN, NOT_EXCLUDED)
        final = Ranking(outcomes.final_item, outcomes.final_score, n)
    target = note_ranks(models, work, touched, kept, final, item, ranks, covered)
    if target >= 0:
        scorer.learn_one(blend, work.feature, kept, work.hidden, work.score, target)


@jit
def _teach(
    models: Models, blend: Blend, work: Workspace, asked: Asked, item: int, most: int
) -> None:
    """Let the blend learn which candidate was chosen, and note nothing."""
    kept = rank(models, blend, work, asked, gather(models, work, asked), most)
    target = find(work.chosen, 0, kept, item)
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
def _list(models: Models, listing: Listing, first: int, after: int) -> int:
    """Learn item events from the `first` on that come before click `after`; return the next one."""
    listed = shelves.list_until(models.content, listing, first, after)
    if models.outcomes.on[0] != 0 and listed > first:
        note_prices(models.outcomes.books, listing, first, listed)
    return int(listed)


@jit
def _test_then_learn(
    history: History,
    models: Models,
    blend: Blend,
    work: Workspace,
    events: Events,
    tested: Tested,
    gap_seconds: float,
    most: int,
    start: int,
    end: int,
    waiting: NDArray[np.int64],
) -> int:
    follows = models.outcomes.on[0] != 0
    listing, listed = events.listing, 0
    while listed < len(listing.after) and listing.after[listed] < start:
        listed += 1
    for i in range(start, end):
        if waiting[0] != 0 and i >= start + LEAST:
            return i
        if follows and models.outcomes.on[1] >= BLOCK:
            return i
        listed = _list(models, listing, listed, i)
        _prefetch(history, models, events, i)
        user, item, time = events.user[i], events.item[i], events.time[i]
        tested.known[i] = history.head[user].total
        begin(history, user, events.session[i], time, gap_seconds)
        tested.valid[i] = tested.known[i] > 0 and events.tested[i]
        now = max(time, history.head[user].last)
        in_session = int(history.head[user].session_length)
        if follows:
            recall(models.outcomes.past, history, user, now, in_session)
        if tested.valid[i]:
            asked = ask_user(history, work, user, now, in_session)
            _test(models, blend, work, asked, item, most, tested.rank[i], tested.covered)
        elif tested.known[i] > 0 and events.taught[i]:
            _teach(models, blend, work, ask_user(history, work, user, now, in_session), item, most)
        if follows:
            note(models.outcomes, user, item, events.kind[i], time, events.value[i])
        _learn(history, models, work, user, item, events.kind[i], time)
    if end == len(events.item):
        _list(models, listing, listed, end)
    return end


@jit_counted
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
    state = state_of(handle)
    history, models, blend, work = state.history, state.models, state.blend, state.work
    return _test_then_learn(
        history, models, blend, work, events, tested, gap_seconds, most, start, end, waiting
    )

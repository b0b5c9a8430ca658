"""Trials: how well would the engine have foreseen a recorded log, had it been set otherwise?

A trial learns clicks and purchases as rows, without ids, books and catalogue. The blend is tried
with the engine's own kernel; neighbours and transitions can be tried alone, which costs a fraction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.frozen import gather_one
from learners.handle import Handle, state_of
from learners.jit import jit_counted
from learners.prequential import Events, ask_user, make_tested, session_number, test_then_learn
from learners.ranks import BLEND, LIST, NEIGHBOURS, SOURCES, TRANSITIONS, source_rank
from learners.sources import rings, transitions
from learners.store.history import CONTEXT, append, begin, recent
from learners.store.memory import Memory

__all__ = ["TRIED", "Trial", "try_config"]

TRIED = (BLEND, NEIGHBOURS, TRANSITIONS)  # sources that can be tried


class Trial(NamedTuple):
    """Where each event of a log stood before it was learnt."""

    rank: NDArray[np.float64]  # (n,) mean rank, infinity where it is a miss
    valid: NDArray[np.bool_]  # (n,) whether it was a target at all


@jit_counted
def _test_source_then_learn(
    handle: Handle,
    events: Events,
    source: int,
    rank: NDArray[np.float64],
    valid: NDArray[np.bool_],
    gap_seconds: float,
    halt: NDArray[np.int64],
) -> None:
    """Rank the tested events by one source, and let it alone learn all; `halt` (1,) ends it."""
    state = state_of(handle)
    history, models, work = state.history, state.models, state.work
    seen = 0
    for i in range(len(events.item)):
        if halt[0] != 0:
            return
        user, item, time = events.user[i], events.item[i], events.time[i]
        met_before = history.head[user].total > 0
        begin(history, user, events.session[i], time, gap_seconds)
        valid[i] = met_before and events.tested[i]
        if valid[i] and item < seen:
            head = history.head[user]
            asked = ask_user(history, work, user, max(time, head.last), int(head.session_length))
            touched = gather_one(models, work, asked, source)
            rank[i] = source_rank(work, source, touched, item, seen)
        seen = max(seen, item + 1)
        if source == NEIGHBOURS:
            number = session_number(history, models.sessions, user)
            rings.learn_one(models.neighbours, models.sessions, number, item, time)
        else:
            in_session = min(int(history.head[user].session_length), CONTEXT)
            n = recent(history, user, work.query, work.query_kind, in_session)
            transitions.learn_one(models.transitions, work.query, n, item, time)
        append(history, user, item, events.kind[i], time)


def try_config(
    config: EngineConfig, events: Events, source: int, halt: NDArray[np.int64] | None = None
) -> Trial:
    """Learn events with a fresh engine's memory and rank those that are `tested` before that.

    Parameters
    ----------
    config : EngineConfig
        What is tried; there is room for all users and items, and clicks are the objective,
        whatever it says.
    events : Events
        In learning order; users and items are numbered as they first come.
    source : int
        One of `TRIED`, as a place in `prequential.SOURCES`.
    halt : (1,), optional
        Another thread sets it to 1 to end the trial early.
    """
    room = replace(
        config.of_clicks_alone(),
        users=int(events.user.max(initial=0)) + 1,
        items=max(int(events.item.max(initial=0)) + 1, LIST),
        dedupe_events=0,
    )
    memory = Memory.make(room)
    halt = np.zeros(1, np.int64) if halt is None else halt
    n, gap = len(events.item), config.session_gap_seconds
    if source != BLEND:
        rank, valid = np.full(n, np.inf), np.zeros(n, np.bool_)
        _test_source_then_learn(memory.handle, events, source, rank, valid, gap, halt)
        return Trial(rank, valid)
    tested = make_tested(n, np.zeros((len(SOURCES), room.items), np.uint8))
    test_then_learn(memory.handle, events, tested, gap, config.candidates, 0, n, halt)
    return Trial(tested.rank[:, BLEND].copy(), tested.valid)

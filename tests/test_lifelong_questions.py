"""Models are judged by the very questions that a node asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from learners.base import CLICK, PURCHASE, Batch, EngineConfig
from learners.deep.lifelong import Lifelong
from learners.deep.registry import Registry
from learners.prequential import ask_user
from learners.store.history import MOST_QUERY, append, begin, make_history
from tests.walks import CONFIG, START, batches, walks

USERS, EVENTS = 6, 240
Question = list[tuple[str, int, float]]  # items, kinds and times, oldest first


def visits() -> list[Batch]:
    """Clicks and purchases with silences in between, some in sessions that have names."""
    draw = np.random.default_rng(5)
    time, events, sessions = START + 10_000, [], []
    for _ in range(EVENTS):
        time += float(draw.choice([5, 60, 2400], p=[0.6, 0.39, 0.01]))
        user = int(draw.integers(USERS))
        kind = PURCHASE if draw.random() < 0.1 else CLICK
        events.append((kind, f"v{user}", f"i{draw.integers(100)}", time))
        sessions.append(f"visit {len(events) // 50}" if user == 0 else "")
    [batch] = batches(events, EVENTS, "visit")
    return [replace(batch, session=sessions)]


def asked_by_a_node(batch: Batch) -> list[Question]:
    """Read each click's question off the history that an engine keeps."""
    config = EngineConfig()
    history = make_history(USERS, config.history_length)
    history = history._replace(head=history.head.view(np.recarray))  # as kernels see it
    work = SimpleNamespace(
        query=np.zeros(MOST_QUERY, np.int32),
        query_kind=np.zeros(MOST_QUERY, np.uint8),
        query_time=np.zeros(MOST_QUERY),
    )
    found = []
    for name, item, session, kind, time in zip(
        batch.user, batch.item, batch.session, batch.kind.tolist(), batch.timestamp, strict=True
    ):
        user, key = int(name[1:]), np.uint64(sum(session.encode()))
        begin(history, user, key, float(time), config.session_gap_seconds)
        in_session = int(history.head[user].session_length)
        asked = ask_user.py_func(history, work, user, float(time), in_session)
        if kind == CLICK and asked.items:
            columns = (work.query, work.query_kind, work.query_time)
            items, kinds, times = (column[: asked.items][::-1].tolist() for column in columns)
            found.append(list(zip(map("i{}".format, items), kinds, times, strict=True)))
        append(history, user, int(item[1:]), kind, float(time))
    return found


def test_models_are_asked_with_the_same_events_as_a_node_asks_with(tmp_path: Path) -> None:
    lifelong = Lifelong(replace(CONFIG, every_events=10**6), Registry(tmp_path))
    for batch in batches(walks(2400)):
        lifelong.learn(batch)
    [batch] = visits()
    lifelong.memory.asked = []
    lifelong.learn(batch)
    names = lifelong.memory.items.ids
    asked = [
        [
            (names[row], kind, time)
            for row, kind, time in zip(
                before.item.tolist(), before.kind.tolist(), before.time.tolist(), strict=True
            )
        ]
        for *_, before in lifelong.memory.asked
    ]
    expected = asked_by_a_node(batch)
    assert {min(map(len, expected)), max(map(len, expected))} == {1, MOST_QUERY}
    assert asked == expected

"""The generic checks that every source of candidates passes; run them on your own with one call.

`check_source(lambda: MySource(items=500))` raises `CheckFailedError` at the first broken promise:
reading is pure, unknown ids are legal, the same log gives the same state, memory is bounded, a
state can be stored and taken up again, a clone goes its own way, and forgotten items are gone. Each
source is told a catalogue first, as item events come before clicks; whoever does not ask for it
(`Source.list_items`) loses nothing, and a source that does is held to the same promises by it.

The engine drives the kernels of its own sources without this contract in between, for speed; a test
holds both ways to the same state and the same scores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry, Interactions, Query, Source
from learners.errors import CheckFailedError
from learners.store.history import CONTEXT

__all__ = ["check_source", "interactions", "random_interactions"]

ITEMS = 50
EVENTS = 400


def interactions(pairs: Sequence[tuple[int, int]], *, start_seconds: float = 1.0) -> Interactions:
    """Return (session, item) pairs as clicks one second apart, contexts filled in."""
    n = len(pairs)
    context = np.full((n, CONTEXT), -1, np.int32)
    before: dict[int, list[int]] = {}
    for i, (session, item) in enumerate(pairs):
        latest = before.setdefault(session, [])[-1 : -CONTEXT - 1 : -1]
        context[i, : len(latest)] = latest
        before[session].append(item)
    return Interactions(
        item=np.array([item for _, item in pairs], np.int32),
        kind=np.zeros(n, np.uint8),
        time=start_seconds + np.arange(n, dtype=np.float64),
        session=np.array([session for session, _ in pairs], np.int64),
        context=context,
    )


def random_interactions(seed: int, items: int = ITEMS, events: int = EVENTS) -> Interactions:
    """Return seeded clicks of short sessions."""
    generator = np.random.default_rng(seed)
    sessions = np.sort(generator.integers(0, events // 5, events))
    return interactions(
        [
            (int(s), int(i))
            for s, i in zip(sessions, generator.zipf(1.3, events) % items, strict=True)
        ]
    )


def random_entries(seed: int, items: int = ITEMS) -> list[CatalogueEntry]:
    """Return seeded catalogue entries, alike in groups, for item rows 0 to `items` - 1."""
    generator = np.random.default_rng(seed)
    return [
        CatalogueEntry(
            category=f"group-{item % 5}/part-{item % 10}",
            price=float(generator.lognormal(3.0, 1.0)),
            title=f"word-{'abcdefghij'[item % 7] * 3} of the title",
            created=1e9,
            available=bool(generator.random() < 0.95) or None,
        )
        for item in range(items)
    ]


def _listed(make: Callable[[], Source]) -> Source:
    """Return a fresh source that knows a catalogue."""
    source = make()
    rows = np.arange(ITEMS, dtype=np.int32)
    source.list_items(rows, random_entries(9), np.ones(ITEMS))
    return source


def check_source(make: Callable[[], Source]) -> None:
    """Run every check on a source; `make` returns a fresh one with room for 50 items at least.

    Raises
    ------
    CheckFailedError
        Naming the source, the check and what was seen.
    """
    for check in (
        _reading_is_pure,
        _unknown_ids_are_legal,
        _same_log_same_state,
        _memory_is_bounded,
        _state_round_trip,
        _clone_is_independent,
        _forgotten_items_are_gone,
    ):
        source = _listed(make)
        problem = check(source, lambda: _listed(make))
        if problem:
            raise CheckFailedError(
                f"source {source.name!r} fails {check.__name__.lstrip('_')}: {problem}"
            )


def _part(events: Interactions, part: slice) -> Interactions:
    item, kind, time, session, context = events
    return Interactions(item[part], kind[part], time[part], session[part], context[part])


def _query(*items: int) -> Query:
    return Query(np.array(items, np.int32), now=float(EVENTS))


def _answers(source: Source) -> NDArray[np.float64]:
    return np.stack([source.score(_query(a, b), ITEMS) for a, b in ((1, 2), (3, 1), (0, 7))])


def _copied(source: Source) -> dict[str, NDArray[np.generic]]:
    return {name: np.array(array) for name, array in source.state().items()}


def _different(a: dict[str, NDArray[np.generic]], b: dict[str, NDArray[np.generic]]) -> str | None:
    if a.keys() != b.keys():
        return f"states hold different arrays: {sorted(a.keys() ^ b.keys())}"
    for name in a:
        if a[name].shape != b[name].shape or a[name].tobytes() != b[name].tobytes():
            return f"array {name!r} differs"
    return None


def _reading_is_pure(source: Source, make: Callable[[], Source]) -> str | None:
    source.learn(random_interactions(1))
    before = _copied(source)
    first, second = _answers(source), _answers(source)
    if not np.array_equal(first, second):
        return "asking twice gave two answers"
    return _different(before, _copied(source))


def _unknown_ids_are_legal(source: Source, make: Callable[[], Source]) -> str | None:
    for learnt in (False, True):
        if learnt:
            source.learn(random_interactions(1))
        early = Query(np.array([1, 2], np.int32), now=-1e12)
        for query in (_query(), _query(-1), _query(ITEMS - 1, -1), _query(ITEMS + 5), early):
            scores = source.score(query, ITEMS)
            if scores.shape != (ITEMS,) or not np.isfinite(scores).all():
                return f"query {query.items.tolist()} gave shape {scores.shape}, or not finite"
    return None


def _same_log_same_state(source: Source, make: Callable[[], Source]) -> str | None:
    other = make()
    events = random_interactions(2)
    source.learn(events)
    half = len(events.item) // 2
    other.learn(_part(events, slice(None, half)))
    other.learn(_part(events, slice(half, None)))
    return _different(_copied(source), _copied(other))


def _memory_is_bounded(source: Source, make: Callable[[], Source]) -> str | None:
    sizes = []
    for seed in range(12):
        source.learn(random_interactions(seed))
        rows = np.arange(ITEMS, dtype=np.int32)
        source.list_items(rows, random_entries(seed), np.full(ITEMS, float(seed)))
        sizes.append(sum(array.nbytes for array in source.state().values()))
    if sizes[-1] > 1.25 * sizes[5]:
        return f"the state of {ITEMS} items grew from {sizes[5]} to {sizes[-1]} bytes"
    return None


def _state_round_trip(source: Source, make: Callable[[], Source]) -> str | None:
    source.learn(random_interactions(3))
    other = make()
    other.learn(random_interactions(4))
    other.load_state(_copied(source))
    problem = _different(_copied(source), _copied(other))
    if problem:
        return problem
    for each in (source, other):
        each.learn(random_interactions(5))
    if not np.array_equal(_answers(source), _answers(other)):
        return "the restored source answers differently after learning on"
    return _different(_copied(source), _copied(other))


def _clone_is_independent(source: Source, make: Callable[[], Source]) -> str | None:
    source.learn(random_interactions(6))
    before = _copied(source)
    copy.deepcopy(source).learn(random_interactions(7))
    return _different(before, _copied(source))


def _forgotten_items_are_gone(source: Source, make: Callable[[], Source]) -> str | None:
    source.learn(random_interactions(8))
    gone = np.array([1, 3])
    if not _answers(source)[:, gone].any():
        return f"items {gone.tolist()} score nothing even before they are forgotten"
    source.forget_items(gone)
    scores = _answers(source)[:, gone]
    if (scores != 0).any():
        return f"forgotten items score {scores.max()}"
    fresh = _listed(make)
    source.forget_items(np.arange(ITEMS))
    source.list_items(np.arange(ITEMS, dtype=np.int32), random_entries(9), np.ones(ITEMS))
    same = np.array_equal(_answers(source) > 0, _answers(fresh) > 0)
    return None if same else "items listed anew after all were forgotten are not as at first"

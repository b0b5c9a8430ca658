"""Where all slots are taken, what is new gets its share of them, and what is old gives way."""

from __future__ import annotations

import numpy as np
import pytest

from learners.base import Interactions, Query
from learners.checks import interactions
from learners.sources.neighbours import Neighbours
from learners.sources.transitions import Transitions
from learners.store.rows import Rows

ITEMS, GENERATIONS = 480, 12
MEMBERS = ITEMS // GENERATIONS
PLENTY = 400  # sessions of a generation: its rows would take all the slots that a row may have


def generation(number: int, seed: int = 4) -> Interactions:
    """Sessions of five items of one generation; every other one begins with its first two."""
    generator = np.random.default_rng([seed, number])
    pairs = []
    for session in range(PLENTY):
        items = generator.permutation(MEMBERS)[:5]
        if session % 2:
            items = np.array([0, 1, *items[items > 1][:3]])
        pairs += [(number * PLENTY + session, number * MEMBERS + int(item)) for item in items]
    return interactions(pairs, start_seconds=1.0 + 10_000.0 * number)


def check_blocks(rows: Rows, slots: int) -> None:
    """No two blocks overlap, and every item of the last generation has one."""
    blocks = sorted((int(head["start"]), int(head["room"])) for head in rows.head if head["room"])
    ends = [start + room for start, room in blocks]
    assert all(end <= start for end, (start, _) in zip(ends, blocks[1:], strict=False))
    assert ends[-1] <= slots
    assert (rows.head["room"][-MEMBERS:] >= 4).all()


@pytest.mark.parametrize("last", [1, GENERATIONS])
def test_each_generation_of_items_is_learnt_alike(last: int) -> None:
    transitions = Transitions(ITEMS, slots_a_row=32)
    neighbours = Neighbours(ITEMS, sessions=8192, slots_a_row=256, k=20)
    for number in range(last):
        transitions.learn(generation(number))
        neighbours.learn(generation(number))
    first = (last - 1) * MEMBERS
    query = Query(np.array([first], np.int32), now=10_000.0 * last)
    assert transitions.score(query, ITEMS).argmax() == first + 1
    assert first + 1 in np.argsort(-neighbours.score(query, ITEMS))[:2]
    if last == GENERATIONS:
        check_blocks(transitions.arrays.forward.rows, len(transitions.arrays.forward.item))
        check_blocks(transitions.arrays.backward.rows, len(transitions.arrays.backward.item))
        check_blocks(neighbours.arrays.rows, len(neighbours.arrays.session))

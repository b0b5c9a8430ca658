"""Lifelong learning at its bounds: a full vocabulary, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np

from learners.base import CLICK, Batch
from learners.deep.lesson import Lesson, Progress, Trained, hold
from learners.deep.lifelong import Lifelong
from learners.deep.questions import Questions
from learners.deep.registry import Registry
from learners.durable import write_arrays
from learners.store.texts import keys_64
from tests.walks import CONFIG, ITEMS, START, batches, walks


def until_a_challenger(root: Path) -> tuple[Lifelong, str, list[Batch]]:
    """A trainer whose first challenger has still to be judged, its id, and what comes then."""
    lifelong = Lifelong(CONFIG, Registry(root))
    log = batches(walks(3500))
    while (challenger := lifelong.registry.alias("challenger")) is None:
        lifelong.learn(log.pop(0))
    return lifelong, challenger, log


def test_room_made_within_a_batch_gives_nobody_another_item(tmp_path: Path) -> None:
    lifelong = Lifelong(replace(CONFIG, items=20, first_events=10**6), Registry(tmp_path))
    names = [f"item-{i}" for i in range(60)]
    [batch] = batches([(CLICK, "u1", name, START + i) for i, name in enumerate(names)], size=60)
    lifelong.learn(batch)
    held = lifelong.memory.trails.of(int(keys_64(["u1"])[0]))
    assert held is not None
    ids = lifelong.memory.items.ids
    kept = [ids[row] if row >= 0 else None for row in held.item.tolist()]
    assert kept[-1] == names[-1]
    assert all(id in (None, name) for id, name in zip(kept, names[-len(kept) :], strict=True))


def test_a_damaged_challenger_is_told_and_the_trainer_goes_on(tmp_path: Path) -> None:
    lifelong, challenger, log = until_a_challenger(tmp_path)
    weights = tmp_path / "snapshots" / challenger / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    again = Lifelong(CONFIG, lifelong.registry)
    again.load_state(lifelong.state())
    told = [each.what for batch in log for each in again.learn(batch)]
    assert "promoted" in told


def hold_foreign(lesson: Lesson, progress: Progress) -> Trained:
    """Hold a lesson that ends in the arrays of another model."""
    trained = hold(lesson, progress)
    return trained._replace(arrays={"code": trained.arrays["code"]})


def test_a_lesson_that_gives_another_model_has_failed_and_the_next_is_held(tmp_path: Path) -> None:
    lifelong = Lifelong(CONFIG, Registry(tmp_path), hold=hold_foreign)
    told = [each for batch in batches(walks(3500)) for each in lifelong.learn(batch)]
    assert [each.what for each in told] == ["begun", "born", "failed"] * 2
    assert "is refused" in told[2].why


def test_a_challenger_of_foreign_content_does_not_end_a_trainer_that_starts(tmp_path: Path) -> None:
    lifelong, challenger, log = until_a_challenger(tmp_path)
    folder = tmp_path / "snapshots" / challenger
    weights = write_arrays(folder / "weights.safetensors", {"code": np.ones((2, 2), np.int8)})
    lifelong.registry.annotate(challenger, sha256={"weights.safetensors": weights})
    again = Lifelong(CONFIG, lifelong.registry)
    again.load_state(lifelong.state())
    told = [each for batch in log for each in again.learn(batch)]
    assert (told[0].what, challenger in told[0].why) == ("problem", True)
    assert "promoted" in [each.what for each in told]


def test_an_item_that_comes_back_is_foreseen_again(tmp_path: Path) -> None:
    config = replace(CONFIG, items=ITEMS, every_events=10**6)
    lifelong = Lifelong(config, Registry(tmp_path))
    for batch in batches(walks(2400)):
        lifelong.learn(batch)
    champion = lifelong.champion
    assert champion is not None
    user = int(keys_64(["back"])[0])

    def rank(walk: list[str]) -> float:
        """Where the champion sees the last item of a walk."""
        events = [(CLICK, "back", item, START + 4000 + i) for i, item in enumerate(walk[:-1])]
        for batch in batches(events, prefix=f"{walk} at {lifelong.books.events}"):
            lifelong.learn(batch)
        before = lifelong.memory.trails.of(user)
        assert before is not None
        asked = Questions.of([(user, lifelong.memory.items.row(walk[-1]), 0, before)])
        return float(champion.ranks(asked)[0])

    walk = [f"i{3 * i}" for i in range(ITEMS // 3)]
    foreseen = rank(walk)
    assert foreseen <= 10
    others = [(CLICK, "elsewhere", f"other-{i}", START + 3000 + i) for i in range(ITEMS)]
    for batch in batches(others, prefix="others"):
        lifelong.learn(batch)
    assert rank(walk[:1] + walk[-1:]) == inf, "nobody has met it since"
    lifelong.learn(batches([(CLICK, "other", walk[-1], START + 5000)], prefix="again")[0])
    assert rank(walk) <= 10

"""Items of the catalogue are foreseen before anybody has clicked them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from learners.base import CLICK, ITEM, Batch, CatalogueEntry
from learners.deep.lifelong import Lifelong
from learners.deep.questions import Questions
from learners.deep.registry import Registry
from learners.store.texts import keys_64
from tests.test_engine import batch_of
from tests.walks import CONFIG, ITEMS, START, batches, walks

ONCE = replace(CONFIG, every_events=10**6)
AISLE = 6  # items side by side on the ring


def listing(names: dict[str, int], prefix: str = "listed") -> Batch:
    """Put items into the catalogue; each is of an aisle."""
    events = [(ITEM, "", name, START) for name in names]
    entries = {
        place: CatalogueEntry(category=f"aisle {aisle}", title="thing")
        for place, aisle in enumerate(names.values())
    }
    batch = batch_of(events, prefix, entries)
    return replace(batch, positions={"items/0": len(events)})


def rank_of(lifelong: Lifelong, item: str, walk: list[str]) -> float:
    """Where the champion sees an item after a walk."""
    guest = f"guest from {walk[0]}"
    events = [(CLICK, guest, name, START + 9000 + i) for i, name in enumerate(walk)]
    lifelong.learn(batches(events, prefix=guest)[0])
    user = int(keys_64([guest])[0])
    before = lifelong.memory.trails.of(user)
    assert before is not None
    assert lifelong.champion is not None
    row = lifelong.memory.items.row(item)
    return float(lifelong.champion.ranks(Questions.of([(user, row, 0, before)]))[0])


def grown(folder: Path, listed: list[Batch]) -> Lifelong:
    lifelong = Lifelong(ONCE, Registry(folder))
    for batch in [*listed, *batches(walks(2400))]:
        lifelong.learn(batch)
    return lifelong


WITHDRAWN = CatalogueEntry(deleted=True)
CATALOGUE = {f"i{i}": i // AISLE for i in range(ITEMS)}


@pytest.mark.parametrize("aisle", [3, 10])
def test_a_new_item_is_named_to_those_who_walk_its_aisle(tmp_path: Path, aisle: int) -> None:
    lifelong = grown(tmp_path, [listing(CATALOGUE | {"new": aisle})])
    first = AISLE * aisle
    here = [f"i{first - 9 + 3 * i}" for i in range(4)]
    elsewhere = [f"i{(first + 60 + 3 * i) % ITEMS}" for i in range(4)]
    assert rank_of(lifelong, "new", here) <= 10
    assert rank_of(lifelong, "new", elsewhere) > 20


def test_without_a_catalogue_it_is_not_named(tmp_path: Path) -> None:
    lifelong = grown(tmp_path, [])
    assert rank_of(lifelong, "new", ["i9", "i12", "i15"]) == inf


def test_an_item_that_is_like_none_or_cannot_be_had_is_not_named(tmp_path: Path) -> None:
    gone = listing({"gone": 10}, "gone")
    entry = CatalogueEntry(category="aisle 10", title="thing", available=False)
    lifelong = grown(
        tmp_path,
        [listing(CATALOGUE | {"other": 99, "gone": 10}), replace(gone, catalogue={0: entry})],
    )
    assert rank_of(lifelong, "gone", ["i51", "i54", "i57"]) == inf
    assert rank_of(lifelong, "other", ["i51", "i54", "i57"]) > 20


def test_a_large_catalogue_takes_no_room_from_what_is_clicked(tmp_path: Path) -> None:
    many = {f"unsold-{i}": i // 10 for i in range(400)}
    lifelong = Lifelong(replace(ONCE, items=150), Registry(tmp_path))
    for batch in [listing(many), *batches(walks(2400))]:
        lifelong.learn(batch)
    champion = lifelong.champion
    assert champion is not None
    clicked = [name for name in champion.items if name.startswith("i")]
    assert len(clicked) == ITEMS
    assert len(champion.items) - ITEMS <= ITEMS // 16


def test_a_listing_is_in_the_state(tmp_path: Path) -> None:
    lifelong = Lifelong(ONCE, Registry(tmp_path))
    lifelong.learn(listing(CATALOGUE | {"new": 10}))
    again = Lifelong(ONCE, Registry(tmp_path))
    again.load_state(lifelong.state())
    for batch in batches(walks(2400)):
        again.learn(batch)
    assert rank_of(again, "new", ["i51", "i54", "i57"]) <= 10


def test_however_the_log_is_cut_the_snapshot_is_the_same(tmp_path: Path) -> None:
    clicks, names = walks(1800), list((CATALOGUE | {"new": 10}).items())
    found = []
    for listed, clicked in ((60, 500), (7, 130)):
        lifelong = Lifelong(ONCE, Registry(tmp_path / f"{listed}"))
        for begin in range(0, len(names), listed):
            part = dict(names[begin : begin + listed])
            lifelong.learn(listing(part, f"listed {begin}"))
        early = batches(clicks[:1000], clicked, prefix="early")
        late = batches(clicks[1000:], clicked, prefix="late")
        for batch in [*early, listing({"newer": 4}), *late]:
            lifelong.learn(batch)
        (id,) = lifelong.registry.ids()
        found.append(lifelong.registry.read(id))
    one, other = found
    assert {"new", "newer"} <= set(one.items)
    assert one.items == other.items
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_what_cannot_be_had_takes_no_room_from_what_is_listed(tmp_path: Path) -> None:
    gone = {f"gone-{i}": 10 for i in range(400)}
    entries = {
        place: CatalogueEntry(category="aisle 10", available=False) if place % 2 else WITHDRAWN
        for place in range(len(gone))
    }
    withdrawn = replace(listing(gone, "withdrawn"), catalogue=entries)
    lifelong = Lifelong(replace(ONCE, items=150), Registry(tmp_path))
    for batch in [withdrawn, listing(CATALOGUE | {"new": 10}), *batches(walks(2400))]:
        lifelong.learn(batch)
    assert rank_of(lifelong, "new", ["i51", "i54", "i57"]) <= 10

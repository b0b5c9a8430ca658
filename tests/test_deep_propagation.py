"""Rows that take in their neighbours': what answers are made of, and what lessons go on from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from learners.deep.config import Architecture, FineTuneConfig, SequenceConfig
from learners.deep.finetune import fine_tune
from learners.deep.histories import Histories
from learners.deep.packing import pack, unpack
from learners.deep.propagation import propagated
from learners.deep.rehearsal import ReplayBuffer
from learners.deep.sequence import SequenceModel

ITEMS = 30
QUICK = FineTuneConfig(epochs=2, epochs_first=2, batch=16, negatives=20, threads=1)
ALONE = replace(QUICK, propagation=0.0)


def walks(seed: int = 1) -> Histories:
    generator = np.random.default_rng(seed)
    return Histories.of([generator.integers(ITEMS - 1, size=5).tolist() for _ in range(64)])


def model(architecture: Architecture = "core-ave") -> SequenceModel:
    config = SequenceConfig(architecture=architecture, width=16, feed_forward=16, most_events=8)
    return SequenceModel(config, ITEMS, seed=3)


def test_the_more_often_two_were_met_the_more_they_share() -> None:
    table = torch.eye(4)
    often = propagated(table, Histories.of([[0, 1], [0, 1], [1, 0], [2, 0]]), 0.5)
    assert often[0, 1] == pytest.approx(3 * float(often[0, 2]))
    assert torch.equal(often[3], table[3])  # it was met by nobody
    assert often[0, 3] == 0


def test_neighbours_are_two_places_apart_at_most_in_one_sequence() -> None:
    turned = propagated(torch.eye(6), Histories.of([[0, 1, 2, 3], [4, 5]]), 0.5)
    assert (turned[0] > 0).tolist() == [True, True, True, False, False, False]
    assert (turned[4] > 0).tolist() == [False, False, False, False, True, True]


def test_rows_keep_their_lengths() -> None:
    table = torch.randn(ITEMS, 8, generator=torch.Generator().manual_seed(1))
    turned = propagated(table, walks(), 0.5)
    assert torch.allclose(turned.norm(dim=1), table.norm(dim=1), atol=1e-5)
    assert not torch.allclose(turned[:-1], table[:-1], atol=1e-2)


def test_training_goes_on_from_the_rows_as_they_were_trained() -> None:
    spread, alone, older = model(), model(), ReplayBuffer(newest=64, reservoir=64, longest=9)
    older.add(np.arange(64, dtype=np.uint64), walks(seed=2))
    for new in (walks(seed=3), walks(seed=4)):
        fine_tune(spread, new, older, QUICK)
        fine_tune(alone, new, older, ALONE)
        assert torch.equal(spread.trained, alone.table)
        assert torch.equal(spread.trained, spread.own)
        assert len(alone.own) == 0
        assert not torch.allclose(spread.table, alone.table, atol=1e-3)


def test_items_that_come_and_go_do_so_in_both_tables() -> None:
    grown = model()
    fine_tune(grown, walks(), None, QUICK, first=True)
    grown.keep(np.array([4, 7, 9]))
    grown.grow(np.ones((2, 16), np.float32))
    assert len(grown.table) == len(grown.own) == 5
    assert not torch.equal(grown.table[:3], grown.own[:3])
    assert torch.equal(grown.table[3:], grown.own[3:])


@pytest.mark.parametrize("architecture", ["transformer", "gru", "mlp"])
def test_a_model_that_does_not_average_rows_keeps_them(architecture: Architecture) -> None:
    """What such an encoder has learnt of its input would not fit other rows."""
    kept = model(architecture)
    fine_tune(kept, walks(), None, QUICK, first=True)
    assert len(kept.own) == 0


def test_a_snapshot_keeps_both_tables() -> None:
    trained = model()
    fine_tune(trained, walks(), None, QUICK, first=True)
    again = model()
    again.load_arrays(unpack(pack(trained.arrays()), 16))
    for kept, was in ((again.table, trained.table), (again.own, trained.own)):
        assert torch.nn.functional.cosine_similarity(kept, was).min() > 0.97
    again.take_own()
    assert torch.equal(again.table, again.trained)
    assert len(again.own) == 0
    assert {"own_code", "own_step"}.isdisjoint(pack(again.arrays()))

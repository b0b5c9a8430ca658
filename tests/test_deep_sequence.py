"""The deep model: shapes, causality, growth, and what it becomes when it is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from xxhash import xxh3_64_hexdigest

from learners.base import CLICK, PURCHASE
from learners.deep.config import ARCHITECTURES, HEADS, Architecture, FineTuneConfig, SequenceConfig
from learners.deep.draws import log_total, scores_of
from learners.deep.encoders import CoreAve
from learners.deep.finetune import fine_tune
from learners.deep.histories import Histories
from learners.deep.packing import pack
from learners.deep.rehearsal import ReplayBuffer
from learners.deep.sequence import SequenceModel
from learners.deep.snapshots import FORMAT

ITEMS = 40
SMALL = SequenceConfig(width=16, feed_forward=32, most_events=12)
QUICK = FineTuneConfig(
    epochs=4,
    epochs_first=12,
    batch=32,
    negatives=30,
    rate=1e-2,
    warmup_steps=5,
    row_rate=3.0,
    threads=1,
)


def small(architecture: Architecture = "core", items: int = ITEMS) -> SequenceModel:
    return SequenceModel(replace(SMALL, architecture=architecture), items, seed=3)


def checkerboard(
    sessions: int = 300, seed: int = 1, first: int = 0, items: int = ITEMS
) -> Histories:
    """Walks on items of one colour: after an even one comes an even one, after an odd one odd."""
    generator = np.random.default_rng(seed)
    walks = [
        first + (2 * generator.integers(items // 2, size=generator.integers(2, 8)) + colour)
        for colour in generator.integers(2, size=sessions)
    ]
    return Histories.of([walk.tolist() for walk in walks])


def told_right(model: SequenceModel, histories: Histories, head: int = CLICK) -> float:
    """How many of the best quarter of all items have the colour of the last item."""
    items = model.unit(model.table).numpy()
    u = model.eval().vectors(histories)[:, head]
    best = np.argsort(-(u @ items.T), axis=1)[:, : len(items) // 4]
    last = histories.item[histories.start[1:] - 1]
    return float((best % 2 == last[:, None] % 2).mean())


def made_up(generator: np.random.Generator, rows: int, events: int) -> tuple[torch.Tensor, ...]:
    shape = (rows, events)
    return tuple(torch.from_numpy(generator.integers(0, n, shape)) for n in (ITEMS, 2, 16))


def stirred(model: SequenceModel) -> SequenceModel:
    """Give every weight a value, those that begin at 0 too."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_comes_later_never_changes_an_earlier_vector(architecture: Architecture) -> None:
    model = stirred(small(architecture))
    items, kinds, gaps = made_up(np.random.default_rng(1), 5, 12)
    whole = model.encode(items, kinds, gaps)
    assert whole.shape == (5, 12, HEADS, 16)
    assert whole.norm(dim=-1).detach().numpy() == pytest.approx(14.0, rel=1e-5)
    for events in (1, 4, 11):
        part = model.encode(items[:, :events], kinds[:, :events], gaps[:, :events])
        assert torch.allclose(whole[:, :events], part, atol=1e-4)
    later = model.encode(items, kinds, gaps.roll(1, 0))
    assert not torch.allclose(whole, later, atol=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_the_colours(architecture: Architecture) -> None:
    model = small(architecture)
    seen, unseen = checkerboard(), checkerboard(seed=2)
    before = told_right(model, unseen)
    done = fine_tune(model, seen, None, QUICK, first=True)
    assert done.skipped == 0
    assert done.targets == 12 * seen.targets
    assert before < 0.7
    assert told_right(model, unseen) > 0.95


def test_at_first_a_head_for_purchases_is_that_for_clicks_and_then_learns_its_own() -> None:
    for architecture in ARCHITECTURES:
        model = small(architecture)
        items, kinds, gaps = made_up(np.random.default_rng(1), 5, 12)
        u = model.eval().encode(items, kinds, gaps)
        assert torch.allclose(u[:, :, CLICK], u[:, :, PURCHASE], atol=1e-4)
    # Who has looked at something buys item 0 if the last item was even, else item 1.
    walks = checkerboard()
    rows = [walks.item[a:b].tolist() for a, b in zip(walks.start, walks.start[1:], strict=False)]
    bought = Histories.of([[*row, row[-1] % 2] for row in rows])
    bought.kind[bought.start[1:] - 1] = PURCHASE
    model = small("transformer")
    fine_tune(model, bought, None, QUICK, first=True)
    u = model.eval().vectors(checkerboard(seed=2))
    score = u @ model.unit(model.table).numpy().T  # (m, HEADS, ITEMS)
    even = checkerboard(seed=2).item[checkerboard(seed=2).start[1:] - 1] % 2 == 0
    best = score[:, PURCHASE].argmax(axis=1)
    assert (best == np.where(even, 0, 1)).mean() > 0.9
    assert not np.allclose(score[:, CLICK], score[:, PURCHASE], atol=0.1)


def test_a_mean_by_how_long_ago_kind_and_gaps_is_what_its_numbers_say() -> None:
    """A purchase, a gap of 8 buckets, and two clicks."""
    model = stirred(small("core-ave"))
    encoder = model.encoder
    assert isinstance(encoder, CoreAve)
    items, kinds, gaps = (torch.tensor([row]) for row in ([4, 7, 1], [1, 0, 0], [0, 8, 0]))
    x = model.unit(model.table)[items[0]]
    fade = encoder.gap.cumsum(0)
    for head in (CLICK, PURCHASE):
        reach, kind = encoder.reach.cumsum(0)[head], encoder.kind.cumsum(0)[head]
        passed = fade[head, gaps[0]].cumsum(0)
        share = (reach[[2, 1, 0]] + kind[kinds[0]] + passed).softmax(0)
        mean = share @ x
        u = model.encode(items, kinds, gaps)[0, 2, head]
        assert torch.allclose(u, 14.0 * mean / mean.norm(), atol=1e-5)
    assert {name for name, _ in model.named_parameters()} == {
        f"encoder.{name}" for name in ("reach", "kind", "gap")
    }


def test_a_sum_over_items_drawn_and_its_gradient_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    u, drawn = (torch.randn(n, 8, generator=generator) * 3 for n in (5, 7))
    u[0] *= 30.0  # exponentials that no float holds
    same = (torch.tensor([1, 4]), torch.tensor([2, 6]))
    log_inclusion = -torch.rand(7, generator=generator)
    found = []
    for total in (log_total, lambda *told: scores_of(*told).logsumexp(dim=-1)):
        a, b = u.clone().requires_grad_(), drawn.clone().requires_grad_()
        value = total(a, b, log_inclusion, same)
        (value * torch.arange(1.0, 6.0)).sum().backward()  # type: ignore[no-untyped-call]
        found.append((value, a.grad, b.grad))
    for own, theirs in zip(*found, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("items", [1, 2])
def test_where_nothing_but_the_target_is_drawn_a_step_is_taken_all_the_same(items: int) -> None:
    model = SequenceModel(SMALL, items)
    sequences = Histories.of([[0, 0, items - 1], [0, 0, 0]] * 8)
    done = fine_tune(model, sequences, None, replace(QUICK, negatives=1), first=True)
    assert (done.steps > 0, done.skipped) == (True, 0)
    assert torch.isfinite(model.table).all()


def test_scores_become_probabilities_that_come_true() -> None:
    model = small()
    fine_tune(model, checkerboard(), None, QUICK, first=True)
    histories = checkerboard(seed=2)
    score = model.eval().vectors(histories)[:, CLICK] @ model.unit(model.table).numpy().T
    probability = 1 / (1 + np.exp(-score - model.offset[CLICK].item()))
    assert 0.8 < probability.sum(axis=1).mean() < 1.25  # one item is next


@pytest.mark.parametrize("architecture", ["core", "gru", "core-ave"])
def test_the_same_seed_gives_the_same_weights(architecture: Architecture) -> None:
    def trained(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        buffer = ReplayBuffer(newest=50, reservoir=50, longest=13)
        old = checkerboard(seed=4)
        buffer.add(np.arange(1, len(old) + 1, dtype=np.uint64), old)
        model = small(architecture)
        torch.manual_seed(int(torch.randint(1000, (1,))))  # whatever others have drawn
        fine_tune(model, checkerboard(), buffer, replace(QUICK, epochs=2, seed=seed))
        return model.arrays()

    first, second, other = trained(1), trained(1), trained(2)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["table"], other["table"])


def test_what_others_draw_meanwhile_changes_no_weights_nor_is_it_changed() -> None:
    """A trainer makes models on one thread while a lesson is held on another."""

    def trained(meanwhile: Callable[[], None]) -> dict[str, Any]:
        model = small()
        few = replace(QUICK, epochs=1)
        fine_tune(model, checkerboard(), None, few, progress=lambda *_: meanwhile())
        return model.arrays()

    drawn: list[float] = []
    alone = trained(lambda: None)
    torch.manual_seed(7)
    beside = trained(lambda: drawn.append(float(torch.rand(1))))
    assert all(np.array_equal(alone[name], beside[name]) for name in alone)
    torch.manual_seed(7)
    assert drawn == [torch.rand(1).item() for _ in drawn]


def test_models_made_on_many_threads_at_once_are_the_same() -> None:
    with ThreadPoolExecutor(8) as pool:
        models = [model.arrays() for model in pool.map(lambda _: small("gru"), range(200))]
    for arrays in models[1:]:
        assert all(np.array_equal(models[0][name], arrays[name]) for name in arrays)


def test_new_rows_leave_old_scores_as_they_were() -> None:
    model = stirred(small())
    histories = checkerboard(20)
    before = model.vectors(histories) @ model.unit(model.table).numpy().T
    model.grow(np.ones((7, 16), np.float32))
    after = model.vectors(histories) @ model.unit(model.table).numpy().T
    assert model.items == ITEMS + 7
    assert np.array_equal(after[..., :ITEMS], before)
    fine_tune(model, checkerboard(items=ITEMS + 6), None, replace(QUICK, epochs=1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_arrays_make_the_same_model_again(architecture: Architecture) -> None:
    model = stirred(small(architecture))
    model.grow(np.ones((2, 16), np.float32))
    again = small(architecture, items=1)
    again.load_arrays(model.arrays())
    histories = checkerboard(20)
    assert np.array_equal(model.vectors(histories), again.eval().vectors(histories))
    for name, array in model.arrays().items():
        assert array.dtype == np.float32, name
        assert array.flags.c_contiguous, name
    copied = model.arrays()["table"]
    copied[:] = 0
    assert model.table.abs().sum() > 0


def test_rehearsal_keeps_what_new_sequences_do_not_tell() -> None:
    """Items 0 to 39 are learnt first, then only 40 to 79 come."""
    old, new = checkerboard(seed=5), checkerboard(seed=6, first=ITEMS)
    start = small(items=2 * ITEMS)
    fine_tune(start, old, None, QUICK, first=True)
    buffer = ReplayBuffer(newest=1, reservoir=1000, longest=13)
    buffer.add(np.arange(1, len(old) + 1, dtype=np.uint64), old)
    found = {}
    for name, weight in (("none", 0.0), ("rehearsed", 0.0), ("distilled", 0.5)):
        model = copy.deepcopy(start)
        config = replace(QUICK, epochs=8, distillation=weight)
        fine_tune(model, new, buffer if name != "none" else None, config, champion=start)
        u = model.eval().vectors(old)[:, CLICK]
        score = u @ model.unit(model.table).numpy()[:ITEMS].T
        last = old.item[old.start[1:] - 1]
        found[name] = float((score.argsort(axis=1)[:, -10:] % 2 == last[:, None] % 2).mean())
        assert told_right(model, new) > 0.9
    assert found["rehearsed"] > 0.95
    assert found["distilled"] > 0.95
    assert found["rehearsed"] >= found["none"]


def test_numbers_that_are_none_teach_nothing_and_bounds_hold() -> None:
    model = small()
    model.table[5] = float("nan")
    before = model.arrays()
    done = fine_tune(model, Histories.of([[5, 1, 2]] * 64), None, replace(QUICK, epochs=3))
    assert done.skipped == done.steps == 6
    assert done.targets == 0
    after = model.arrays()
    before |= {"own": before["table"], "offset": after["offset"]}
    assert all(np.array_equal(before[n], after[n], equal_nan=True) for n in before)
    steps: list[tuple[int, int]] = []
    short = replace(QUICK, most_steps=7)
    done = fine_tune(
        small(), checkerboard(), None, short, progress=lambda a, b: steps.append((a, b))
    )
    assert steps == [(step, 7) for step in range(1, 8)]
    assert fine_tune(small(), Histories.of([[1], [2]]), None, QUICK).steps == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here")
def test_an_accelerator_learns_the_same() -> None:
    model = small().to("cuda")
    fine_tune(model, checkerboard(), None, QUICK, first=True)
    assert told_right(model.cpu(), checkerboard(seed=2)) > 0.95


def test_a_changed_layout_of_snapshots_has_a_format_of_its_own() -> None:
    """Snapshots of another layout cannot be read: raise `FORMAT`, then the digest here."""
    layout = []
    for architecture in ARCHITECTURES:
        model = small(architecture)
        model.spread(checkerboard(), 0.5)
        layout += [
            f"{architecture} {name} {array.dtype} {array.ndim}"
            for name, array in sorted(pack(model.arrays()).items())
        ]
    assert (FORMAT, xxh3_64_hexdigest("\n".join(layout).encode())) == (4, "2ce82fe3ac057bec")

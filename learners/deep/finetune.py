"""Fine-tuning: a bounded number of steps over new sequences and older ones that are rehearsed.

Each event of a sequence is foreseen from those before it, by a softmax over items that are drawn
(`draws`).

Encoders learn by Adam (Kingma and Ba 2015); so do the rows of items, where only those that a step
touches move, each by its own count of steps. At the end rows take in something of their neighbours
(`propagation`), where answers are means of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learners.base import CLICK, PURCHASE
from learners.deep.config import HEADS, FineTuneConfig
from learners.deep.draws import Draws, log_total, scores_of
from learners.deep.histories import Histories, Padded, batches, windows
from learners.deep.sequence import SequenceModel

__all__ = ["FineTuned", "Rehearsal", "fine_tune"]

BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # Adam's
CALIBRATED = 1_024  # sequences, targets and items at most that an offset is found from
MOST_OFFSET = 64.0
ALL = 1 << 60  # sequences: more than anybody remembers
Progress = Callable[[int, int], None]


class Rehearsal(Protocol):
    """Who remembers older sequences: `ReplayBuffer`, or anything that can be asked for some."""

    def sample(self, n: int, generator: np.random.Generator) -> Histories:
        """Return n sequences, or fewer where there are fewer."""


@dataclass(frozen=True, slots=True)
class FineTuned:
    """What a fine-tune did."""

    model: SequenceModel
    steps: int
    targets: int  # foreseen, each time counted
    loss: float  # mean of the last tenth of the steps, NaN without steps
    skipped: int  # steps left out, because their gradients were no numbers


def fine_tune(
    model: SequenceModel,
    new: Histories,
    rehearsed: Rehearsal | None = None,
    config: FineTuneConfig = FineTuneConfig(),  # noqa: B008 - frozen
    *,
    champion: SequenceModel | None = None,
    first: bool = False,
    progress: Progress = lambda done, of: None,
) -> FineTuned:
    """Train a model in place, where it is; the same on every run of a CPU, whatever else runs.

    Parameters
    ----------
    new
        What has come since; every item has a row.
    rehearsed
        Older sequences, drawn anew for each epoch.
    champion
        Whose opinion on rehearsed sequences counts, if `config.distillation` says so; it has no
        rows that the model does not have.
    first
        Whether this is a first training, from nothing.
    progress
        Is told steps done, and of how many.
    """
    new = windows(new, model.config.most_events)
    if config.threads:
        torch.set_num_threads(config.threads)
    model.take_own()
    model.drop_by(torch.Generator(model.table.device).manual_seed(config.seed))
    training = _Training(model, config, champion, first)
    try:
        training.run(new, rehearsed, progress)
    finally:
        model.drop_by(None)
    if config.propagation > 0 and model.encoder.averages:
        met = new if rehearsed is None else new.and_then(rehearsed.sample(ALL, training.generator))
        model.spread(met, config.propagation)
    _calibrate(model.eval(), new, np.random.default_rng(config.seed))
    recent = training.losses[-max(len(training.losses) // 10, 1) :]
    return FineTuned(
        model,
        training.steps,
        training.targets,
        float(np.mean(recent)) if recent else float("nan"),
        training.skipped,
    )


class _Rows:
    """Adam over the rows that a step touches."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.moments = torch.zeros(len(table), 2, table.shape[1], device=table.device)
        self.steps = torch.zeros(len(table), 1, device=table.device)

    def step(self, which: Tensor, rows: Tensor, gradient: Tensor, rate: float) -> None:
        """Move the rows `which` (S,) from `rows` (S, D), which they are."""
        steps = self.steps.index_select(0, which) + 1  # (S, 1)
        moments = self.moments.index_select(0, which)  # (S, 2, D)
        mean, square = moments.unbind(dim=1)
        mean.lerp_(gradient, 1 - BETA_1)
        square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        self.steps.index_copy_(0, which, steps)
        self.moments.index_copy_(0, which, moments)
        size = rate * (1 - BETA_2**steps).sqrt_() / (1 - BETA_1**steps)
        move = (mean * size).div_(square.sqrt().add_(TINY))
        self.table.index_copy_(0, which, rows.sub(move))


class _Step(NamedTuple):
    """A batch on the device: the rows it touches, and places among them."""

    which: Tensor  # (S,) rows of the table
    item: Tensor  # (B, T) places among the S
    kind: Tensor  # (B, T)
    gap: Tensor  # (B, T)
    drawn: Tensor  # (M,) places among the S
    log_inclusion: Tensor  # (M,)
    asker: Tensor  # (N,) place of each target's user vector among (B * (T - 1) * heads)
    target: Tensor  # (N,) places among the S
    same: tuple[Tensor, Tensor]  # targets that were drawn themselves: which of N, which of M
    older: Tensor  # (N,) whether the sequence is rehearsed


class _Asked(NamedTuple):
    """A batch as a model sees it."""

    user: Tensor  # (N, D) user vectors
    right: Tensor  # (N,) scores of the targets
    drawn: Tensor  # (M, D) vectors of the items drawn

    def scores(self, step: _Step) -> Tensor:
        """Return the scores of the target and of the items drawn, corrected; (N, 1 + M)."""
        drawn = scores_of(self.user, self.drawn, step.log_inclusion, step.same)
        return torch.cat([self.right[:, None], drawn], dim=1)


class _Training:
    """The state of one fine-tune."""

    def __init__(
        self,
        model: SequenceModel,
        config: FineTuneConfig,
        champion: SequenceModel | None,
        first: bool,
    ) -> None:
        self.model = model.train()
        self.config = config
        self.champion = champion.eval() if champion and config.distillation > 0 else None
        self.epochs = config.epochs_first if first else config.epochs
        self.row_rate = config.row_rate_first if first else config.row_rate
        self.generator = np.random.default_rng(config.seed)
        self.rows = _Rows(model.table)
        self.weights = list(model.parameters())
        self.adam = torch.optim.Adam(self.weights, betas=(BETA_1, BETA_2), fused=True)
        self.steps = self.targets = self.skipped = 0
        self.losses: list[float] = []

    def run(self, new: Histories, rehearsed: Rehearsal | None, progress: Progress) -> None:
        """Take all steps: each epoch is the new sequences and another draw of older ones."""
        planned = 0
        for epoch in range(self.epochs):
            mixed = new
            if rehearsed is not None:
                older = rehearsed.sample(round(self.config.rehearsed * len(new)), self.generator)
                mixed = new.and_then(windows(older, self.model.config.most_events))
            draws = Draws(mixed.item, self.model.items, self.config)
            heads = 1 + int(mixed.kind.max(initial=CLICK) >= PURCHASE)
            if epoch == 0:
                planned = self.epochs * -(-len(mixed) // self.config.batch)
                planned = max(min(planned, self.config.most_steps), 1)
            for batch in batches(mixed, self.config.batch, self.generator.permutation(len(mixed))):
                if self.steps == planned:
                    return
                self._learn(self._prepare(batch, draws, heads, len(new)), planned, heads)
                progress(self.steps, planned)

    def _prepare(self, batch: Padded, draws: Draws, heads: int, new: int) -> _Step:
        drawn = draws.draw(self.generator)
        which, place = np.unique(
            np.concatenate([drawn, batch.item.reshape(-1)]), return_inverse=True
        )
        item = place[len(drawn) :].reshape(batch.item.shape)
        sequence, event = np.nonzero(batch.target)
        head = (batch.kind[sequence, event] == PURCHASE) if heads > 1 else 0
        target = batch.item[sequence, event]
        among = np.searchsorted(drawn, target)
        hit = np.flatnonzero(drawn[np.minimum(among, len(drawn) - 1)] == target)
        steps = batch.item.shape[1] - 1
        on = self._on_device
        return _Step(
            on(which),
            on(item),
            on(batch.kind),
            on(batch.gap),
            on(place[: len(drawn)]),
            torch.from_numpy(draws.log_inclusion[drawn]).to(self.rows.table.device),
            on((sequence * steps + event - 1) * heads + head),
            on(item[sequence, event]),
            (on(hit), on(among[hit])),
            on(batch.which[sequence] >= new),
        )

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        wide = array if array.dtype == np.bool_ else array.astype(np.int64)
        return torch.from_numpy(wide).to(self.rows.table.device)

    def _learn(self, step: _Step, planned: int, heads: int) -> None:
        """Take one step; one whose gradients are no numbers leaves everything as it is."""
        rows = self.rows.table.index_select(0, step.which).requires_grad_()  # (S, D)
        asked = _ask(self.model, self.model.unit(rows), step, heads)
        total = log_total(asked.user, asked.drawn, step.log_inclusion, step.same)
        loss = F.softplus(total - asked.right).mean()
        objective = loss
        if self.champion is not None and bool(step.older.any()):
            objective = loss + self.config.distillation * self._opinion(asked, step, heads)
        self.adam.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        found = [rows, *(weight for weight in self.weights if weight.grad is not None)]
        norm = torch.nn.utils.clip_grad_norm_(found, self.config.most_gradient, foreach=True)
        self.steps += 1
        if not torch.isfinite(norm + loss):
            self.skipped += 1
            return
        rate = self.config.rate * self._schedule(planned)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        assert rows.grad is not None  # noqa: S101 - for mypy
        self.rows.step(step.which, rows.detach(), rows.grad, rate * self.row_rate)
        self.targets += len(step.target)
        self.losses.append(float(loss.detach()))

    def _schedule(self, planned: int) -> float:
        """Return the share of the rate: up from 0, then down to `last_rate`."""
        done = (self.steps - 1) / planned
        warm = min(self.steps / max(self.config.warmup_steps, 1), 1.0)
        return warm * (1.0 - (1.0 - self.config.last_rate) * done)

    def _opinion(self, asked: _Asked, step: _Step, heads: int) -> Tensor:
        """Return how far the model is from the champion on rehearsed targets, over all of them.

        Only items that the champion has rows for count.
        """
        champion = self.champion
        assert champion is not None  # noqa: S101 - for mypy
        unknown = step.which >= champion.items  # (S,)
        with torch.no_grad():
            x = champion.unit(champion.table[step.which.clamp(max=champion.items - 1)])
            told = _ask(champion, x, step, heads).scores(step)
        own = asked.scores(step)  # (N, 1 + M)
        off = torch.cat(
            [unknown[step.target][:, None], unknown[step.drawn].expand(len(own), -1)], 1
        )
        counts = step.older & ~off[:, 0]
        told = told.masked_fill(off, -torch.inf).softmax(dim=-1)
        own = own.masked_fill(off, -torch.inf).log_softmax(dim=-1).masked_fill(off, 0.0)
        own = own.masked_fill(~torch.isfinite(own), 0.0)
        return -((told * own).sum(dim=-1) * counts).sum() / max(len(own), 1)


def _ask(model: SequenceModel, x: Tensor, step: _Step, heads: int) -> _Asked:
    """Ask a model for a batch; x (S, D) are the vectors of the items that it touches."""
    history = F.embedding(step.item[:, :-1], x)  # (B, T - 1, D)
    users = model.users(history, step.kind[:, :-1], step.gap[:, :-1], heads)
    u = F.embedding(step.asker, users.reshape(-1, x.shape[1]))
    right = (u * F.embedding(step.target, x)).sum(dim=-1)
    return _Asked(u, right, F.embedding(step.drawn, x))


@torch.no_grad()
def _calibrate(model: SequenceModel, new: Histories, generator: np.random.Generator) -> None:
    """Find each head's offset by logistic loss over some targets; scores stay as they are.

    Of the items that are not the target there is a uniform draw, weighed up to all.
    """
    some = new.take(generator.permutation(len(new))[:CALIBRATED])
    x = model.unit(model.table)
    items = torch.from_numpy(generator.permutation(model.items)[:CALIBRATED]).to(x.device)
    for batch in batches(some, CALIBRATED):
        users = model.encode_padded(batch, events=-1)
        for head in range(HEADS):
            place = np.nonzero(batch.target & (batch.kind == head))
            sequence, event = (torch.from_numpy(axis[:CALIBRATED]) for axis in place)
            u = users[sequence, event - 1, head]  # (N, D)
            target = torch.from_numpy(batch.item[place][:CALIBRATED]).to(items)
            drawn = (u @ x[items].T).masked_fill(items == target[:, None], -torch.inf)
            if len(target):
                right = (u * x[target]).sum(dim=-1)
                model.offset[head] = _logistic_offset(right, drawn, model.items / len(items))


def _logistic_offset(right: Tensor, drawn: Tensor, weight: float) -> float:
    """Return b at which sum(1 - sigma(right + b)) is sum(sigma(drawn + b)) times `weight`."""
    low, high = -MOST_OFFSET, MOST_OFFSET
    while high - low > 1e-4:
        b = (low + high) / 2
        missing = (right + b).neg().sigmoid().sum() - weight * (drawn + b).sigmoid().sum()
        low, high = (b, high) if missing > 0 else (low, b)
    return (low + high) / 2

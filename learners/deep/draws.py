r"""A softmax over items of which only some are drawn.

A step draws items from :math:`q \propto (count + 1)^{0.75}`, with replacement, and keeps each once;
an item is then among them with probability :math:`\pi = 1 - (1 - q)^m`. With the true item's score
s and those drawn, :math:`s_i - \ln \pi_i`, the softmax cross-entropy over them estimates that over
all items (Jean, Cho, Memisevic and Bengio 2015, section 3); a draw of the true item itself is left
out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.deep.config import FineTuneConfig

__all__ = ["Draws", "log_total", "scores_of"]

Same = tuple[Tensor, Tensor]  # targets that were drawn themselves: which of N, which of M


class Draws:
    """Items drawn as often as they are met in some sequences."""

    def __init__(self, item: NDArray[np.int32], items: int, config: FineTuneConfig) -> None:
        weight = (np.bincount(item, minlength=items) + 1.0) ** config.negative_power
        share = weight / weight.sum()
        self.n = config.negatives
        with np.errstate(divide="ignore"):  # the only item is drawn for certain
            self.log_inclusion = np.log(-np.expm1(self.n * np.log1p(-share))).astype(np.float32)
        self._edge = np.cumsum(share)[:-1]

    def draw(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return the items drawn, each once, in order."""
        return np.unique(np.searchsorted(self._edge, generator.random(self.n), side="right"))


def scores_of(u: Tensor, drawn: Tensor, log_inclusion: Tensor, same: Same) -> Tensor:
    """Return corrected scores (N, M) of items (M, D) drawn for user vectors (N, D)."""
    scores = torch.addmm(-log_inclusion, u, drawn.T)
    scores[same] = -torch.inf
    return scores


def log_total(u: Tensor, drawn: Tensor, log_inclusion: Tensor, same: Same) -> Tensor:
    """Return the logarithm of the sum of exponentials of `scores_of`, (N,)."""
    return _LogTotal.apply(u, drawn, log_inclusion, *same)  # type: ignore[no-any-return, no-untyped-call]


class _LogTotal(torch.autograd.Function):
    """All in one matrix, which its gradient is made of as it is: autograd would make five."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, drawn: Tensor, log_inclusion: Tensor, *same: Tensor) -> Tensor:
        scores = scores_of(u, drawn, log_inclusion, same)  # type: ignore[arg-type]
        numbers = torch.finfo(scores.dtype)  # where nothing else was drawn, there is no largest
        most = scores.amax(dim=-1, keepdim=True).clamp_(min=numbers.min)
        share = scores.sub_(most).exp_()
        total = share.sum(dim=-1, keepdim=True).clamp_(min=numbers.tiny)
        ctx.save_for_backward(u, drawn, share, total)
        return (most + total.log())[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, drawn, share, total = ctx.saved_tensors
        each = gradients[0][:, None] / total  # (N, 1)
        return (share @ drawn).mul_(each), share.T @ (u * each), None, None, None

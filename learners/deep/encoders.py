r"""Five ways from a history to user vectors; each sees no event that comes later.

All are given the unit rows of the items, :math:`x_j`, and all but the second what is added to them
for kind, gap and place, :math:`e_j`; they return vectors for every event t of the history, the
first for clicks, the second for purchases.

* `Core`: a weighted mean of the item rows themselves, so that users and items share one space
  (Hou, Hu, Zhang and Zhao: CORE, SIGIR 2022, section 3.2, here with weights for every event):
  :math:`a_{tj} = softmax_j(q_t . k_j / \sqrt D + r_{t-j})`, j <= t, q and k linear in the output of
  a causal block, r learnt.
* `CoreAve`: the same with weights that ask no event (CORE-ave there, but the mean is not plain):
  :math:`a_{tj} = softmax_j(r_{t-j} + k_j + \sum_{i \le j} g_i)`, with numbers k for kinds of events
  and g for gaps before them: a gap lets what came before it fade.
* `Transformer`: the output of the block (Kang and McAuley: SASRec, ICDM 2018).
* `Recurrent`: gated recurrent units (Hidasi et al.: GRU4Rec, ICLR 2016).
* `Dense`: the last item and the mean of all, side by side, through two dense layers.

The map, or the numbers, for purchases are those for clicks and a difference, which is 0 at first.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learners.base import CLICK
from learners.deep.config import HEADS, Architecture, SequenceConfig
from learners.deep.histories import GAPS, KINDS

__all__ = [
    "ENCODERS",
    "About",
    "Core",
    "CoreAve",
    "Dense",
    "Drop",
    "Encoder",
    "Recurrent",
    "Transformer",
]

REACH_DECAY = 0.5  # of a weight's logarithm, an event, at first


class Drop(nn.Module):
    """Dropout that draws a byte for each number: a fifth of the time of torch's own on a CPU.

    It draws from its `generator`; without one, from torch's own, which all threads share.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.cut = round(256 * share)
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.cut):
            return x
        whole = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        byte = (
            whole.random_(-(2**63), None, generator=self.generator)
            .view(torch.uint8)[: x.numel()]
            .view(x.shape)
        )
        return x * (byte >= self.cut).to(x.dtype).mul_(256 / (256 - self.cut))


class About(NamedTuple):
    """What is known of events beside their items."""

    kinds: Tensor  # (B, T)
    gaps: Tensor  # (B, T)
    added: Tensor  # (B, T, D) rows of place, kind and gap; 0 where the encoder has none


class Encoder(nn.Module, ABC):
    """What all encoders share: what is dropped of the input."""

    has_rows: ClassVar[bool] = True  # of places, kinds and gaps
    averages: ClassVar[bool] = False  # whether an answer is a mean of item rows, in their space

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.drop = Drop(config.dropout_items)

    @abstractmethod
    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        """Return user vectors of any length, (B, T, heads, D), of item vectors (B, T, D)."""


class Block(nn.Module):
    """A causal block with one head, normed before; a last norm (B, T, D) -> (B, T, D)."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.feed_forward)
        self.down = nn.Linear(config.feed_forward, width)
        self.norm_3 = nn.LayerNorm(width)
        self.drop = Drop(config.dropout_residual)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attention(self.norm_1(x)).chunk(3, dim=-1)
        weight = _prefix_softmax(query @ key.transpose(-1, -2) / math.sqrt(x.shape[-1]))
        x = x + self.drop(self.mixed(weight @ value))
        x = x + self.drop(self.down(F.gelu(self.up(self.norm_2(x)))))
        return self.norm_3(x)  # type: ignore[no-any-return]


class Core(Encoder):
    """A weighted mean of the item rows."""

    averages = True

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        width = config.width
        self.block = Block(config)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.bought = nn.Parameter(torch.zeros(HEADS - 1, width, width))
        self.reach = nn.Parameter(-REACH_DECAY * torch.arange(float(config.most_events)))

    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        hidden = self.block(self.drop(x + about.added))
        query = self.query(hidden)[:, None]  # (B, 1, T, D)
        if heads > 1:
            query = torch.cat([query, query + hidden[:, None] @ self.bought], dim=1)
        near = query @ self.key(hidden)[:, None].transpose(-1, -2) / math.sqrt(x.shape[-1])
        step = torch.arange(x.shape[1], device=x.device)
        near = near + self.reach[(step[:, None] - step).clamp(min=0)]  # (B, heads, T, T)
        mean: Tensor = _prefix_softmax(near) @ self.drop(x)[:, None]  # (B, heads, T, D)
        return mean.transpose(1, 2)


class CoreAve(Encoder):
    """A weighted mean of the item rows, by how long ago, kind and gaps, whatever the items."""

    has_rows = False
    averages = True

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        # Of clicks; then, by which purchases differ.
        self.reach = nn.Parameter(torch.zeros(HEADS, config.most_events))
        self.kind = nn.Parameter(torch.zeros(HEADS, KINDS))
        self.gap = nn.Parameter(torch.zeros(HEADS, GAPS))
        with torch.no_grad():
            self.reach[CLICK] = -REACH_DECAY * torch.arange(float(config.most_events))

    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        reach, kind, gap = (
            told.cumsum(dim=0)[:heads] for told in (self.reach, self.kind, self.gap)
        )
        step = torch.arange(x.shape[1], device=x.device)
        near = reach[:, (step[:, None] - step).clamp(min=0)]  # (heads, T, T)
        met = kind[:, about.kinds] + gap[:, about.gaps].cumsum(dim=-1)  # (heads, B, T)
        weight = _prefix_softmax(near + met.transpose(0, 1)[:, :, None])  # (B, heads, T, T)
        mean: Tensor = weight @ self.drop(x)[:, None]  # (B, heads, T, D)
        return mean.transpose(1, 2)


class Output(nn.Module):
    """Vectors for clicks and purchases of one hidden vector."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.bought = nn.Parameter(torch.zeros(HEADS - 1, config.width, config.width))

    def forward(self, hidden: Tensor, heads: int) -> Tensor:
        clicked = hidden[:, :, None]  # (B, T, 1, D)
        if heads == 1:
            return clicked
        bought = hidden[:, None] @ self.bought  # (B, HEADS - 1, T, D)
        return torch.cat([clicked, clicked + bought.transpose(1, 2)], dim=2)


class Transformer(Encoder):
    """The output of a causal block."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        self.block = Block(config)
        self.output = Output(config)

    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        return self.output(self.block(self.drop(x + about.added)), heads)  # type: ignore[no-any-return]


class Recurrent(Encoder):
    """Gated recurrent units."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        self.cell = nn.GRU(config.width, config.width, batch_first=True)
        self.output = Output(config)

    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        return self.output(self.cell(self.drop(x + about.added))[0], heads)  # type: ignore[no-any-return]


class Dense(Encoder):
    """The last item and the mean of all, side by side, through two dense layers."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__(config)
        self.up = nn.Linear(2 * config.width, config.feed_forward)
        self.down = nn.Linear(config.feed_forward, config.width)
        self.output = Output(config)

    def forward(self, x: Tensor, about: About, heads: int = HEADS) -> Tensor:
        x = self.drop(x + about.added)
        count = torch.arange(1.0, x.shape[1] + 1, device=x.device)[:, None]
        both = torch.cat([x, x.cumsum(dim=1) / count], dim=-1)  # (B, T, 2 D)
        return self.output(self.down(F.gelu(self.up(both))), heads)  # type: ignore[no-any-return]


def _prefix_softmax(near: Tensor) -> Tensor:
    """Weigh what is no later: (..., T, T), rows are askers."""
    later = torch.ones(near.shape[-2:], dtype=torch.bool, device=near.device).triu(1)
    return near.masked_fill(later, -torch.inf).softmax(dim=-1)


ENCODERS: dict[Architecture, type[Encoder]] = {
    "core": Core,
    "transformer": Transformer,
    "gru": Recurrent,
    "mlp": Dense,
    "core-ave": CoreAve,
}

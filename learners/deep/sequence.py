r"""The deep model: a user's recent events and all items as vectors of one space.

An item is a row of the table scaled to length 1, v; the same row is what the encoder reads, and
what is ranked. A history is a vector u of length `scale` for each kind of what comes next. The
score is u.v, and the probability :math:`\sigma(u.v + b)` with one offset b a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from learners.deep.config import HEADS, SequenceConfig
from learners.deep.encoders import ENCODERS, About, Drop
from learners.deep.histories import GAPS, KINDS, Histories, Padded, batches
from learners.deep.propagation import propagated

__all__ = ["SequenceModel"]

PLACE_STD = 0.02
SEEDED = Lock()  # torch draws a layer's first numbers from what all threads share: one at a time


class SequenceModel(nn.Module):
    """Encodes histories; the architecture is one of the configuration's.

    Parameters
    ----------
    config : SequenceConfig
        The shape.
    items : int
        Rows of the table; `grow` adds more.
    seed : int
        Of all first numbers.

    Examples
    --------
    >>> model = SequenceModel(SequenceConfig(width=16), items=3, seed=1).eval()
    >>> u = model.vectors(Histories.of([[0, 1], [2]]))
    >>> u.shape, np.linalg.norm(u, axis=-1).round(3).tolist()
    ((2, 2, 16), [[14.0, 14.0], [14.0, 14.0]])
    """

    table: Tensor  # (items, D) what answers are made of
    own: Tensor  # (items, D) rows as they were trained, (0, D) where those are the table's
    offset: Tensor  # (HEADS,)

    def __init__(self, config: SequenceConfig, items: int, seed: int = 1) -> None:
        super().__init__()
        with SEEDED, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.config = config
            self.register_buffer("table", config.table_std * torch.randn(items, config.width))
            self.register_buffer("own", torch.zeros(0, config.width))
            if ENCODERS[config.architecture].has_rows:
                self.place = nn.Parameter(PLACE_STD * torch.randn(config.most_events, config.width))
                # Clicks, firsts and events without a clock add nothing.
                self.kind = nn.Embedding(KINDS, config.width, padding_idx=0)
                self.gap = nn.Embedding(GAPS, config.width, padding_idx=0)
                for added in (self.kind, self.gap):
                    nn.init.zeros_(added.weight)
            self.encoder = ENCODERS[config.architecture](config)
        self.register_buffer("offset", torch.zeros(HEADS))

    @property
    def items(self) -> int:
        """How many items have a row."""
        return len(self.table)

    def unit(self, rows: Tensor) -> Tensor:
        """Return item vectors of rows of the table (..., D)."""
        return F.normalize(rows, dim=-1)

    def users(self, x: Tensor, kinds: Tensor, gaps: Tensor, heads: int = HEADS) -> Tensor:
        """Return user vectors (B, T, heads, D) of item vectors (B, T, D), kinds and gaps (B, T).

        What stands behind the end of a history changes nothing before it.
        """
        added = x.new_zeros(())
        if self.encoder.has_rows:
            added = self.place[: x.shape[1]] + self.kind(kinds) + self.gap(gaps)
        u = self.encoder(x, About(kinds, gaps, added), heads)
        return self.config.scale * F.normalize(u, dim=-1)

    def encode(self, items: Tensor, kinds: Tensor, gaps: Tensor, heads: int = HEADS) -> Tensor:
        """Return user vectors (B, T, heads, D) of histories (B, T), T at most `most_events`."""
        return self.users(self.unit(F.embedding(items, self.table)), kinds, gaps, heads)

    @torch.no_grad()
    def encode_padded(self, batch: Padded, heads: int = HEADS, events: int | None = None) -> Tensor:
        """Return user vectors (B, T, heads, D) of a batch, on the model's device.

        Of the first so many events, where that is told; -1 leaves out those that nothing follows.
        """
        device = self.table.device
        items, kinds, gaps = (
            torch.from_numpy(part[:, :events].astype(np.int64)).to(device)
            for part in (batch.item, batch.kind, batch.gap)
        )
        return self.encode(items, kinds, gaps, heads)

    def vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Return u of each history's end, (m, HEADS, D); histories have events."""
        begin = np.maximum(histories.lengths - self.config.most_events, 0)
        ends = histories.cut(
            histories.start[:-1] + begin, histories.lengths - begin, np.ones(len(histories), int)
        )
        found = np.empty((len(histories), HEADS, self.config.width), np.float32)
        for batch in batches(ends, 256):
            last = torch.from_numpy(ends.lengths[batch.which] - 1)
            u = self.encode_padded(batch)[torch.arange(len(last)), last]
            found[batch.which] = u.cpu().numpy()
        return found

    def drop_by(self, generator: torch.Generator | None) -> None:
        """Let dropout draw from a generator, on the model's device; `None`: from torch's own."""
        for part in self.modules():
            if isinstance(part, Drop):
                part.generator = generator

    @property
    def trained(self) -> Tensor:
        """Rows as they were trained, from which training goes on; (items, D)."""
        return self.own if len(self.own) else self.table

    def take_own(self) -> None:
        """Answer with the rows as they were trained."""
        self.table, self.own = self.trained, self.own[:0]

    def spread(self, histories: Histories, share: float) -> None:
        """Answer with rows that take in a share of their neighbours', see `propagation`."""
        self.own = self.trained
        self.table = propagated(self.own, histories, share)

    def grow(self, rows: NDArray[np.float32]) -> None:
        """Append rows of new items (n, D), see `growth.first_rows`."""
        new = torch.from_numpy(rows).to(self.table)
        if len(self.own):
            self.own = torch.cat([self.own, new])
        self.table = torch.cat([self.table, new])

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but some."""
        kept = torch.from_numpy(rows)
        if len(self.own):
            self.own = self.own[kept]
        self.table = self.table[kept]

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights by name, as copies."""
        return {
            name: np.array(value.cpu().numpy(), np.float32, order="C")
            for name, value in self.state_dict().items()
        }

    def load_arrays(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Become the model that gave these arrays; the configuration must be the same."""
        for name in ("table", "own"):
            setattr(self, name, torch.empty(arrays[name].shape, device=self.table.device))
        self.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})

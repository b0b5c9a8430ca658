"""Rows of items drawn towards the rows of their neighbours, those that are clicked beside them.

What an item was met with tells of it what its own row has not learnt, however often it was clicked
(`docs/log.md`). A trained row takes in a share of its neighbours' mean direction: one step of
propagation as in LightGCN (He et al. 2020, section 3.1), over the graph that sessions make of items
(SR-GNN: Wu et al. 2019, section 3.2), both ways, each neighbour weighed by how often they were met.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learners.deep.histories import Histories

__all__ = ["propagated"]

APART = 2  # places between neighbours in a sequence, at most


def propagated(table: Tensor, histories: Histories, share: float) -> Tensor:
    """Return rows (n, D) as long as those of `table` (n, D), turned towards their neighbours.

    The direction is that of (1 - share) x + share m, of a row's direction x and the weighted mean
    m of the directions of its neighbours in `histories`. Rows without neighbours stay as they are,
    and so do those with a neighbour that is no numbers.

    Examples
    --------
    >>> table = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> propagated(table, Histories.of([[0, 1]]), 0.5)
    tensor([[1.4142, 1.4142],
            [0.7071, 0.7071],
            [1.0000, 0.0000]])
    """
    n, x = len(table), F.normalize(table, dim=1)
    place = torch.from_numpy(_neighbours(histories)).to(table.device)
    met = torch.bincount(place[0], minlength=n).to(x.dtype)[:, None]
    once = torch.ones(place.shape[1], device=table.device)
    graph = torch.sparse_coo_tensor(place, once, (n, n), check_invariants=False).coalesce()
    mean = torch.sparse.mm(graph, x) / met.clamp(min=1)
    turned = F.normalize(x + share * (mean - x), dim=1) * table.norm(dim=1, keepdim=True)
    sound = torch.isfinite(turned).all(dim=1, keepdim=True)
    return torch.where((met > 0) & sound, turned, table)


def _neighbours(histories: Histories) -> NDArray[np.int64]:
    """Return an item and its neighbour for each time that two were met, both ways; (2, m)."""
    item = histories.item.astype(np.int64)
    sequence = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = [np.zeros((2, 0), np.int64)]
    for apart in range(1, APART + 1):
        one, other = item[:-apart], item[apart:]
        met = (sequence[:-apart] == sequence[apart:]) & (one != other)
        pairs += [np.stack([one[met], other[met]]), np.stack([other[met], one[met]])]
    return np.concatenate(pairs, axis=1)

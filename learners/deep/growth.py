"""First rows of new items: near those they were met with, so that they are known from the start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.deep.histories import Histories

__all__ = ["first_rows"]

NEARNESS = 0.7  # of a new row to the mean of those it was met with
NOISE = 0.3  # of a row's usual spread, so that no two are the same


def first_rows(
    table: NDArray[np.float32],
    histories: Histories,
    items: int,
    seed: int,
    std: float = 0.05,
    alike: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Return rows for the items that the table does not have yet, (items - known, D).

    A new item begins at the mean of the known items of the sequences in which it was met; one that
    was met alone, at the mean of those that its catalogue entry is like; else anywhere.

    Parameters
    ----------
    table : (known, D)
        The rows that are there.
    items
        How many items there shall be.
    std
        Of the numbers of a row anywhere.
    alike : (items - known, k)
        Known items like each new one, -1 where there are fewer.

    Examples
    --------
    >>> table = np.array([[1, 0], [0, 1]], np.float32)
    >>> first_rows(table, Histories.of([[0, 2], [1, 1]]), 4, seed=1, std=0.0).tolist()
    [[0.699999988079071, 0.0], [0.0, 0.0]]
    """
    known, width = table.shape
    noise = np.random.default_rng(seed).normal(0.0, std, (items - known, width))
    near = np.zeros((items - known, width + 1))  # sum of rows, and how many
    if alike is not None:
        held = np.append(_with_count(table), np.zeros((1, width + 1), np.float32), axis=0)
        near = held[alike].sum(axis=1, dtype=np.float64)
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    new = histories.item >= known
    places = np.flatnonzero(~new & np.isin(owner, owner[new]))
    met = np.zeros((len(histories), width + 1))
    np.add.at(met, owner[places], _with_count(table)[histories.item[places]])
    together = np.zeros_like(near)
    np.add.at(together, histories.item[new] - known, met[owner[new]])
    near = np.where(together[:, -1:] > 0, together, near)
    rows = NEARNESS * near[:, :-1] / np.maximum(near[:, -1:], 1.0)
    lone = near[:, -1:] == 0
    return np.where(lone, noise, rows + NOISE * noise).astype(np.float32)


def _with_count(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.append(rows, np.ones((len(rows), 1), np.float32), axis=1)

r"""Which known items the catalogue likens a new one to, so that its row can begin near theirs.

An entry is a set of tokens (`learners.sources.tokens`): category and its parts, price, year, words.
Of n items, c have a token: it weighs :math:`w = \ln((n + 1) / c)`. Two items are as alike as the
cosine of their weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learners.base import CatalogueEntry
from learners.sources.tokens import BUCKETS, NONE, TOKENS, tokens_of

__all__ = ["Listed", "alike"]

ALIKE = 5
LEAST = 0.2  # cosine
HOLDERS = 1_000  # of a token that are looked at


class Listed:
    """Tokens of a vocabulary's items, by row; 72 bytes an item."""

    def __init__(self, items: int) -> None:
        self.token = np.full((items, TOKENS), NONE, np.int32)
        self.number = np.zeros(items, np.int64)  # of the first listing, 0 for none
        self.count = 0

    def put(self, row: int, entry: CatalogueEntry) -> None:
        """Take in what an `item` event says; what cannot be had is forgotten."""
        if entry.hidden:
            self.forget(np.array([row]))
            return
        self.token[row] = tokens_of(entry)
        self.count += 1
        if self.number[row] == 0:
            self.number[row] = self.count

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Drop what is said of some rows."""
        self.token[rows], self.number[rows] = NONE, 0

    def newest(self, rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
        """Return those of some rows that are listed, at most so many, the newest first."""
        listed = rows[self.number[rows] > 0]
        return listed[np.argsort(-self.number[listed], kind="stable")[:most]]

    def state(self, used: int) -> dict[str, NDArray[np.generic]]:
        """Return it for the rows in use, as named arrays."""
        token, number = self.token[:used], self.number[:used]
        return {"token": token, "number": number, "count": np.array([self.count])}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what gave this state."""
        used = len(state["number"])
        self.forget(np.arange(len(self.number)))
        self.token[:used], self.number[:used] = state["token"], state["number"]
        self.count = int(state["count"][0])


def alike(
    token: NDArray[np.int32], known: NDArray[np.int32], most: int = ALIKE
) -> NDArray[np.int32]:
    """Return the known items most like each new one, (m, most), -1 where there are fewer.

    Parameters
    ----------
    token : (m, TOKENS)
        Of new items, padded with -1.
    known : (n, TOKENS)
        Of known ones.

    Examples
    --------
    >>> entries = [CatalogueEntry(category=name) for name in ("tent", "knife", "tent", "pan")]
    >>> token = np.array([tokens_of(entry) for entry in entries])
    >>> alike(token[:2], token[1:], most=2).tolist()
    [[1, -1], [0, -1]]
    """
    place, column = np.nonzero(known != NONE)
    held = known[place, column]
    order = np.argsort(held, kind="stable")
    holder, often = place[order], np.bincount(held, minlength=BUCKETS)
    start = np.concatenate([[0], np.cumsum(often)])
    weight = np.where(often > 0, np.log((len(known) + 1) / np.maximum(often, 1)), 0.0)
    length = np.sqrt(np.bincount(place, weight[held] ** 2, minlength=len(known)))
    found = np.full((len(token), most), -1, np.int32)
    for i, own in enumerate(token):
        tokens = own[own != NONE]
        tokens = tokens[often[tokens] > 0]
        holders = [_some(holder[start[one] : start[one + 1]]) for one in tokens.tolist()]
        if not holders:
            continue
        items, which = np.unique(np.concatenate(holders), return_inverse=True)
        square = np.repeat(weight[tokens] ** 2, [len(part) for part in holders])
        whole = np.sqrt((weight[tokens] ** 2).sum())
        cosine = np.bincount(which, square) / np.maximum(length[items] * whole, 1e-12)
        best = np.argsort(-cosine, kind="stable")[:most]
        best = best[cosine[best] >= LEAST]
        found[i, : len(best)] = items[best]
    return found


def _some(holders: NDArray[np.int64]) -> NDArray[np.int64]:
    return holders[:: -(-len(holders) // HOLDERS)]

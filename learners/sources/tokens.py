"""A catalogue entry as a few hashed tokens: category and its parts, price, year, words.

Tokens are places of one table of `BUCKETS` (feature hashing, Weinberger et al. 2009): nothing has
to be interned or evicted, and two that meet in one place count as one. What a token stands for
begins with its kind, so that a category and a word of the same letters differ.
"""

from __future__ import annotations

import re
from math import floor, log2

import numpy as np
import xxhash
from numpy.typing import NDArray

from learners.base import CatalogueEntry

__all__ = ["BUCKETS", "NONE", "TOKENS", "tokens_of"]

BUCKETS = 65_536  # the same for every capacity, as a state knows tokens by their places
TOKENS = 16  # of an item at most
MOST_PARTS = 5  # of a category
NONE = -1
STEPS_AN_OCTAVE = 2  # of prices
YEAR_SECONDS = 365.2425 * 86400

_PARTS = re.compile(r"[/|>;,]")
_WORDS = re.compile(r"[^\W\d_]{2,}")


def tokens_of(entry: CatalogueEntry) -> NDArray[np.int32]:
    """Return an entry's tokens, (TOKENS,) padded with `NONE`, the most telling kinds first.

    A price is told in steps of half an octave within its category, a time of creation by its year,
    alone and with each part of the category: together they are rarer, and tell more.

    Examples
    --------
    >>> tent = CatalogueEntry(category="outdoor/tents", price=99.0, title="Tent for two")
    >>> int((tokens_of(tent) != NONE).sum())
    7
    """
    tokens = np.full(TOKENS, NONE, np.int32)
    for place, text in enumerate(list(dict.fromkeys(_texts(entry)))[:TOKENS]):
        tokens[place] = xxhash.xxh3_64_intdigest(text.encode()) % BUCKETS
    _, first = np.unique(tokens, return_index=True)  # two texts may share a place
    kept = tokens[np.sort(first)]
    kept = kept[kept != NONE]
    tokens[:] = NONE
    tokens[: len(kept)] = kept
    return tokens


def _texts(entry: CatalogueEntry) -> list[str]:
    """Return what the tokens stand for; nothing where the item is gone."""
    if entry.deleted:
        return []
    texts = []
    category = (entry.category or "").casefold()
    found = [part.strip() for part in _PARTS.split(category)]
    parts = [part for part in found if part][:MOST_PARTS]
    if category:
        texts.append(f"category {category}")
        texts += [f"part {part}" for part in parts] if len(parts) > 1 else []
    if entry.price is not None and entry.price > 0.0:
        step = floor(STEPS_AN_OCTAVE * log2(entry.price))
        texts.append(f"price {category} {step}")
    if entry.created is not None:
        year = floor(entry.created / YEAR_SECONDS)
        texts.append(f"year {year}")
        texts += [f"year {year} {part}" for part in parts]
    texts += [f"word {word}" for word in _WORDS.findall((entry.title or "").casefold())]
    return texts

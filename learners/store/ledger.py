"""Admission: every event counts once, and the books can be checked.

Ids of recent events are kept as hashes in two generations of a hash set: when the younger one is
full, the older is dropped. So at least the last `dedupe_events` ids are known, at most twice as
many. Impressions would crowd the others out, and are only counted; `explored`, which learns from a
few of them, remembers those itself. The ledger sums what was admitted per partition: count, xor and
sum of the id hashes, which no loss and no repetition leaves unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.base import IMPRESSION
from learners.jit import jit, jit_brief

__all__ = ["Ledger", "admit", "make_ledger", "with_room"]

FIRST_LOGS = 64


class Ledger(NamedTuple):
    """Known event ids and the sums per partition."""

    known: NDArray[np.uint64]  # (2, slots) open addressing, 0 is empty
    filled: NDArray[np.int64]  # (2,) 0: ids in the younger generation, 1: which one it is
    most: NDArray[np.int64]  # (1,) ids of a generation at most
    total: NDArray[np.uint64]  # (logs, 3) count, xor, sum modulo 2^64


def make_ledger(dedupe_events: int) -> Ledger:
    """Return books without an entry."""
    dedupe_events = max(dedupe_events, 1)
    slots = 1 << (2 * dedupe_events - 1).bit_length()
    return Ledger(
        np.zeros((2, slots), np.uint64),
        np.zeros(2, np.int64),
        np.array([dedupe_events], np.int64),
        np.zeros((FIRST_LOGS, 3), np.uint64),
    )


@jit
def _find(table: NDArray[np.uint64], key: np.uint64) -> int:
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@jit
def _note(ledger: Ledger, key: np.uint64) -> bool:
    """Remember an id; return whether it is new."""
    young = ledger.filled[1]
    older = ledger.known[1 - young]
    slot = _find(ledger.known[young], key)
    if ledger.known[young, slot] != 0 or older[_find(older, key)] != 0:
        return False
    if ledger.filled[0] >= ledger.most[0]:
        young = 1 - young
        ledger.known[young, :] = 0
        ledger.filled[1] = young
        ledger.filled[0] = 0
        slot = _find(ledger.known[young], key)
    ledger.known[young, slot] = key
    ledger.filled[0] += 1
    return True


@jit_brief
def admit(
    ledger: Ledger,
    hashes: NDArray[np.uint64],
    kinds: NDArray[np.uint8],
    logs: NDArray[np.int32],
    fresh: NDArray[np.bool_],
) -> None:
    """Mark in `fresh` (n,) the events whose id is new, and enter them in the books."""
    for i in range(len(hashes)):
        fresh[i] = kinds[i] == IMPRESSION or _note(ledger, max(hashes[i], np.uint64(1)))
        if fresh[i]:
            total = ledger.total[logs[i]]
            total[0] += np.uint64(1)
            total[1] ^= hashes[i]
            total[2] += hashes[i]


def with_room(ledger: Ledger, logs: int) -> Ledger:
    """Return the ledger with room for so many partitions."""
    if logs <= len(ledger.total):
        return ledger
    total = np.zeros((2 * logs, 3), np.uint64)
    total[: len(ledger.total)] = ledger.total
    return ledger._replace(total=total)

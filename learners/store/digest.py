"""The digest of a state: two engines with the same one have learnt the same, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["fingerprint_of"]


def fingerprint_of(state: Mapping[str, NDArray[np.generic]]) -> str:
    """Return the XXH3 digest of a state, 32 hexadecimal digits: it finds accidents, not forgers."""
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()

"""XXH3 of short texts, in kernels: the hashes by which ids and events are known.

The algorithm is Yann Collet's XXH3 (xxHash 0.8, its specification in xxhash_spec.md) with seed 0,
for inputs of up to `MOST_BYTES`; ids are no longer. The library gives the same hashes, a test holds
it; a call of it for each id would make a Python object of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit, load_32, load_64, multiply_wide

__all__ = ["MOST_BYTES", "hash_64"]

MOST_BYTES = 128

_P64_1, _P64_2 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_P64_3 = np.uint64(0x165667B19E3779F9)
_MX1, _MX2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
_LOW_32 = np.uint64(0xFFFFFFFF)
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    ),
    np.uint8,
)
_KEY = _SECRET.view(np.uint64)  # by eights of bytes
_KEY_32 = _SECRET.view(np.uint32).astype(np.uint64)  # by fours


@jit
def _shift_in(h: np.uint64, bits: int) -> np.uint64:
    return np.uint64(h ^ (h >> np.uint64(bits)))


@jit
def _turn(h: np.uint64, bits: int) -> np.uint64:
    return np.uint64((h << np.uint64(bits)) | (h >> np.uint64(64 - bits)))


@jit
def _swap_32(x: np.uint64) -> np.uint64:
    low = (x & np.uint64(0xFF)) << np.uint64(24) | (x & np.uint64(0xFF00)) << np.uint64(8)
    high = (x >> np.uint64(8)) & np.uint64(0xFF00) | (x >> np.uint64(24)) & np.uint64(0xFF)
    return np.uint64(low | high)


@jit
def _swap_64(x: np.uint64) -> np.uint64:
    return np.uint64(_swap_32(x & _LOW_32) << np.uint64(32) | _swap_32(x >> np.uint64(32)))


@jit
def _mix_old(h: np.uint64) -> np.uint64:
    """The last mixing of XXH64, which XXH3 uses for up to 3 bytes."""
    h = _shift_in(h, 33) * _P64_2
    h = _shift_in(h, 29) * _P64_3
    return _shift_in(h, 32)


@jit
def _mix(h: np.uint64) -> np.uint64:
    return _shift_in(_shift_in(h, 37) * _MX1, 32)


@jit
def _fold(a: np.uint64, b: np.uint64) -> np.uint64:
    low, high = multiply_wide(a, b)
    return np.uint64(low ^ high)


@jit
def _mix_16(data: NDArray[np.uint8], at: int, key: int) -> np.uint64:
    """Mix 16 bytes with the secret from its eight bytes number `key` on."""
    return _fold(load_64(data, at) ^ _KEY[key], load_64(data, at + 8) ^ _KEY[key + 1])


@jit
def _three(data: NDArray[np.uint8], start: int, n: int) -> np.uint64:
    """Combine up to 3 bytes and their number."""
    first, middle = np.uint64(data[start]), np.uint64(data[start + (n >> 1)])
    last = np.uint64(data[start + n - 1])
    combined = first << np.uint64(16) | middle << np.uint64(24) | last | np.uint64(n << 8)
    return np.uint64(combined)


@jit
def hash_64(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """Return XXH3_64bits of `data[start:stop]`, at most `MOST_BYTES`."""
    n = stop - start
    length = np.uint64(n)
    if n > 16:
        h = length * _P64_1
        for pair in range((n - 1) // 32, -1, -1):
            h += _mix_16(data, start + 16 * pair, 4 * pair)
            h += _mix_16(data, stop - 16 * (pair + 1), 4 * pair + 2)
        return _mix(h)
    if n > 8:
        low = load_64(data, start) ^ _KEY[3] ^ _KEY[4]
        high = load_64(data, stop - 8) ^ _KEY[5] ^ _KEY[6]
        return _mix(length + _swap_64(low) + high + _fold(low, high))
    if n >= 4:
        both = load_32(data, stop - 4) + (load_32(data, start) << np.uint64(32))
        h = both ^ _KEY[1] ^ _KEY[2]
        h = (h ^ _turn(h, 49) ^ _turn(h, 24)) * _MX2
        h = (h ^ ((h >> np.uint64(35)) + length)) * _MX2
        return _shift_in(h, 28)
    if n > 0:
        return _mix_old(_three(data, start, n) ^ _KEY_32[0] ^ _KEY_32[1])
    return _mix_old(_KEY[7] ^ _KEY[8])

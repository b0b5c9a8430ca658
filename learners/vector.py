"""Small loops over runs of an array, written so that the compiler makes vector code of them.

They work without branches: a search that stops early cannot be vectorised, and is the slower one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["find", "largest_of", "log_of", "smallest", "total_of"]

SQRT_HALF = np.int32(0x3F3504F3)  # bits of a float32
MANTISSA_BITS = np.int32(23)
LN_2 = np.float32(0.6931471805599453)
ONE, HALF = np.float32(1.0), np.float32(0.5)
# Of ln(1 + m) - m + m²/2 over m³, for 1 + m between the roots of 1/2 and 2: the polynomial of the
# Cephes library's logf (Moshier 1989), constant last.
C8, C7, C6, C5, C4, C3, C2, C1, C0 = np.array(
    [
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ],
    np.float32,
)
NOWHERE = np.int32(-1)


@jit
def find(values: NDArray[np.int32], start: int, held: int, value: int) -> int:
    """Return the last place of a value in `values[start : start + held]`, -1 without one."""
    part = values[start : start + held]
    at = NOWHERE
    for place in range(len(part)):
        at = max(at, np.int32(place) if part[place] == value else NOWHERE)
    return int(start + at) if at >= 0 else -1


@jit
def smallest(values: NDArray[np.float32], start: int, held: int) -> int:
    """Return a place of the smallest in `values[start : start + held]`; none may be negative."""
    part = values[start : start + held].view(np.int32)  # ordered alike, and a minimum of integers
    least = part[0]  # is one instruction
    for place in range(len(part)):
        least = min(least, part[place])
    return find(values[start : start + held].view(np.int32), 0, held, least) + start


@jit
def largest_of(values: NDArray[np.float32], n: int) -> np.float32:
    """Return the largest of the first n values, none of them negative; 0 of none."""
    bits = values.view(np.int32)
    most = np.int32(0)
    for i in range(n):
        most = max(most, bits[i])
    return np.int32(most).view(np.float32)


@jit
def total_of(values: NDArray[np.float32], n: int) -> np.float32:
    """Return the sum of the first n values: of every fourth, and then of those four sums.

    One long chain of additions would wait for each; this order is the same on every machine.
    """
    a = b = c = d = np.float32(0.0)
    for i in range(0, n - 3, 4):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
    for i in range(n - n % 4, n):
        a += values[i]
    return (a + b) + (c + d)


@jit
def log_of(values: NDArray[np.float32], n: int) -> None:
    """Replace the first n values, positive normal numbers, by their natural logarithms.

    Within 3e-7 of the true ones up to 100, and the same on every machine.
    """
    for i in range(n):
        bits = np.float32(values[i]).view(np.int32)
        exponent = (bits - SQRT_HALF) >> MANTISSA_BITS
        m = np.int32(bits - (exponent << MANTISSA_BITS)).view(np.float32) - ONE
        square = m * m
        p = ((((C8 * m + C7) * m + C6) * m + C5) * m + C4) * m + C3
        p = ((p * m + C2) * m + C1) * m + C0
        values[i] = p * m * square - HALF * square + m + np.float32(exponent) * LN_2

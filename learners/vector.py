"""Small loops over runs of an array, written so that the compiler makes vector code of them.

They work without branches: a search that stops early cannot be vectorised, and is the slower one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learners.jit import jit

__all__ = ["exp_of", "find", "largest_of", "log_of", "smallest", "total_of"]

SQRT_HALF = np.int32(0x3F3504F3)  # bits of a float32
MANTISSA_BITS = np.int32(23)
LN_2 = np.float32(0.6931471805599453)
ONE, HALF, ZERO = np.float32(1.0), np.float32(0.5), np.float32(0.0)
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
LEAST = np.float32(-20.0)
LOG2_E = np.float32(1.4426950408889634)
ROUND = np.float32(1.5 * 2**23)  # added and taken away again: the nearest whole number is left
# ln 2 in two parts, and the polynomial of (e^r - 1 - r) / r² for |r| <= ln 2 / 2: of the Cephes
# library's expf (Moshier 1989), constant last.
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
E5, E4, E3, E2, E1, E0 = np.array(
    [
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    ],
    np.float32,
)
BIAS = np.int32(127)
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


@jit
def exp_of(values: NDArray[np.float32], n: int) -> None:
    """Replace the first n values, none above 80, by e to their power; by 0 what is below -20.

    To six digits, and the same on every machine; shares of a softmax below 2e-9 are none.
    """
    for i in range(n):
        x = max(values[i], LEAST)
        whole = (x * LOG2_E + ROUND) - ROUND
        r = x - whole * LN_2_HIGH - whole * LN_2_LOW
        p = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
        power = np.int32((np.int32(whole) + BIAS) << MANTISSA_BITS).view(np.float32)
        values[i] = (p * r * r + r + ONE) * power if values[i] > LEAST else ZERO

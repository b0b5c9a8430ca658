"""Products of rows that fill whole vectors, four at a time: what a deep model's answer is made of.

As in `learners.lanes`, sums stay in registers, and multiplications and additions are separate and
in a fixed order, so the numbers are the same on every machine. All arrays are in C order; rows are
a multiple of 16 long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from learners.jit import LINE, jit, prefetch
from learners.lanes import LANES, NOTHING, TOGETHER, Lanes

__all__ = ["add_product", "dot_rows", "whole"]

LONG = ir.IntType(64)


def whole(n: int, step: int = LANES) -> int:
    """Return the least multiple of `step` that is at least n."""
    return -(-n // step) * step


def _add_block(typing_context: Any, x: Any, t: Any, w: Any, u: Any, out: Any) -> Any:
    """Add rows t to t + 3 of x (T, K) times columns u to u + 15 of w (K, N) to out (T, N)."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        (_, inner), (_, columns) = lanes.shape(0), lanes.shape(2)
        unit = arguments[3]
        rows = [builder.add(arguments[1], LONG(j)) for j in range(TOGETHER)]
        places = [builder.add(builder.mul(row, columns), unit) for row in rows]
        reserve: Any = cgutils.alloca_once_value  # becomes a register
        sums = [reserve(builder, lanes.load(lanes.row(4, place), 0)) for place in places]
        starts = [builder.mul(row, inner) for row in rows]
        with cgutils.for_range(builder, inner) as loop:
            at = builder.add(builder.mul(loop.index, columns), unit)
            weights = lanes.load(lanes.row(2, at), 0)
            for start, total in zip(starts, sums, strict=True):
                part = builder.fmul(lanes.number(0, builder.add(start, loop.index)), weights)
                builder.store(builder.fadd(builder.load(total), part), total)
        for place, total in zip(places, sums, strict=True):
            lanes.store(builder.load(total), lanes.row(4, place), 0)
        return context.get_dummy_value()

    return types.void(x, types.intp, w, types.intp, out), build


def _dot_four(typing_context: Any, rows: Any, first: Any, u: Any, out: Any, at: Any) -> Any:
    """Write the products of rows `first` to `first` + 3 (n, K) with u (K,) to out from `at` on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        (_, inner) = lanes.shape(0)
        starts = [
            lanes.row(0, builder.mul(builder.add(arguments[1], LONG(j)), inner))
            for j in range(TOGETHER)
        ]
        along = lanes.row(2, LONG(0))
        reserve: Any = cgutils.alloca_once_value  # becomes a register
        sums = [reserve(builder, NOTHING) for _ in starts]
        with cgutils.for_range(builder, builder.udiv(inner, LONG(LANES))) as loop:
            y = builder.load(builder.gep(along, [loop.index]))
            y.align = 4
            for start, total in zip(starts, sums, strict=True):
                value = builder.load(builder.gep(start, [loop.index]))
                value.align = 4
                part = builder.fmul(value, y)
                builder.store(builder.fadd(builder.load(total), part), total)
        for j, total in enumerate(sums):
            where = builder.gep(lanes.start(3), [builder.add(arguments[4], LONG(j))])
            builder.store(lanes.reduce(builder.fadd, builder.load(total)), where)
        return context.get_dummy_value()

    return types.void(rows, types.intp, u, out, types.intp), build


_Floats = NDArray[np.float32]
_block = cast("Callable[[_Floats, int, _Floats, int, _Floats], None]", intrinsic(_add_block))
_four = cast("Callable[[_Floats, int, _Floats, _Floats, int], None]", intrinsic(_dot_four))


@jit
def add_product(
    x: NDArray[np.float32], n: int, w: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Add the first n rows of x (T, K) times w (K, N) to those of out (T, N).

    There is room for whole blocks: T is a multiple of 4, N one of 16.
    """
    for u in range(0, w.shape[1], LANES):
        for t in range(0, n, TOGETHER):
            _block(x, t, w, u, out)


@jit
def dot_rows(
    rows: NDArray[np.float32],
    first: int,
    end: int,
    u: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the products of rows `first` to `end` (n, K) with u (K,) to the beginning of `out`.

    There is room for three more rows, and three more products.
    """
    ahead = 8 * rows.shape[1]
    for row in range(first, end, TOGETHER):
        for line in range(0, TOGETHER * rows.shape[1], LINE):
            prefetch(rows, row * rows.shape[1] + ahead + line)
        _four(rows, row, u, out, row - first)

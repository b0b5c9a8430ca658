"""Products of rows that fill whole vectors with matrices: what an encoder is made of.

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

from learners.jit import jit
from learners.lanes import LANES, NOTHING, TOGETHER, Lanes

__all__ = ["BLOCK", "add_product", "add_row", "blocks_of", "whole"]

LONG = ir.IntType(64)
BLOCK = 2 * LANES  # of which rows have a whole number, as `codes` reads them


def whole(n: int, step: int = BLOCK) -> int:
    """Return the least multiple of `step` that is at least n."""
    return -(-n // step) * step


def blocks_of(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a matrix (K, N) as products read it, from front to back: (N / 16, K, 16), flat."""
    return matrix.reshape(len(matrix), -1, LANES).transpose(1, 0, 2).reshape(-1)


def _products(together: int, runs: int) -> Any:
    """Make what adds so many rows of x times 16 columns of w to those of `out`.

    Rows of x are `inner` long and begin at x_at, those of `out` are `columns` long and begin at
    out_at, the block of w begins at w_at. Each sum is made of so many `runs`, which do not wait for
    each other.
    """

    def add(
        _: Any, x: Any, x_at: Any, inner: Any, w: Any, w_at: Any, out: Any, out_at: Any, long: Any
    ) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lanes = Lanes(context, builder, signature, arguments)
            _, x_at, inner, _, w_at, _, out_at, columns = arguments
            reserve: Any = cgutils.alloca_once_value  # becomes a register
            starts = [builder.add(x_at, builder.mul(inner, LONG(j))) for j in range(together)]
            places = [builder.add(out_at, builder.mul(columns, LONG(j))) for j in range(together)]
            sums = [[reserve(builder, NOTHING) for _ in range(runs)] for _ in starts]
            block = lanes.row(3, w_at)
            with cgutils.for_range(builder, builder.udiv(inner, LONG(runs))) as loop:
                first = builder.mul(loop.index, LONG(runs))
                for run in range(runs):
                    at = builder.add(first, LONG(run))
                    weights = builder.load(builder.gep(block, [at]))
                    weights.align = 4
                    for start, total in zip(starts, sums, strict=True):
                        part = builder.fmul(lanes.number(0, builder.add(start, at)), weights)
                        builder.store(builder.fadd(builder.load(total[run]), part), total[run])
            for place, total in zip(places, sums, strict=True):
                row = lanes.row(5, place)
                value = lanes.load(row, 0)
                for part in total:
                    value = builder.fadd(value, builder.load(part))
                lanes.store(value, row, 0)
            return context.get_dummy_value()

        place = types.intp
        return types.void(x, place, place, w, place, out, place, place), build

    return intrinsic(add)


_Floats = NDArray[np.float32]
_Product = Callable[[_Floats, int, int, _Floats, int, _Floats, int, int], None]
_add_four, _add_one = cast(_Product, _products(TOGETHER, 2)), cast(_Product, _products(1, 4))


@jit
def add_product(
    x: NDArray[np.float32], n: int, w: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Add the first n rows of x (T, K) times w (K, N), in blocks, to those of out (T, N).

    There is room for whole blocks: T is a multiple of 4, N one of 16.
    """
    inner, columns = x.shape[1], out.shape[1]
    for u in range(0, columns, LANES):
        for t in range(0, n, TOGETHER):
            _add_four(x, t * inner, inner, w, u * inner, out, t * columns + u, columns)


@jit
def add_row(
    x: NDArray[np.float32],
    first: int,
    inner: int,
    w: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Add x times w (inner, N), in blocks, to out (N,); x stands for inputs from `first` on."""
    for u in range(0, len(out), LANES):
        _add_one(x, 0, len(x), w, u * inner + first * LANES, out, u, 0)

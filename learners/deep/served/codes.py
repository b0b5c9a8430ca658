"""Rows in bytes and their products with a vector, four at a time.

The vector is in whole numbers, too, so sums are exact and the same on every machine. Products of
bytes and halves, added in pairs, are one instruction on most of them. Rows are a multiple of 16
long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from learners.jit import jit, prefetch
from learners.lanes import LANES, TOGETHER, Lanes

__all__ = [
    "Codes",
    "Direction",
    "aim",
    "dot_four",
    "dot_rows",
    "make_direction",
    "prefetch_row",
    "write_row",
]

LINE_BYTES = 64  # of the cache
AHEAD = 32  # rows that are asked for before their turn
FINEST = 32_767  # steps from 0 to a vector's largest number
LARGEST_CODE, LARGEST_SUM = 127, 2**31 - 1
ZERO = np.float32(0.0)
BYTE, HALF, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FOUR = ir.VectorType(ir.FloatType(), TOGETHER)
PAIRED = LANES // 2  # sums of neighbours


class Codes(NamedTuple):
    """Directions in bytes: row i is code[i] times scale[i], of length 1 or 0.

    There is room for a whole block behind the last row.
    """

    code: NDArray[np.int8]  # (n + TOGETHER, D)
    scale: NDArray[np.float32]  # (n + TOGETHER,) 1 / length of the code


class Direction(NamedTuple):
    """What rows are multiplied with: a vector, as code times step."""

    code: NDArray[np.int16]  # (D,)
    step: NDArray[np.float32]  # (1,)


def make_direction(width: int) -> Direction:
    """Return room for a vector (D,), which is 0."""
    return Direction(np.zeros(width, np.int16), np.zeros(1, np.float32))


@jit
def aim(direction: Direction, u: NDArray[np.float32]) -> None:
    """Take over a vector (D,), to half a step; its largest number has 32,767 of them.

    Rows so long that a sum might be beyond 32 bits have fewer.
    """
    largest = ZERO
    for k in range(len(u)):
        largest = max(largest, abs(u[k]))
    finest = np.float32(min(FINEST, LARGEST_SUM // (LARGEST_CODE * len(u))))
    steps = finest / largest if largest > ZERO else ZERO
    for k in range(len(u)):
        direction.code[k] = np.int16(np.rint(u[k] * steps))
    direction.step[0] = largest / finest


def _shuffled(builder: Any, left: Any, right: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT, len(places)), places))


def _added(builder: Any, left: Any, right: Any, *halves: list[int]) -> Any:
    return builder.add(*(_shuffled(builder, left, right, places) for places in halves))


def _sums(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the sums of four vectors of 8 as one of 4, by turning them in registers."""
    ones = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    twos = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    left, right = _added(builder, a, b, *ones), _added(builder, c, d, *ones)
    both = _added(builder, left, right, *twos)
    return _added(builder, both, both, [0, 1, 2, 3], [4, 5, 6, 7])


def _four_of(builder: Any, values: list[Any]) -> Any:
    vector = ir.Constant(FOUR, ir.Undefined)
    for j, value in enumerate(values):
        vector = builder.insert_element(vector, value, INT(j))
    return vector


def _exact(builder: Any, lanes: Lanes, rows: list[Any]) -> list[Any]:
    """Return vectors of sums of products of rows of the first argument with the seventh."""
    (_, width) = lanes.shape(0)
    bytes_, halves = ir.VectorType(BYTE, LANES), ir.VectorType(HALF, LANES)
    wide, nothing = ir.VectorType(INT, LANES), ir.Constant(ir.VectorType(INT, PAIRED), [0] * PAIRED)
    even, odd = list(range(0, LANES, 2)), list(range(1, LANES, 2))
    places = [builder.gep(lanes.start(0), [builder.mul(row, width)]) for row in rows]
    starts = [builder.bitcast(place, bytes_.as_pointer()) for place in places]
    along = builder.bitcast(lanes.start(6), halves.as_pointer())
    reserve: Any = cgutils.alloca_once_value  # becomes a register
    sums = [reserve(builder, nothing) for _ in rows]
    with cgutils.for_range(builder, builder.udiv(width, LONG(LANES))) as loop:
        y = builder.load(builder.gep(along, [loop.index]))
        y.align = 2
        for start, total in zip(starts, sums, strict=True):
            x = builder.load(builder.gep(start, [loop.index]))
            x.align = 1
            products = builder.mul(builder.sext(x, wide), builder.sext(y, wide), flags=["nsw"])
            part = _added(builder, products, products, even, odd)
            builder.store(builder.add(builder.load(total), part), total)
    return [builder.load(total) for total in sums]


def _dot_four(
    typing_context: Any,
    code: Any,
    scale: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    along: Any,
    step: Any,
    out: Any,
    at: Any,
) -> Any:
    """Write the products of rows a to d with a direction to four places of `out`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        rows = arguments[2:6]
        exact = _sums(builder, *_exact(builder, lanes, rows))
        scales = [builder.load(builder.gep(lanes.start(1), [row])) for row in rows]
        steps = [builder.load(lanes.start(7))] * TOGETHER
        product = builder.fmul(builder.sitofp(exact, FOUR), _four_of(builder, steps))
        product = builder.fmul(product, _four_of(builder, scales))
        where = builder.gep(lanes.start(8), [arguments[9]])
        builder.store(product, builder.bitcast(where, FOUR.as_pointer())).align = 4
        return context.get_dummy_value()

    row = types.intp
    return types.void(code, scale, row, row, row, row, along, step, out, row), build


_Floats = NDArray[np.float32]
_Dots = Callable[
    [NDArray[np.int8], _Floats, int, int, int, int, NDArray[np.int16], _Floats, _Floats, int], None
]
_dots = cast(_Dots, intrinsic(_dot_four))


@jit
def prefetch_row(codes: Codes, row: int) -> None:
    """Ask for a row."""
    width = codes.code.shape[1]
    prefetch(codes.scale, row)
    for line in range(0, width, LINE_BYTES):
        prefetch(codes.code, row * width + line)


@jit
def dot_four(
    codes: Codes,
    a: int,
    b: int,
    c: int,
    d: int,
    direction: Direction,
    out: NDArray[np.float32],
    at: int,
) -> None:
    """Write the products of rows a, b, c and d with a vector to four places of `out`."""
    _dots(codes.code, codes.scale, a, b, c, d, direction.code, direction.step, out, at)


@jit
def dot_rows(
    codes: Codes, first: int, end: int, direction: Direction, out: NDArray[np.float32], at: int
) -> None:
    """Write the products of rows `first` to `end` with a vector to `out` from `at` on.

    There is room for three more.
    """
    width = codes.code.shape[1]
    for row in range(first, end, TOGETHER):
        for line in range(0, TOGETHER * width, LINE_BYTES):
            prefetch(codes.code, (row + AHEAD) * width + line)
        dot_four(codes, row, row + 1, row + 2, row + 3, direction, out, at + row - first)


@jit
def write_row(codes: Codes, row: int, out: NDArray[np.float32]) -> None:
    """Write a row to `out` (D,)."""
    for k in range(len(out)):
        out[k] = codes.scale[row] * np.float32(codes.code[row, k])

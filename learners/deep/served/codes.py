"""Rows of four bits a number, and their products with a vector, four rows at a time.

A number v from -7 to 7 is kept as v + 8. A byte holds two of them: byte k of each 16 has number k
of 32 in its lower half, and number 16 + k in its upper one. The vector is in whole numbers, too, so
sums are exact and the same on every machine. Products of two halves of a word, added in pairs, are
one instruction on most of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from learners.deep.served.products import BLOCK, whole
from learners.jit import jit, prefetch
from learners.lanes import LANES, TOGETHER, Lanes

__all__ = [
    "MOST",
    "Codes",
    "Direction",
    "aim",
    "codes_of",
    "dot_four",
    "dot_rows",
    "make_direction",
    "measure",
    "numbers_of",
    "prefetch_row",
    "write_row",
]

LINE_BYTES = 64  # of the cache
AHEAD = 32  # rows that are asked for before their turn
FINEST = 32_767  # steps from 0 to a vector's largest number
MOST = 7  # of a number
ZERO_CODE, LARGEST_CODE, LARGEST_SUM = 8, 15, 2**31 - 1
ZERO, ONE = np.float32(0.0), np.float32(1.0)
BYTE, HALF, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()
FOUR = ir.VectorType(FLOAT, TOGETHER)
PAIRED = LANES // 2  # sums of neighbours


class Codes(NamedTuple):
    """Directions: row i is the numbers of code[i] times scale[i], of length 1 or 0.

    There is room for a whole block of rows behind the last one.
    """

    code: NDArray[np.uint8]  # (n + TOGETHER, W / 2), W is D filled up to a multiple of 32
    scale: NDArray[np.float32]  # (n + TOGETHER,) 1 / length of the numbers


class Direction(NamedTuple):
    """What rows are multiplied with: a vector, as code times step."""

    code: NDArray[np.int16]  # (W,)
    step: NDArray[np.float32]  # (1,)
    shift: NDArray[np.int32]  # (1,) product with a row of zeros, whose codes are 8


def make_direction(width: int) -> Direction:
    """Return room for a vector (W,), which is 0."""
    return Direction(np.zeros(width, np.int16), np.zeros(1, np.float32), np.zeros(1, np.int32))


def codes_of(numbers: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the codes of rows of numbers from -7 to 7: (n, D) to (n, W / 2), W a multiple of 32.

    >>> codes = codes_of(np.array([[1, -7, 0]]))
    >>> codes.shape, numbers_of(codes, 3).tolist()
    ((1, 16), [[1, -7, 0]])
    """
    n, width = numbers.shape
    code = np.full((n, whole(width) // BLOCK, 2, LANES), ZERO_CODE, np.uint8)
    code.reshape(n, whole(width))[:, :width] = numbers + ZERO_CODE
    both: NDArray[np.uint8] = code[:, :, 0] | code[:, :, 1] << np.uint8(4)
    return both.reshape(n, whole(width) // 2)


def numbers_of(code: NDArray[np.uint8], width: int) -> NDArray[np.int8]:
    """Return the numbers (n, D) of codes (n, W / 2), D at most W."""
    n, held = code.shape
    blocks = code.reshape(n, held // LANES, 1, LANES)
    halves = np.concatenate([blocks & LARGEST_CODE, blocks >> 4], axis=2)
    return halves.reshape(n, 2 * held)[:, :width].astype(np.int8) - np.int8(ZERO_CODE)


@jit
def aim(direction: Direction, u: NDArray[np.float32]) -> None:
    """Take over a vector (D,), to half a step; its largest number has 32,767 of them.

    Rows so long that a sum might be beyond 32 bits have fewer.
    """
    largest, total = ZERO, 0
    for k in range(len(u)):
        largest = max(largest, abs(u[k]))
    finest = np.float32(min(FINEST, LARGEST_SUM // (LARGEST_CODE * len(u))))
    steps = finest / largest if largest > ZERO else ZERO
    for k in range(len(u)):
        direction.code[k] = np.int16(np.rint(u[k] * steps))
        total += direction.code[k]
    direction.step[0] = largest / finest
    direction.shift[0] = ZERO_CODE * total


def _shuffled(builder: Any, left: Any, right: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT, len(places)), places))


def _added(builder: Any, left: Any, right: Any, *halves: list[int]) -> Any:
    """Add numbers at some places of two vectors to those at others."""
    return builder.add(*(_shuffled(builder, left, right, places) for places in halves))


def _sums(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the sums of four vectors of 8 as one of 4, by turning them in registers."""
    ones = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    twos = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    left, right = _added(builder, a, b, *ones), _added(builder, c, d, *ones)
    both = _added(builder, left, right, *twos)
    return _added(builder, both, both, [0, 1, 2, 3], [4, 5, 6, 7])


def _four_of(builder: Any, values: list[Any], kind: Any = FLOAT) -> Any:
    vector = ir.Constant(ir.VectorType(kind, TOGETHER), ir.Undefined)
    for j, value in enumerate(values):
        vector = builder.insert_element(vector, value, INT(j))
    return vector


def _exact(builder: Any, lanes: Lanes, rows: list[Any]) -> list[Any]:
    """Return vectors of sums of products of rows of the first argument with the seventh."""
    (_, width) = lanes.shape(0)  # bytes
    bytes_, halves = ir.VectorType(BYTE, LANES), ir.VectorType(HALF, LANES)
    wide, nothing = ir.VectorType(INT, LANES), ir.Constant(ir.VectorType(INT, PAIRED), [0] * PAIRED)
    lower, four = (ir.Constant(halves, [bits] * LANES) for bits in (LARGEST_CODE, 4))
    even, odd = list(range(0, LANES, 2)), list(range(1, LANES, 2))
    places = [builder.gep(lanes.start(0), [builder.mul(row, width)]) for row in rows]
    starts = [builder.bitcast(place, bytes_.as_pointer()) for place in places]
    along = builder.bitcast(lanes.start(6), halves.as_pointer())
    reserve: Any = cgutils.alloca_once_value  # becomes a register
    sums = [reserve(builder, nothing) for _ in rows]
    with cgutils.for_range(builder, builder.udiv(width, LONG(LANES))) as loop:
        first = builder.mul(loop.index, LONG(2))
        ys = [builder.load(builder.gep(along, [builder.add(first, LONG(k))])) for k in (0, 1)]
        for y in ys:
            y.align = 2
        for start, total in zip(starts, sums, strict=True):
            both = builder.load(builder.gep(start, [loop.index]))
            both.align = 1
            both = builder.zext(both, halves)
            added = builder.load(total)
            xs = builder.and_(both, lower), builder.lshr(both, four)
            for x, y in zip(xs, ys, strict=True):
                products = builder.mul(builder.sext(x, wide), builder.sext(y, wide), flags=["nsw"])
                added = builder.add(added, _added(builder, products, products, even, odd))
            builder.store(added, total)
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
    shift: Any,
    out: Any,
    at: Any,
) -> Any:
    """Write the products of rows a to d with a direction to four places of `out`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        rows = arguments[2:6]
        shift = _four_of(builder, [builder.load(lanes.start(8))] * TOGETHER, INT)
        exact = builder.sub(_sums(builder, *_exact(builder, lanes, rows)), shift)
        scales = [builder.load(builder.gep(lanes.start(1), [row])) for row in rows]
        steps = [builder.load(lanes.start(7))] * TOGETHER
        product = builder.fmul(builder.sitofp(exact, FOUR), _four_of(builder, steps))
        product = builder.fmul(product, _four_of(builder, scales))
        where = builder.gep(lanes.start(9), [arguments[10]])
        builder.store(product, builder.bitcast(where, FOUR.as_pointer())).align = 4
        return context.get_dummy_value()

    row = types.intp
    return types.void(code, scale, row, row, row, row, along, step, shift, out, row), build


_dots = cast("Callable[..., None]", intrinsic(_dot_four))


@jit
def measure(codes: Codes, n: int) -> None:
    """Find the scales of the first n rows; one of zeros has none."""
    for row in range(n):
        square = np.int64(0)
        for k in range(codes.code.shape[1]):
            both = np.int64(codes.code[row, k])
            low, high = (both & LARGEST_CODE) - ZERO_CODE, (both >> 4) - ZERO_CODE
            square += low * low + high * high
        codes.scale[row] = ONE / np.sqrt(np.float32(square)) if square > 0 else ZERO


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
    u = direction
    _dots(codes.code, codes.scale, a, b, c, d, u.code, u.step, u.shift, out, at)


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
    """Write a row to `out` (W,)."""
    code, scale = codes.code[row], codes.scale[row]
    for begin in range(0, len(out), BLOCK):
        for k in range(LANES):
            both = code[begin // 2 + k]
            out[begin + k] = scale * np.float32(np.int32(both & LARGEST_CODE) - ZERO_CODE)
            out[begin + LANES + k] = scale * np.float32(np.int32(both >> 4) - ZERO_CODE)

"""Rows of 48 numbers, and of 16, as vectors: what `learners.vector` cannot leave to the compiler.

A loop over a run of an array becomes vector code only behind checks that the arrays are apart, and
its sums stay in memory. For work of three instructions a row that costs several times the work
itself, so here the vectors are spelt out. LLVM makes of a vector of 16 what the machine has: one
register or four. Multiplications and additions are separate and in a fixed order, so the numbers
are the same on every machine.

Rows are given as an array in C order with the place of their first number, or, of an array of rows
(n, 48), by their numbers. Arrays of two dimensions are in C order, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from learners.jit import LINE, jit, prefetch

__all__ = [
    "LANES",
    "TOGETHER",
    "WIDTH",
    "Lanes",
    "add_products",
    "add_scaled",
    "dot",
    "empty_rows",
    "hidden_layer",
    "largest",
    "prefetch_row",
    "product",
    "pull_rows",
    "total",
]

LANES, VECTORS = 16, 3
TOGETHER = 4  # candidates of a hidden layer whose sums stay in registers
WIDTH = LANES * VECTORS  # numbers of a row: three cache lines

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
NOTHING = ir.Constant(VECTOR, [0.0] * LANES)


def empty_rows(n: int) -> NDArray[np.float32]:
    """Return n rows of zeros, (n, WIDTH), that begin where a cache line does."""
    line_bytes = 4 * LINE
    raw = np.zeros(n * WIDTH * 4 + line_bytes, np.uint8)
    begin = -raw.ctypes.data % line_bytes
    return raw[begin : begin + n * WIDTH * 4].view(np.float32).reshape(n, WIDTH)


class Lanes:
    """Writes the instructions of one kernel; `arguments` are those of the kernel, in order."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.signature, self.arguments = signature, arguments

    def start(self, array: int) -> Any:
        """Return where the array that is argument number `array` begins."""
        make = self.context.make_array(self.signature.args[array])
        return make(self.context, self.builder, self.arguments[array]).data

    def row(self, array: int, place: Any) -> Any:
        """Return the vectors' address from a place of an array on."""
        where = self.builder.gep(self.start(array), [place])
        return self.builder.bitcast(where, VECTOR.as_pointer())

    def shape(self, array: int) -> tuple[Any, Any]:
        """Return how many rows an array of two dimensions has, and their length."""
        make = self.context.make_array(self.signature.args[array])
        shape = make(self.context, self.builder, self.arguments[array]).shape
        return self.builder.extract_value(shape, 0), self.builder.extract_value(shape, 1)

    def number(self, array: int, place: Any) -> Any:
        """Return a vector of the number at a place of an array."""
        return self.repeat(self.builder.load(self.builder.gep(self.start(array), [place])))

    def load(self, row: Any, k: int) -> Any:
        value = self.builder.load(self.builder.gep(row, [LONG(k)]))
        value.align = 4
        return value

    def store(self, value: Any, row: Any, k: int) -> None:
        self.builder.store(value, self.builder.gep(row, [LONG(k)])).align = 4

    def repeat(self, value: Any) -> Any:
        """Return a vector of one number."""
        one = self.builder.insert_element(NOTHING, value, INT(0))
        return self.builder.shuffle_vector(
            one, NOTHING, ir.Constant(ir.VectorType(INT, LANES), [0] * LANES)
        )

    def reduce(self, join: Callable[[Any, Any], Any], vector: Any) -> Any:
        """Join the halves of a vector until one number is left."""
        n = LANES
        while n > 1:
            half = ir.VectorType(INT, n // 2)
            low, high = (
                self.builder.shuffle_vector(
                    vector, vector, ir.Constant(half, list(range(begin, begin + n // 2)))
                )
                for begin in (0, n // 2)
            )
            vector = join(low, high)
            n //= 2
        return self.builder.extract_element(vector, INT(0))


def _dot(typing_context: Any, a: Any, i: Any, b: Any, j: Any) -> Any:
    """Return the dot product of the rows at `a.flat[i]` and `b.flat[j]`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        left, right = lanes.row(0, arguments[1]), lanes.row(2, arguments[3])
        products = [builder.fmul(lanes.load(left, k), lanes.load(right, k)) for k in range(VECTORS)]
        return lanes.reduce(builder.fadd, reduce(builder.fadd, products))

    return types.float32(a, types.intp, b, types.intp), build


def _product(typing_context: Any, a: Any, i: Any, b: Any, n: Any) -> Any:
    """Return the sum of `a.flat[i + k] * b[k]` over the first n vectors; where b is 0, a may be
    anything.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        left, right = lanes.row(0, arguments[1]), lanes.row(2, LONG(0))
        reserve: Any = cgutils.alloca_once_value  # becomes a register
        total = reserve(builder, NOTHING)
        with cgutils.for_range(builder, arguments[3]) as loop:
            x, y = (builder.load(builder.gep(row, [loop.index])) for row in (left, right))
            x.align = y.align = 4
            none = builder.fcmp_ordered("==", y, NOTHING)
            part = builder.select(none, NOTHING, builder.fmul(x, y))
            builder.store(builder.fadd(builder.load(total), part), total)
        return lanes.reduce(builder.fadd, builder.load(total))

    return types.float32(a, types.intp, b, types.intp), build


def _total(typing_context: Any, a: Any, i: Any) -> Any:
    """Return the sum of the row at `a.flat[i]`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        row = lanes.row(0, arguments[1])
        parts = [lanes.load(row, k) for k in range(VECTORS)]
        return lanes.reduce(builder.fadd, reduce(builder.fadd, parts))

    return types.float32(a, types.intp), build


def _largest(typing_context: Any, a: Any, i: Any) -> Any:
    """Return the largest number of the row at `a.flat[i]`, none of them NaN."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)

        def larger(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        row = lanes.row(0, arguments[1])
        parts = [lanes.load(row, k) for k in range(VECTORS)]
        return lanes.reduce(larger, reduce(larger, parts))

    return types.float32(a, types.intp), build


def _add_scaled(typing_context: Any, a: Any, i: Any, scale: Any, b: Any, j: Any) -> Any:
    """Add `scale` times the row at `b.flat[j]` to the row at `a.flat[i]`."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        target, added = lanes.row(0, arguments[1]), lanes.row(3, arguments[4])
        scales = lanes.repeat(arguments[2])
        for k in range(VECTORS):
            part = builder.fmul(scales, lanes.load(added, k))
            lanes.store(builder.fadd(lanes.load(target, k), part), target, k)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.float32, b, types.intp), build


def _pull_rows(
    typing_context: Any, a: Any, rows: Any, n: Any, work: Any, w: Any, s: Any, u: Any, out: Any
) -> Any:
    """Of a[rows[i]] for i < n, write the sum of w[i] of each, and take s[i] u from each.

    w, s, u and `out` are rows of `work`, by their number. A row that comes twice is changed twice,
    and counts as changed the second time.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        first = [builder.mul(place, LONG(WIDTH)) for place in arguments[4:]]
        numbers, worked = lanes.start(1), lanes.start(3)
        weights, steps = (builder.gep(worked, [place]) for place in first[:2])
        along, sums = (lanes.row(3, place) for place in first[2:])
        direction = [lanes.load(along, k) for k in range(VECTORS)]
        reserve: Any = cgutils.alloca_once_value  # becomes a register
        summed = [reserve(builder, NOTHING) for k in range(VECTORS)]
        with cgutils.for_range(builder, arguments[2]) as loop:
            number = builder.sext(builder.load(builder.gep(numbers, [loop.index])), LONG)
            row = lanes.row(0, builder.mul(number, LONG(WIDTH)))
            share = lanes.repeat(builder.load(builder.gep(weights, [loop.index])))
            length = lanes.repeat(builder.load(builder.gep(steps, [loop.index])))
            for k in range(VECTORS):
                value = lanes.load(row, k)
                part = builder.fmul(share, value)
                builder.store(builder.fadd(builder.load(summed[k]), part), summed[k])
                lanes.store(builder.fsub(value, builder.fmul(length, direction[k])), row, k)
        for k in range(VECTORS):
            lanes.store(builder.load(summed[k]), sums, k)
        return context.get_dummy_value()

    at = types.intp
    return types.void(a, rows, at, work, at, at, at, at), build


def _hidden_layer(
    typing_context: Any, x: Any, c: Any, inner: Any, bias: Any, outer: Any, u: Any, h: Any, out: Any
) -> Any:
    """Compute units u to u + 15 of candidates c to c + 3: h = max(x.T inner + bias, 0).

    x is (F, n), `inner` (F, U), `h` (n, U); h times `outer` is added to `out` (n,).
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        first, unit = arguments[1], arguments[5]
        (rows, columns), (_, units) = lanes.shape(0), lanes.shape(2)
        places = [builder.add(first, LONG(j)) for j in range(TOGETHER)]
        reserve: Any = cgutils.alloca_once_value  # becomes a register
        sums = [reserve(builder, lanes.load(lanes.row(3, unit), 0)) for _ in places]
        with cgutils.for_range(builder, rows) as loop:
            weights = lanes.load(lanes.row(2, builder.add(builder.mul(loop.index, units), unit)), 0)
            start = builder.mul(loop.index, columns)
            for place, total in zip(places, sums, strict=True):
                part = builder.fmul(lanes.number(0, builder.add(start, place)), weights)
                builder.store(builder.fadd(builder.load(total), part), total)
        along = lanes.load(lanes.row(4, unit), 0)
        for place, total in zip(places, sums, strict=True):
            value = builder.load(total)
            value = builder.select(builder.fcmp_ordered(">", value, NOTHING), value, NOTHING)
            lanes.store(value, lanes.row(6, builder.add(builder.mul(place, units), unit)), 0)
            where = builder.gep(lanes.start(7), [place])
            product = lanes.reduce(builder.fadd, builder.fmul(along, value))
            builder.store(builder.fadd(builder.load(where), product), where)
        return context.get_dummy_value()

    at = types.intp
    return types.void(x, at, inner, bias, outer, at, h, out), build


def _add_products(typing_context: Any, x: Any, c: Any, g: Any, u: Any, out: Any) -> Any:
    """Add the sum of x[f, c + j] g[j] over j < 4 to out[f], for all f, at numbers u to u + 15.

    x is (F, n), g (4, U), `out` (F, U); where g is 0, x may be anything.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, signature, arguments)
        unit, (rows, columns), (_, units) = arguments[3], lanes.shape(0), lanes.shape(4)
        slopes = [
            lanes.load(lanes.row(2, builder.add(builder.mul(LONG(j), units), unit)), 0)
            for j in range(TOGETHER)
        ]
        silent = [builder.fcmp_ordered("==", slope, NOTHING) for slope in slopes]
        with cgutils.for_range(builder, rows) as loop:
            row = lanes.row(4, builder.add(builder.mul(loop.index, units), unit))
            start = builder.add(builder.mul(loop.index, columns), arguments[1])
            parts = [
                builder.select(
                    silent[j],
                    NOTHING,
                    builder.fmul(lanes.number(0, builder.add(start, LONG(j))), slopes[j]),
                )
                for j in range(TOGETHER)
            ]
            pairs = [builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3])]
            added = builder.fadd(*pairs)
            lanes.store(builder.fadd(lanes.load(row, 0), added), row, 0)
        return context.get_dummy_value()

    return types.void(x, types.intp, g, types.intp, out), build


_Floats = NDArray[np.float32]
dot = cast("Callable[[_Floats, int, _Floats, int], np.float32]", intrinsic(_dot))
product = cast("Callable[[_Floats, int, _Floats, int], np.float32]", intrinsic(_product))
total = cast("Callable[[_Floats, int], np.float32]", intrinsic(_total))
largest = cast("Callable[[_Floats, int], np.float32]", intrinsic(_largest))
add_scaled = cast(
    "Callable[[_Floats, int, np.float32, _Floats, int], None]", intrinsic(_add_scaled)
)
pull_rows = cast(
    "Callable[[_Floats, NDArray[np.int32], int, _Floats, int, int, int, int], None]",
    intrinsic(_pull_rows),
)
hidden_layer = cast(
    "Callable[[_Floats, int, _Floats, _Floats, _Floats, int, _Floats, _Floats], None]",
    intrinsic(_hidden_layer),
)
add_products = cast(
    "Callable[[_Floats, int, _Floats, int, _Floats], None]", intrinsic(_add_products)
)


@jit
def prefetch_row(rows: NDArray[np.float32], row: int) -> None:
    """Ask for a row of (n, WIDTH), some steps before it is read."""
    place = row * WIDTH
    prefetch(rows, place)
    prefetch(rows, place + LINE)
    prefetch(rows, place + 2 * LINE)

"""Compiling the hot kernels: one decorator, one cache.

A kernel calls kernels of other modules, and numba's own cache does not notice when one of those
changes. So the cache folder carries a digest of every module that holds kernels: any change
compiles anew, and nothing stale is ever run. `EVERLEARN_CACHE` moves it out of the user's cache
folder.

Kernels take their arrays in named tuples, a hundred of them at a time. Whoever calls a kernel holds
them all, so references are not counted: a hundred locked additions at each call cost more than the
call's own work. A kernel that makes an array, be it by assigning one run of an array to another,
needs the count, and says so; numba refuses to compile it otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = [
    "LINE",
    "are_compiled",
    "cache_folder",
    "jit",
    "jit_brief",
    "jit_brief_counted",
    "jit_counted",
    "load_32",
    "load_64",
    "multiply_wide",
    "note_compiled",
    "prefetch",
]

IMPORTED = re.compile(rb"^from ((?:learners|streams)\.[\w.]+) import", re.MULTILINE)
P = ParamSpec("P")
R = TypeVar("R")
LINE = 16  # 32-bit values in a cache line, which is what `prefetch` asks for
# Checkouts share the folder: each change of a kernel begins a cache of some 10 MB.
KEPT_CACHES, KEPT_SECONDS = 24, 14 * 86400.0


def cache_folder() -> Path:
    """Return the folder for compiled kernels of exactly these sources."""
    digest = blake2b(numba.__version__.encode(), digest_size=8)
    for path in _sources():
        digest.update(path.read_bytes())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(os.environ.get("EVERLEARN_CACHE") or caches / "everlearn")
    return base / "kernels" / digest.hexdigest()


def _sources() -> list[Path]:
    """Find the modules that hold kernels, and those whose constants they read."""
    packages = Path(__file__).parents[1]
    modules = sorted(
        path for name in ("learners", "streams") for path in (packages / name).rglob("*.py")
    )
    kernels = [path.read_bytes() for path in modules if b"@jit" in path.read_bytes()]
    read = {name for text in kernels for name in IMPORTED.findall(text)}
    named = {packages.joinpath(*name.decode().split(".")).with_suffix(".py") for name in read}
    return [path for path in modules if path in named or b"@jit" in path.read_bytes()]


def _use_cache() -> None:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _drop_old(folder.parent)
    except OSError:
        return  # a read-only home: numba falls back to a folder of its own, or compiles each time
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


def _drop_old(base: Path) -> None:
    """Drop the caches that nobody has used for long, and what is above their bound."""
    used = {path: path.stat().st_mtime for path in base.iterdir()}
    newest = max(used.values())  # that of this process, a moment ago
    for place, path in enumerate(sorted(used, key=used.__getitem__, reverse=True)):
        if place >= KEPT_CACHES or used[path] < newest - KEPT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _mark() -> Path:
    """Name the file that says that all kernels of this checkout are in the cache.

    As numba does, by place and time of the sources: it compiles anew where these differ.
    """
    digest = blake2b(__file__.encode(), digest_size=8)
    for path in _sources():
        digest.update(path.stat().st_mtime_ns.to_bytes(8, "little"))
    return cache_folder() / f"compiled-{digest.hexdigest()}"


def are_compiled() -> bool:
    """Tell whether `note_compiled` was called for exactly these sources."""
    return _mark().exists()


def note_compiled() -> None:
    """Note that every kernel is in the cache."""
    with suppress(OSError):
        _mark().touch()


_use_cache()


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel without the GIL, cached on disk."""
    return _compiled(function, nogil=True)


def jit_brief(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that keeps the GIL, for some ten microseconds of work.

    To give it back would mean to queue for it again, behind a thread that decodes for long.
    """
    return _compiled(function, nogil=False)


def jit_counted(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel that makes arrays, or reads a handle: only then are references counted."""
    return _compiled(function, nogil=True, counted=True)


def jit_brief_counted(function: Callable[P, R]) -> Callable[P, R]:
    """Compile such a kernel that keeps the GIL."""
    return _compiled(function, nogil=False, counted=True)


def _compiled(function: Callable[P, R], nogil: bool, counted: bool = False) -> Callable[P, R]:
    njit: Any = numba.njit  # whose types leave `_nrt` out
    compiler = njit(nogil=nogil, cache=True, error_model="numpy", _nrt=counted)
    return cast(Callable[P, R], compiler(function))


def _prefetch(typing_context: Any, array: types.Array, index: types.Integer) -> Any:
    """Ask for the cache line of `array.flat[index]` (C order), in a kernel; it waits for nothing.

    A query meets hundreds of records in no order. Asked for some steps ahead, they come together
    and not one after the other.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at = arguments
        start = context.make_array(signature.args[0])(context, builder, values).data
        place = builder.bitcast(builder.gep(start, [at]), ir.IntType(8).as_pointer())
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(instruction, [place, i32(0), i32(3), i32(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), build


prefetch = cast("Callable[[NDArray[Any], int], None]", intrinsic(_prefetch))


def _load(bits: int) -> Any:
    """Make what reads `bits` bits, little-endian, from any byte of an array, as a uint64."""

    def load(typing_context: Any, array: types.Array, index: types.Integer) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, at = arguments
            start = context.make_array(signature.args[0])(context, builder, values).data
            kind = ir.IntType(bits)
            place = builder.bitcast(builder.gep(start, [at]), kind.as_pointer())
            word = builder.load(place)
            word.align = 1
            return word if bits == 64 else builder.zext(word, ir.IntType(64))

        return types.uint64(array, types.intp), build

    return intrinsic(load)


load_32 = cast("Callable[[NDArray[np.uint8], int], np.uint64]", _load(32))
load_64 = cast("Callable[[NDArray[np.uint8], int], np.uint64]", _load(64))


def _multiply_wide(typing_context: Any, a: types.Integer, b: types.Integer) -> Any:
    """Multiply two uint64; return the low and the high half of the product."""
    pair = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call]

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, narrow = ir.IntType(128), ir.IntType(64)
        x, y = (builder.zext(argument, wide) for argument in arguments)
        product = builder.mul(x, y)
        low = builder.trunc(product, narrow)
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)
        return context.make_tuple(builder, signature.return_type, (low, high))

    return pair(types.uint64, types.uint64), build


multiply_wide = cast(
    "Callable[[np.uint64, np.uint64], tuple[np.uint64, np.uint64]]", intrinsic(_multiply_wide)
)

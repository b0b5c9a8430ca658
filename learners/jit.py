"""Compiling the hot kernels: one decorator, one cache.

A kernel calls kernels of other modules, and numba's own cache does not notice when one of those
changes. So the cache folder carries a digest of every module that holds kernels: any change
compiles anew, and nothing stale is ever run. `EVERLEARN_CACHE` moves it out of the user's cache
folder.

Kernels take their arrays in named tuples, and bind the arrays of an inner loop to local names
first: each read of a tuple's array counts a reference, which costs more than the loop's own work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

__all__ = ["cache_folder", "jit"]

P = ParamSpec("P")
R = TypeVar("R")
KEPT_CACHES = 4


def cache_folder() -> Path:
    """Return the folder for compiled kernels of exactly these sources."""
    digest = blake2b(numba.__version__.encode(), digest_size=8)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        source = path.read_bytes()
        if b"@jit" in source:
            digest.update(source)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(os.environ.get("EVERLEARN_CACHE") or caches / "everlearn")
    return base / "kernels" / digest.hexdigest()


def _use_cache() -> None:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        caches = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in caches[:-KEPT_CACHES]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:
        return  # a read-only home: numba falls back to a folder of its own, or compiles each time
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]


_use_cache()


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel without the GIL, cached on disk."""
    return cast(Callable[P, R], numba.njit(nogil=True, cache=True, error_model="numpy")(function))

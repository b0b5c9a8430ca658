"""How much memory an engine may come to take, part by part: known before anything is learnt.

Arrays count at their full size. What Python holds besides them is estimated from what is stated
here: an id of up to 15 characters, a catalogue entry for every item. Not counted: the program and
its libraries, batches on their way, and the few kilobytes of drift detectors and books.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from learners.base import Source
from learners.store.vocab import Vocabulary

if TYPE_CHECKING:
    from learners.engine import Engine

__all__ = ["ID_BYTES", "LONGEST_ID_BYTES", "copy_bytes", "parts_of"]

# A Python string of up to 15 characters, and its place in a list that grows by eighths.
ID_BYTES = 64 + 9
LONGEST_ID_BYTES = 208 + 9  # the same, of 128 bytes of UTF-8
# A catalogue entry with category (12 characters), title (28), price and time, in its dictionary;
# and as JSON, kept for the next checkpoint.
ENTRY_BYTES = 384 + 160
# An id as JSON, in pieces and as a whole, and its place in the copied list: while one is written.
WRITTEN_ID_BYTES = 2 * 18 + 8


def parts_of(engine: Engine) -> dict[str, int]:
    """Return the bytes of each part of an engine when every capacity is used up.

    Examples
    --------
    >>> from learners.base import EngineConfig
    >>> from learners.engine import Engine
    >>> parts = parts_of(Engine(EngineConfig(users=8, items=8, sessions=8, dedupe_events=8)))
    >>> parts["history"], parts["users.ids"]
    (2376, 584)
    """
    seen: set[int] = set()
    parts: dict[str, int] = {}
    memory = engine.memory
    for field in fields(memory):
        part = getattr(memory, field.name)
        name = part.name if isinstance(part, Source) else field.name
        parts[name] = _bytes_of(part, seen)
        if isinstance(part, Vocabulary):
            parts[f"{name}.ids"] = part.capacity * ID_BYTES
    parts["evaluation"] = _bytes_of(engine.evaluation, seen)
    parts["catalogue"] = _bytes_of(engine.catalogue, seen)
    parts["catalogue.entries"] = engine.config.items * ENTRY_BYTES
    return {name: size for name, size in parts.items() if size}


def copy_bytes(engine: Engine) -> int:
    """Return the bytes of a checkpoint's copy at full capacity, while it is written."""
    state = engine.live_state() | {"evaluation/covered": engine.evaluation.covered}
    seen: set[int] = set()
    arrays = sum(_bytes_of(array, seen) for array in state.values() if not callable(array))
    return arrays + (engine.config.users + engine.config.items) * WRITTEN_ID_BYTES


def _bytes_of(part: object, seen: set[int]) -> int:
    """Return the bytes of the arrays in a part that were not seen before."""
    total = 0
    for array in arrays_of(part):
        root: Any = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        if id(root) not in seen:
            seen.add(id(root))
            total += root.nbytes
    return total


def arrays_of(part: object) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a part: itself, those in a tuple, or those that an object of ours has."""
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from arrays_of(each)
    elif type(part).__module__.startswith("learners.") and hasattr(part, "__dict__"):
        for each in vars(part).values():
            yield from arrays_of(each)

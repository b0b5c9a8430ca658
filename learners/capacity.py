"""How much memory an engine may come to take, part by part: known before anything is learnt.

Arrays count at their full size. Texts have buffers that are reserved for long ones; of these counts
what is stated here: ids of up to 16 bytes, a catalogue entry for every item. Not counted: the
program and its libraries, batches on their way, drift detectors (less than a megabyte) and books.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from learners.base import Source
from learners.deep.config import SequenceConfig
from learners.deep.packing import blank
from learners.deep.registry import Snapshot
from learners.deep.served.deep import Deep
from learners.explore import HELD_BYTES
from learners.explored import STATE_BYTES
from learners.sources.content import PACKED_BYTES
from learners.store.strings import NAMED
from learners.store.vocab import Vocabulary
from learners.store.xxh3 import MOST_BYTES

if TYPE_CHECKING:
    from learners.engine import Engine

__all__ = ["ID_BYTES", "LONGEST_ID_BYTES", "copy_bytes", "parts_of"]

ID_BYTES = 16  # a block, as `strings` hands them out; where it stands counts with the arrays
LONGEST_ID_BYTES = MOST_BYTES
NAME_BYTES = 150  # of an id of as many bytes that is kept as a Python string
ENTRY_BYTES = 80  # in blocks: a category of 12 characters, a title of 28, price and time


def parts_of(engine: Engine) -> dict[str, int]:
    """Return the bytes of each part of an engine when every capacity is used up.

    Examples
    --------
    >>> from learners.base import EngineConfig
    >>> from learners.engine import Engine
    >>> parts = parts_of(Engine(EngineConfig(users=8, items=8, sessions=8, dedupe_events=8)))
    >>> parts["history"], parts["users.ids"]
    (1800, 128)
    """
    seen = _reserved(engine)
    parts: dict[str, int] = {}
    memory = engine.memory
    for field in fields(memory):
        part = getattr(memory, field.name)
        name = part.name if isinstance(part, Source) else field.name
        parts[name] = _bytes_of(part, seen)
        if isinstance(part, Vocabulary):
            parts[f"{name}.ids"] = part.capacity * ID_BYTES
    parts["deep"] = _deep_bytes(engine.config.items)
    parts["evaluation"] = _bytes_of(engine.evaluation, seen)
    parts["catalogue"] = _bytes_of(engine.catalogue, seen)
    parts["catalogue.entries"] = engine.config.items * ENTRY_BYTES
    parts["items.names"] = min(NAMED, engine.config.items) * NAME_BYTES
    parts["exploration"] = _bytes_of(engine.explorer, seen) + HELD_BYTES
    return {name: size for name, size in parts.items() if size}


def copy_bytes(engine: Engine) -> int:
    """Return the bytes of a checkpoint's copy at full capacity, while it is written."""
    config = engine.config
    state = engine.state() | {"evaluation/covered": engine.evaluation.covered}
    seen = _reserved(engine)
    arrays = sum(_bytes_of(array, seen) for array in state.values())
    arrays += PACKED_BYTES + 2 * STATE_BYTES  # made for the copy, and the copy
    return arrays + (config.users + config.items) * ID_BYTES + config.items * ENTRY_BYTES


def _deep_bytes(items: int) -> int:
    """Return the bytes of a deep model that has all items; while it is replaced there are two."""
    config, names = SequenceConfig(), [str(item) for item in range(items)]
    snapshot = Snapshot("", blank(config, items), names, {"config": asdict(config)})
    return _bytes_of(Deep(items, snapshot), set())


def _reserved(engine: Engine) -> set[int]:
    """Return the identities of the buffers of texts, of which the stated part is used."""
    memory = engine.memory
    texts = (memory.users.ids, memory.items.ids, engine.catalogue.entries)
    return {id(each.heap.data) for each in texts}


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

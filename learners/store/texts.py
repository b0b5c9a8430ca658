"""Columns of short texts, as runs of one buffer of bytes: no Python object for each.

An event's user, item and session come as bytes and are known by their hashes, so a text becomes a
Python string only where somebody asks for it: when its id is met for the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from learners.jit import jit_brief
from learners.store.xxh3 import MOST_BYTES, hash_64

__all__ = ["Texts", "keys_64"]


class Texts(Sequence[str]):
    """A column of n texts, UTF-8; slices share the buffer, which nobody writes to.

    Parameters
    ----------
    data : (bytes,) uint8
    start, stop : (n,) int64
        Text i is `data[start[i]:stop[i]]`.

    Examples
    --------
    >>> names = Texts.of(["ann", "", "bob"])
    >>> names[0], list(names[1:]), names.take(np.array([2, 0]))[0]
    ('ann', ['', 'bob'], 'bob')
    """

    __slots__ = ("data", "start", "stop")

    def __init__(
        self, data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> None:
        if data.flags.writeable:  # a kernel is compiled for one type of buffer
            data = data.view()
            data.flags.writeable = False
        self.data = data
        self.start = start
        self.stop = stop

    @classmethod
    def of(cls, names: Sequence[str]) -> Texts:
        """Return a column of texts; one that is a column already is returned as it is."""
        if isinstance(names, Texts):
            return names
        joined = "".join(names)
        if joined.isascii():
            sizes = list(map(len, names))
            data = joined.encode()
        else:  # half of a surrogate pair may be in something asked for
            encoded = [name.encode("utf-8", "surrogatepass") for name in names]
            sizes = list(map(len, encoded))
            data = b"".join(encoded)
        stop = np.cumsum(np.array(sizes, np.int64))
        return cls(np.frombuffer(data, np.uint8), stop - np.array(sizes, np.int64), stop)

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Texts: ...
    def __getitem__(self, place: int | slice) -> str | Texts:
        if isinstance(place, slice):
            return Texts(self.data, self.start[place], self.stop[place])
        text = self.data[self.start[place] : self.stop[place]].tobytes()
        return text.decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts.of({list(self)!r})"

    def take(self, places: NDArray[np.int64]) -> Texts:
        """Return the texts at some places (m,), in order; nearly always one run of them."""
        if len(places) and places[-1] - places[0] == len(places) - 1:
            return self[places[0] : places[-1] + 1]
        return Texts(self.data, self.start[places], self.stop[places])


def keys_64(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return the XXH3_64bits hashes of texts, (n,); 0 for the empty one."""
    texts = Texts.of(names)
    keys = np.empty(len(texts), np.uint64)
    if _hash_64(texts.data, texts.start, texts.stop, keys) > MOST_BYTES:
        keys[:] = [xxhash.xxh3_64_intdigest(_bytes(texts, i)) for i in range(len(texts))]
        keys[texts.start == texts.stop] = 0
    return keys


def _bytes(texts: Texts, place: int) -> bytes:
    return texts.data[texts.start[place] : texts.stop[place]].tobytes()


@jit_brief
def _hash_64(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    keys: NDArray[np.uint64],
) -> int:
    """Write keys (n,); return the length of the longest text, beyond `MOST_BYTES` at once."""
    longest = 0
    for i in range(len(start)):
        longest = max(longest, stop[i] - start[i])
        if longest > MOST_BYTES:
            return int(longest)
        known = stop[i] > start[i]
        keys[i] = hash_64(data, start[i], stop[i]) if known else np.uint64(0)
    return int(longest)

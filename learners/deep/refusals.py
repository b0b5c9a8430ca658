"""Snapshots that cannot be used: each is told by name, and not read again until its files change.

Who follows the registry looks at it every second; to read and verify a large snapshot that often
would cost more than to answer with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from learners.deep.snapshots import CURE, Snapshot, Snapshots, is_missing
from learners.errors import SnapshotError

__all__ = ["Refusals"]

T = TypeVar("T")
SHAPES = "Error(s) in loading state_dict"  # how torch tells arrays of another shape or name
CONTENT = SnapshotError, AttributeError, LookupError, TypeError, ValueError  # of what is in files


class Refusals:
    """Reads snapshots, and remembers those in vain.

    Parameters
    ----------
    snapshots
        Where they are.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._refused: dict[str, tuple[object, str]] = {}  # by id: its files then, and why

    def read(self, id: str, make: Callable[[Snapshot], T]) -> T:
        """Read a snapshot and make something of it.

        Raises
        ------
        SnapshotError
            It is refused, or was before and its files are the same; or what is in it is nothing
            that `make` can use.
        """
        files = self._snapshots.files(id)
        then, why = self._refused.pop(id, (None, ""))
        if then != files:
            try:
                return make(self._snapshots.read(id))
            except Exception as error:  # whatever a foreign file may lead to
                if _passes(error):
                    raise SnapshotError(_told(id, error)) from error
                why = _told(id, error)
        self._refused[id] = files, why
        raise SnapshotError(why)


def _told(id: str, error: Exception) -> str:
    if isinstance(error, SnapshotError):
        return str(error)
    return f"snapshot {id} is refused: {error!r}; {CURE}"


def _passes(error: Exception) -> bool:
    """Tell whether the same files may be read another time: disk or memory had failed.

    Torch has no error of its own for memory that runs out on a CPU, nor for arrays of another
    shape: only the latter is told with the names of arrays.
    """
    cause = error.__cause__ or error
    if isinstance(cause, OSError):
        return not is_missing(cause)
    if isinstance(cause, RuntimeError):
        return SHAPES not in str(cause)
    return isinstance(cause, MemoryError) or not isinstance(error, CONTENT)

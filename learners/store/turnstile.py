"""A fair lock between one writer that never stops and readers that must not wait for it."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

__all__ = ["Turnstile"]


class Turnstile:
    """A mutual exclusion in which a waiting reader goes before the writer's next turn.

    A plain `threading.Lock` may be taken again and again by the thread that has just released it.
    Here everyone passes a gate first, and whoever waits for the lock holds the gate meanwhile.
    """

    def __init__(self) -> None:
        self._gate = Lock()
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._gate:
            self._lock.acquire()

    def let_through(self) -> None:
        """Let those go first who wait: for whoever holds the lock, between two steps."""
        self._lock.release()
        self.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

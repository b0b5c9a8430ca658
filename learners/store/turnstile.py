"""A fair lock between one writer that never stops and readers that must not wait for it."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

import numpy as np

__all__ = ["Turnstile"]


class Turnstile:
    """A mutual exclusion in which a waiting reader goes before the writer's next turn.

    A plain `threading.Lock` may be taken again and again by the thread that has just released it.
    Here everyone passes a gate first, and whoever waits for the lock holds the gate meanwhile. Who
    has to wait also says so in `waiting`, (1,), for a writer that works for long without Python: it
    can look there, and stop. Such a writer clears it before it enters.
    """

    def __init__(self) -> None:
        self.waiting = np.zeros(1, np.int64)
        self._gate = Lock()
        self._lock = Lock()

    def __enter__(self) -> None:
        self._pass(self._gate)
        try:
            self._pass(self._lock)
        finally:
            self._gate.release()

    def _pass(self, lock: Lock) -> None:
        if not lock.acquire(blocking=False):
            self.waiting[0] = 1
            lock.acquire()

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

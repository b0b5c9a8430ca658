"""The watchdog: a thread that ends the process when nothing moves although there is work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import structlog

__all__ = ["EXIT_CODE", "Watchdog"]

log = structlog.get_logger("everlearn.watchdog")

EXIT_CODE = 70  # "internal software error" of sysexits.h


class Watchdog:
    """Ends the process when it hangs, so that whoever runs it starts it again.

    Parameters
    ----------
    seconds
        How long nothing may move: the event loop at all, or learning while events wait.
    signs
        Returns whether there is work, and a value that changes as it is done; asked at each beat,
        where nothing changes what it looks at meanwhile.
    end
        Ends the process; `os._exit` by default, for a process that hangs cannot be asked.
    """

    def __init__(
        self,
        seconds: float,
        signs: Callable[[], tuple[bool, object]],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self.seconds = seconds
        self.interval = min(1.0, seconds / 10)
        self._ask = signs
        self._signs: tuple[bool, object] = (False, None)
        self._end = end
        self._last_beat = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="everlearn-watchdog", daemon=True)

    def start(self) -> None:
        """Start to watch."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop to watch."""
        self._stopped.set()

    def beat(self) -> None:
        """Note that the event loop turns, and how work goes; call it there at each interval."""
        self._signs = self._ask()
        self._last_beat = time.monotonic()

    def _watch(self) -> None:
        seen, moved = self._signs, time.monotonic()
        while not self._stopped.wait(self.interval):
            now, signs = time.monotonic(), self._signs
            if signs != seen or not signs[0]:
                seen, moved = signs, now
            if now - moved > self.seconds:
                self._exit("events wait, and none was learnt", now - moved)
            elif now - self._last_beat > self.seconds:
                self._exit("the event loop stands still", now - self._last_beat)

    def _exit(self, reason: str, seconds: float) -> None:
        log.critical("watchdog ends the process", reason=reason, seconds=round(seconds, 1))
        self._stopped.set()
        self._end(EXIT_CODE)

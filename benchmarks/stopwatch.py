"""A stopwatch that counts events, and starts once the learner is warm."""

from __future__ import annotations

import resource
import sys
import time

__all__ = ["Stopwatch"]


class Stopwatch:
    """Counts events from the moment `warm` of them are done until `total` are, or time is up.

    >>> watch = Stopwatch(warm=10, total=30, limit_seconds=60.0)
    >>> [watch.count(10) for _ in range(3)]
    [False, False, True]
    >>> watch.figures()["events"]
    20
    """

    def __init__(self, *, warm: int, total: int, limit_seconds: float) -> None:
        self.warm = warm
        self.total = total
        self.limit_seconds = limit_seconds
        self.done = 0
        self.running = False
        self.over = False
        self._from = 0
        self._started = self._ended = (0.0, 0.0)

    def count(self, events: int) -> bool:
        """Count events that were just done; True once the measurement is over."""
        if self.over:
            return True
        self.done += events
        if not self.running:
            if self.done >= self.warm:
                self.running, self._from, self._started = True, self.done, _now()
            return False
        if self.done >= self.total or time.perf_counter() - self._started[0] > self.limit_seconds:
            self.over, self._ended = True, _now()
        return self.over

    def figures(self) -> dict[str, float]:
        """What was measured: events, their rate, the seconds on the clock and of the CPU."""
        seconds, cpu = (end - start for start, end in zip(self._started, self._ended, strict=True))
        events = self.done - self._from
        return {
            "events_per_second": round(events / seconds),
            "cpu_seconds": round(cpu, 3),
            "events": events,
            "memory_mb": round(_peak_bytes() / 2**20),
            "seconds": seconds,
        }


def _now() -> tuple[float, float]:
    """Seconds on the clock, and CPU seconds of this process with all its threads."""
    return time.perf_counter(), time.process_time()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""Is taste drifting? A detector on the prequential hits of the blend.

ADWIN (Bifet, Gavaldà 2007) of River keeps a window that it cuts where the means before and after
differ by more than chance. River's detectors cannot be stored without pickling, so this one is
begun anew from its latest `KEPT` hits at fixed counts; the hits since then are its whole state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Alarm", "HitRateDrift"]

KEPT = 4096
DELTA = 1e-4  # ADWIN's confidence; a false alarm bound per comparison


@dataclass(frozen=True, slots=True)
class Alarm:
    """A drop or rise of the hit rate that is no chance."""

    where: str
    event: int  # clicks and purchases learnt until then
    time: float  # seconds
    before: float  # hit rate of the window until then
    after: float


class HitRateDrift:
    """Feed it hits and misses; it says when the hit rate has changed.

    Examples
    --------
    >>> drift = HitRateDrift("overall")
    >>> hits = [i % 2 for i in range(2000)] + [0] * 500
    >>> for event, hit in enumerate(hits):
    ...     drift.update(bool(hit), event, float(event))
    >>> [(alarm.event // 100, round(alarm.before, 1)) for alarm in drift.alarms][:1]
    [(20, 0.5)]
    """

    def __init__(self, where: str, most_alarms: int = 100) -> None:
        self.where = where
        self.most_alarms = most_alarms
        self.alarms: list[Alarm] = []
        self._hits: list[bool] = []
        self._detector: Any = None

    def update(self, hit: bool, event: int, time: float) -> None:
        """Note one hit or miss."""
        if self._detector is None:
            self._begin_anew()
        if len(self._hits) == 2 * KEPT:
            self._hits = self._hits[KEPT:]
            self._begin_anew()
        before = self._detector.estimation
        self._detector.update(hit)
        self._hits.append(hit)
        if self._detector.drift_detected:
            alarm = Alarm(self.where, event, time, before, self._detector.estimation)
            self.alarms = [*self.alarms, alarm][-self.most_alarms :]

    def _begin_anew(self) -> None:
        from river.drift import ADWIN  # two seconds of imports, so only when the first hit comes

        self._detector = ADWIN(delta=DELTA)  # type: ignore[no-untyped-call]
        for hit in self._hits:
            self._detector.update(hit)

    def report(self) -> list[dict[str, object]]:
        """Return the alarms as plain values, oldest first."""
        return [asdict(alarm) for alarm in self.alarms]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the hits since the detector was begun, and the alarms."""
        alarms = [(alarm.event, alarm.time, alarm.before, alarm.after) for alarm in self.alarms]
        return {
            "hits": np.array(self._hits, np.uint8),
            "alarms": np.array(alarms, np.float64).reshape(-1, 4),
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the detector that gave this state."""
        self._hits = [bool(hit) for hit in state["hits"]]
        self._detector = None
        rows = np.asarray(state["alarms"], np.float64)
        self.alarms = [
            Alarm(self.where, int(event), time, before, after)
            for event, time, before, after in rows
        ]

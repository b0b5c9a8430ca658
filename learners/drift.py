"""Is taste drifting? Detectors on the prequential hits of the blend; `forgetting` is what is done.

Each hit or miss goes to three streams: all of them, those of the clicked item's category, and those
of the user's segment. A stream has two detectors, since each is first at another kind of drift:
River's ADWIN (Bifet, Gavaldà 2007) cuts its window where the means before and after differ by more
than chance; Page-Hinkley (Page 1954) sums up what is missing below the mean. Only a fall is an
alarm: a rise is what learning looks like. An event goes to three streams however many categories
there are, so false alarms an event do not grow with them.

Segments are by activity, not by a hash: a hash splits people into groups that cannot differ, while
newcomers and regulars do.

ADWIN looks for a cut at every 32nd hit only, so it is shown them then, all at once. River's
detectors cannot be stored without pickling. So a stream keeps its latest hits, from which both are
begun anew: at fixed counts, and when a state is loaded.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig

__all__ = ["CATEGORIES", "OVERALL", "Alarm", "DetectorConfig", "Drift", "HitStream"]

KEPT = 2048  # hits with which detectors are begun anew
MOST = 8192  # hits after which they are
ADWIN_CLOCK = 32  # hits from one look of ADWIN's to the next; a divisor of both
LEAST_SEEN = 30  # hits before Page-Hinkley judges
CATEGORIES = 64  # with a stream of their own: the first that are met
ALARMS = 100  # the latest that are kept
SEGMENTS = ("newcomers", "occasional", "regulars")
FROM = (8, 64)  # events of the user before, with which the next segment begins
OVERALL = "overall"


class Alarm(msgspec.Struct, frozen=True):
    """A fall of the hit rate that is no chance."""

    where: str  # "overall", "segment regulars", "category tents"
    event: int  # clicks and purchases learnt until then
    time: float  # seconds
    before: float  # hit rate until it fell
    after: float
    detector: str

    @property
    def category(self) -> str | None:
        """The category in which it was raised, if in one."""
        return self.where.removeprefix("category ") if self.where.startswith("category ") else None


class _Book(msgspec.Struct):
    """What is stored besides the hits."""

    alarms: list[Alarm]
    raised: dict[str, int]
    categories: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """Constants of the detectors, chosen on streams of coin flips (docs/log.md)."""

    confidence: float = 1e-3  # ADWIN's delta: smaller, fewer false alarms
    tolerance: float = 0.05  # Page-Hinkley's delta: a smaller fall of the hit rate is none
    threshold: float = 30.0  # Page-Hinkley's lambda: hits that must be missing

    @classmethod
    def of(cls, config: EngineConfig) -> DetectorConfig:
        """Take the constants out of an engine's."""
        return cls(
            confidence=config.drift_confidence,
            tolerance=config.drift_tolerance,
            threshold=config.drift_threshold,
        )


class _PageHinkley:
    """Page's cumulative sum test for a fall of a mean (Page 1954); a test compares River's.

    The sum of all deviations from the mean so far, each with the tolerance added, rises as long as
    nothing changes; it has fallen where it is below its highest by more than the threshold.
    """

    __slots__ = ("_highest", "_mean", "_seen", "_sum", "_threshold", "_tolerance")

    def __init__(self, config: DetectorConfig) -> None:
        self._tolerance, self._threshold = config.tolerance, config.threshold
        self._begin()

    def _begin(self) -> None:
        self._seen = 0
        self._mean = self._sum = self._highest = 0.0

    def update(self, hit: int) -> bool:
        """Note a hit or miss; tell whether there is a fall, after which all begins again."""
        self._seen += 1
        self._mean += (hit - self._mean) / self._seen
        self._sum += hit - self._mean + self._tolerance
        if self._sum > self._highest:
            self._highest = self._sum
        elif self._highest - self._sum > self._threshold and self._seen >= LEAST_SEEN:
            self._begin()
            return True
        return False


class HitStream:
    """A stream of hits and misses; it says when the hit rate has fallen.

    Examples
    --------
    >>> stream = HitStream()
    >>> hits = [i % 2 for i in range(2000)] + [0] * 500
    >>> alarms = [(i, stream.update(bool(hit))) for i, hit in enumerate(hits)]
    >>> [(i, alarm) for i, alarm in alarms if alarm][0]
    (2047, ('ADWIN', 0.5, 0.0))
    """

    __slots__ = ("_adwin", "_page_hinkley", "config", "hits", "where")

    def __init__(self, config: DetectorConfig | None = None, where: str = OVERALL) -> None:
        self.config = config or DetectorConfig()
        self.where = where
        self.begin()

    def begin(self) -> None:
        """Forget all hits: what comes is another time."""
        self.load(b"")

    def load(self, hits: bytes | bytearray) -> None:
        """Become the stream that had these hits."""
        self.hits = bytearray(hits)
        self._adwin: Any = None
        self._page_hinkley = _PageHinkley(self.config)

    def update(self, hit: bool) -> tuple[str, float, float] | None:
        """Note one hit or miss; at a fall return the detector and the rates before and after."""
        if len(self.hits) == MOST:
            self.load(self.hits[-KEPT:])
        if self._adwin is None:
            self._begin_anew()
        self.hits.append(hit)
        if self._page_hinkley.update(hit):
            detector = "Page-Hinkley"
        elif len(self.hits) % ADWIN_CLOCK == 0 and self._feed_adwin(len(self.hits)):
            detector = "ADWIN"
        else:
            return None
        found = (detector, *_rates(np.frombuffer(self.hits, np.uint8)))
        self.begin()
        return found

    def _feed_adwin(self, end: int) -> bool:
        """Show ADWIN the hits until `end`, where it looks for a cut; tell whether they fell."""
        adwin = self._adwin
        for hit in self.hits[end - ADWIN_CLOCK : end - 1]:
            adwin.update(hit)
        before = adwin.estimation
        adwin.update(self.hits[end - 1])
        return bool(adwin.drift_detected and adwin.estimation < before)

    def _begin_anew(self) -> None:
        from river.drift import ADWIN  # two seconds of imports, so only at the first hit

        adwin: Any = ADWIN
        self._adwin = adwin(delta=self.config.confidence, clock=ADWIN_CLOCK)
        for hit in self.hits:
            self._page_hinkley.update(hit)
        for end in range(ADWIN_CLOCK, len(self.hits) + 1, ADWIN_CLOCK):
            self._feed_adwin(end)


def _rates(hits: NDArray[np.uint8]) -> tuple[float, float]:
    """Split hits where that explains most of them (least squares); return both parts' rates."""
    n = len(hits)
    held = np.arange(1, n)
    above = np.cumsum(hits - hits.mean())[:-1]
    place = int((above / np.sqrt(held * (n - held))).argmax()) + 1
    return float(hits[:place].mean()), float(hits[place:].mean())


class Drift:
    """The streams of an engine, and the alarms that they raised.

    Examples
    --------
    >>> drift = Drift()
    >>> hits = [i % 2 for i in range(2000)] + [0] * 500
    >>> for event, hit in enumerate(hits):
    ...     drift.update(bool(hit), event, float(event), category="tents" if hit else None)
    >>> [(alarm.where, alarm.event, alarm.before) for alarm in drift.alarms][:1]
    [('overall', 2047, 0.5)]
    """

    def __init__(self, config: DetectorConfig | None = None) -> None:
        self.config = config or DetectorConfig()
        self.alarms: list[Alarm] = []
        self.raised: dict[str, int] = {}  # alarms ever, by where
        self.overall = HitStream(self.config)
        self.segments = [HitStream(self.config, f"segment {name}") for name in SEGMENTS]
        self.categories: dict[str, HitStream] = {}

    def update(
        self, hit: bool, event: int, time: float, *, known: int = 0, category: str | None = None
    ) -> None:
        """Note one hit or miss.

        Parameters
        ----------
        hit : bool
            Whether the true item was among the first 20.
        event, time
            Clicks and purchases learnt with this one; its time in seconds.
        known : int
            Events of its user before.
        category : str, optional
            Of the true item.
        """
        streams = [self.overall, self.segments[bisect(FROM, known)]]
        if category and (stream := self._of_category(category)):
            streams.append(stream)
        for stream in streams:
            if found := stream.update(hit):
                self._raise(stream.where, event, time, *found)

    def _of_category(self, name: str) -> HitStream | None:
        if name not in self.categories and len(self.categories) < CATEGORIES:
            self.categories[name] = HitStream(self.config, f"category {name}")
        return self.categories.get(name)

    def _raise(
        self, where: str, event: int, time: float, detector: str, before: float, after: float
    ) -> None:
        alarm = Alarm(where, event, time, before, after, detector)
        self.alarms = [*self.alarms, alarm][-ALARMS:]
        self.raised[where] = self.raised.get(where, 0) + 1
        if where == OVERALL:  # the others would only tell the same again
            for stream in self._streams()[1:]:
                stream.begin()

    def _streams(self) -> list[HitStream]:
        return [self.overall, *self.segments, *self.categories.values()]

    def since(self, event: int) -> list[Alarm]:
        """Return the alarms raised after so many events, oldest first."""
        return [alarm for alarm in self.alarms if alarm.event > event]

    def report(self) -> list[dict[str, object]]:
        """Return the alarms as plain values, oldest first."""
        return [msgspec.structs.asdict(alarm) for alarm in self.alarms]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the hits since the detectors were begun, stream by stream, and the alarms."""
        streams = self._streams()
        book = msgspec.json.encode(_Book(self.alarms, self.raised, list(self.categories)))
        return {
            "hits": np.frombuffer(b"".join(stream.hits for stream in streams), np.uint8),
            "lengths": np.array([len(stream.hits) for stream in streams], np.int64),
            "book": np.frombuffer(book, np.uint8),
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the streams that gave this state."""
        book = msgspec.json.decode(state["book"].tobytes(), type=_Book)
        self.alarms, self.raised = book.alarms, book.raised
        self.categories.clear()
        for name in book.categories:
            self._of_category(name)
        ends = np.cumsum(state["lengths"])
        for stream, hits in zip(self._streams(), np.split(state["hits"], ends[:-1]), strict=True):
            stream.load(hits.tobytes())

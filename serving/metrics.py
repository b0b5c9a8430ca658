"""What Prometheus scrapes: the engine's own counts and figures, and histograms of the node.

Everything that the engine counts is read from `Engine.report()` at the scrape, so learning pays
nothing for it; the histograms are filled a batch at a time.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from learners.deep.served.source import ITEMS

if TYPE_CHECKING:
    from learners.engine import Engine
    from serving.live import Live

__all__ = ["CONTENT_TYPE_LATEST", "Buckets", "Metrics"]

ANSWER_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
LEARN_BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
FRESHNESS_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
TARGETS = (("metrics", "all"), ("clicks", "click"), ("purchases", "purchase"), ("recent", "recent"))


class Buckets:
    """A histogram that takes one value cheaply and an array at once.

    >>> seconds = Buckets((0.1, 1.0))
    >>> seconds.add(0.05)
    >>> seconds.add_all(np.array([0.5, 7.0]))
    >>> seconds.cumulative()
    [('0.1', 1.0), ('1.0', 2.0), ('+Inf', 3.0)]
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Count every value of an array."""
        places = np.searchsorted(self.bounds, values)
        found = np.bincount(places, minlength=len(self.counts))
        self.counts = [old + int(new) for old, new in zip(self.counts, found, strict=True)]
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """Counts up to each bound, as Prometheus wants them."""
        totals = np.cumsum(self.counts)
        names = [str(bound) for bound in self.bounds] + ["+Inf"]
        return [(name, float(total)) for name, total in zip(names, totals, strict=True)]


class Metrics(Collector):
    """The metrics of one node."""

    def __init__(self, engine: Engine, live: Live) -> None:
        self.engine = engine
        self.live = live
        self.answer_seconds: dict[str, Buckets] = {}
        self.learn_seconds = Buckets(LEARN_BOUNDS)
        self.freshness_seconds = Buckets(FRESHNESS_BOUNDS)
        self.impressions = {"sent": 0, "dropped": 0}
        self.refused: dict[str, int] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing at registration: the engine may not be there yet."""
        return ()

    def answered(self, route: str, seconds: float) -> None:
        """Count an answer."""
        buckets = self.answer_seconds.get(route)
        if buckets is None:
            buckets = self.answer_seconds[route] = Buckets(ANSWER_BOUNDS)
        buckets.add(seconds)

    @contextmanager
    def answering(self, route: str) -> Iterator[None]:
        """Count the answer that is made inside."""
        started = time.perf_counter()
        yield
        self.answered(route, time.perf_counter() - started)

    def shown(self, sent: bool) -> None:
        """Count an impression, sent or dropped."""
        self.impressions["sent" if sent else "dropped"] += 1

    def refuse(self, reason: str) -> None:
        """Count an event that the API did not accept."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def learnt(self, seconds: float, record_times: NDArray[np.float64]) -> None:
        """Count a learnt batch: how long it took, and how old its records are (seconds UTC)."""
        self.learn_seconds.add(seconds)
        if len(record_times):
            self.freshness_seconds.add_all(np.maximum(time.time() - record_times, 0.0))

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric, with the engine's figures as they are now."""
        report: dict[str, Any] = self.engine.report()
        yield _counter("events_learnt", "Events learnt", "kind", report["learnt"])
        yield _counter("events_rejected", "Messages rejected", "reason", report["rejected"])
        yield _counter(
            "requests_refused", "Events not accepted by POST /events", "reason", self.refused
        )
        yield _counter("impressions", "Impressions of answers", "outcome", self.impressions)
        yield _counter("events_duplicate", "Repeated events skipped", value=report["duplicates"])
        yield _gauge("users", "Users known", report["users"])
        yield _gauge("items", "Items known", report["items"])
        yield _gauge(
            "clock_seconds", "Time of the latest click or purchase learnt", report["clock"]
        )
        yield from self._health()
        yield from self._histograms()
        yield from _figures(report)
        raised = report["alarms_raised"]
        yield _counter("drift_alarms", "Alarms of the drift detectors", "where", raised)

    def _health(self) -> Iterator[Metric]:
        health = self.live.ready()
        yield _gauge("ready", "1 when nothing is left to learn", float(bool(health["ready"])))
        if health.get("lag") is not None:
            yield _gauge("lag_events", "Events published but not learnt", health["lag"])
        if health.get("last_checkpoint"):
            age = time.time() - health["last_checkpoint"]
            yield _gauge("checkpoint_age_seconds", "Age of the newest checkpoint", age)
        problem = bool(health.get("snapshot_problem"))
        yield _gauge("snapshot_problem", "1 while the champion cannot be served", float(problem))
        items = self.engine.memory.deep.arrays.book[ITEMS]
        yield _gauge("snapshot_items", "Items of the snapshot that serves, 0 without one", items)

    def _histograms(self) -> Iterator[Metric]:
        answers = HistogramMetricFamily(
            "everlearn_answer_seconds", "Time to make an answer", labels=["route"]
        )
        for route, buckets in self.answer_seconds.items():
            answers.add_metric([route], buckets.cumulative(), buckets.sum)
        yield answers
        for name, meaning, buckets in (
            ("learn_seconds", "Time to learn a batch", self.learn_seconds),
            ("freshness_seconds", "From the broker's time to learnt", self.freshness_seconds),
        ):
            family = HistogramMetricFamily(f"everlearn_{name}", meaning)
            family.add_metric([], buckets.cumulative(), buckets.sum)
            yield family


def _figures(report: Mapping[str, Any]) -> Iterator[Metric]:
    """Prequential figures: `hr@20` of a source becomes `everlearn_hit_rate{source, k, targets}`."""
    families = {
        name: GaugeMetricFamily(f"everlearn_{metric}", meaning, labels=["source", "k", "targets"])
        for name, metric, meaning in (
            ("hr", "hit_rate", "Share of next events found in the first k"),
            ("mrr", "mean_reciprocal_rank", "Mean of 1/rank within the first k"),
            ("ndcg", "ndcg", "Discounted gain within the first k"),
            ("coverage", "coverage", "Share of known items in the first k of answers"),
        )
    }
    evaluated = CounterMetricFamily(
        "everlearn_evaluated", "Events ranked before they were learnt", labels=["source", "targets"]
    )
    for part, targets in TARGETS:
        for source, figures in report.get(part, {}).items():
            for figure, value in figures.items():
                name, _, k = figure.partition("@")
                if name in families and value is not None:
                    families[name].add_metric([source, k, targets], value)
                elif figure == "n" and part != "recent":
                    evaluated.add_metric([source, targets], value)
    yield from families.values()
    yield evaluated


def _counter(
    name: str,
    meaning: str,
    label: str = "",
    values: Mapping[str, float] | None = None,
    value: float | None = None,
) -> Metric:
    family = CounterMetricFamily(f"everlearn_{name}", meaning, labels=[label] if label else [])
    for key, count in (values or {}).items():
        family.add_metric([key], count)
    if value is not None:
        family.add_metric([], value)
    return family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"everlearn_{name}", meaning)
    family.add_metric([], float(value))
    return family

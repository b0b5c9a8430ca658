"""A running node's figures, read from its `/metrics`, for summaries."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Figures", "fetch", "parse_figures", "read_figures"]

TIMEOUT_SECONDS = 5.0

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a node says of itself at one moment; `hit_rates` by source and k over all events."""

    events: int = 0  # clicks and purchases
    lag: int | None = None
    answers: int = 0
    answer_seconds: float = 0.0  # of all answers together
    fresh_events: int = 0
    freshness_seconds: float = 0.0  # of all events together
    hit_rates: Mapping[tuple[str, int], float] = field(default_factory=dict)
    recent_hit_rates: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def hit_rate(self, source: str, k: int = 20) -> float | None:
        """Hit rate of a source over everything evaluated so far."""
        return self.hit_rates.get((source, k))

    @property
    def sources(self) -> list[str]:
        """The sources that were evaluated, as the node lists them."""
        return list(dict.fromkeys(source for source, _ in self.hit_rates))


def read_figures(url: str) -> Figures:
    """Ask a node for its figures.

    Raises
    ------
    OSError
        The node does not answer.
    """
    return parse_figures(fetch(f"{url}/metrics").decode())


def fetch(url: str) -> bytes:
    """What a node answers, asked without any proxy.

    Raises
    ------
    OSError
        It does not answer, or refuses.
    """
    with _opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
        body: bytes = answer.read()
    return body


def parse_figures(text: str) -> Figures:
    """Read the text that Prometheus scrapes."""
    sums: dict[str, float] = {}
    events = 0.0
    rates: dict[str, dict[tuple[str, int], float]] = {"all": {}, "recent": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            labels = sample.labels
            if sample.name == "everlearn_events_learnt_total":
                events += sample.value if labels["kind"] in ("click", "purchase") else 0.0
            elif sample.name == "everlearn_hit_rate" and labels["targets"] in rates:
                place = labels["source"], int(labels["k"])
                rates[labels["targets"]][place] = sample.value
    lag = sums.get("everlearn_lag_events")
    return Figures(
        events=int(events),
        lag=None if lag is None else int(lag),
        answers=int(sums.get("everlearn_answer_seconds_count", 0)),
        answer_seconds=sums.get("everlearn_answer_seconds_sum", 0.0),
        fresh_events=int(sums.get("everlearn_freshness_seconds_count", 0)),
        freshness_seconds=sums.get("everlearn_freshness_seconds_sum", 0.0),
        hit_rates=rates["all"],
        recent_hit_rates=rates["recent"],
    )

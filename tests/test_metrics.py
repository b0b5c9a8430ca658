"""What Prometheus scrapes is what happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from learners.deep.served.deep import Deep
from serving.api import make_api
from serving.metrics import Metrics
from streams.publisher import Publisher
from streams.settings import Settings
from tests.fakes import EngineWithFigures, LogInMemory, NodeInMemory, learn
from tests.served import serving
from tests.test_deep_serving import ITEMS, SMALL, Held, shaken

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    engine = EngineWithFigures()
    event = b'{"event_id": "e", "timestamp": 1000, "user": "ann", "item": "item-1"}'
    learn(engine, [("everlearn.clicks", b"ann", event)], Settings())
    return Metrics(engine, NodeInMemory(engine))


@pytest.fixture
def client(metrics: Metrics) -> Iterator[httpx.Client]:
    app = make_api(metrics.engine, LogInMemory(), Settings(), metrics.live, metrics=metrics)  # type: ignore[arg-type]
    with serving() as running, running.client(app) as client:
        yield client


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_counts_and_figures_of_the_engine(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)
    assert value(found, "everlearn_events_learnt_total", kind="click") == 10
    assert value(found, "everlearn_events_rejected_total", reason="malformed_json") == 3
    assert value(found, "everlearn_events_duplicate_total") == 1
    assert value(found, "everlearn_hit_rate", source="blend", k="20", targets="all") == 0.4
    assert value(found, "everlearn_hit_rate", source="popularity", k="20", targets="all") == 0.2
    assert value(found, "everlearn_hit_rate", source="blend", k="20", targets="recent") == 0.6
    assert value(found, "everlearn_evaluated_total", source="blend", targets="click") == 10
    assert value(found, "everlearn_drift_alarms_total", where="overall") == 1
    assert value(found, "everlearn_lag_events") == 0
    assert value(found, "everlearn_ready") == 1
    assert value(found, "everlearn_snapshot_problem") == 0
    assert value(found, "everlearn_snapshot_items") == 0


def test_a_snapshot_that_serves_and_one_that_cannot_are_seen(
    client: httpx.Client, metrics: Metrics
) -> None:
    held = Held(shaken(SMALL, len(ITEMS) + 1))
    metrics.engine.serve(Deep(metrics.engine.config.items, held))
    metrics.live.health["snapshot_problem"] = "it is damaged"  # type: ignore[attr-defined]
    found = samples(client.get("/metrics").text)
    assert value(found, "everlearn_snapshot_problem") == 1
    assert value(found, "everlearn_snapshot_items") == len(ITEMS) + 1


def test_answers_are_timed_by_route(client: httpx.Client) -> None:
    for path in ("/recommend/ada", "/recommend/bob", "/trending", "/items/item-1/similar"):
        client.get(path)
    client.post("/recommend", json=[])
    found = samples(client.get("/metrics").text)
    counted = {
        route: value(found, "everlearn_answer_seconds_count", route=route)
        for route in ("recommend", "trending", "similar", "recommend_visitor")
    }
    assert counted == {"recommend": 2, "trending": 1, "similar": 1, "recommend_visitor": 1}
    assert value(found, "everlearn_impressions_total", outcome="sent") == 5


def test_learning_is_timed_and_freshness_counted_per_event(
    client: httpx.Client, metrics: Metrics
) -> None:
    metrics.learnt(0.002, np.array([time.time() - 0.02, time.time() - 20, time.time() + 5]))
    found = samples(client.get("/metrics").text)
    assert value(found, "everlearn_learn_seconds_count") == 1
    assert value(found, "everlearn_freshness_seconds_count") == 3
    assert value(found, "everlearn_freshness_seconds_bucket", le="0.001") == 1
    assert value(found, "everlearn_freshness_seconds_bucket", le="1.0") == 2
    assert value(found, "everlearn_freshness_seconds_bucket", le="30.0") == 3


def test_refused_events_are_counted_by_reason(client: httpx.Client) -> None:
    client.post("/events", json=[{"type": "sale"}, {"type": "sale"}])
    found = samples(client.get("/metrics").text)
    assert value(found, "everlearn_requests_refused_total", reason="unknown_type") == 2


class Outbox(Publisher):
    """Keeps what it is to publish, and is a publisher: one that is idle must not count as none."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:9")
        self.values: list[bytes | None] = []

    def publish_nowait(self, topic: str, key: bytes | None, value: bytes | None, *_: Any) -> bool:
        """Keep it."""
        self.values.append(value)
        return True


def test_impressions_go_out_by_their_own_publisher_idle_or_not(metrics: Metrics) -> None:
    """It waits for many to share a request, where the other one sends each write at once."""
    writes, impressions = Outbox(), Outbox()
    app = make_api(
        metrics.engine, writes, Settings(), metrics.live, impressions=impressions, metrics=metrics
    )
    with serving() as running, running.client(app) as client:
        for path in ("/recommend/ann", "/trending"):
            assert client.get(path).status_code == 200
        assert (len(writes.values), len(impressions.values)) == (0, 2)


def test_a_probe_by_head_is_shown_nothing(metrics: Metrics) -> None:
    log = LogInMemory()
    app = make_api(metrics.engine, log, Settings(), metrics.live, metrics=metrics)  # type: ignore[arg-type]
    with serving() as running, running.client(app) as client:
        for path in ("/recommend/ann", "/trending"):
            assert client.head(path).status_code == 200
        assert log.shown == []
        assert client.get("/trending").status_code == 200
        assert len(log.shown) == 1

"""Importing and simulating: what stands in the topics afterwards, and what is said before."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from learners.errors import BrokerError, DataError, SettingsError, TopicError
from serving.cli import app
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker, free_port
from streams.datasets import Dataset, load_dataset
from streams.decode import Gate
from streams.events import Click, Event, Impression, Item, Purchase
from streams.importer import EventWriter, import_dataset, paced, parse_speed, prepare_topics
from streams.log import in_order, records_of
from streams.publisher import Publisher
from streams.record import TopicReader
from streams.settings import Settings, TopicSettings
from streams.shop import Shop, ShopConfig
from streams.simulate import Api, Simulation
from streams.topics import create_topics

ROLES = ("clicks", "purchases", "impressions", "items", "erasures", "dead_letters", "snapshots")


def small_taobao(folder: Path, rows: int = 60) -> Path:
    frame = pl.DataFrame(
        {
            "user": [i % 7 for i in range(rows)],
            "item": [i % 11 for i in range(rows)],
            "category": [i % 11 % 3 for i in range(rows)],
            "behaviour": ["buy" if i % 10 == 9 else "pv" for i in range(rows)],
            "timestamp": [1_511_539_217 + i for i in range(rows)],
        }
    )
    path = folder / "log.parquet"
    frame.write_parquet(path)
    return path


def read_back(settings: Settings) -> tuple[pl.DataFrame, list[Event]]:
    """Everything in the topics, in the order in which a node learns it."""
    reader = TopicReader(settings)
    frames = list(reader.frames())
    reader.close()
    log, _ = in_order(pl.concat(frames))
    gate = Gate(settings.event_topics())
    events = [gate.decode_one(record) for record in records_of(log)]
    assert all(isinstance(event, Event) for event in events)
    return log, [event for event in events if isinstance(event, Event)]


def test_an_imported_data_set_stands_in_its_topics(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings(broker=embedded_broker.address)
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    seen: list[tuple[int, int]] = []
    done = import_dataset(dataset, settings, progress=lambda *at: seen.append(at))
    assert done.types == {"click": 54, "purchase": 6, "item": 11}
    assert (done.events, seen[-1]) == (71, (71, 71))
    log, events = read_back(settings)
    assert events == sorted(
        dataset.events(), key=lambda e: (e.timestamp, "-item-" not in e.event_id)
    )
    keys = [key.decode() for key in log["key"]]
    assert keys == [e.item if isinstance(e, Item) else e.user for e in events]  # type: ignore[attr-defined]
    assert log["timestamp"].to_list() == [round(event.timestamp * 1000) for event in events]


def test_import_writes_the_shape_of_a_mapped_topic(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    theirs = TopicSettings(
        name="web", type="click", fields={"user": "visitor.id"}, timestamp_unit="ms"
    )
    settings = Settings(broker=embedded_broker.address, topics={"clicks": theirs})
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    import_dataset(dataset, settings)
    log, events = read_back(settings)
    first = json.loads(log.filter(pl.col("topic") == "web")["value"][0])
    assert (first["visitor"], first["timestamp"]) == ({"id": "0"}, 1_511_539_217_000)
    assert [e for e in events if isinstance(e, Click)] == [
        e for e in dataset.events() if isinstance(e, Click)
    ]


def test_the_import_command_prints_what_it_did(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    words = ["import", "taobao", str(small_taobao(tmp_path)), "--broker", embedded_broker.address]
    printed = CliRunner().invoke(app, [*words, "--json"])
    assert printed.exit_code == 0, printed.output
    row = json.loads(printed.stdout)
    assert (row["events"], row["types"]["purchase"], row["rejected"]) == (71, 6, {})
    assert row["events_per_second"] > 0
    shown = CliRunner().invoke(app, [*words, "--speed", "100000x"])
    assert "71 events published (54 clicks, 11 items, 6 purchases)" in shown.stdout


def test_an_import_that_is_stopped_goes_on_where_it_was(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings(broker=embedded_broker.address)
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    stop = threading.Event()

    def at_thirty(done: int, total: int) -> None:
        if done == 30:
            stop.set()

    part = import_dataset(dataset, settings, speed=1e9, stop=stop, progress=at_thirty)
    assert (part.events, part.left) == (30, 41)
    assert len(read_back(settings)[1]) == 30, "the broker has what was handed over"
    rest = import_dataset(dataset, settings, skip=30)
    assert (rest.events, rest.left) == (41, 0)
    assert [event.event_id for event in read_back(settings)[1]] == [
        event.event_id
        for event in sorted(
            dataset.events(), key=lambda e: (e.timestamp, "-item-" not in e.event_id)
        )
    ]
    with pytest.raises(DataError, match="cannot skip 72 events: taobao has 71"):
        import_dataset(dataset, settings, skip=72)


def test_speed_keeps_the_pace_of_event_time() -> None:
    events = [Click(event_id=f"e{i}", timestamp=i * 30.0, user="u", item="i") for i in range(6)]
    start = time.monotonic()
    arrived = [time.monotonic() - start for _ in paced(events, 600.0)]
    assert all(when >= i * 0.05 for i, when in enumerate(arrived))


@pytest.mark.parametrize("text", ["fast", "0x", "-3x", "nanx", "infx"])
def test_an_impossible_speed_is_refused_in_words(text: str) -> None:
    with pytest.raises(SettingsError, match="neither max nor a factor like 60x"):
        parse_speed(text)


def test_import_without_a_broker_says_so(tmp_path: Path) -> None:
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    settings = Settings(broker=f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerError, match=settings.broker):
        prepare_topics(dataset, settings)


def test_the_embedded_broker_is_said_to_be_too_small_for_much(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings(broker=embedded_broker.address)
    small = load_dataset("taobao", small_taobao(tmp_path))
    assert prepare_topics(small, settings) == []
    large = Dataset("taobao", pl.concat([small.frame] * 3000))
    (warning,) = prepare_topics(large, settings)
    assert "embedded broker" in warning


def settings_for(broker: str, prefix: str, **topics: dict[str, Any]) -> Settings:
    names: dict[str, Any] = {
        role: {"name": f"{prefix}{role}"} | topics.get(role, {}) for role in ROLES
    }
    return Settings(broker=broker, topics=names)


@pytest.mark.kafka
def test_topics_that_would_drop_old_events_are_named_with_the_cure(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    quarter = {"retention_days": 90.0}
    short = settings_for(apache_kafka.address, prefix, clicks=quarter, purchases=quarter)
    with pytest.raises(TopicError, match=r"keeps 90 days.*topics\.clicks\.retention_days = -1"):
        prepare_topics(dataset, short)
    create_topics(short)
    warnings = prepare_topics(dataset, short)
    assert [warning.split()[1] for warning in warnings] == [f"{prefix}clicks", f"{prefix}purchases"]
    assert all("retention.ms=-1" in warning for warning in warnings)


@pytest.mark.kafka
def test_import_makes_missing_topics_that_keep_the_events(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(apache_kafka.address, prefix)
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    assert prepare_topics(dataset, settings) == []
    assert import_dataset(dataset, settings).events == 71
    assert len(read_back(settings)[1]) == 71


# The shop, live


class Node(http.server.BaseHTTPRequestHandler):
    """Answers as a node does, with one list for everybody; every fifth time not at all."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count(1)  # shared by the threads that answer
    items: tuple[str, ...] = ()

    def do_GET(self) -> None:
        kind = type(self)
        number = next(kind.numbers)
        items = [{"item": item, "score": 1.0, "sources": {}} for item in kind.items]
        body = json.dumps({"as_of": "", "impression_id": f"imp-{number}", "items": items})
        self.send_response(503 if number % 5 == 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(items: tuple[str, ...]) -> Iterator[str]:
    handler = type("OneNode", (Node,), {"numbers": itertools.count(1), "items": items})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


SHOP = ShopConfig(users=100, items=60, seed=3, name="test-shop")


def test_a_simulated_shop_is_published_live(embedded_broker: EmbeddedBroker) -> None:
    settings = Settings(broker=embedded_broker.address)
    with Publisher(settings.broker) as publisher:
        simulation = Simulation(Shop(SHOP), EventWriter(publisher, settings), rate=5000.0)
        done = simulation.run(events=500)
    assert (done.events, done.clicks + done.purchases, done.asked) == (500, 500, 0)
    _, events = read_back(settings)
    assert sum(isinstance(event, Item) for event in events) == 60
    acts = [event for event in events if isinstance(event, Click | Purchase)]
    assert [e.event_id for e in acts if isinstance(e, Purchase)]
    assert sorted(int(e.event_id.rsplit("-", 1)[1]) for e in acts) == list(range(500))
    assert all(abs(event.timestamp - time.time()) < 60 for event in acts)


def test_a_catalogue_shock_is_published_when_it_comes(embedded_broker: EmbeddedBroker) -> None:
    settings = Settings(broker=embedded_broker.address)
    config = replace(SHOP, drift="catalogue", drift_at=100)
    with Publisher(settings.broker) as publisher:
        writer = EventWriter(publisher, settings)
        Simulation(Shop(config), writer, rate=5000.0).run(events=300)
    _, events = read_back(settings)
    gone = [e.item for e in events if isinstance(e, Item) and e.available is False]
    assert len(gone) == 18


def test_shoppers_click_what_the_api_recommends(embedded_broker: EmbeddedBroker) -> None:
    settings = Settings(broker=embedded_broker.address)
    everything = tuple(f"item-{number:05d}" for number in range(60))
    with served(everything) as url, Api(url, k=60) as api, Publisher(settings.broker) as publisher:
        writer = EventWriter(publisher, settings)
        done = Simulation(Shop(SHOP), writer, rate=5000.0, api=api).run(events=200)
    assert 80 < done.asked < 160
    assert done.failed_requests == done.asked // 5
    assert done.clicked_shown > 0.5 * (done.asked - done.failed_requests)
    _, events = read_back(settings)
    answered = [e for e in events if isinstance(e, Click) and e.impression_id]
    assert len(answered) == done.clicked_shown
    assert all(e.item == everything[e.position or 0] for e in answered)
    assert not any(isinstance(event, Impression) for event in events), "the API publishes those"


def test_a_node_that_does_not_answer_is_counted_and_shoppers_go_on(
    embedded_broker: EmbeddedBroker,
) -> None:
    settings = Settings(broker=embedded_broker.address)
    nobody = f"http://127.0.0.1:{free_port()}"
    with Api(nobody) as api, Publisher(settings.broker) as publisher:
        writer = EventWriter(publisher, settings)
        done = Simulation(Shop(SHOP), writer, rate=5000.0, api=api).run(events=50)
    assert done.failed_requests == done.asked > 0
    assert (done.events, done.clicked_shown) == (50, 0)


def test_the_simulate_command_prints_what_happened(embedded_broker: EmbeddedBroker) -> None:
    words = ["simulate", "--broker", embedded_broker.address, "--users", "50", "--items", "30"]
    printed = CliRunner().invoke(app, [*words, "--events", "40", "--rate", "2000", "--json"])
    assert printed.exit_code == 0, printed.output
    row = json.loads(printed.stdout)
    assert (row["events"], row["clicks"] + row["purchases"], row["failed_requests"]) == (40, 40, 0)
    again = CliRunner().invoke(app, [*words, "--seconds", "0.3", "--drift", "sudden"])
    assert "clicks" in again.stdout
    log, _ = read_back(Settings(broker=embedded_broker.address))
    ids = [json.loads(value)["event_id"] for value in log["value"]]
    assert len(set(ids)) == len(ids), "a second run must not look like a repeat of the first"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://shop", "nonsense"])
def test_an_address_that_is_no_api_is_refused_in_words(url: str) -> None:
    with pytest.raises(SettingsError, match="write http://"):
        Api(url)

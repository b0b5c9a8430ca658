"""Topics: made as the settings say, and what is said when they stand otherwise."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from learners.errors import BrokerError, DeliveryError, TopicError
from serving.cli import app
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker, free_port
from streams.publisher import Publisher
from streams.settings import Settings
from streams.topics import (
    Difference,
    TopicReport,
    connect_admin,
    create_topics,
    first_offsets,
    list_topics,
)

ROLES = ("clicks", "purchases", "impressions", "items", "erasures", "dead_letters", "snapshots")


def settings_for(broker: str, prefix: str, **topics: dict[str, object]) -> Settings:
    names = {role: {"name": f"{prefix}{role}"} for role in ROLES}
    merged = {role: names.get(role, {}) | topics.get(role, {}) for role in {**names, **topics}}
    return Settings(broker=broker, topics=merged)


@pytest.mark.kafka
def test_topics_are_made_as_set(apache_kafka: ApacheKafka, prefix: str) -> None:
    settings = settings_for(
        apache_kafka.address,
        prefix,
        clicks={"partitions": 3, "retention_days": 7},
        purchases={"retention_days": -1},
    )
    assert {report.state for report in list_topics(settings)} == {"missing"}
    assert {report.state for report in create_topics(settings)} == {"created"}
    found = {report.role: report for report in create_topics(settings)}
    assert {report.state for report in found.values()} == {"as set"}
    clicks, purchases, items = found["clicks"], found["purchases"], found["items"]
    assert (clicks.partitions, clicks.cleanup_policy, clicks.retention_days) == (3, "delete", 7.0)
    assert purchases.retention_days == -1.0
    assert items.cleanup_policy == "compact"


@pytest.mark.kafka
def test_differences_are_named(apache_kafka: ApacheKafka, prefix: str) -> None:
    create_topics(settings_for(apache_kafka.address, prefix, clicks={"retention_days": 7}))
    settings = settings_for(
        apache_kafka.address,
        prefix,
        clicks={"partitions": 8, "retention_days": -1},
        items={"compacted": False},
    )
    found = {report.role: report for report in create_topics(settings)}
    assert found["clicks"].differences == (
        Difference("partitions", "8", "4"),
        Difference("retention", "for ever", "7 days"),
    )
    assert found["items"].differences == (Difference("cleanup policy", "delete", "compact"),)
    assert found["purchases"].state == "as set"


@pytest.mark.kafka
def test_mapped_topic_keeps_its_owners_form(apache_kafka: ApacheKafka, prefix: str) -> None:
    with connect_admin(Settings(broker=apache_kafka.address)) as admin:
        admin.create_topics({f"{prefix}web": {"num_partitions": 2}})
    mapped = {"name": f"{prefix}web", "type": "click", "fields": {"user": "visitor"}}
    settings = settings_for(apache_kafka.address, prefix, web=mapped)
    (web,) = (report for report in create_topics(settings) if report.role == "web")
    assert (web.state, web.partitions, web.differences) == ("theirs", 2, ())


@pytest.mark.kafka
def test_message_older_than_its_topic_keeps_is_refused(
    apache_kafka: ApacheKafka, prefix: str
) -> None:
    create_topics(settings_for(apache_kafka.address, prefix, clicks={"retention_days": 30}))
    with Publisher(apache_kafka.address) as publisher:
        publisher.put(f"{prefix}clicks", b"u", b"{}", timestamp_ms=1_511_544_070_000)
        with pytest.raises(DeliveryError, match=rf"{prefix}clicks.*timestamp"):
            publisher.flush()


@pytest.mark.kafka
def test_refused_topic_is_said(apache_kafka: ApacheKafka, prefix: str) -> None:
    create_topics(settings_for(apache_kafka.address, prefix))
    # Kafka takes '.' and '_' for the same in metrics, and so refuses names that collide.
    colliding = prefix.replace(".", "_")
    with pytest.raises(TopicError, match=f"{colliding}clicks.*collides"):
        create_topics(settings_for(apache_kafka.address, colliding))


def test_embedded_broker_makes_topics_on_first_use(embedded_broker: EmbeddedBroker) -> None:
    settings = settings_for(embedded_broker.address, "t.")
    producer = Producer({"bootstrap.servers": embedded_broker.address})
    producer.produce("t.clicks", b"{}")
    producer.flush(10)
    states = {report.role: report.state for report in create_topics(settings)}
    assert states.pop("clicks") == "as set"
    assert set(states.values()) == {"on first use"}
    told = CliRunner().invoke(app, ["topics", "create", "--broker", embedded_broker.address])
    assert told.exit_code == 0
    assert "Topics appear on first use" in told.output
    assert "drops older events" in told.output


def test_a_topic_of_somebody_else_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = TopicReport("shop", "shop.tracking", "theirs", 3, "delete", 7.0)
    monkeypatch.setattr("streams.topics.list_topics", lambda settings: [theirs])
    told = CliRunner().invoke(app, ["topics", "list"])
    assert "theirs: a topic that the settings map" in told.output


def test_first_offsets_move_when_the_embedded_broker_drops_events(
    embedded_broker: EmbeddedBroker,
) -> None:
    with Publisher(embedded_broker.address) as publisher:
        for _ in range(7):
            publisher.put("t", b"anna", bytes(900_000))
            publisher.flush()
    settings = Settings(broker=embedded_broker.address)
    assert first_offsets(settings, {"t": 4})["t"] == [0, 0, 0, 2]


def test_unreachable_broker_is_said() -> None:
    with pytest.raises(BrokerError, match="no Kafka broker answers"):
        list_topics(Settings(broker=f"127.0.0.1:{free_port()}"))


@pytest.mark.kafka
def test_command_makes_topics_and_fails_on_differences(
    apache_kafka: ApacheKafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLEARN_BROKER", apache_kafka.address)
    monkeypatch.setenv("EVERLEARN_TOPICS__CLICKS__NAME", f"{prefix}clicks")
    made = CliRunner().invoke(app, ["topics", "create", "--json"])
    assert made.exit_code == 0, made.output
    (clicks,) = (row for row in json.loads(made.stdout) if row["role"] == "clicks")
    assert (clicks["state"], clicks["partitions"]) == ("created", 4)
    monkeypatch.setenv("EVERLEARN_TOPICS__CLICKS__PARTITIONS", "6")
    differing = CliRunner().invoke(app, ["topics", "create"])
    assert differing.exit_code == 1
    assert f"{prefix}clicks: partitions is 4, the settings say 6" in differing.stdout
    listed = CliRunner().invoke(app, ["topics", "list", "--json"])
    assert listed.exit_code == 0
    (clicks,) = (row for row in json.loads(listed.stdout) if row["role"] == "clicks")
    assert clicks["differences"] == [{"what": "partitions", "wanted": "6", "found": "4"}]

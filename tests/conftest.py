"""Fixtures that all tests share: brokers and free ports."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learners.errors import BrokerError
from streams.apache import ApacheKafka, fetch_jars, is_available
from streams.broker import EmbeddedBroker
from streams.broker import free_port as find_free_port
from tests.api_nodes import Node, nodes
from tests.forked_trainer import ForkedTrainer


def pytest_configure(config: pytest.Config) -> None:
    """Let kafka-python read its message formats the old way, which Python 3.11 warns of."""
    config.addinivalue_line(
        "filterwarnings", r"ignore:\w+ is deprecated. Use files\(\):DeprecationWarning"
    )


@pytest.fixture
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """A fresh, empty embedded broker; its `address` is host:port."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def trainer(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Iterator[ForkedTrainer]:
    """A trainer on an embedded broker, ended with the test."""
    made = ForkedTrainer(tmp_path, broker=embedded_broker.address)
    yield made
    if made.process is not None and made.process.is_alive():
        made.kill()


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Apache Kafka's jars, fetched once; skips where Java or Maven's repository is missing."""
    if reason := is_available():
        pytest.skip(reason)
    try:
        return fetch_jars()
    except BrokerError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def apache_kafka(kafka_jars: Path) -> Iterator[ApacheKafka]:
    """One Apache Kafka for all tests: leave it running, use topics of your own (`prefix`)."""
    with ApacheKafka() as kafka:
        yield kafka


@pytest.fixture
def new_apache_kafka(kafka_jars: Path) -> Iterator[Callable[[], ApacheKafka]]:
    """Start an Apache Kafka of the test's own, to be stopped and killed as it likes."""
    started: list[ApacheKafka] = []

    def start() -> ApacheKafka:
        started.append(ApacheKafka())
        return started[-1].start()

    yield start
    for kafka in started:
        kafka.close()


@pytest.fixture
def prefix() -> str:
    """A prefix for topic names that no other test uses, e.g. `t3f2a91.`."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a free port of 127.0.0.1, for a server that starts in a moment."""
    return find_free_port


@pytest.fixture(scope="module")
def make_node() -> Iterator[Callable[..., Node]]:
    """Start nodes that answer over HTTP, with a log in memory; they end with the module."""
    with nodes() as make:
        yield make

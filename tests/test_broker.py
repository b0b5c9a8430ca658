"""Both brokers: what a client meets, and what is said when they cannot be had."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner

from learners.errors import BrokerError
from serving.cli import app
from streams import apache
from streams.apache import ApacheKafka, fetch_jars, is_available
from streams.broker import EmbeddedBroker, broker_apis, check_port, free_port, is_embedded
from tests.waiting import runs, until


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in listed for child in task.read_text().split()]


def name_of(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text()


def publish(address: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": address, "acks": "all"})
    failures: list[str] = []
    for value in values:
        producer.produce(
            topic,
            value,
            partition=0,
            timestamp=1_500_000_000_000,
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
    assert producer.flush(30) == 0
    assert failures == []


def read(address: str, topic: str, count: int) -> list[tuple[bytes, int]]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [(m.value(), m.timestamp()[1]) for m in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()


def test_embedded_broker_keeps_values_and_times(embedded_broker: EmbeddedBroker) -> None:
    publish(embedded_broker.address, "shop", [b"a", b"b"])
    expected = [(b"a", 1_500_000_000_000), (b"b", 1_500_000_000_000)]
    assert read(embedded_broker.address, "shop", 2) == expected


def test_embedded_brokers_are_apart_and_stop() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as two:
        assert one.address != two.address
        assert is_embedded(one.address)
        assert is_embedded(two.address)
    with pytest.raises(BrokerError, match=one.address):
        broker_apis(one.address)


def test_nobody_there_names_address_and_cure() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=rf"{address}.*EVERLEARN_BROKER"):
        is_embedded(address)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", ":9092"])
def test_malformed_address_is_said(address: str) -> None:
    with pytest.raises(BrokerError, match="host:port"):
        is_embedded(address)


def test_another_service_is_not_taken_for_kafka() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        with pytest.raises(BrokerError, match=r"timed out"):
            is_embedded(f"127.0.0.1:{server.getsockname()[1]}", timeout_seconds=0.1)


def test_first_reachable_of_several_brokers_answers(embedded_broker: EmbeddedBroker) -> None:
    assert is_embedded(f"127.0.0.1:{free_port()}, {embedded_broker.address}")


def test_a_port_is_checked_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*in use.*choose another"):
            check_port(port)
    check_port(port)
    with pytest.raises(BrokerError, match="port 70000"):
        check_port(70_000)


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    failed = CliRunner().invoke(app, ["kafka", "--port", port])
    assert failed.exit_code == 2
    assert "--port" in failed.stderr


WATCHING = """
import os, signal, subprocess, sys
from streams.processes import Watcher
child = subprocess.Popen(["sleep", "600"])
watcher = Watcher(child.pid)
print(child.pid, flush=True)
if sys.argv[1] == "close":
    watcher.close()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("watched", [True, False])
def test_a_watched_process_ends_with_its_killed_parent(watched: bool) -> None:
    command = [sys.executable, "-c", WATCHING, "watch" if watched else "close"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.wait(30) == -signal.SIGKILL
    try:
        if watched:
            until(lambda: not runs(child))
        else:
            assert runs(child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_missing_java_and_maven_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EVERLEARN_CACHE", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java is missing" in (is_available() or "")
    monkeypatch.setattr(apache, "java_version", lambda: 11)
    assert "Java 11 is too old" in (is_available() or "")
    monkeypatch.setattr(apache, "java_version", lambda: 21)
    with pytest.raises(BrokerError, match=r"Maven .* is missing"):
        fetch_jars()


def test_failing_maven_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] Could not transfer artifact'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("EVERLEARN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(apache, "java_version", lambda: 17)
    with pytest.raises(BrokerError, match="Could not transfer artifact"):
        fetch_jars()


def run_until_stopped(number: signal.Signals, *command: str) -> tuple[str, int]:
    """Start a broker's command, ask it for its topics, stop it; return its address, exit code."""
    program = [Path(sys.executable).with_name("everlearn"), *command, "--json"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["broker"]
            assert broker_apis(address)
            process.send_signal(number)
            return address, process.wait(30)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broker_command_runs_until_stopped(number: signal.Signals) -> None:
    address, code = run_until_stopped(number, "broker")
    assert code == 0
    with pytest.raises(BrokerError):
        broker_apis(address)


@pytest.mark.kafka
@pytest.mark.slow
def test_kafka_command_keeps_its_folder(kafka_jars: Path, tmp_path: Path) -> None:
    address, code = run_until_stopped(
        signal.SIGTERM, "kafka", "--port", "0", "--data", str(tmp_path / "kept")
    )
    assert code == 0
    with pytest.raises(BrokerError):
        broker_apis(address)
    assert (tmp_path / "kept" / "server.properties").exists()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_java_that_is_killed_is_told_and_one_whose_command_is_killed_ends(
    kafka_jars: Path, tmp_path: Path
) -> None:
    program = [Path(sys.executable).with_name("everlearn"), "kafka", "--port", "0", "--json"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    for victim in ("java", "command"):
        with subprocess.Popen(program, env=environment, **options) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            (java,) = (child for child in children(process.pid) if "java" in name_of(child))
            os.kill(java if victim == "java" else process.pid, signal.SIGKILL)
            _, said = process.communicate(timeout=30)
        assert ("killed by SIGKILL" in said) == (victim == "java")
        until(lambda java=java: not runs(java))  # type: ignore[misc]


@pytest.mark.kafka
def test_apache_kafka_serves(apache_kafka: ApacheKafka, prefix: str) -> None:
    assert not is_embedded(apache_kafka.address)
    publish(apache_kafka.address, f"{prefix}shop", [b"a"])
    assert read(apache_kafka.address, f"{prefix}shop", 1) == [(b"a", 1_500_000_000_000)]


@pytest.mark.kafka
def test_taken_port_is_said(kafka_jars: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*in use"), ApacheKafka(port=port):
            pass

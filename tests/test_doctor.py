"""The doctor: each thing that is missing or wrong is said in words, with a cure."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import codec
from typer.testing import CliRunner

from learners.base import EngineConfig
from learners.checkpoint import CheckpointStore
from learners.deep.registry import Registry
from learners.engine import Engine
from serving.cli import app
from serving.doctor import Check, examine
from streams import apache
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker, free_port
from streams.publisher import Publisher
from streams.security import aiokafka_options, confluent_options, kafka_python_options
from streams.settings import SecuritySettings, Settings
from streams.topics import create_topics
from tests.registries import damage
from tests.test_registry import promoted

SMALL = EngineConfig(users=100, items=100, sessions=64, dedupe_events=64)


def settings_for(tmp_path: Path, broker: str, **other: object) -> Settings:
    given = {"broker": broker, "state_dir": tmp_path / "state", "port": free_port()}
    return Settings(**({"engine": SMALL} | given | other))


def findings(settings: Settings) -> dict[str, Check]:
    return {check.what: check for check in examine(settings)}


@contextmanager
def web_server(body: bytes, status: int = 200) -> Iterator[int]:
    """Serve one answer to every request; lend the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_all_is_well_on_an_embedded_broker(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    found = findings(settings_for(tmp_path, embedded_broker.address))
    wrong = {what: check for what, check in found.items() if check.status != "ok"}
    wrong.pop("Java and Maven", None)
    assert wrong == {}
    assert "embedded" in found["broker"].value
    assert "7 of 7 will appear on first use" in found["topics"].value
    assert "none in" in found["checkpoint"].value
    assert "none runs" in found["node"].value


def test_events_that_the_embedded_broker_dropped_are_told(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with Publisher(embedded_broker.address) as publisher:
        for _ in range(7):
            publisher.put("everlearn.clicks", b"anna", bytes(900_000))
            publisher.flush()
    events = findings(settings_for(tmp_path, embedded_broker.address))["events"]
    assert events.status == "warn"
    assert "everlearn.clicks: 1 of 4 partitions begin above offset 0, 2 events" in events.value
    assert "drops older events" in events.cure


def test_unreachable_broker_fails_with_a_cure(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    broker = findings(settings_for(tmp_path, address))["broker"]
    assert broker.status == "fail"
    assert address in broker.value
    assert "EVERLEARN_BROKER" in broker.cure


@pytest.mark.kafka
def test_topics_and_clock_on_apache_kafka(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    names = {role: {"name": f"{prefix}{role}"} for role in Settings().topics}
    settings = settings_for(tmp_path, apache_kafka.address, topics=names)
    missing = [check for check in examine(settings) if check.what == "topic"]
    assert [check.status for check in missing] == ["fail"] * 7
    assert "everlearn topics create" in missing[0].cure
    create_topics(settings)
    assert "7 of 7" in findings(settings)["topics"].value
    with Publisher(apache_kafka.address) as publisher:
        ahead = int(time.time() * 1000) + 1_800_000
        publisher.put(f"{prefix}clicks", b"u", b"{}", timestamp_ms=ahead)
        publisher.flush()
    names["clicks"] |= {"partitions": 6}
    found = findings(settings_for(tmp_path, apache_kafka.address, topics=names))
    assert "partitions is 4, the settings say 6" in found["topic"].value
    assert "6 of 7" in found["topics"].value
    assert found["clock"].status == "warn"
    assert "ahead of this clock" in found["clock"].value


def test_codecs_that_cannot_be_read_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "has_zstd", lambda: False)
    codecs = findings(settings_for(tmp_path, "127.0.0.1:1"))["codecs"]
    assert (codecs.status, codecs.value) == ("fail", "cannot read zstd")
    assert "cramjam" in codecs.cure


def test_the_champion_is_told_or_what_is_wrong_with_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "snapshots")

    def found() -> Check:
        settings = settings_for(tmp_path, "127.0.0.1:1", snapshot_dir=registry.root)
        return findings(settings)["snapshots"]

    assert found().status == "ok"
    assert "no champion in" in found().value
    champion = promoted(registry, 1, events=100)
    assert found().status == "ok"
    assert f"champion {champion} of " in found().value
    damage(registry, champion)
    assert found().status == "fail"
    assert f"snapshot {champion} is refused" in found().value
    assert "everlearn snapshots list" in found().cure
    (tmp_path / "file").touch()
    registry = Registry(tmp_path / "file")
    assert found().status == "fail"
    assert f"{registry.root}" in found().value


def test_missing_java_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apache, "find_java", lambda: None)
    java = findings(settings_for(tmp_path, "127.0.0.1:1"))["Java and Maven"]
    assert java.status == "warn"
    assert "Java is missing" in java.value


def test_wrong_clock_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    clock = findings(settings_for(tmp_path, "127.0.0.1:1"))["clock"]
    assert (clock.status, clock.value) == ("fail", "1970-01-02 00:00:00 UTC cannot be")


def test_state_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    folder = findings(settings_for(tmp_path, "127.0.0.1:1"))["state folder"]
    assert folder.status == "fail"
    assert "EVERLEARN_STATE_DIR" in folder.cure


def test_newest_checkpoint_is_shown(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "127.0.0.1:1")
    engine, store = Engine(SMALL), CheckpointStore(settings.state_dir)
    store.write(store.capture(engine))
    assert engine.fingerprint() in findings(settings)["checkpoint"].value


def test_capacity_beyond_this_machine_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.doctor.os.sysconf", lambda _: 100)
    memory = findings(settings_for(tmp_path, "127.0.0.1:1"))["memory"]
    assert memory.status == "warn"
    assert "engine.users" in memory.cure


def test_running_node_tells_its_fingerprint(tmp_path: Path) -> None:
    body = {"ready": True, "reasons": [], "lag": 0, "fingerprint": "00ff00ff"}
    with web_server(json.dumps(body).encode()) as port:
        node = findings(settings_for(tmp_path, "127.0.0.1:1", port=port))["node"]
    assert node.status == "ok"
    assert "fingerprint 00ff00ff, ready" in node.value


def test_node_that_is_not_ready_tells_why(tmp_path: Path) -> None:
    body = {"ready": False, "reasons": ["the broker is away"], "lag": None, "fingerprint": None}
    with web_server(json.dumps(body).encode(), 503) as port:
        node = findings(settings_for(tmp_path, "127.0.0.1:1", port=port))["node"]
    assert node.status == "warn"
    assert "the broker is away" in node.value


def test_another_program_on_the_port_warns(tmp_path: Path) -> None:
    with web_server(b"<html>") as port:
        node = findings(settings_for(tmp_path, "127.0.0.1:1", port=port))["node"]
    assert node.status == "warn"
    assert "EVERLEARN_PORT" in node.cure


def test_command_fails_when_something_fails(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERLEARN_STATE_DIR", str(tmp_path))
    well = CliRunner().invoke(app, ["doctor", "--broker", embedded_broker.address, "--json"])
    assert well.exit_code == 0, well.output
    assert {"status", "what", "value", "cure"} == set(json.loads(well.stdout)[0])
    ill = CliRunner().invoke(app, ["doctor", "--broker", f"127.0.0.1:{free_port()}"])
    assert ill.exit_code == 1
    assert "fail  broker: no Kafka broker answers" in ill.stdout


def test_security_is_told_to_every_client(tmp_path: Path) -> None:
    plain = Settings()
    for options in (aiokafka_options, kafka_python_options, confluent_options):
        assert options(plain) == options(None) == {}
    security = SecuritySettings(
        protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="anna",
        sasl_password="secret",  # noqa: S106
    )
    secured = Settings(security=security)
    assert confluent_options(secured) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "anna",
        "sasl.password": "secret",
    }
    assert kafka_python_options(secured)["sasl_plain_password"] == "secret"  # noqa: S105
    assert aiokafka_options(secured)["ssl_context"].check_hostname

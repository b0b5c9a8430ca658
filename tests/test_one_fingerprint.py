"""One log, one fingerprint: imported into Kafka, learnt by a node, recorded and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from serving.child import NodeProcess
from serving.cli import app
from streams.apache import ApacheKafka
from streams.settings import Settings
from tests.test_replay import data_set
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

LEARNT_SECONDS = 120.0
EVENTS = 139_784


def command(*words: str) -> Any:
    """What a command prints with `--json`."""
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def settings_file(folder: Path, broker: str, prefix: str, port: int) -> str:
    topics = {
        role: {"name": prefix + topic.name, "partitions": 4}
        for role, topic in Settings().topics.items()
    }
    lines = [f'broker = "{broker}"', f'state_dir = "{folder / "state"}"', f"port = {port}"]
    for role, topic in topics.items():
        lines += [f"[topics.{role}]", f'name = "{topic["name"]}"', "partitions = 4"]
    file = folder / "everlearn.toml"
    file.write_text("\n".join(lines))
    return str(file)


def health_once_learnt(node: NodeProcess) -> dict[str, Any]:
    """What the node says of itself when it has learnt the whole log."""
    health: dict[str, Any] = {}

    def knows_all() -> bool:
        node.check()
        answer = httpx.get(f"{node.url}/health/ready", timeout=30, trust_env=False)
        health.update(answer.json(), status=answer.status_code)
        return sum(health["positions"].values()) >= EVENTS and bool(health["fingerprint"])

    until(knows_all, LEARNT_SECONDS, lambda: health)
    assert health["status"] == 200
    return health


def test_a_data_set_in_kafka_has_one_fingerprint_in_a_node_and_in_its_recording(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    path, port, log = data_set("taobao"), free_port(), str(tmp_path / "log.parquet")
    settings = settings_file(tmp_path, apache_kafka.address, prefix, port)
    from_file = ("--settings", settings)
    imported = command("import", "taobao", str(path), *from_file)
    assert imported["types"].keys() == {"click", "purchase", "item"}

    node = NodeProcess(
        broker=apache_kafka.address,
        state_dir=tmp_path / "state",
        port=port,
        log=tmp_path / "node.log",
        flags=from_file,
    )
    with node:
        node.wait_until_live()
        health = health_once_learnt(node)
        checks = {check["what"]: check for check in command("doctor", *from_file)}
    partitions = [label for label in health["positions"] if ".clicks/" in label]
    assert len(partitions) == 4
    assert health["fingerprint_positions"] == health["positions"]
    assert checks["node"]["status"] == "ok"
    assert f"fingerprint {health['fingerprint']}, ready" in checks["node"]["value"]

    assert command("record", log, *from_file)["records"] == imported["events"]
    replayed = command("replay", log)
    assert replayed["events"] == imported["events"]
    assert replayed["fingerprint"] == health["fingerprint"]

"""A whole node over HTTP: what is written is learnt, shown, forgotten, and kept over a restart."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from learners.checkpoint import CheckpointStore
from learners.engine import Engine
from serving.child import NodeProcess, clean_environment
from streams.broker import EmbeddedBroker
from streams.settings import Settings
from tests.waiting import until

TOKEN = "only-for-this-test"  # noqa: S105

pytestmark = pytest.mark.slow


@pytest.fixture
def node(
    tmp_path: Path, embedded_broker: EmbeddedBroker, free_port: Callable[[], int]
) -> NodeProcess:
    return NodeProcess(
        broker=embedded_broker.address,
        state_dir=tmp_path / "state",
        port=free_port(),
        log=tmp_path / "node.log",
        environment=clean_environment() | {"EVERLEARN_TOKEN": TOKEN},
    )


@pytest.fixture
def client(node: NodeProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=node.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


def write(client: httpx.Client, *events: dict[str, Any]) -> str:
    """Publish events; return their token."""
    answer = client.post("/events", json=list(events)).raise_for_status().json()
    assert answer["accepted"] == len(events), answer
    return str(answer["token"])


def click(user: str, item: str) -> dict[str, Any]:
    return {"type": "click", "user": user, "item": item}


def shown(client: httpx.Client, path: str, **query: Any) -> list[str]:
    answer = client.get(path, params=query).raise_for_status().json()
    return [entry["item"] for entry in answer["items"]]


def test_a_node_from_its_first_event_to_a_restart(node: NodeProcess, client: httpx.Client) -> None:
    with node:
        node.wait_until_live()
        assert client.get("/health/ready").status_code == 503
        pairs = [click(f"user-{n}", item) for n in range(5) for item in ("tea", "pot")]
        token = write(client, *pairs, click("ann", "tea"), click("bob", "cup"))

        # A click changes the next answer.
        assert shown(client, "/recommend/ann", after=token, exclude="seen")[0] == "pot"
        assert shown(client, "/items/tea/similar", k=1) == ["pot"]
        assert len(shown(client, "/trending")) == 3
        seen = client.post("/recommend", json=[{"item": "tea"}]).json()
        assert "pot" in [entry["item"] for entry in seen["items"]]

        # What is not on sale is not shown.
        gone = {"type": "item", "item": "pot", "available": False}
        assert "pot" not in shown(client, "/recommend/ann", after=write(client, gone))

        # A forgotten user is unknown.
        assert client.get("/users/ann").json()["total_events"] == 1
        token = client.delete("/users/ann").raise_for_status().json()["token"]
        assert client.get("/users/ann", params={"after": token}).status_code == 404

        # What was shown went to Kafka and came back.
        until_learnt(client, "impression", 4)
        fingerprint = client.get("/health/ready?fingerprint=1").json()["fingerprint"]
        assert node.stop() == 0
    with node:
        node.wait_until_live()
        assert client.get("/health/ready?fingerprint=1").json()["fingerprint"] == fingerprint
        assert client.get("/users/ann").status_code == 404
        assert client.get("/users/bob").json()["total_events"] == 1


def test_sigterm_ends_a_node_within_15_seconds_with_a_last_checkpoint(
    node: NodeProcess, client: httpx.Client
) -> None:
    node.environment = {**node.environment, "EVERLEARN_CHECKPOINT_SECONDS": "3600"}
    with node:
        node.wait_until_live()
        write(client, click("ann", "tea"), click("bob", "pot"))
        until_learnt(client, "click", 2)
        until(lambda: sum(client.get("/health/ready").json()["positions"].values()) == 2)
        positions = client.get("/health/ready").json()["positions"]
        store = CheckpointStore(node.state_dir)
        assert store.newest_manifest() is None
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(15) == 0
    manifest = store.newest_manifest()
    assert manifest is not None
    assert manifest["events"] == 2
    assert manifest["positions"] == positions
    engine = Engine(Settings().engine)
    assert store.load(engine) is not None
    assert engine.fingerprint() == manifest["fingerprint"]
    assert engine.user("ann") is not None


def until_learnt(client: httpx.Client, kind: str, count: int, seconds: float = 20.0) -> None:
    line = f'everlearn_events_learnt_total{{kind="{kind}"}} '
    deadline = time.monotonic() + seconds
    learnt = 0.0
    while learnt < count:
        assert time.monotonic() < deadline, f"{learnt} of {count} events of {kind} were learnt"
        rows = client.get("/metrics").text.splitlines()
        learnt = sum(float(row.removeprefix(line)) for row in rows if row.startswith(line))

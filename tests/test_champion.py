"""A node follows the champion: it swaps between two answers, and keeps what it has from damage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.untrained import write_untrained
from learners.deep.config import SequenceConfig
from learners.deep.registry import Registry
from learners.durable import replace_file, sealed
from serving.child import NodeProcess, clean_environment
from streams.broker import EmbeddedBroker
from tests.waiting import until

pytestmark = pytest.mark.slow

ITEMS = [f"item-{i}" for i in range(60)]
CONFIG = SequenceConfig(width=16, feed_forward=16)
SWAPS = 3


def write_snapshot(registry: Registry, seed: int) -> str:
    """Write a model whose numbers nobody has trained; return its id."""
    return write_untrained(registry, ITEMS, seed, CONFIG)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "snapshots")


@pytest.fixture
def client(
    tmp_path: Path,
    registry: Registry,
    embedded_broker: EmbeddedBroker,
    free_port: Callable[[], int],
) -> Iterator[httpx.Client]:
    node = NodeProcess(
        broker=embedded_broker.address,
        state_dir=tmp_path / "state",
        port=free_port(),
        log=tmp_path / "node.log",
        environment=clean_environment() | {"EVERLEARN_SNAPSHOT_DIR": str(registry.root)},
    )
    with (
        node,
        httpx.Client(base_url=node.url, timeout=30, trust_env=False) as client,
    ):
        node.wait_until_live()
        clicks = [
            {"type": "click", "user": f"user-{i % 7}", "item": item} for i, item in enumerate(ITEMS)
        ]
        token = client.post("/events", json=clicks).raise_for_status().json()["token"]
        client.get("/recommend/user-1", params={"after": token}).raise_for_status()
        yield client


def serves(client: httpx.Client, snapshot: str) -> bool:
    return bool(client.get("/health/ready").json()["snapshot"] == snapshot)


def test_answers_go_on_through_promotions_and_each_names_one_snapshot(
    client: httpx.Client, registry: Registry
) -> None:
    assert client.get("/recommend/user-1").json()["snapshot"] == ""
    ids = [write_snapshot(registry, seed) for seed in range(SWAPS)]
    answers: list[dict[str, object]] = []
    enough = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30, trust_env=False) as other:
            while not enough.is_set():
                answers.append(other.get("/recommend/user-1?k=20").raise_for_status().json())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for id in ids:
            registry.promote(id)
            until(lambda id=id: serves(client, id))  # type: ignore[misc]
            until(lambda id=id: bool(answers) and answers[-1]["snapshot"] == id)  # type: ignore[misc]
    finally:
        enough.set()
        asking.join()
    named = [answer["snapshot"] for answer in answers]
    assert [id for i, id in enumerate(named) if i == 0 or named[i - 1] != id] == ["", *ids]
    lists = {
        id: {str(answer["items"]) for answer in answers if answer["snapshot"] == id} for id in ids
    }
    assert all(len(different) == 1 for different in lists.values())
    assert len(set.union(*lists.values())) == SWAPS


def test_a_damaged_champion_is_refused_and_the_one_before_goes_on(
    client: httpx.Client, registry: Registry
) -> None:
    sound, damaged = write_snapshot(registry, 1), write_snapshot(registry, 2)
    registry.promote(sound)
    until(lambda: serves(client, sound))
    before = client.get("/recommend/user-1").json()
    weights = registry.root / "snapshots" / damaged / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    # The command would refuse to promote it: as if the disk had failed right after.
    replace_file(registry.root / "aliases.json", sealed(registry.aliases() | {"champion": damaged}))
    until(lambda: client.get("/health/ready").json()["snapshot_problem"] != "")
    health = client.get("/health/ready").json()
    assert damaged in health["snapshot_problem"]
    assert health["snapshot"] == sound
    after = client.get("/recommend/user-1").json()
    assert (after["snapshot"], after["items"]) == (sound, before["items"])
    (registry.root / "aliases.json").write_bytes(b"{")
    until(lambda: "aliases.json" in client.get("/health/ready").json()["snapshot_problem"])
    assert serves(client, sound)

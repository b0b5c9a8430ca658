"""A champion that cannot be read: the node says so, serves another, and reads it once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest

from learners.base import EngineConfig
from learners.deep.registry import Registry
from learners.deep.snapshots import Snapshot, Snapshots
from learners.engine import Engine
from streams.champion import Champion
from streams.settings import Settings
from tests.registries import damage, mend
from tests.test_champion import write_snapshot

T = TypeVar("T")


class Learning:
    """An engine that nobody teaches."""

    def __init__(self) -> None:
        self.engine = Engine(EngineConfig(users=8, items=100, sessions=16, dedupe_events=256))

    async def between_batches(self, job: Callable[[], T]) -> T:
        return job()


class Node:
    """A node as far as it follows the champion."""

    def __init__(self, registry: Registry) -> None:
        settings = Settings(snapshot_dir=registry.root)
        self.learning = Learning()
        self.champion = Champion(settings, self.learning)  # type: ignore[arg-type]

    def looks(self) -> tuple[str, str]:
        """Look at the registry; return who serves, and what is wrong."""
        asyncio.run(self.champion.follow())
        return self.learning.engine.snapshot, self.champion.problem


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with a champion and one before it."""
    registry = Registry(tmp_path / "snapshots")
    for seed in (1, 2):
        registry.promote(write_snapshot(registry, seed))
    return registry


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of snapshots that were read."""
    found: list[str] = []
    read = Snapshots.read

    def note(self: Snapshots, id: str) -> Snapshot:
        found.append(id)
        return read(self, id)

    monkeypatch.setattr(Snapshots, "read", note)
    return found


def test_a_node_that_starts_with_a_damaged_champion_serves_the_one_before(
    registry: Registry,
) -> None:
    champion, previous = registry.alias("champion") or "", registry.alias("previous") or ""
    whole = damage(registry, champion)
    node = Node(registry)
    serving, problem = node.looks()
    assert serving == previous
    assert f"snapshot {champion} is refused" in problem
    assert problem.endswith(f"until then {previous} serves, the champion before it")
    assert node.looks() == (serving, problem)
    mend(registry, champion, whole)
    assert node.looks() == (champion, "")


def test_a_refused_champion_is_read_again_only_when_it_changes(
    registry: Registry, reads: list[str]
) -> None:
    champion = registry.alias("champion") or ""
    whole = damage(registry, champion)
    node = Node(registry)
    for _ in range(5):
        node.looks()
    assert reads.count(champion) == 1
    weights = registry.root / "snapshots" / champion / "weights.safetensors"
    before = weights.stat()
    mend(registry, champion, whole)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # a copy that keeps its time
    assert node.looks() == (champion, "")


def test_with_nothing_whole_a_node_answers_without_a_model(
    registry: Registry, reads: list[str]
) -> None:
    ids = registry.ids()
    for id in ids:
        damage(registry, id)
    node = Node(registry)
    for _ in range(3):
        serving, problem = node.looks()
        assert serving == ""
        assert all(id in problem for id in ids)
    assert len(reads) == len(ids)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no memory"),
        OSError(5, "Input/output error"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),  # as torch says it
    ],
)
def test_what_disk_or_memory_could_not_give_is_asked_for_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    node, champion = Node(registry), registry.alias("champion")

    def fail(self: object, id: str) -> Snapshot:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "read", fail)
        serving, problem = node.looks()
    assert serving == ""
    assert str(error.args[-1]) in problem
    assert node.looks() == (champion, "")


@pytest.mark.parametrize("error", [ValueError("no id"), OSError(13, "Permission denied")])
def test_no_error_ends_the_following(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    node, champion = Node(registry), registry.alias("champion")

    def fail(self: object, **_: object) -> dict[str, str | None]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "aliases", fail)
        assert node.looks() == ("", str(error))
    assert node.looks() == (champion, "")


@pytest.mark.parametrize("moved", ["", "aliases.json"])
def test_what_serves_goes_on_when_its_folder_is_gone(
    registry: Registry, tmp_path: Path, moved: str
) -> None:
    node, champion = Node(registry), registry.alias("champion")
    assert node.looks() == (champion, "")
    (registry.root / moved).rename(tmp_path / "gone")
    serving, problem = node.looks()
    assert serving == champion
    assert f"{registry.root / moved} is gone, {champion} serves on: put it back" in problem
    (tmp_path / "gone").rename(registry.root / moved)
    assert node.looks() == (champion, "")


def test_a_folder_that_was_never_there_is_no_problem(tmp_path: Path) -> None:
    assert Node(Registry(tmp_path / "none yet")).looks() == ("", "")


def test_a_foreign_file_is_refused(registry: Registry) -> None:
    snapshot = registry.read(registry.alias("champion") or "")
    foreign = registry.write(snapshot.arrays, [3, None, *snapshot.items[2:]], snapshot.manifest)  # type: ignore[list-item]
    registry.promote(foreign)
    serving, problem = Node(registry).looks()
    assert serving == snapshot.id
    assert f"snapshot {foreign} cannot be served" in problem


@pytest.mark.parametrize("file", ["weights.safetensors", "items.json"])
def test_a_sound_digest_of_no_such_file_is_refused_once(
    registry: Registry, reads: list[str], file: str
) -> None:
    champion, previous = registry.alias("champion") or "", registry.alias("previous")
    foreign = b"neither arrays nor ids"
    (registry.root / "snapshots" / champion / file).write_bytes(foreign)
    registry.annotate(champion, sha256={file: sha256(foreign).hexdigest()})
    node = Node(registry)
    for _ in range(3):
        serving, problem = node.looks()
        assert serving == previous
        assert f"snapshot {champion} is refused" in problem
    assert reads.count(champion) == 1

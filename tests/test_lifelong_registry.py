"""Lifelong learning and a registry in which something is wrong: it says so, and goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from learners.base import ERASURE, Batch
from learners.deep.lesson import Trained
from learners.deep.lifelong import Lifelong, Submit
from learners.deep.registry import Registry
from learners.durable import read_sealed, sealed
from learners.errors import SnapshotError
from tests.registries import damage, mend
from tests.walks import CONFIG, START, batches, walks

DAYS = 2000 / 86400.0
Grow = Callable[..., Lifelong]
ONCE = replace(CONFIG, every_events=10**6)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A registry whose champion has learnt from the walks, and the state of its trainer."""
    root = tmp_path_factory.mktemp("grown")
    lifelong = Lifelong(ONCE, Registry(root))
    for batch in batches(walks(2400)):
        lifelong.learn(batch)
    assert lifelong.champion is not None
    return root, lifelong.state()


@pytest.fixture
def grow(grown: tuple[Path, dict[str, Any]], tmp_path: Path) -> Grow:
    """Start a trainer as after a restart; each test has a registry of its own."""
    root, state = grown
    copytree(root, tmp_path / "registry")

    def start(**more: Any) -> Lifelong:
        registry = Registry(tmp_path / "registry", keep=2)
        lifelong = Lifelong(replace(ONCE, **more), registry)
        lifelong.load_state(state)
        return lifelong

    return start


def succeed(registry: Registry) -> tuple[str, str]:
    """Let a copy of the champion take its place; return both."""
    before = registry.alias("champion") or ""
    snapshot = registry.read(before)
    id = registry.write(snapshot.arrays, snapshot.items, snapshot.manifest | {"parent": before})
    registry.promote(id)
    return before, id


def test_a_damaged_one_before_costs_a_restarted_trainer_no_champion(grow: Grow) -> None:
    registry = grow().registry
    before, champion = succeed(registry)
    damage(registry, before)
    again = grow()
    assert again.champion is not None
    assert again.champion.id == champion
    assert again.service.previous is None
    (told,) = again.look()
    assert (told.what, before in told.why) == ("problem", True)


def test_with_a_damaged_champion_a_restarted_trainer_goes_on_from_the_one_before(
    grow: Grow,
) -> None:
    registry = grow().registry
    before, champion = succeed(registry)
    whole = damage(registry, champion)
    again = grow()
    assert again.champion is not None
    assert again.champion.id == before
    assert champion in again.service.problem
    mend(registry, champion, whole)
    again.look()
    assert again.champion.id == champion
    assert again.service.problem == ""


def test_a_problem_is_shown_while_it_lasts_and_told_again_when_it_comes_again(grow: Grow) -> None:
    lifelong = grow()
    aliases = lifelong.registry.root / "aliases.json"
    whole = aliases.read_bytes()
    for _ in range(2):
        aliases.write_bytes(b"{")
        assert [told.what for told in lifelong.look()] == ["problem"]
        assert lifelong.look() == []
        assert "aliases.json" in lifelong.service.problem
        aliases.write_bytes(whole)
        assert lifelong.look() == []
        assert lifelong.service.problem == ""


def test_a_champion_stays_when_its_folder_is_gone(grow: Grow, tmp_path: Path) -> None:
    lifelong = grow()
    root, champion = lifelong.registry.root, lifelong.champion
    root.rename(tmp_path / "gone")
    (told,) = lifelong.look()
    assert (told.what, f"{root} is gone" in told.why) == ("problem", True)
    assert lifelong.champion is champion
    (tmp_path / "gone").rename(root)
    assert lifelong.look() == []
    assert lifelong.service.problem == ""


def test_a_champion_serves_as_soon_as_it_is_mended(grow: Grow) -> None:
    lifelong = grow()
    _, champion = succeed(lifelong.registry)
    whole = damage(lifelong.registry, champion)
    assert [told.what for told in lifelong.look()] == ["problem"]
    mend(lifelong.registry, champion, whole)
    lifelong.look()
    assert lifelong.champion is not None
    assert (lifelong.champion.id, lifelong.service.problem) == (champion, "")


def test_a_champion_of_another_shape_is_read_once(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifelong = grow()
    registry = lifelong.registry
    before = registry.read(registry.alias("champion") or "")
    more = {**before.arrays, "more": np.zeros(2, np.float32)}
    foreign = registry.write(more, before.items, before.manifest)
    registry.promote(foreign)
    reads: list[str] = []
    read = registry.read
    monkeypatch.setattr(registry, "read", lambda id: (reads.append(id), read(id))[1])
    for _ in range(3):
        lifelong.look()
        assert f"snapshot {foreign} is refused" in lifelong.service.problem
    assert reads == [foreign]


def test_what_the_champion_has_learnt_judges_nobody(grow: Grow) -> None:
    registry = grow().registry
    fresh = Lifelong(replace(ONCE, first_events=300, every_events=300), registry)
    log = batches(walks(2400), 100)
    for batch in log[:15]:
        told = fresh.learn(batch)
        assert not {each.what for each in told} & {"promoted", "trial", "discarded"}
    assert fresh.champion is not None
    assert fresh.champion.events == fresh.books.events == 1500
    assert fresh.season is not None
    assert fresh.memory.asked == []
    assert len(fresh.season.questions) == len(fresh.memory.old.until(1500)) == 0
    told = [each for batch in log[15:] for each in fresh.learn(batch)]
    asked = [number for _, _, number, _ in fresh.memory.asked]
    if fresh.season is not None:
        asked += fresh.season.questions.number.tolist()
    assert min(asked) > 1500
    assert {each.what for each in told} & {"promoted", "trial", "discarded"}


def beside(waiting: list[tuple[Future[Trained], Callable[[], Trained]]]) -> Submit:
    """Let lessons wait until they are asked for."""

    def submit(lesson: Callable[[], Trained]) -> Future[Trained]:
        waiting.append((Future(), lesson))
        return waiting[-1][0]

    return submit


def test_no_kill_hides_that_a_snapshot_was_trained_before_an_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, registry = replace(CONFIG, retire_days=DAYS), Registry(tmp_path)
    waiting: list[tuple[Future[Trained], Callable[[], Trained]]] = []
    lifelong = Lifelong(config, registry, submit=beside(waiting))
    log = batches(walks(3800), 100)
    for batch in log[:16]:
        lifelong.learn(batch)
    lifelong.learn(batches([(ERASURE, "u1", "", START + 1600)], prefix="forget")[0])
    for batch in log[16:18]:
        lifelong.learn(batch)
    state = lifelong.state()
    [(held, lesson)] = waiting
    held.set_result(lesson())

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(registry, "annotate", end)  # a kill at the first write after the snapshot's
        lifelong.look()
    (told,) = registry.manifests()
    assert told["erased"] == {"first": START + 1600, "latest": START + 1600}
    again = Lifelong(replace(config, first_events=10**6, every_events=10**6), registry)
    again.load_state(state)
    happened = [told for batch in log[18:] for told in again.learn(batch)]
    (retired,) = (told for told in happened if told.what == "retired")
    assert retired.snapshot not in registry.ids()
    assert START + 3600 <= retired.time < START + 3700, "its time began with the erasure"


def erase(lifelong: Lifelong, time: float) -> None:
    lifelong.learn(batches([(ERASURE, "u1", "", time)], prefix="forget")[0])


def later(n: int) -> list[Batch]:
    return batches(walks(2400 + n)[2400:], 100, prefix="later")


def test_a_damaged_snapshot_goes_with_the_first_that_has_to(grow: Grow) -> None:
    lifelong = grow(retire_days=DAYS)
    registry = lifelong.registry
    before, champion = succeed(registry)
    damage(registry, champion, "manifest.json")
    damage(registry, before, "manifest.json")
    erase(lifelong, START + 2400)
    assert champion in lifelong.service.problem
    told = [told for batch in later(2300) for told in lifelong.learn(batch)]
    retired = {each.snapshot: each.why for each in told if each.what == "retired"}
    assert set(retired) == {before, champion}
    assert "damaged" in retired[before]
    assert retired[champion].endswith("it was the champion")
    assert lifelong.service.problem == ""


@pytest.mark.parametrize("restarts", [False, True])
def test_an_erasure_is_told_once_a_damaged_snapshot_is_mended(grow: Grow, restarts: bool) -> None:
    lifelong = grow(retire_days=DAYS)
    champion = lifelong.registry.alias("champion") or ""
    whole = damage(lifelong.registry, champion, "manifest.json")
    erase(lifelong, START + 2400)
    assert champion in lifelong.service.problem
    if restarts:
        state = lifelong.state()
        lifelong = grow(retire_days=DAYS)
        lifelong.load_state(state)
    mend(lifelong.registry, champion, whole, "manifest.json")
    lifelong.learn(later(100)[0])
    assert lifelong.registry.manifest(champion)["erased"]["first"] == START + 2400
    assert lifelong.service.problem == ""


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", ["manifest.json", "snapshots"])
def test_what_the_disk_does_not_give_now_is_not_deleted(
    grow: Grow, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    lifelong = grow(retire_days=DAYS, least_events=10**6)
    registry = lifelong.registry
    champion = registry.alias("champion") or ""
    erase(lifelong, START + 2400)
    *log, last = later(2300)

    def refuse(path: Path, read: Callable[[Path], Any]) -> Any:
        if path.name == name:
            raise OSError(number, os.strerror(number))
        return read(path)

    with monkeypatch.context() as patch:
        for method in ("iterdir", "read_bytes"):
            read = getattr(Path, method)
            patch.setattr(Path, method, lambda path, read=read: refuse(path, read))
        assert [told.what for batch in log for told in lifelong.learn(batch)] == ["problem"]
        assert os.strerror(number) in lifelong.service.problem
    assert registry.aliases()["champion"] == champion
    assert ("retired", champion) in [told[:2] for told in lifelong.learn(last)]
    assert lifelong.service.problem == ""


def test_what_cannot_be_marked_is_deleted_in_time_all_the_same(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifelong = grow(retire_days=DAYS, least_events=10**6)
    champion = lifelong.registry.alias("champion") or ""

    def full(id: str, **told: Any) -> None:
        raise SnapshotError("no space left on device")

    monkeypatch.setattr(lifelong.registry, "annotate", full)
    erase(lifelong, START + 2400)
    told = [told[:2] for batch in later(2300) for told in lifelong.learn(batch)]
    assert ("retired", champion) in told
    assert champion not in lifelong.registry.ids()


def test_a_snapshot_of_another_format_is_not_deleted(grow: Grow) -> None:
    lifelong = grow(retire_days=DAYS, least_events=10**6)
    registry = lifelong.registry
    champion = registry.alias("champion") or ""
    path = registry.root / "snapshots" / champion / "manifest.json"
    path.write_bytes(sealed(read_sealed(path) | {"format": 99}))
    erase(lifelong, START + 2400)
    told = [told.what for batch in later(2300) for told in lifelong.learn(batch)]
    assert "retired" not in told
    assert registry.manifests()[0]["state"] == "foreign"
    assert "its format is 99" in lifelong.service.problem
    assert "erasure whose time is over" in lifelong.service.problem


def test_an_old_snapshot_that_cannot_be_deleted_costs_no_new_one(grow: Grow) -> None:
    lifelong = grow(every_events=300)
    registry = lifelong.registry
    before, champion = succeed(registry)
    registry.annotate(champion, parent=None)
    succeed(registry)
    in_the_way = registry.root / "snapshots" / f"{before}.tmp"
    in_the_way.touch()
    told = [told for batch in later(600) for told in lifelong.learn(batch)]
    whats = [each.what for each in told]
    assert "failed" not in whats
    born = next(each.snapshot for each in told if each.what == "born")
    assert born in registry.ids()
    assert before in next(each.why for each in told if each.what == "problem")
    in_the_way.unlink()
    succeed(registry)
    assert before not in registry.ids()

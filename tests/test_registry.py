"""The registry of snapshots: whole or not there, and the champion always one that is whole."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from learners.deep.registry import Registry, Snapshot
from learners.deep.snapshots import FORMAT
from learners.durable import replace_file
from learners.errors import SnapshotError

KILLS = 20
CHILD = """
import sys
from pathlib import Path
from learners.deep.registry import Registry
from tests.test_registry import written
registry = Registry(Path(sys.argv[1]), keep=3)
print("ready", flush=True)
number = 0
while True:
    number += 1
    id = written(registry, number)
    if number % 3:
        registry.promote(id)
    else:
        registry.discard(id, "every third is")
    if number % 5 == 0 and registry.alias("previous"):
        registry.rollback()
"""


def written(registry: Registry, number: int = 1, **manifest: object) -> str:
    table = np.full((300, 16), number, np.float32)
    items = [f"item-{row}" for row in range(len(table))]
    told = {"config": {"width": 16}, "parent": registry.alias("champion"), **manifest}
    return registry.write({"table": table, "bias": np.zeros(3, np.float32)}, items, told)


def promoted(registry: Registry, number: int = 1, **manifest: object) -> str:
    id = written(registry, number, **manifest)
    registry.promote(id)
    return id


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    id = written(registry, 7, seed=3, positions={"clicks/0": 12})
    snapshot = registry.read(id)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.arrays["table"].dtype == np.float32
    assert (snapshot.arrays["table"] == 7).all()
    assert snapshot.arrays["bias"].shape == (3,)
    assert snapshot.items[299] == "item-299"
    assert snapshot.config == {"width": 16}
    assert snapshot.manifest["positions"] == {"clicks/0": 12}
    assert snapshot.manifest["state"] == "challenger"
    assert snapshot.manifest["version"]
    assert id.startswith("00000001-")


def test_the_same_weights_have_the_same_digest_in_their_id(tmp_path: Path) -> None:
    ids = [written(Registry(tmp_path / folder), 4) for folder in ("a", "b")]
    assert ids[0] == ids[1]
    assert written(Registry(tmp_path / "c"), 5) != ids[0]


def test_an_empty_folder_has_no_champion(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "none yet")
    assert registry.alias("champion") is None
    assert registry.manifests() == []
    assert not (tmp_path / "none yet").exists(), "reading writes nothing"


def test_promotion_and_rollback_move_the_aliases(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first, second, third = (promoted(registry, number) for number in (1, 2, 3))
    assert registry.aliases() == {"champion": third, "previous": second, "challenger": None}
    assert registry.rollback("worse live") == second
    assert registry.aliases() == {"champion": second, "previous": first, "challenger": None}
    states = {told["id"]: told["state"] for told in registry.manifests()}
    assert states == {first: "retired", second: "champion", third: "rolled_back"}
    assert registry.manifest(third)["why"] == "worse live"
    registry.promote(third)  # somebody knows better
    assert registry.manifest(third)["state"] == "champion"
    assert registry.rollback() == second


def test_without_a_champion_before_it_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    only = promoted(registry)
    with pytest.raises(SnapshotError, match=f"no champion before {only}: name one"):
        registry.rollback()
    assert registry.alias("champion") == only


def test_one_that_was_rolled_back_is_never_gone_back_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    good = promoted(registry)
    bad = promoted(registry, 2)
    child = written(registry, 3)  # of the bad one, before it is known as bad
    assert registry.rollback("worse live") == good
    registry.promote(child)
    grandchild = promoted(registry, 4)
    assert registry.rollback() == child
    assert registry.aliases() == {"champion": child, "previous": good, "challenger": None}
    assert registry.rollback() == good
    assert registry.alias("previous") is None
    states = {told["id"]: told["state"] for told in registry.manifests()}
    assert {states[id] for id in (bad, child, grandchild)} == {"rolled_back"}


def test_a_damaged_champion_leaves_the_one_before_it_to_go_back_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    good, damaged = promoted(registry), promoted(registry, 2)
    flip(tmp_path / "snapshots" / damaged / "weights.safetensors", -2)
    third = promoted(registry, 3)
    assert registry.aliases() == {"champion": third, "previous": good, "challenger": None}


def test_a_kill_in_the_middle_of_a_rollback_leaves_nothing_bad_to_go_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    good, bad = promoted(registry), promoted(registry, 2)

    def end(path: Path, data: bytes) -> None:
        if path.name == "aliases.json":
            raise KeyboardInterrupt
        replace_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("learners.deep.registry.replace_file", end)
        with pytest.raises(KeyboardInterrupt):
            registry.rollback("worse live")
    assert registry.alias("champion") == bad
    third = promoted(registry, 3)
    assert registry.aliases() == {"champion": third, "previous": good, "challenger": None}


def test_a_discarded_challenger_says_why(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    id = written(registry)
    registry.annotate(id, gate={"targets": 100})
    registry.annotate(id, gate={"hr@20": 0.5})
    registry.discard(id, "its weights are not finite")
    told = registry.manifest(id)
    assert (told["state"], told["why"]) == ("discarded", "its weights are not finite")
    assert told["gate"] == {"targets": 100, "hr@20": 0.5}
    assert registry.alias("challenger") is None


def test_a_champion_that_is_retired_is_gone_and_leaves_its_place_empty(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    first, second = promoted(registry), promoted(registry, 2)
    registry.retire(second)
    assert registry.aliases() == {"champion": None, "previous": first, "challenger": None}
    assert registry.ids() == [first]


def test_the_newest_stay_and_whoever_an_alias_names(tmp_path: Path) -> None:
    registry = Registry(tmp_path, keep=2)
    first = promoted(registry)
    second = promoted(registry, 2)
    others = [written(registry, number) for number in range(3, 9)]
    assert registry.ids() == [first, second, *others[-2:]]
    assert registry.rollback() == first


@pytest.mark.parametrize("file", ["weights.safetensors", "items.json", "manifest.json"])
@pytest.mark.parametrize("place", [3, 200, -2])
def test_a_flipped_bit_is_refused(tmp_path: Path, file: str, place: int) -> None:
    registry = Registry(tmp_path)
    champion, id = promoted(registry), written(registry, 2)
    flip(tmp_path / "snapshots" / id / file, place)
    with pytest.raises(SnapshotError, match=f"{id} is refused: .*promote another snapshot"):
        registry.read(id)
    with pytest.raises(SnapshotError, match="refused"):
        registry.promote(id)
    assert registry.alias("champion") == champion
    assert registry.read(champion).id == champion


@pytest.mark.parametrize("damage", ["truncate", "empty", "no weights", "no manifest", "no json"])
def test_a_torn_snapshot_is_refused_and_listed_as_damaged(tmp_path: Path, damage: str) -> None:
    registry = Registry(tmp_path)
    promoted(registry)
    id = written(registry, 2)
    folder = tmp_path / "snapshots" / id
    weights, manifest = folder / "weights.safetensors", folder / "manifest.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(b"[1, 2]")
    with pytest.raises(SnapshotError, match=f"{id} is refused"):
        registry.read(id)
    if damage in ("no manifest", "no json"):
        assert registry.manifests()[-1]["state"] == "damaged"
        assert id in registry.manifests()[-1]["problem"]


def test_what_is_no_snapshot_of_ours_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    id = promoted(registry)
    (tmp_path / "snapshots" / "notes").mkdir()
    assert registry.ids() == [id]
    for foreign in ("../../etc", "notes", "", "7"):
        with pytest.raises(SnapshotError, match=r"ids look like .* list` names them$"):
            registry.read(foreign)
    with pytest.raises(SnapshotError, match=f"no snapshot 00000009-00000000 .* there are {id}"):
        registry.promote("00000009-00000000")
    renamed = tmp_path / "snapshots" / "00000002-00000000"
    (tmp_path / "snapshots" / id).rename(renamed)
    with pytest.raises(SnapshotError, match=f"its manifest is that of '{id}'"):
        registry.read(renamed.name)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(tmp_path)
    monkeypatch.setattr("learners.deep.registry.FORMAT", 99)
    id = written(registry)
    monkeypatch.undo()
    with pytest.raises(
        SnapshotError, match=f"its format is 99, this version reads {FORMAT}; use ever"
    ):
        registry.read(id)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    id = promoted(registry)

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SnapshotError, match=r"manifest.json: Permission denied; let the user"):
        registry.read(id)
    with pytest.raises(SnapshotError, match=r"aliases.json: Permission denied; let the user"):
        registry.aliases()


def test_a_file_in_the_place_of_the_folder_is_refused_as_such(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SnapshotError, match=f"{file} is no folder, snapshots need one: name"):
        Registry(file).aliases()


def test_damaged_aliases_are_refused_until_somebody_promotes(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    id = promoted(registry)
    flip(tmp_path / "aliases.json", 20)
    with pytest.raises(SnapshotError, match=r"aliases.json is refused: .*promote ID`, which"):
        registry.alias("champion")
    with pytest.raises(SnapshotError, match=r"aliases.json is refused"):
        written(registry, 2)
    registry.promote(id)
    assert registry.alias("champion") == id


def test_a_full_disk_leaves_nothing_of_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    champion = promoted(registry)

    def fill_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_disk)
        with pytest.raises(SnapshotError, match="No space left on device; free space"):
            written(registry, 2)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [champion]
    assert registry.alias("champion") == champion


def test_a_snapshot_holds_no_code(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    folder = tmp_path / "snapshots" / promoted(registry)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", ".safetensors"]


def test_the_champion_is_whole_whenever_a_writer_is_killed(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    registry = Registry(tmp_path, keep=3)
    promoted(registry)
    words = [sys.executable, "-c", CHILD, str(tmp_path)]
    for _ in range(KILLS):
        with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            try:
                child.wait(chance.uniform(0.0, 0.15))
            except subprocess.TimeoutExpired:
                child.kill()
            assert child.wait() == -9
        aliases = registry.aliases()
        for id in filter(None, aliases.values()):
            assert registry.read(id).id == id
        assert aliases["champion"] is not None
        assert aliases["champion"] != aliases["previous"]
        assert all(told["state"] != "damaged" for told in registry.manifests())
    assert len(registry.ids()) > 3 or int(registry.ids()[-1][:8]) > KILLS
    written(registry, 99)
    assert not list((tmp_path / "snapshots").glob("*.tmp"))

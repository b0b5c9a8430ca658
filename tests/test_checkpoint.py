"""Checkpoints: what was learnt comes back byte for byte, and damage is refused by name."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from xxhash import xxh3_64_hexdigest

from learners.base import CLICK, ERASURE
from learners.checkpoint import FORMAT, CheckpointStore, hold_folder
from learners.engine import Engine
from learners.errors import CheckpointError
from tests.test_engine import CONFIG, batch_of, checkerboard, cut


def saved(folder: Path, counts: tuple[int, ...] = (1000, 2000)) -> tuple[Engine, CheckpointStore]:
    engine, store = Engine(CONFIG), CheckpointStore(folder)
    whole = batch_of(checkerboard(3000))
    start = 0
    for stop in counts:
        engine.learn(cut(whole, start, stop))
        store.write(store.capture(engine))
        start = stop
    return engine, store


def test_a_run_resumed_in_the_middle_ends_in_the_same_state(tmp_path: Path) -> None:
    engine, store = saved(tmp_path)
    resumed = Engine(CONFIG)
    folder = store.load(resumed)
    assert folder is not None
    assert folder.name == "00000002"
    assert store.problems == []
    assert resumed.fingerprint() == engine.fingerprint()
    assert resumed.positions == engine.positions
    assert resumed.ledger() == engine.ledger()
    rest = cut(batch_of(checkerboard(3000)), 2000, 3000)
    for each in (engine, resumed):
        each.learn(rest)
    assert resumed.fingerprint() == engine.fingerprint()
    assert resumed.report() == engine.report()


def test_what_changes_after_it_was_copied_ahead_is_in_the_checkpoint(tmp_path: Path) -> None:
    engine, store = Engine(replace(CONFIG, users=64)), CheckpointStore(tmp_path)
    clicks = [(CLICK, f"u{i % 50}", f"i{i % 20}", float(i)) for i in range(200)]
    engine.learn(batch_of(clicks))
    store.write(store.capture(engine))
    for later in (
        [(CLICK, "u7", "i3", 300.0)],
        [(CLICK, f"new{i}", "i1", 400.0 + i) for i in range(10)],  # rows beyond those copied
        [(ERASURE, "u9", "", 500.0)],
        [(CLICK, f"many{i}", "i2", 600.0 + i) for i in range(30)],  # users are evicted
    ):
        engine.memory.clear_marks()
        store.copy_ahead(engine)
        engine.learn(batch_of(later, later[0][1]))
        store.write(store.capture(engine))
        loaded = Engine(engine.config)
        store.load(loaded)
        assert loaded.fingerprint() == engine.fingerprint()
    assert engine.user("u0") is None


def test_histories_are_copied_while_learning_goes_on(tmp_path: Path) -> None:
    """Also while items are evicted, which changes the histories of users who do nothing."""
    engine = Engine(replace(CONFIG, users=4096, items=64))
    store = CheckpointStore(tmp_path)
    for part in range(20):
        clicks = [
            (CLICK, f"u{i * 7 % 3000}", f"i{part}-{i % 50}", 1000.0 * part + i) for i in range(2000)
        ]
        engine.memory.clear_marks()
        copying = Thread(target=store.copy_ahead, args=(engine,))
        copying.start()
        engine.learn(batch_of(clicks, f"{part}-"))
        copying.join()
        capture = store.capture(engine)
    store.write(capture)
    loaded = Engine(engine.config)
    store.load(loaded)
    assert loaded.fingerprint() == engine.fingerprint()


def test_a_changed_layout_of_the_state_has_a_format_of_its_own() -> None:
    """Checkpoints of another layout cannot be read: raise `FORMAT`, then the digest here."""
    state = Engine(CONFIG).state()
    layout = "\n".join(f"{name} {array.dtype} {array.ndim}" for name, array in state.items())
    assert (FORMAT, xxh3_64_hexdigest(layout.encode())) == (8, "5808a6185e60cbdb")


@pytest.mark.parametrize(
    "damage", ["flip", "manifest flip", "truncate", "empty", "no manifest", "torn manifest"]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    saved(tmp_path)
    state = tmp_path / "00000002" / "state.safetensors"
    manifest = tmp_path / "00000002" / "manifest.json"
    data = state.read_bytes()
    if damage == "flip":
        middle = len(data) // 2
        state.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "manifest flip":
        said = manifest.read_bytes()
        place = said.index(b'"clicks/0": ') + len(b'"clicks/0": ')
        manifest.write_bytes(said[:place] + bytes([said[place] ^ 1]) + said[place + 1 :])
    elif damage == "truncate":
        state.write_bytes(data[:-100])
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:200])
    store, engine = CheckpointStore(tmp_path), Engine(CONFIG)
    folder = store.load(engine)
    assert folder is not None
    assert folder.name == "00000001"
    assert sum(engine.learnt.values()) == 1000
    assert len(store.problems) == 1
    assert "00000002 is refused" in store.problems[0]


def test_an_unfinished_checkpoint_is_not_seen_and_only_the_newest_stay(tmp_path: Path) -> None:
    saved(tmp_path, (100, 200, 300, 400, 500))
    (tmp_path / "00000009.tmp").mkdir()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == [
        "00000003",
        "00000004",
        "00000005",
    ]
    engine = Engine(CONFIG)
    CheckpointStore(tmp_path).load(engine)
    assert sum(engine.learnt.values()) == 500


def test_settings_that_shape_the_state_cannot_change_silently(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"engine.hidden_units = 16, the settings say 8"):
        CheckpointStore(tmp_path).load(Engine(replace(CONFIG, hidden_units=8)))
    larger = Engine(replace(CONFIG, users=400))
    assert CheckpointStore(tmp_path).load(larger) is not None
    larger.learn(batch_of([(CLICK, "one more", "i1", 99_000.0)], "more"))
    assert larger.user("one more") is not None


def test_an_empty_folder_is_a_fresh_start(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none yet").load(Engine(CONFIG)) is None


def test_a_full_disk_as_simulated_leaves_nothing_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, store = saved(tmp_path)

    def fill_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_disk)
        with pytest.raises(CheckpointError, match="00000003: No space left on device; free space"):
            store.write(store.capture(engine))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002"]
    assert store.write(store.capture(engine)).name == "00000003"


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    with hold_folder(folder, "node", "name another"):
        told = rf"used by another node \(process {os.getpid()}\): stop that one, or take another"
        with pytest.raises(CheckpointError, match=told):
            hold_folder(folder, "replay", "take another")
    hold_folder(folder, "replay", "name another").close()
    with pytest.raises(CheckpointError, match=r"lock is a file, checkpoints need a folder: take"):
        hold_folder(folder / "lock", "node", "take another")

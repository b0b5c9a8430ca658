"""The folders of a trainer: each belongs to one trainer, and is there before it reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from learners.deep.registry import Registry
from tests.forked_trainer import ForkedTrainer
from tests.test_registry import promoted


def test_two_trainers_do_not_share_snapshots(trainer: ForkedTrainer, tmp_path: Path) -> None:
    trainer.start().until_started()
    (tmp_path / "other").mkdir()
    other = ForkedTrainer(tmp_path / "other", **{**trainer.settings, "state_dir": tmp_path / "own"})
    assert other.start().wait() == 1
    told = f"{trainer.registry.root} is used by another trainer (process {trainer.pid})"
    assert f"{told}: stop that one, or give each trainer" in other.log_text()
    assert "EVERLEARN_SNAPSHOT_DIR" in other.log_text()
    first = promoted(Registry(trainer.registry.root), 1)
    assert Registry(trainer.registry.root).alias("champion") == first, "commands may still write"
    assert trainer.stop() == 0


def test_a_trainer_that_was_killed_leaves_its_snapshots_free(trainer: ForkedTrainer) -> None:
    trainer.start().until_started()
    trainer.kill()
    trainer.start().until_started()
    assert trainer.stop() == 0


@pytest.mark.parametrize(
    ("place", "why"),
    [("file", "is a file, snapshots need a folder"), ("file/in", "cannot write .*Not a directory")],
)
def test_a_folder_that_takes_no_snapshots_is_refused_at_the_start(
    trainer: ForkedTrainer, tmp_path: Path, place: str, why: str
) -> None:
    (tmp_path / "file").touch()
    trainer.settings["snapshot_dir"] = tmp_path / place
    assert trainer.start().wait() == 1
    assert re.search(why, trainer.log_text())
    assert "EVERLEARN_SNAPSHOT_DIR" in trainer.log_text()

"""What a trainer's log tells of what others do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learners.base import ERASURE
from learners.deep.memory import Happening
from streams.flow import Decoded
from streams.settings import Settings
from streams.trainer import Trainer
from tests.walks import START, batches


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """A trainer that reads nothing."""
    return Trainer(Settings(state_dir=tmp_path / "state", snapshot_dir=tmp_path / "snapshots"))


def moved(trainer: Trainer, champion: str, *happened: Happening) -> list[Any]:
    """Let the trainer follow a champion, and tell what happened; return its log."""
    trainer.lifelong.service.champion = SimpleNamespace(id=champion)  # type: ignore[assignment]
    with capture_logs() as logged:
        trainer._tell(list(happened))
    return logged


def test_a_champion_that_somebody_else_named_is_told_once(trainer: Trainer) -> None:
    (told,) = moved(trainer, "00000001-aaaaaaaa")
    assert told["event"] == "follows another champion"
    assert (told["champion"], told["before"]) == ("00000001-aaaaaaaa", None)
    assert moved(trainer, "00000001-aaaaaaaa") == []
    own = Happening("promoted", "00000002-bbbbbbbb", 1, 0.0, "", {})
    events = [each["event"] for each in moved(trainer, "00000002-bbbbbbbb", own)]
    assert events == ["snapshot promoted"]


def test_erasures_are_told_without_names(trainer: Trainer) -> None:
    (batch,) = batches([(ERASURE, "ann", "", START)])
    with capture_logs() as logged:
        trainer._learn_now(Decoded(batch, 1, np.full(1, START)))
    (told,) = (each for each in logged if each["event"] == "users forgotten")
    assert told["erasures"] == 1
    assert "ann" not in str(logged)

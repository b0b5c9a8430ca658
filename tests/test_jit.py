"""The cache of compiled kernels: what is used stays, and it does not grow for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from learners import jit
from streams.warmup import COMPILING, warm_up


def test_caches_of_many_checkouts_stay_while_they_are_used(tmp_path: Path) -> None:
    now = time.time()
    for days in range(30):
        folder = tmp_path / f"{days:02d}"
        folder.mkdir()
        os.utime(folder, (now, now - days * 86400.0))
    jit._drop_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i:02d}" for i in range(15)]
    for extra in range(40):
        (tmp_path / f"new-{extra}").mkdir()
    jit._drop_old(tmp_path)
    assert len(list(tmp_path.iterdir())) == jit.KEPT_CACHES


def test_compiling_is_announced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_mark", lambda: tmp_path / "mark")
    told: list[str] = []
    warm_up(told.append)
    warm_up(told.append)
    assert told == [COMPILING]

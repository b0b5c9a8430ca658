"""Checkpoints: the whole online state and the next offset of every partition, in one atomic set.

`capture` copies the state in memory, between two batches; `write` puts it on disk, in another
thread: a temporary folder, `state.safetensors`, `manifest.json` with its SHA-256 last, each synced,
then one rename. `load` takes the newest that verifies and says what it refused. The newest `keep`
stay. `hold_folder` keeps a folder for one process.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.durable import read_sealed, sealed, write_arrays, write_folder, write_synced
from learners.engine import Engine
from learners.errors import CheckpointError
from learners.store.digest import fingerprint_of
from learners.store.ledger import with_room
from learners.store.rows import copy_changed

__all__ = ["Capture", "CheckpointStore", "hold_folder"]

FORMAT = 8  # of the state: to be raised with every change of its arrays
MAY_GROW = ("users", "items")  # capacities that a later run may raise


def hold_folder(
    folder: Path, holder: str, cure: str, *, held: str = "checkpoints", name: str = "lock"
) -> TextIO:
    """Keep a folder of checkpoints for this process: two would drop each other's.

    Parameters
    ----------
    folder
        Made when missing.
    holder
        What this process is: others are told, with its number.
    cure
        How to name another folder.
    held, name
        What the folder is of, and the file in it that is locked.

    Returns
    -------
    TextIO
        Close it to let the folder go.

    Raises
    ------
    CheckpointError
        Another process has it, it is a file, or it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file, {held} need a folder: {cure}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("a+")
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror}; {cure}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "process"
        file.close()
        raise CheckpointError(
            f"{folder} is used by another {owner}: stop that one, or {cure}"
        ) from error
    file.truncate(0)
    file.write(f"{holder} (process {os.getpid()})\n")
    file.flush()
    return file


@dataclass(frozen=True, slots=True)
class Capture:
    """A copy of an engine between two batches."""

    state: Mapping[str, NDArray[np.generic]]
    manifest: Mapping[str, Any]


class CheckpointStore:
    """A folder of checkpoints, each a numbered folder of its own.

    Parameters
    ----------
    folder : Path
        Made when missing.
    keep : int
        How many of the newest stay.
    form : int
        Format of the state; checkpoints of any other are refused.
    """

    def __init__(self, folder: Path, keep: int = 3, form: int = FORMAT) -> None:
        self.folder = folder
        self.keep = keep
        self.form = form
        self.problems: list[str] = []
        self._copies: dict[str, NDArray[np.uint8]] = {}
        self._ahead: dict[str, int] = {}  # rows that `copy_ahead` has copied

    def copy_ahead(self, engine: Engine) -> None:
        """Copy the largest arrays while learning goes on; the next capture mends what has changed.

        Call `Memory.clear_marks` between two batches before it: what is written from then on, even
        while it is being copied, is marked, and copied again.
        """
        for name, (array, _) in engine.memory.marked().items():
            self._copy(name, array)
            self._ahead[name] = len(array)

    def capture(self, engine: Engine) -> Capture:
        """Copy an engine's state; call it on the thread that learns, between two batches.

        The copies stand in buffers that the next capture reuses: write one before taking another.
        """
        marked = engine.memory.marked()
        state = {
            name: self._copy(name, array, marked[name].changed if name in marked else None)
            for name, array in engine.state().items()
        }
        self._ahead.clear()
        manifest = {
            "format": FORMAT,
            "events": sum(engine.learnt.values()),
            "clock": engine.clock,
            "positions": dict(engine.positions),
            "watermarks": dict(engine.watermarks),
            "rejected": dict(engine.rejected),
            "ledger": engine.ledger(),
            "config": asdict(engine.config),
        }
        return Capture(state, manifest)

    def _copy(
        self, name: str, array: NDArray[np.generic], changed: NDArray[np.uint8] | None = None
    ) -> NDArray[np.generic]:
        """Copy into a buffer as large as the whole array behind a view, so that it never moves.

        Bytes are copied, for which numpy lets other threads run; of structures it would not.
        """
        array = np.ascontiguousarray(array)
        whole = array if array.base is None else array.base
        most = max(array.nbytes, getattr(whole, "nbytes", 0))
        buffer = self._copies.get(name)
        if buffer is None or buffer.nbytes < array.nbytes:
            buffer = self._copies[name] = np.empty(most, np.uint8)
            self._ahead.pop(name, None)
        copy = buffer[: array.nbytes]
        source = array.reshape(-1).view(np.uint8)
        done = 0
        if changed is not None and (rows := self._ahead.get(name, 0)):
            done = rows * (array.nbytes // len(array))
            copy_changed(source[:done].reshape(rows, -1), changed, copy[:done].reshape(rows, -1))
        np.copyto(copy[done:], source[done:])
        return copy.view(array.dtype).reshape(array.shape)

    def write(self, capture: Capture) -> Path:
        """Write a capture; return its folder once it is safe on disk.

        Raises
        ------
        CheckpointError
            It cannot be written: then nothing of it is left.
        """
        number = max((int(path.name) for path in self._folders()), default=0) + 1
        target = self.folder / f"{number:08d}"
        try:
            write_folder(target, partial(_fill, capture))
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoint {target}: {error.strerror or error}; free space or name "
                "another folder (state_dir, or --checkpoint of a replay)"
            ) from error
        for old in self._folders()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load(self, engine: Engine) -> Path | None:
        """Give an engine the newest checkpoint that verifies; return its folder, `None` for none.

        What was refused, and why, is in `problems`.

        Raises
        ------
        CheckpointError
            The checkpoint is sound, but was made with settings that cannot be changed.
        """
        found = self.newest()
        if found is None:
            return None
        folder, manifest, state = found
        _check_config(folder, manifest["config"], engine.config)
        _restore(engine, manifest, state)
        return folder

    def newest(self) -> tuple[Path, dict[str, Any], dict[str, NDArray[np.generic]]] | None:
        """Return the newest checkpoint that verifies: its folder, manifest and state."""
        self.problems = []
        for folder in reversed(self._folders()):
            try:
                return folder, *_read(folder, self.form)
            except (OSError, ValueError, KeyError, CheckpointError) as error:
                self.problems.append(f"checkpoint {folder} is refused: {error}")
        return None

    def newest_manifest(self) -> dict[str, Any] | None:
        """Return the newest manifest that can be read, unverified."""
        for folder in reversed(self._folders()):
            try:
                manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
            except (OSError, ValueError):
                continue
            return manifest
        return None

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())


def _restore(
    engine: Engine, manifest: Mapping[str, Any], state: Mapping[str, NDArray[np.generic]]
) -> None:
    engine.load_state(state)
    engine.positions = {name: int(offset) for name, offset in manifest["positions"].items()}
    engine.watermarks = {name: float(time) for name, time in manifest["watermarks"].items()}
    engine.rejected = {reason: int(count) for reason, count in manifest["rejected"].items()}
    engine.logs = list(manifest["ledger"])
    engine.memory.ledger = with_room(engine.memory.ledger, len(engine.logs))
    totals = engine.memory.ledger.total
    totals[:] = 0
    for i, sums in enumerate(manifest["ledger"].values()):
        totals[i] = [sums["count"], sums["xor"], sums["sum"]]


def _check_config(folder: Path, stored: Mapping[str, Any], config: EngineConfig) -> None:
    current, defaults = (json.loads(json.dumps(asdict(each))) for each in (config, EngineConfig()))
    for name, value in {**defaults, **stored}.items():  # a setting came later: its default held
        now = current.get(name)
        if value == now or (name in MAY_GROW and now is not None and value < now):
            continue
        raise CheckpointError(
            f"checkpoint {folder} was made with engine.{name} = {value}, the settings say {now}; "
            "set it back, or name another folder (state_dir, or --checkpoint of a replay) to learn "
            "the log anew"
        )


def _fill(capture: Capture, folder: Path) -> None:
    digest = write_arrays(folder / "state.safetensors", capture.state)
    fingerprint = fingerprint_of(capture.state)
    manifest = {**capture.manifest, "sha256": digest, "fingerprint": fingerprint}
    write_synced(folder / "manifest.json", sealed(manifest))


def _read(folder: Path, form: int) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    from safetensors.numpy import load

    manifest = read_sealed(folder / "manifest.json")
    if manifest.get("format") != form:
        raise CheckpointError(f"its format is {manifest.get('format')}, this version reads {form}")
    data = (folder / "state.safetensors").read_bytes()
    digest = sha256(data).hexdigest()
    if digest != manifest["sha256"]:
        raise CheckpointError(
            f"state.safetensors has SHA-256 {digest[:12]}..., its manifest says "
            f"{manifest['sha256'][:12]}...: the file is damaged"
        )
    return manifest, load(data)

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
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from learners.base import EngineConfig
from learners.engine import Engine
from learners.errors import CheckpointError
from learners.store.digest import fingerprint_of
from learners.store.ledger import with_room
from learners.store.rows import copy_changed

__all__ = ["Capture", "CheckpointStore", "hold_folder"]

FORMAT = 7  # of the state: to be raised with every change of its arrays
PIECE_BYTES = 1 << 20
NAMES = {"f8": "F64", "f4": "F32", "i8": "I64", "i4": "I32", "u8": "U64", "u4": "U32", "u1": "U8"}
MAY_GROW = ("users", "items")  # capacities that a later run may raise


def hold_folder(folder: Path, holder: str, cure: str) -> TextIO:
    """Keep a folder of checkpoints for this process: two would drop each other's.

    Parameters
    ----------
    folder
        Made when missing.
    holder
        What this process is: others are told, with its number.
    cure
        How to name another folder.

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
        raise CheckpointError(f"{folder} is a file, checkpoints need a folder: {cure}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+")
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
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep
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
        temporary = self.folder / f"{number:08d}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            digest = _write_state(temporary / "state.safetensors", capture.state)
            manifest = {
                **capture.manifest,
                "sha256": digest,
                "fingerprint": fingerprint_of(capture.state),
            }
            manifest["manifest_sha256"] = _digest(manifest)
            _write_synced(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
            _sync_folder(temporary)
            temporary.rename(target)
            _sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoint {target}: {error.strerror or error}; free space or name "
                "another folder (state_dir, or --checkpoint of a replay)"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
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
        self.problems = []
        for folder in reversed(self._folders()):
            try:
                manifest, state = _read(folder)
            except (OSError, ValueError, KeyError, CheckpointError) as error:
                self.problems.append(f"checkpoint {folder} is refused: {error}")
                continue
            _check_config(folder, manifest["config"], engine.config)
            _restore(engine, manifest, state)
            return folder
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


def _write_state(path: Path, state: Mapping[str, NDArray[np.generic]]) -> str:
    """Write arrays in the safetensors format, without copies; return the SHA-256 of the file."""
    header: dict[str, object] = {}
    end = 0
    for name, array in state.items():
        begin, end = end, end + array.nbytes
        plain = array.dtype.names is None
        header[name] = {
            "dtype": NAMES[array.dtype.str[1:]] if plain else "U8",
            "shape": [*array.shape] if plain else [*array.shape, array.dtype.itemsize],
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = sha256()
    with path.open("wb") as file:
        _put(file, digest, memoryview(len(text).to_bytes(8, "little") + text))
        for array in state.values():
            if array.nbytes:
                _put(file, digest, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, whatever its layout."""
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _put(file: BinaryIO, digest: Any, data: memoryview) -> None:
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        digest.update(piece)
        file.write(piece)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    from safetensors.numpy import load

    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    if manifest.pop("manifest_sha256", None) != _digest(manifest):
        raise CheckpointError("manifest.json does not match its own SHA-256: the file is damaged")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"its format is {manifest.get('format')}, this version reads {FORMAT}"
        )
    data = (folder / "state.safetensors").read_bytes()
    digest = sha256(data).hexdigest()
    if digest != manifest["sha256"]:
        raise CheckpointError(
            f"state.safetensors has SHA-256 {digest[:12]}..., its manifest says "
            f"{manifest['sha256'][:12]}...: the file is damaged"
        )
    return manifest, load(data)

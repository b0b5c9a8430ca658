"""Reading snapshots: each is verified to the last byte, and nothing is written.

`learners.deep.registry` tells what is in the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from learners.deep.packing import Arrays
from learners.durable import read_sealed
from learners.errors import SnapshotError

__all__ = [
    "ALIASES",
    "CURE",
    "FORMAT",
    "ITEMS",
    "MANIFEST",
    "WEIGHTS",
    "Alias",
    "Snapshot",
    "Snapshots",
    "is_missing",
]

FORMAT = 4  # of a folder: to be raised with every change of its arrays
ID = re.compile(r"\d{8}-[0-9a-f]{8}")
Alias = Literal["champion", "previous", "challenger"]
ALIASES: tuple[Alias, ...] = ("champion", "previous", "challenger")
WEIGHTS, ITEMS, MANIFEST = "weights.safetensors", "items.json", "manifest.json"
LISTED = "`everlearn snapshots list` names them"
CURE = f"put a whole copy of its folder back, or promote another snapshot: {LISTED}"
NAME_ONE = "name who is to serve with `everlearn snapshots promote ID`, which writes it anew"
READABLE = "let the user that runs this read it"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as it was read: verified, in memory."""

    id: str
    arrays: Arrays  # by name, packed
    items: list[str]  # id by row
    manifest: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The model's own configuration, as plain values."""
        config: dict[str, Any] = self.manifest["config"]
        return config


def is_missing(error: OSError) -> bool:
    """Tell whether a file is not there, or is none; any other error of a disk may pass."""
    return isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)


def _plain(why: object) -> str:
    """Say why a file is refused, and which."""
    if isinstance(why, OSError) and why.filename:
        return f"{Path(why.filename).name}: {why.strerror}"
    return str(why)


class Snapshots:
    """A folder of snapshots, to be read.

    Parameters
    ----------
    root
        Need not be there: then there are none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def alias(self, name: Alias) -> str | None:
        """Return the id that an alias names, `None` for none.

        Raises
        ------
        SnapshotError
            `aliases.json` is damaged.
        """
        return self.aliases()[name]

    def aliases(self, *, serving: str = "") -> dict[str, str | None]:
        """Return the id of every alias, all of one moment.

        Parameters
        ----------
        serving
            Id that the reader serves: somebody was named, so a file that is not there is gone.

        Raises
        ------
        SnapshotError
            `aliases.json` is damaged or gone.
        """
        path = self.root / "aliases.json"
        try:
            told = read_sealed(path)
        except FileNotFoundError as error:
            if serving:
                gone = path if self.root.is_dir() else self.root
                raise SnapshotError(
                    f"{gone} is gone, {serving} serves on: put it back, or restart without it"
                ) from error
            told = {}
        except NotADirectoryError as error:
            raise SnapshotError(
                f"{self.root} is no folder, snapshots need one: name it with "
                "EVERLEARN_SNAPSHOT_DIR or --snapshot-dir"
            ) from error
        except (OSError, ValueError) as error:
            cure = READABLE if isinstance(error, OSError) else NAME_ONE
            raise SnapshotError(f"{path} is refused: {_plain(error)}; {cure}") from error
        return {name: told.get(name) for name in ALIASES}

    def _sound_aliases(self) -> dict[str, str | None]:
        try:
            return self.aliases()
        except SnapshotError:
            return dict.fromkeys(ALIASES)

    def ids(self) -> list[str]:
        """Return the ids of all snapshots, oldest first.

        Raises
        ------
        SnapshotError
            The folder is there, and cannot be listed.
        """
        folder = self.root / "snapshots"
        try:
            return sorted(path.name for path in folder.iterdir() if ID.fullmatch(path.name))
        except OSError as error:
            if is_missing(error):
                return []
            raise SnapshotError(f"cannot list {folder}: {error.strerror or error}") from error

    def read(self, id: str) -> Snapshot:
        """Return a snapshot, every byte of it verified.

        Raises
        ------
        SnapshotError
            It is missing, damaged, or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        manifest = self.manifest(id)
        weights, items = (self._verified(id, name, manifest) for name in (WEIGHTS, ITEMS))
        try:
            return Snapshot(id, load(weights), json.loads(items), manifest)
        except (SafetensorError, ValueError) as error:
            raise SnapshotError(f"snapshot {id} is refused: {error}; {CURE}") from error

    def manifest(self, id: str) -> dict[str, Any]:
        """Return a snapshot's manifest, with its `state` as the aliases tell it.

        Raises
        ------
        SnapshotError
            It is missing, damaged, or of another format.
        """
        return self._own(id, self._sealed(id))

    def _own(self, id: str, manifest: dict[str, Any]) -> dict[str, Any]:
        if (form := manifest.get("format")) != FORMAT:
            raise self._refused(
                id,
                f"its format is {form!r}, this version reads {FORMAT}",
                f"use everlearn {manifest.get('version')}, which wrote it, or promote another "
                f"snapshot: {LISTED}",
            )
        if (own := manifest.get("id")) != id:
            raise self._refused(id, f"its manifest is that of {own!r}")
        return {**manifest, "state": self._state(id, manifest)}

    def _sealed(self, id: str) -> dict[str, Any]:
        try:
            return read_sealed(self._folder(id) / MANIFEST)
        except (OSError, ValueError) as error:
            raise self._refused(id, error) from error

    def files(self, id: str) -> tuple[tuple[int, ...] | None, ...]:
        """Return what changes whenever a file of a snapshot does, `None` for a missing one."""
        found: list[tuple[int, ...] | None] = []
        for name in (MANIFEST, WEIGHTS, ITEMS):
            try:
                told = (self._folder(id) / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((told.st_ino, told.st_size, told.st_ctime_ns))
        return tuple(found)

    def manifests(self) -> list[dict[str, Any]]:
        """Return the manifests, oldest first; one that is refused says its `problem`.

        Its state is `damaged` by what is in it, `foreign` where its format is another, and
        `unreadable` as long as the disk gives no answer.
        """
        return [self._told(id) for id in self.ids()]

    def _told(self, id: str) -> dict[str, Any]:
        state = "damaged"
        try:
            manifest = self._sealed(id)
            if manifest.get("format") != FORMAT:
                state = "foreign"
            return self._own(id, manifest)
        except SnapshotError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and not is_missing(cause):
                state = "unreadable"
            return {"id": id, "state": state, "problem": str(error)}

    def _folder(self, id: str) -> Path:
        if not ID.fullmatch(id):
            raise SnapshotError(f"{id!r} is no snapshot: ids look like 00000007-1a2b3c4d, {LISTED}")
        return self.root / "snapshots" / id

    def _verified(self, id: str, name: str, manifest: Mapping[str, Any]) -> bytes:
        try:
            data = (self._folder(id) / name).read_bytes()
        except OSError as error:
            raise self._refused(id, error) from error
        digest, said = sha256(data).hexdigest(), str(manifest["sha256"].get(name))
        if digest != said:
            damage = f"{name} has SHA-256 {digest[:12]}..., its manifest says {said[:12]}..."
            raise self._refused(id, f"{damage}: the file is damaged")
        return data

    def _refused(self, id: str, why: object, cure: str = CURE) -> SnapshotError:
        if id not in self.ids():
            there = ", ".join(self.ids()[-5:]) or "none"
            return SnapshotError(f"no snapshot {id} in {self.root}; there are {there}")
        if isinstance(why, OSError) and not is_missing(why):
            cure = READABLE if isinstance(why, PermissionError) else "see to the disk that holds it"
        return SnapshotError(f"snapshot {id} is refused: {_plain(why)}; {cure}")

    def _state(self, id: str, manifest: Mapping[str, Any]) -> str:
        aliases = self._sound_aliases()
        if aliases["champion"] == id:
            return "champion"
        if manifest.get("fate"):
            return str(manifest["fate"])
        return "challenger" if aliases["challenger"] == id else "retired"

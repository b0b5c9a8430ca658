"""The registry: a folder of snapshots (versions of the deep model), and who of them serves.

`snapshots/<id>/` holds `weights.safetensors`, `items.json` (the ids of the rows) and
`manifest.json`, which is written last, names the SHA-256 of the others and carries its own.
`aliases.json` names the champion, the one before it and the challenger; it is replaced as a whole,
so that the three are always of one moment. Nothing is pickled. Any number of processes may read
while one writes; writers wait for each other.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from learners.deep.packing import Arrays
from learners.durable import (
    digest_of,
    read_sealed,
    replace_file,
    sealed,
    write_arrays,
    write_folder,
    write_synced,
)
from learners.errors import SnapshotError

__all__ = ["ALIASES", "Alias", "Registry", "Snapshot"]

FORMAT = 1
ID = re.compile(r"\d{8}-[0-9a-f]{8}")
Alias = Literal["champion", "previous", "challenger"]
ALIASES: tuple[Alias, ...] = ("champion", "previous", "challenger")
WEIGHTS, ITEMS, MANIFEST = "weights.safetensors", "items.json", "manifest.json"
CURE = "`everlearn snapshots list` tells which are sound; promote one of them"


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


class Registry:
    """A folder of snapshots.

    Parameters
    ----------
    root
        Made by the first snapshot that is written.
    keep
        How many of the newest stay; champion, previous and challenger always do.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     registry = Registry(Path(folder))
    ...     first = registry.write({"table": np.ones((1, 2), np.float32)}, ["tent"], {"config": {}})
    ...     registry.promote(first)
    ...     registry.alias("champion") == first, registry.read(first).items
    (True, ['tent'])
    """

    def __init__(self, root: Path, keep: int = 10) -> None:
        self.root = root
        self.keep = keep

    # Reading

    def alias(self, name: Alias) -> str | None:
        """Return the id that an alias names, `None` for none.

        Raises
        ------
        SnapshotError
            `aliases.json` is damaged.
        """
        return self.aliases()[name]

    def aliases(self) -> dict[str, str | None]:
        """Return the id of every alias, all of one moment."""
        path = self.root / "aliases.json"
        try:
            told = read_sealed(path)
        except FileNotFoundError:
            told = {}
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{path} is refused: {error}; {CURE}") from error
        return {name: told.get(name) for name in ALIASES}

    def _sound_aliases(self) -> dict[str, str | None]:
        try:
            return self.aliases()
        except SnapshotError:
            return dict.fromkeys(ALIASES)

    def ids(self) -> list[str]:
        """Return the ids of all snapshots, oldest first."""
        folder = self.root / "snapshots"
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if ID.fullmatch(path.name))

    def read(self, id: str) -> Snapshot:
        """Return a snapshot, every byte of it verified.

        Raises
        ------
        SnapshotError
            It is missing, damaged, or of another format.
        """
        from safetensors.numpy import load

        manifest = self.manifest(id)
        weights, items = (self._verified(id, name, manifest) for name in (WEIGHTS, ITEMS))
        return Snapshot(id, load(weights), json.loads(items), manifest)

    def manifest(self, id: str) -> dict[str, Any]:
        """Return a snapshot's manifest, with its `state` as the aliases tell it.

        Raises
        ------
        SnapshotError
            It is missing, damaged, or of another format.
        """
        folder = self._folder(id)
        try:
            manifest = read_sealed(folder / MANIFEST)
        except (OSError, ValueError) as error:
            raise self._refused(id, error) from error
        if (form := manifest.get("format")) != FORMAT:
            raise self._refused(id, f"its format is {form!r}, this version reads {FORMAT}")
        if (own := manifest.get("id")) != id:
            raise self._refused(id, f"its manifest is that of {own!r}")
        return {**manifest, "state": self._state(id, manifest)}

    def manifests(self) -> list[dict[str, Any]]:
        """Return the manifests, oldest first; a damaged one says its `problem`."""
        listed = []
        for id in self.ids():
            try:
                listed.append(self.manifest(id))
            except SnapshotError as error:
                listed.append({"id": id, "state": "damaged", "problem": str(error)})
        return listed

    # Writing

    def write(self, arrays: Arrays, items: Sequence[str], manifest: Mapping[str, Any]) -> str:
        """Write a snapshot, and let the alias `challenger` name it; return its id.

        Parameters
        ----------
        arrays
            The weights, packed.
        items
            Id of each row.
        manifest
            Plain values: `parent`, `config`, `seed`, `positions` and what else there is to tell.

        Raises
        ------
        SnapshotError
            It cannot be written: then nothing of it is left.
        """
        with self._writing(begin=True) as aliases:
            for left in (self.root / "snapshots").glob("*.tmp"):  # by a writer that was killed
                shutil.rmtree(left, ignore_errors=True)
            told = {**manifest, "format": FORMAT, "version": version("everlearn")}
            id = f"{self._next_number():08d}-{self._digest(arrays, items, told)[:8]}"
            write_folder(self._folder(id), partial(_fill, arrays, items, {**told, "id": id}))
            aliases["challenger"] = id
        for old in self.ids()[: -self.keep]:
            self.remove(old)
        return id

    def promote(self, id: str) -> None:
        """Let the alias `champion` name a snapshot that is whole; the one before is `previous`.

        Raises
        ------
        SnapshotError
            It is missing or damaged; then the champion stays.
        """
        with self._writing(mend=True) as aliases:
            self.read(id)
            if aliases["champion"] == id:
                return
            self._annotate(id, {"fate": None})
            aliases["previous"], aliases["champion"] = aliases["champion"], id
            if aliases["challenger"] == id:
                aliases["challenger"] = None

    def rollback(self, why: str = "asked for") -> str:
        """Give the place back to the champion before this one; return its id.

        Raises
        ------
        SnapshotError
            There is none, or it is damaged; then the champion stays.
        """
        with self._writing() as aliases:
            champion, previous = aliases["champion"], aliases["previous"]
            if champion is None or previous is None:
                raise SnapshotError(
                    f"{self.root} has no champion before {champion or 'the first'}: name one with "
                    "`everlearn snapshots promote`"
                )
            parent = self.read(previous).manifest.get("parent")
            self._annotate(champion, {"fate": "rolled_back", "why": why})
            aliases["champion"] = previous
            aliases["previous"] = parent if parent in self.ids() and parent != champion else None
        return previous

    def discard(self, id: str, why: str) -> None:
        """Note that a challenger was not good enough, and why."""
        with self._writing() as aliases:
            self._annotate(id, {"fate": "discarded", "why": why})
            if aliases["challenger"] == id:
                aliases["challenger"] = None

    def retire(self, id: str) -> None:
        """Delete a snapshot; an alias that named it names none from now on."""
        with self._writing() as aliases:
            aliases.update({name: None for name, its in aliases.items() if its == id})
        self.remove(id)

    def annotate(self, id: str, **told: Any) -> None:
        """Enter values into a manifest; tables are merged."""
        with self._writing():
            self._annotate(id, told)

    def remove(self, id: str) -> None:
        """Delete a snapshot, unless an alias names it."""
        with self._writing() as aliases:
            if id not in aliases.values():
                gone = self._folder(id).rename(self.root / "snapshots" / f"{id}.tmp")
                shutil.rmtree(gone, ignore_errors=True)

    def _annotate(self, id: str, told: Mapping[str, Any]) -> None:
        manifest = self.manifest(id)
        del manifest["state"]
        for name, value in told.items():
            table = isinstance(value, Mapping)
            manifest[name] = {**manifest.get(name, {}), **value} if table else value
        try:
            replace_file(self._folder(id) / MANIFEST, sealed(manifest))
        except OSError as error:
            raise SnapshotError(f"cannot write {self._folder(id)}: {error.strerror}") from error

    @contextmanager
    def _writing(
        self, *, begin: bool = False, mend: bool = False
    ) -> Iterator[dict[str, str | None]]:
        """Wait for other writers; lend the aliases, and put them on disk where they changed.

        To `begin` is to make the folder, to `mend` is to take damaged aliases for none.
        """
        if not (begin or self.root.is_dir()):
            raise SnapshotError(
                f"{self.root} holds no snapshot: `everlearn train` writes the first"
            )
        try:
            (self.root / "snapshots").mkdir(parents=True, exist_ok=True)
            with (self.root / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                aliases = self._sound_aliases() if mend else self.aliases()
                before = dict(aliases)
                yield aliases
                if aliases != before:
                    replace_file(self.root / "aliases.json", sealed(aliases))
        except OSError as error:
            raise SnapshotError(
                f"cannot write {self.root}: {error.strerror or error}; free space, or name another "
                "folder with EVERLEARN_SNAPSHOT_DIR"
            ) from error

    def _next_number(self) -> int:
        return max((int(id[:8]) for id in self.ids()), default=0) + 1

    def _digest(self, arrays: Arrays, items: Sequence[str], told: Mapping[str, Any]) -> str:
        """Return a digest of everything that makes a snapshot what it is."""
        digest = sha256(digest_of({"items": [*items], **told}).encode())
        for name in sorted(arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def _folder(self, id: str) -> Path:
        if not ID.fullmatch(id):
            raise SnapshotError(f"{id!r} is no snapshot: ids look like 00000007-1a2b3c4d; {CURE}")
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

    def _refused(self, id: str, why: object) -> SnapshotError:
        if id not in self.ids():
            there = ", ".join(self.ids()[-5:]) or "none"
            return SnapshotError(f"no snapshot {id} in {self.root}; there are {there}")
        return SnapshotError(f"snapshot {id} is refused: {why}; {CURE}")

    def _state(self, id: str, manifest: Mapping[str, Any]) -> str:
        aliases = self._sound_aliases()
        if aliases["champion"] == id:
            return "champion"
        if manifest.get("fate"):
            return str(manifest["fate"])
        return "challenger" if aliases["challenger"] == id else "retired"


def _fill(arrays: Arrays, items: Sequence[str], manifest: Mapping[str, Any], folder: Path) -> None:
    ids = json.dumps([*items]).encode()
    weights = write_arrays(folder / WEIGHTS, arrays)
    write_synced(folder / ITEMS, ids)
    files = {WEIGHTS: weights, ITEMS: sha256(ids).hexdigest()}
    write_synced(folder / MANIFEST, sealed({**manifest, "sha256": files}))

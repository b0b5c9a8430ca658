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
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from learners.deep.packing import Arrays
from learners.deep.snapshots import (
    ALIASES,
    FORMAT,
    ITEMS,
    MANIFEST,
    WEIGHTS,
    Alias,
    Snapshot,
    Snapshots,
)
from learners.durable import (
    digest_of,
    replace_file,
    sealed,
    write_arrays,
    write_folder,
    write_synced,
)
from learners.errors import SnapshotError

__all__ = ["ALIASES", "Alias", "Registry", "Snapshot"]

BAD = ("rolled_back", "discarded")  # fates of snapshots to which nobody goes back by themselves


class Registry(Snapshots):
    """A folder of snapshots, to be read and written.

    Parameters
    ----------
    root
        Made by the first snapshot that is written.
    keep
        How many of the newest stay; champion, previous and challenger always do.

    Attributes
    ----------
    problem : str
        Why an old snapshot could not be deleted when the last one was written; else empty.

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
        super().__init__(root)
        self.keep = keep
        self.problem = ""

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
            It cannot be written: then nothing of it is left. That an old one cannot be deleted is
            a `problem`.
        """
        with self._writing(begin=True) as aliases:
            for left in (self.root / "snapshots").glob("*.tmp"):  # by a writer that was killed
                shutil.rmtree(left, ignore_errors=True)
            told = {**manifest, "format": FORMAT, "version": version("everlearn")}
            id = f"{self._next_number():08d}-{self._digest(arrays, items, told)[:8]}"
            write_folder(self._folder(id), partial(_fill, arrays, items, {**told, "id": id}))
            aliases["challenger"] = id
        self.problem = ""
        for old in self.ids()[: -self.keep]:
            try:
                self.remove(old)
            except SnapshotError as error:
                self.problem = f"{old} could not be deleted: {error}"
        return id

    def promote(self, id: str) -> None:
        """Let the alias `champion` name a snapshot that is whole; the one before is `previous`.

        One that is damaged or was rolled back does not become `previous`.

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
            before = filter(None, (aliases["champion"], aliases["previous"]))
            good = (each for each in before if each != id and self._was_good(each))
            aliases["previous"], aliases["champion"] = next(good, None), id
            if aliases["challenger"] == id:
                aliases["challenger"] = None

    def rollback(self, why: str = "asked for") -> str:
        """Give the place back to the champion before this one; return its id.

        Raises
        ------
        SnapshotError
            There is none, it is damaged, or was rolled back; then the champion stays.
        """
        with self._writing() as aliases:
            champion, previous = aliases["champion"], aliases["previous"]
            if champion is None or previous is None:
                raise SnapshotError(
                    f"{self.root} has no champion before {champion or 'the first'}: name one with "
                    "`everlearn snapshots promote`"
                )
            told = self.read(previous).manifest
            if told.get("fate") in BAD:
                raise SnapshotError(
                    f"{previous}, the champion before {champion}, was {told['fate']}: "
                    f"{told.get('why')}; name one with `everlearn snapshots promote`"
                )
            self._annotate(champion, {"fate": "rolled_back", "why": why})
            aliases["champion"] = previous
            aliases["previous"] = self._good_parent(told)
        return previous

    def _good_parent(self, manifest: Mapping[str, Any]) -> str | None:
        """Return the nearest that a snapshot was trained from and that was good, if any is left."""
        there = set(self.ids())
        while (parent := manifest.get("parent")) in there:
            there.remove(parent)
            if self._was_good(parent):
                return str(parent)
            try:
                manifest = self.manifest(parent)
            except SnapshotError:
                break
        return None

    def _was_good(self, id: str) -> bool:
        """Tell whether a snapshot is whole, and nobody has found it bad."""
        try:
            return self.read(id).manifest.get("fate") not in BAD
        except SnapshotError:
            return False

    def discard(self, id: str, why: str) -> None:
        """Note that a challenger was not good enough, and why."""
        with self._writing() as aliases:
            self._annotate(id, {"fate": "discarded", "why": why})
            if aliases["challenger"] == id:
                aliases["challenger"] = None

    def retire(self, id: str) -> str:
        """Delete a snapshot; return the aliases that named it, which name none from now on."""
        with self._writing() as aliases:
            named = [name for name, its in aliases.items() if its == id]
            aliases.update(dict.fromkeys(named))
        self.remove(id)
        return ", ".join(named)

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
            raise SnapshotError(f"there is no folder {self.root}: `everlearn train` makes it")
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


def _fill(arrays: Arrays, items: Sequence[str], manifest: Mapping[str, Any], folder: Path) -> None:
    ids = json.dumps([*items]).encode()
    weights = write_arrays(folder / WEIGHTS, arrays)
    write_synced(folder / ITEMS, ids)
    files = {WEIGHTS: weights, ITEMS: sha256(ids).hexdigest()}
    write_synced(folder / MANIFEST, sealed({**manifest, "sha256": files}))

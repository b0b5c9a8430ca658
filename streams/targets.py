"""What a command writes: refused before the work if it cannot be, and files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from learners.errors import DataError, SettingsError

__all__ = [
    "check_deep",
    "check_target",
    "nearest_there",
    "no_file",
    "why_unwritable",
    "write_whole",
]


def check_target(path: Path, *, source: str = "", renamed: bool = False) -> None:
    """Refuse a file that cannot be written, before the work whose result it takes.

    Parameters
    ----------
    path
        The file; another that is there already will be replaced.
    source
        What the work reads.
    renamed
        Its writer renames a file to it, which would do away with a device or a pipe.

    Raises
    ------
    DataError
        It is a folder, its folder is missing, or it may not be written.
    """
    try:
        problem = _problem(path, source, renamed)
    except OSError as error:
        problem = f"{error.strerror}; name another file"
    if problem:
        raise DataError(f"cannot write {path}: {problem}")


def _problem(path: Path, source: str, renamed: bool) -> str:
    folder = path.parent
    if path.is_dir():
        return "it is a folder; name a file in it"
    if path.exists() and not path.is_file():
        return "it is no ordinary file; name another" if renamed else ""
    if path.exists() and Path(source).exists() and path.samefile(source):
        return "it is the log itself; name another file"
    if not folder.exists():
        return f"there is no folder {folder}; make it, or name another file"
    if not folder.is_dir():
        return f"{folder} is a file, no folder; name another file"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder.absolute()} may not be written; name another file"
    return ""


def check_deep(deep: bool, checkpoint: Path | None, snapshots: Path | None) -> None:
    """Refuse what a replay cannot do about a deep model, before it reads anything.

    Raises
    ------
    SettingsError
        One with a deep model is to be resumed.
    DataError
        The folder of snapshots is not there to be read or, if `deep`, cannot be written.
    """
    if deep and checkpoint is not None:
        raise SettingsError(
            "a replay with a deep model is not resumed: leave out the checkpoint, or --deep"
        )
    if snapshots is None:
        return
    if not deep and not snapshots.is_dir():
        wrong = "is a file" if snapshots.exists() else "does not exist"
        raise DataError(
            f"the folder of snapshots {snapshots} {wrong}: name one that has a champion with "
            "--snapshots, or add --deep to train one"
        )
    if deep and (why := why_unwritable(snapshots)):
        raise DataError(
            f"cannot write snapshots to {snapshots}: {why}; name another folder with --snapshots"
        )


def nearest_there(path: Path) -> Path:
    """Return what is there of a path: itself, or the nearest of its parents."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def why_unwritable(folder: Path) -> str:
    """Say why nothing can be written in a folder that is there or is to be made; else nothing."""
    try:
        with tempfile.TemporaryFile(dir=nearest_there(folder)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def no_file(path: Path) -> str:
    """Say why a path that should be a file to read is none."""
    return "is a folder; name a file in it" if path.is_dir() else "does not exist"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step: after an error there is what was there before.

    Raises
    ------
    DataError
        It cannot be written.
    """
    target = path.resolve()
    half = target.with_name(f".{target.name}.half")
    try:
        if target.exists() and not target.is_file():
            path.write_bytes(data)
            return
        try:
            half.write_bytes(data)
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; free space or name another file"
        ) from error

"""Files that a command writes: refused before the work if they cannot be, written whole or not."""

from __future__ import annotations

import os
from pathlib import Path

from learners.errors import DataError

__all__ = ["check_target", "no_file", "write_whole"]


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

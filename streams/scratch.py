"""Temporary folders that do not outlast their process for long, however it ends.

Each holds a file that its process keeps locked. Whoever makes another folder of the same kind
removes those that nobody holds any more: their process was killed.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["scratch_folder"]

LOCK = "in-use"


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """Lend a new folder of the system's temporary ones, named `everlearn-{kind}-...`.

    >>> with scratch_folder("doctest") as folder:
    ...     kept = folder.is_dir()
    >>> kept, folder.exists()
    (True, False)
    """
    prefix = f"everlearn-{kind}-"
    for former in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if _is_left(former):
            shutil.rmtree(former, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> TextIO:
    """Make the lock; it has its name once it is held, so that nobody finds it open."""
    lock = (folder / f"{LOCK}.new").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f"{LOCK}.new").rename(folder / LOCK)
    return lock


def _is_left(folder: Path) -> bool:
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

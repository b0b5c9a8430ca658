"""Files that are either whole or not there: what checkpoints and snapshots are made of.

A folder is filled under a temporary name, its manifest last, each file synced, then renamed at
once. A manifest carries the SHA-256 of what it describes and of itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "digest_of",
    "read_sealed",
    "replace_file",
    "sealed",
    "sync_folder",
    "write_arrays",
    "write_folder",
    "write_synced",
]

PIECE_BYTES = 1 << 20
NAMES = {
    **{"f8": "F64", "f4": "F32", "i8": "I64", "i4": "I32", "i1": "I8"},
    **{"u8": "U64", "u4": "U32", "u1": "U8"},
}


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder under a temporary name, then give it its own; on an error nothing is left.

    Raises
    ------
    OSError
        As the disk tells it.
    """
    temporary = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Put a file in the place of another: whoever reads finds the old one or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file, and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON, with its own digest in it."""
    return json.dumps({**manifest, "manifest_sha256": digest_of(manifest)}, indent=1).encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """Return a manifest without its digest.

    Raises
    ------
    OSError, ValueError
        It cannot be read, is no JSON object, or is not what it says it is.
    """
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON ({error}): the file is damaged") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path.name} is no manifest")
    if manifest.pop("manifest_sha256", None) != digest_of(manifest):
        raise ValueError(f"{path.name} does not match its own SHA-256: the file is damaged")
    return manifest


def digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's content, whatever its layout."""
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Write arrays in the safetensors format, without copies; return the SHA-256 of the file."""
    header: dict[str, object] = {}
    end = 0
    for name, array in arrays.items():
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
        for array in arrays.values():
            if array.nbytes:
                _put(file, digest, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put(file: BinaryIO, digest: Any, data: memoryview) -> None:
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        digest.update(piece)
        file.write(piece)

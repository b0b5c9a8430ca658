"""Snapshots that are damaged and mended, as by a disk and whoever looks after it."""

from __future__ import annotations

from learners.deep.registry import Registry

__all__ = ["damage", "mend"]


def damage(registry: Registry, id: str, file: str = "weights.safetensors") -> bytes:
    """Flip a bit at the end of a snapshot's file; return what was there."""
    path = registry.root / "snapshots" / id / file
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    return data


def mend(registry: Registry, id: str, data: bytes, file: str = "weights.safetensors") -> None:
    """Put a file of a snapshot back as it was."""
    (registry.root / "snapshots" / id / file).write_bytes(data)

"""Announcements on the topic of snapshots: what became of one, and who serves from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from learners.deep.registry import Registry

__all__ = ["KEY", "Announcement", "announcement", "publish", "told_in"]

KEY = b"snapshots"  # one for all: they stay in order
DELIVERY_SECONDS = 5.0
LONGEST = 64  # of a word in the log: anybody may write to a topic


class Announcement(msgspec.Struct, kw_only=True):
    """A message on `everlearn.snapshots`."""

    what: str  # born, trial, promoted, discarded, rolled_back, retired
    snapshot: str | None
    parent: str | None
    champion: str | None  # who serves from now on
    previous: str | None
    why: str
    figures: dict[str, Any]
    time: float  # seconds UTC


def announcement(
    registry: Registry,
    what: str,
    snapshot: str | None,
    *,
    why: str,
    time: float,
    figures: dict[str, Any] | None = None,
) -> Announcement:
    """Return the announcement of what became of a snapshot, with the aliases as they are now."""
    aliases = registry.aliases()
    known = snapshot in registry.ids()
    return Announcement(
        what=what,
        snapshot=snapshot,
        parent=registry.manifest(snapshot).get("parent") if snapshot and known else None,
        champion=aliases["champion"],
        previous=aliases["previous"],
        why=why,
        figures=figures or {},
        time=time,
    )


def told_in(message: Any) -> dict[str, str | None]:
    """Return what matters of a message for the log; `problem` if it is no announcement.

    >>> none = dict(parent=None, champion=None, previous=None, why="", figures={}, time=1.0)
    >>> told_in(msgspec.json.encode({"what": "discarded", "snapshot": "00000007-1a2b3c4d", **none}))
    {'what': 'discarded', 'snapshot': '00000007-1a2b3c4d'}
    >>> told_in(b"oops")["what"]
    'unknown'
    """
    try:
        plain = msgspec.json.decode(message) if isinstance(message, bytes | str) else message
        told = msgspec.convert(plain, Announcement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return {"what": "unknown", "problem": f"the message is no announcement: {error}"}
    return {"what": told.what[:LONGEST], "snapshot": told.snapshot and told.snapshot[:LONGEST]}


def publish(broker: str, topic: str, told: Announcement, settings: Any = None) -> str:
    """Publish an announcement; return why it could not be, or nothing."""
    from streams.broker import why_unreachable
    from streams.publisher import Publisher

    if away := why_unreachable(broker):
        return f"no broker answers at {broker} ({away})"
    with Publisher(broker, settings, delivery_seconds=DELIVERY_SECONDS) as publisher:
        publisher.put(topic, KEY, msgspec.json.encode(told))
        publisher.close(DELIVERY_SECONDS)
    return publisher.last_error if publisher.failed else ""

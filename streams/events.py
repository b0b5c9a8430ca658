"""The five events, as producers publish them: JSON objects, one per Kafka message.

The topic implies the type, so `type` may be left out there; `POST /events` and JSON lines name it.
Times are seconds UTC (float). The bounds stand here; a schema states what it can of them, the gate
(`decode`) holds them all.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

__all__ = [
    "EVENT_TYPES",
    "MAX_AHEAD_SECONDS",
    "MAX_AMOUNT",
    "MAX_BYTES",
    "MAX_ID_BYTES",
    "MAX_POSITION",
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

MAX_BYTES = 65_536  # of a message
MAX_ID_BYTES = 128
MAX_AHEAD_SECONDS = 300.0  # of a time, beyond its record's and the wall clock's
MAX_AMOUNT = 1e12  # of a price or a quantity, so that price x quantity stays finite
MAX_POSITION = 2**31 - 1

# A schema counts characters; the gate counts bytes, and says so here.
_BOUND = {
    "min_length": 1,
    "max_length": MAX_ID_BYTES,
    "extra_json_schema": {"x-max-bytes": MAX_ID_BYTES},
}

Id = Annotated[str, msgspec.Meta(**_BOUND)]
EventId = Annotated[
    str, msgspec.Meta(**_BOUND, description="unique: an event that comes again is learnt once")
]
User = Annotated[str, msgspec.Meta(**_BOUND, description="who; also the message's key")]
ItemId = Annotated[str, msgspec.Meta(**_BOUND, description="the item")]
Session = Annotated[
    str, msgspec.Meta(**_BOUND, description="the visit; without it, silence ends a session")
]
Shown = Annotated[str, msgspec.Meta(**_BOUND, description="the answer that showed the item")]
Snapshot = Annotated[str, msgspec.Meta(**_BOUND, description="the model that chose the items")]
Category = Annotated[str, msgspec.Meta(**_BOUND, description="one category of the item")]

Seconds = Annotated[float, msgspec.Meta(ge=0, description="seconds since 1970, UTC")]
Price = Annotated[
    float, msgspec.Meta(ge=0, le=MAX_AMOUNT, description="of one piece, in your currency")
]
Quantity = Annotated[float, msgspec.Meta(ge=0, le=MAX_AMOUNT, description="pieces")]
Place = Annotated[
    int, msgspec.Meta(ge=0, le=MAX_POSITION, description="place of the item in that answer, from 0")
]
Title = Annotated[str, msgspec.Meta(max_length=1024, description="name of the item")]
Created = Annotated[float, msgspec.Meta(ge=0, description="when it came in, seconds since 1970")]
Available = Annotated[
    bool, msgspec.Meta(description="whether it can be bought; else it is not shown")
]
Deleted = Annotated[bool, msgspec.Meta(description="whether it is gone, and never shown again")]
Items = Annotated[list[Id], msgspec.Meta(max_length=500, description="the items, the first on top")]
Propensity = Annotated[float, msgspec.Meta(gt=0, le=1)]
Explored = Annotated[
    dict[Id, Propensity],
    msgspec.Meta(
        max_length=500,
        description="items shown to learn about them: each one's chance to be among those explored",
    ),
]
Context = Annotated[dict[str, Any], msgspec.Meta(description="anything else worth keeping")]


# Events hold no cycles; out of the garbage collector's sight, a batch decodes 3 times as fast.
class Event(msgspec.Struct, kw_only=True, tag_field="type", omit_defaults=True, gc=False):
    """What every event carries; `event_id` makes a repeated delivery harmless."""

    event_id: EventId
    timestamp: Seconds


class Click(Event, tag="click"):
    """A user looked at an item."""

    user: User
    item: ItemId
    session: Session | None = None
    impression_id: Shown | None = None
    position: Place | None = None
    context: Context | None = None


class Purchase(Event, tag="purchase"):
    """A user bought an item; `price` is for one piece."""

    user: User
    item: ItemId
    price: Price | None = None
    quantity: Quantity = 1.0
    session: Session | None = None
    impression_id: Shown | None = None
    position: Place | None = None
    context: Context | None = None


class Impression(Event, tag="impression"):
    """Items were shown to a user, in this order."""

    user: User
    items: Items
    impression_id: Shown | None = None
    session: Session | None = None
    snapshot: Snapshot | None = None
    explored: Explored | None = None
    context: Context | None = None


class Item(Event, tag="item"):
    """The entry of an item in the catalogue, whole: the last event of an item is what holds.

    A message without a value deletes the item that is its key.
    """

    item: ItemId
    category: Category | None = None
    price: Price | None = None
    title: Title | None = None
    created: Created | None = None
    available: Available | None = None
    deleted: Deleted = False


class Erasure(Event, tag="erasure"):
    """A user wants to be forgotten."""

    user: User


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

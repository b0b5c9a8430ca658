"""What is written in the shape of somebody else's topic is read there as what it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streams.decode import Gate
from streams.events import EVENT_TYPES, Event
from streams.order import Record
from streams.settings import TopicSettings
from streams.shapes import in_shape_of, key_of

NOW = 1_750_000_000.0

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
seconds = st.integers(0, int(NOW) * 1000).map(lambda milliseconds: milliseconds / 1000)
since_1990 = st.integers(631_152_000_000, int(NOW) * 1000).map(lambda thousands: thousands / 1000)
amounts = st.floats(0, 1e12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("user", "item", "session", "impression_id", "category"), ids),
    **dict.fromkeys(("event_id", "snapshot", "title"), ids),
    "timestamp": since_1990,
    "created": seconds,
    **dict.fromkeys(("price", "quantity"), amounts),
    **dict.fromkeys(("available", "deleted"), st.booleans()),
    "position": st.integers(0, 2**31 - 1),
    "items": st.lists(ids, max_size=5),
    "explored": st.dictionaries(ids, st.floats(0.1, 1.0), min_size=1),
    "context": st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9), min_size=1),
}
# Names of places that hold each other, are our own names, numbers and the key.
PLACES = ["@key", "a", "a.b", "a.b.c", "user", "item", "item.id", "x.0", "x.1", "type", "type.b"]


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = EVENT_TYPES[draw(st.sampled_from(sorted(EVENT_TYPES)))]
    needed = ("event_id", "timestamp", "user", "item", "items")
    given_fields = {
        name: draw(VALUES[name])
        for name in kind.__struct_fields__
        if name in needed or draw(st.booleans())
    }
    return kind(**given_fields)


@st.composite
def topics(draw: st.DrawFn, event: Event) -> TopicSettings:
    """Any mapping in which no two fields have one place, and the key holds a single value."""
    kind = str(event.__struct_config__.tag)
    mixed = draw(st.booleans())
    names = [*event.__struct_fields__, "type"] if mixed else list(event.__struct_fields__)
    free = [place for place in PLACES if place not in {*names, "type"}]
    fields: dict[str, str] = {}
    for name in draw(st.lists(st.sampled_from(names), unique=True)):
        choice = [
            place
            for place in free
            if place != "@key" or name not in ("items", "context", "explored")
        ]
        if choice:
            fields[name] = draw(st.sampled_from(choice))
            free.remove(fields[name])
    return TopicSettings(
        name="theirs",
        type="mixed" if mixed else kind,  # type: ignore[arg-type]
        fields=fields,
        types={"seen": kind, "noise": "ignore"} if mixed and draw(st.booleans()) else {},
        timestamp_unit=draw(st.sampled_from(["s", "ms", "us", "ns", "iso"])),
    )


@given(st.data())
def test_what_is_written_is_read_as_it_was(data: st.DataObject) -> None:
    event = data.draw(events())
    topic = data.draw(topics(event))
    fields = msgspec.to_builtins(event)
    value = json.dumps(in_shape_of(topic, fields)).encode()
    record = Record("theirs", 0, 0, int(NOW * 1000), key_of(topic, fields).encode(), value)
    read = Gate({"theirs": topic}, lambda: NOW).decode_one(record)
    assert isinstance(read, type(event)), read
    context = topic.fields.get("context", "context") + "."
    for name in event.__struct_fields__:
        before, after = getattr(event, name), getattr(read, name)
        if before is None and topic.fields.get(name, name).startswith(context):
            continue  # it is read from the context, which may hold something there
        if name in ("timestamp", "created") and before is not None:
            assert abs(before - after) < 1e-3
        elif name != "context" or before is not None:  # a context may hold what other fields name
            assert after == before, name


def test_a_time_that_no_calendar_has_is_written_as_the_last_one() -> None:
    topic = TopicSettings(name="theirs", type="item", timestamp_unit="iso")
    shaped = in_shape_of(topic, {"item": "i", "timestamp": 1.5, "created": 1e15})
    assert shaped["created"].startswith("9999-12-31T23:59:59")

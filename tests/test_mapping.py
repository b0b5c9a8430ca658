"""Topics that are there already: read as their producers write them."""

from __future__ import annotations

from typing import Any

import pytest

from streams.decode import Gate, Rejected
from streams.events import Click, Purchase
from streams.settings import TopicSettings
from tests.gates import GATE, NOW, decoded, record


def test_a_topic_that_is_there_already_needs_no_change_of_its_producer() -> None:
    message = {
        "who": {"id": 17},
        "skus": ["A-1", "A-2"],
        "kind": "order",
        "at": int(NOW * 1000) - 1500,
        "price": "12.50",
        "quantity": "2",
        "session": None,
        "type": "web",
        "more": {"deep": [1, 2]},
    }
    event = GATE.decode_one(record(message, "shop", partition=3, offset=12))
    assert event == Purchase(
        event_id="shop/3/12", timestamp=NOW - 1.5, user="17", item="A-1", price=12.5, quantity=2.0
    )
    assert isinstance(GATE.decode_one(record(message | {"kind": "view"}, "shop")), Click)
    viewed = GATE.decode_one(
        record({"sku": "é", "timestamp": "2025-06-01T12:00:00+02:00"}, "views", key=b"u9")
    )
    assert viewed == Click(event_id="views/0/0", timestamp=1748772000.0, user="u9", item="é")


def test_a_mapped_message_without_a_time_happened_at_its_records() -> None:
    viewed = GATE.decode_one(record({"sku": "a"}, "views", seconds=NOW - 50))
    assert isinstance(viewed, Click)
    assert viewed.timestamp == NOW - 50


@pytest.mark.parametrize(
    ("change", "expected", "detail"),
    [
        ({"kind": "sneeze"}, "unknown_type", "'kind' is \"sneeze\""),
        ({"kind": None}, "unknown_type", "'kind' is null"),
        ({"kind": ["view"]}, "unknown_type", '["view"]'),
        ({"kind": 10**30}, "unknown_type", "1000000"),
        ({"who": 5}, "bad_field", "(read from 'who.id')"),
        ({"who": {"id": True}}, "bad_field", "(read from 'who.id')"),
        ({"who": {"id": "u" * 200}}, "id_too_long", "(read from 'who.id')"),
        ({"who": {"id": "é" * 100}}, "id_too_long", "user"),
        ({"skus": []}, "bad_field", "(read from 'skus.0')"),
        ({"at": "2025-06-01"}, "bad_field", "no time in ms"),
        ({"at": True}, "bad_field", "no time in ms"),
        ({"at": "inf"}, "bad_field", "no time in ms"),
        ({"at": NOW * 1000 + 400_000}, "future_timestamp", "seconds ahead"),
        ({"price": "a lot"}, "bad_field", 'price must be a number, not "a lot"'),
    ],
)
def test_a_mapped_message_is_rejected_in_the_producers_words(
    change: dict[str, Any], expected: str, detail: str
) -> None:
    good = {"who": {"id": "u"}, "skus": ["i"], "kind": "order", "at": NOW * 1000}
    assert not isinstance(GATE.decode_one(record(good, "shop")), Rejected)
    verdict = decoded(record(good | change, "shop"))
    assert isinstance(verdict, Rejected)
    assert verdict.reason == expected
    assert detail in verdict.detail


@pytest.mark.parametrize(
    ("unit", "at", "hint"),
    [
        ("ms", NOW, "1750000000 looks like seconds: set timestamp_unit = 's' for 'web'"),
        ("ms", NOW * 1e6, "looks like microseconds: set timestamp_unit = 'us'"),
        ("us", NOW * 1e3, "looks like milliseconds: set timestamp_unit = 'ms'"),
        ("us", NOW * 1e9, "looks like nanoseconds: set timestamp_unit = 'ns'"),
        ("s", NOW * 1e3, "looks like milliseconds: set timestamp_unit = 'ms'"),
        (None, NOW * 1e6, "looks like microseconds: set timestamp_unit = 'us'"),
        ("ms", 883_612_800, "is of 1970-01-11, before 1990; 883612800 looks like seconds"),
        ("s", 0, "is of 1970-01-01, before 1990"),
        ("iso", "1970-02-01", "is of 1970-02-01, before 1990"),
        ("s", 1e300, "1e+300 seconds ahead"),
    ],
)
def test_a_time_in_another_unit_than_the_settings_say_is_refused(
    unit: Any, at: float | str, hint: str
) -> None:
    topic = TopicSettings(name="web", type="click", fields={"user": "u"}, timestamp_unit=unit)
    told = record({"u": "u", "item": "i", "timestamp": at}, "web")
    verdict = Gate({"web": topic}, now=lambda: NOW).decode_one(told)
    assert isinstance(verdict, Rejected)
    assert hint in verdict.detail
    assert len(verdict.detail) < 160


@pytest.mark.parametrize(("unit", "parts"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("seconds", [883_612_800.0, NOW])
def test_each_unit_of_time_is_read(unit: Any, parts: float, seconds: float) -> None:
    topic = TopicSettings(name="web", type="click", timestamp_unit=unit)
    told = record({"user": "u", "item": "i", "timestamp": int(seconds * parts)}, "web")
    event = Gate({"web": topic}, now=lambda: NOW).decode_one(told)
    assert isinstance(event, Click)
    assert event.timestamp == seconds


def test_ignored_types_are_counted_but_are_no_dead_letters() -> None:
    batch, rejected = GATE.decode([record({"kind": "scroll"}, "shop", offset=9)])
    assert (len(batch), rejected, batch.rejected) == (0, [], {"ignored": 1})
    assert batch.positions == {"shop/0": 10}

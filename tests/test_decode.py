"""The gate: bytes become an event or a reason, and events the columns that are learnt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from learners.base import CLICK, ERASURE, IMPRESSION, ITEM, PURCHASE, CatalogueEntry
from streams.decode import Gate, Rejected
from streams.events import Click, Event, Item, Purchase, encode
from tests.gates import CLICK_FIELDS, GATE, NOW, TOPICS, click, decoded, record


def reason(
    value: bytes | dict[str, Any] | None, topic: str = "everlearn.clicks", **more: Any
) -> str:
    verdict = decoded(record(value, topic, **more))
    assert isinstance(verdict, Rejected)
    assert verdict.detail
    return verdict.reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "empty"),
        (b" ", "malformed_json"),
        (b"{", "malformed_json"),
        (b"\xef\xbb\xbf{}", "malformed_json"),
        (b"{}", "bad_field"),
        (b"[]", "bad_field"),
        (b"null", "bad_field"),
        (json.dumps(click()).encode() + b" x", "malformed_json"),
        (json.dumps(click()).encode("utf-16"), "invalid_utf8"),
        (b'{"event_id":"e","timestamp":1,"item":"i","user":"\xff"}', "invalid_utf8"),
        (b'{"event_id":"e","timestamp":1,"item":"i","user":"\\ud800"}', "malformed_json"),
        (b'{"event_id":"e","timestamp":NaN,"item":"i","user":"u"}', "malformed_json"),
        (b'{"event_id":"e","timestamp":1e999,"item":"i","user":"u"}', "bad_field"),
        (b'{"event_id":"e","timestamp":1' + b"0" * 5000 + b',"item":"i","user":"u"}', "bad_field"),
        (click(timestamp=-1), "bad_field"),
        (click(timestamp="1"), "bad_field"),
        (click(timestamp=True), "bad_field"),
        (click(timestamp=NOW + 301), "future_timestamp"),
        (click(timestamp=NOW * 1000), "future_timestamp"),
        (click(user=""), "bad_field"),
        (click(user=7), "bad_field"),
        (click(user=None), "bad_field"),
        (click(user="u" * 129), "id_too_long"),
        (click(user="é" * 65), "id_too_long"),
        (json.dumps(click(user="é" * 65), ensure_ascii=False).encode(), "id_too_long"),
        (click(timestamp=1.0, context={"x": "y" * 66_000}), "too_large"),
        (click(event_id="x" * 100_000), "too_large"),
        (click(type="purchase"), "unknown_type"),
        (click(type="sneeze"), "unknown_type"),
        (click(type=None), "unknown_type"),
        (click(position=-1), "bad_field"),
        (click(position=True), "bad_field"),
        (click(context=3), "bad_field"),
        (click(context={"a": [[[[[[[1]]]]]]]}), "too_deep"),
        (b"[" * 60_000, "too_deep"),
        (b'{"a":' * 10_000, "too_deep"),
        (b"x" * 10_000_000, "too_large"),
        (None, "tombstone"),
    ],
)
def test_what_is_no_click_is_rejected_with_its_reason(
    value: bytes | dict[str, Any] | None, expected: str
) -> None:
    assert reason(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        click(),
        click(type="click", nobody="knows", this=[{"field": None}]),
        click(user="é" * 64, item="u" * 128, event_id="日本語"),
        click(timestamp=0, session=None, context={"a": [[[[[[1]]]]]]}),
        click(context={"text": '[[[[[[[[[[{{{{{{ \\" [[[', "a": {}}),
        click(timestamp=NOW + 300),
        json.dumps(click(), indent=2).encode() + b"\n",
        b'{"event_id":"e","timestamp":1,"item":"i","user":"a","user":"u","x":"\xff"}',
    ],
)
def test_what_is_a_click_is_decoded(value: bytes | dict[str, Any]) -> None:
    event = decoded(record(value))
    assert isinstance(event, Click)
    assert event.user in {"u", "é" * 64}
    assert GATE.decode([record(value)])[0].user == [event.user]


def test_ids_of_every_kind_are_bounded_in_bytes() -> None:
    long = "é" * 100
    shown = {"event_id": "e", "timestamp": 1, "user": "u", "items": ["i", long]}
    item = {"event_id": "e", "timestamp": 1, "item": "i", "category": long}
    assert reason(shown, "everlearn.impressions") == "id_too_long"
    assert reason(item, "everlearn.items") == "id_too_long"
    assert reason(click(session=long)) == "id_too_long"
    assert reason(click(impression_id=long)) == "id_too_long"
    assert reason(None, "everlearn.items", key=long.encode()) == "id_too_long"
    assert reason(None, "everlearn.items", key=b"\xff") == "invalid_utf8"


def test_a_time_is_judged_by_the_records_own_so_that_a_replay_decides_alike() -> None:
    told = record(click(timestamp=1000.0), seconds=600.0)
    for clock in (700.0, NOW):
        verdict = Gate(TOPICS, now=lambda clock=clock: clock).decode_one(told)
        assert isinstance(verdict, Rejected)
        assert verdict.reason == "future_timestamp"
    assert reason(click(timestamp=NOW + 999), seconds=NOW + 999) == "future_timestamp"
    assert isinstance(decoded(record(click(), seconds=-0.001)), Click)


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"timestamp": NOW * 1e3}, "1750000000000 looks like milliseconds: seconds are meant"),
        ({"timestamp": NOW * 1e6}, "looks like microseconds: seconds are meant"),
        ({"timestamp": 1e300}, "timestamp 1e+300 is 1e+300 seconds ahead, 300 are allowed"),
        ({"timestamp": NOW + 400}, "timestamp 1750000400 is 400 seconds ahead, 300 are allowed"),
        ({"timestamp": -1}, "timestamp must be 0 or more, not -1"),
        ({"user": 17}, "user must be text, not 17"),
        ({"user": None}, "user must be text, not null"),
        ({"user": ""}, "user must have 1 or more characters, this has 0"),
        ({"item": "x" * 129}, "item must have 128 or fewer characters, this has 129"),
        ({"item": "é" * 65}, "item: 130 bytes, 128 are allowed"),
        ({"position": 10**300}, "position must be 2,147,483,647 or less, not 1000"),
        ({"context": "x" * 500}, 'context must be an object, not "xxxxx'),
        ({"type": "sneeze"}, 'type cannot be "sneeze"'),
    ],
)
def test_a_rejection_says_what_was_wrong_and_the_value(fields: dict[str, Any], detail: str) -> None:
    verdict = decoded(record(click(**fields)))
    assert isinstance(verdict, Rejected)
    assert detail in verdict.detail
    assert len(verdict.detail) < 160
    assert "`" not in verdict.detail


def test_a_missing_field_is_named() -> None:
    verdict = decoded(record(b'{"event_id": "e", "timestamp": 1, "user": "u"}'))
    assert isinstance(verdict, Rejected)
    assert verdict.detail == "item is missing"


def test_a_tombstone_deletes_an_item_and_nothing_else() -> None:
    deletion = GATE.decode_one(record(None, "everlearn.items", key="é1".encode(), offset=5))
    assert isinstance(deletion, Item)
    assert (deletion.item, deletion.deleted, deletion.timestamp) == ("é1", True, NOW)
    assert deletion.event_id == "everlearn.items/0/5"
    assert reason(None, "everlearn.items", key=None) == "tombstone"
    assert reason(None, "everlearn.erasures") == "tombstone"


def test_a_topic_that_nobody_set_up_is_rejected() -> None:
    assert reason(click(), "elsewhere") == "unknown_topic"


def test_a_mixed_topic_needs_the_type_in_each_message() -> None:
    assert isinstance(GATE.decode_one(record(click(type="click"), "everything")), Click)
    assert isinstance(GATE.decode_one(record(click(type="purchase"), "everything")), Purchase)
    assert reason(click(), "everything") == "unknown_type"


def test_columns_hold_what_each_kind_of_event_says() -> None:
    records = [
        record(click(event_id="a", session="s"), offset=4),
        record(
            {**CLICK_FIELDS, "event_id": "b", "price": 2.5, "quantity": 3},
            "everlearn.purchases",
            partition=1,
            offset=7,
            seconds=NOW - 5,
        ),
        record(
            {"event_id": "c", "timestamp": 1, "user": "v", "items": ["i"]}, "everlearn.impressions"
        ),
        record({"event_id": "d", "timestamp": 2, "item": "j", "price": 9}, "everlearn.items"),
        record(b"{", offset=5, seconds=NOW - 1),
        record({"event_id": "f", "timestamp": 3, "user": "w"}, "everlearn.erasures"),
        record(None, "everlearn.items", key=b"z", offset=1),
    ]
    batch, rejected = GATE.decode(records, {"everlearn.purchases/1": NOW, "other/0": 1.0})
    assert batch.kind.tolist() == [CLICK, PURCHASE, IMPRESSION, ITEM, ERASURE, ITEM]
    assert batch.user == ["u", "u", "v", "", "w", ""]
    assert batch.item == ["i", "i", "", "j", "", "z"]
    assert batch.session == ["s", "", "", "", "", ""]
    assert batch.timestamp.tolist() == [NOW, NOW, 1, 2, 3, NOW]
    assert batch.event_hash[0] == xxh3_64_intdigest(b"a")
    assert batch.catalogue == {3: CatalogueEntry(price=9), 5: CatalogueEntry(deleted=True)}
    assert [batch.logs[i] for i in batch.log] == [
        "everlearn.clicks/0",
        "everlearn.purchases/1",
        "everlearn.impressions/0",
        "everlearn.items/0",
        "everlearn.erasures/0",
        "everlearn.items/0",
    ]
    assert batch.positions["everlearn.clicks/0"] == 6
    assert batch.positions["everlearn.purchases/1"] == 8
    assert batch.watermarks["everlearn.clicks/0"] == NOW
    assert batch.watermarks["everlearn.purchases/1"] == NOW
    assert set(batch.watermarks) == set(batch.logs)
    assert batch.rejected == {"malformed_json": 1}
    assert [(r.reason, r.record) for r in rejected] == [("malformed_json", records[4])]


def test_no_records_are_an_empty_batch() -> None:
    batch, rejected = GATE.decode([])
    assert (len(batch), list(batch.user), batch.positions, rejected) == (0, [], {}, [])


def test_an_event_survives_its_encoding() -> None:
    events: list[tuple[str, Event]] = [
        ("everlearn.clicks", Click(event_id="é", timestamp=1.25, user="u", item="i", position=3)),
        ("everlearn.purchases", Purchase(event_id="e", timestamp=1.0, user="u", item="i", price=2)),
        ("everlearn.items", Item(event_id="e", timestamp=1.0, item="i", title="A", created=0.5)),
    ]
    for topic, event in events:
        assert GATE.decode_one(record(encode(event), topic)) == event

"""The gate: every bytes become an event or a reason, one by one and in batches alike."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from learners.base import CLICK, ERASURE, IMPRESSION, ITEM, KINDS, PURCHASE, CatalogueEntry
from streams.decode import REASONS, Gate, Rejected
from streams.events import EVENT_TYPES, Click, Event, Item, Purchase, encode
from streams.order import Record
from streams.settings import Settings, TopicSettings

NOW = 1_750_000_000.0
CLICK_FIELDS: dict[str, Any] = {"event_id": "e", "timestamp": NOW, "user": "u", "item": "i"}
SHOP = TopicSettings(
    name="shop",
    type="mixed",
    fields={"user": "who.id", "item": "skus.0", "type": "kind", "timestamp": "at"},
    types={"view": "click", "order": "purchase", "scroll": "ignore"},
    timestamp_unit="ms",
)
VIEWS = TopicSettings(
    name="views", type="click", fields={"user": "@key", "item": "sku"}, timestamp_unit="iso"
)
TOPICS = Settings(
    topics={
        "shop": SHOP,
        "views": VIEWS,
        "everything": {"name": "everything", "type": "mixed"},
    }
).event_topics()
GATE = Gate(TOPICS, now=lambda: NOW)


def record(
    value: bytes | dict[str, Any] | None,
    topic: str = "everlearn.clicks",
    *,
    offset: int = 0,
    partition: int = 0,
    key: bytes | None = b"k",
    seconds: float = NOW,
) -> Record:
    raw = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record(topic, partition, offset, int(seconds * 1000), key, raw)


def click(**fields: Any) -> dict[str, Any]:
    return CLICK_FIELDS | fields


def decoded(told: Record) -> Event | Rejected:
    """Decode a record alone, which must say the same as a batch of it and of it among others."""
    verdict = GATE.decode_one(told)
    good = record(click())
    for records in ([told], [good, told, good], [told] * 9):
        batch, letters = GATE.decode(records)
        n = records.count(told)
        assert letters == ([verdict] * n if isinstance(verdict, Rejected) else [])
        assert len(batch) == len(records) - len(letters)
    return verdict


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
        (json.dumps(click()).encode("utf-16"), "malformed_json"),
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


def test_a_time_in_milliseconds_is_recognised_in_the_detail() -> None:
    verdict = GATE.decode_one(record(click(timestamp=NOW * 1000)))
    assert isinstance(verdict, Rejected)
    assert "milliseconds" in verdict.detail


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
    assert batch.value.tolist() == [0, 7.5, 0, 0, 0, 0]
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
        ({"price": "a lot"}, "bad_field", "price"),
    ],
)
def test_a_mapped_message_is_rejected_in_the_producers_words(
    change: dict[str, Any], expected: str, detail: str
) -> None:
    good = {"who": {"id": "u"}, "skus": ["i"], "kind": "order", "at": NOW * 1000}
    assert not isinstance(GATE.decode_one(record(good, "shop")), Rejected)
    verdict = GATE.decode_one(record(good | change, "shop"))
    assert isinstance(verdict, Rejected)
    assert verdict.reason == expected
    assert detail in verdict.detail


def test_ignored_types_are_counted_but_are_no_dead_letters() -> None:
    batch, rejected = GATE.decode([record({"kind": "scroll"}, "shop", offset=9)])
    assert (len(batch), rejected, batch.rejected) == (0, [], {"ignored": 1})
    assert batch.positions == {"shop/0": 10}


TEXTS = st.one_of(st.text(max_size=6), st.sampled_from(["u", "é" * 70, "x" * 130, "\x00", "\\u"]))
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from([0, -1, 1e12, NOW, NOW + 300, NOW + 301, NOW * 1000, 10**400, 2**63]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 1


def sound(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    ids = st.text("abcé日", min_size=1, max_size=8)
    seconds = st.floats(0, NOW + 300)
    common = {"event_id": ids, "timestamp": seconds}
    act = {"user": ids, "item": ids}
    fields: dict[str, dict[str, Any]] = {
        "click": act,
        "purchase": act | {"price": st.floats(0, 1e12), "quantity": st.integers(0, 9)},
        "impression": {"user": ids, "items": st.lists(ids, max_size=4)},
        "item": {"item": ids, "title": st.text(max_size=20), "available": st.booleans()},
        "erasure": {"user": ids},
    }
    optional = {"session": ids, "context": st.just({"a": 1}), "type": st.just(kind)}
    return st.fixed_dictionaries(common | fields[kind], optional=optional)


FOREIGN = st.fixed_dictionaries(
    {},
    optional={
        "who": st.one_of(st.fixed_dictionaries({"id": st.one_of(TEXTS, JSON)}), JSON),
        "skus": st.one_of(st.lists(TEXTS, max_size=2), JSON),
        "sku": st.one_of(TEXTS, JSON),
        "kind": st.one_of(st.sampled_from(["view", "order", "scroll", "erasure"]), JSON),
        "at": st.one_of(NUMBERS, st.sampled_from(["1e3", "NaN", "-1"]), JSON),
        "timestamp": st.one_of(st.datetimes().map(str), JSON),
        "price": JSON,
    },
)


@st.composite
def values(draw: st.DrawFn) -> bytes | None:
    """A good event, or one that is spoilt somewhere, or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.none(), st.binary(max_size=40)))
    event = draw(st.one_of(sound(draw(st.sampled_from(KINDS))), FOREIGN))
    if draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from([*event, "type", "context", "new", "session"]))
        event[name] = draw(st.one_of(JSON, st.integers(1, 12).map(nested)))
    raw = json.dumps(event, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 12)):
        case 0:
            return raw[: draw(st.integers(0, len(raw)))]
        case 1:
            place = draw(st.integers(0, len(raw) - 1))
            return raw[:place] + draw(st.binary(max_size=3)) + raw[place + 1 :]
        case 2:
            return raw.replace(b" ", b"\n")
        case 3:
            return raw + b"\n" + raw
    return raw


RECORDS = st.lists(
    st.builds(
        record,
        values(),
        st.sampled_from([*TOPICS, "everlearn.clicks", "everlearn.clicks", "elsewhere"]),
        partition=st.integers(0, 2),
        key=st.one_of(st.none(), st.binary(max_size=5), st.just(b"key")),
        seconds=st.sampled_from([NOW, NOW - 1e6, -0.001, NOW + 1e6]),
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(RECORDS, st.booleans())
@example([record(b'{"a":1},{"a":2}'), record(b"")], True)
@example(
    [record(json.dumps(click()).encode() + b"\n" + json.dumps(click()).encode()), record(b" ")],
    True,
)
def test_the_columns_equal_what_each_record_decodes_to(
    records: list[Record], one_topic: bool
) -> None:
    if one_topic:
        records = [r._replace(topic="everlearn.clicks") for r in records]
    records = [r._replace(offset=offset) for offset, r in enumerate(records)]
    verdicts = [GATE.decode_one(r) for r in records]
    batch, letters = GATE.decode(records)
    refused = [v for v in verdicts if isinstance(v, Rejected)]
    assert letters == [v for v in refused if v.reason != "ignored"]
    assert sum(batch.rejected.values()) == len(refused)
    assert batch.positions == {f"{r.topic}/{r.partition}": r.offset + 1 for r in records}
    places = [i for i, v in enumerate(verdicts) if not isinstance(v, Rejected)]
    events = [v for v in verdicts if not isinstance(v, Rejected)]
    assert len(batch) == len(events)
    for n, (place, event) in enumerate(zip(places, events, strict=True)):
        assert EVENT_TYPES[KINDS[batch.kind[n]]] is type(event)
        assert batch.user[n] == getattr(event, "user", "")
        assert batch.item[n] == getattr(event, "item", "")
        assert batch.session[n] == (getattr(event, "session", None) or "")
        assert batch.timestamp[n] == event.timestamp
        assert batch.event_hash[n] == xxh3_64_intdigest(event.event_id.encode())
        assert batch.logs[batch.log[n]] == f"{records[place].topic}/{records[place].partition}"
        assert (n in batch.catalogue) == isinstance(event, Item)
    assert np.isfinite(batch.value).all()
    assert (batch.value >= 0).all()


def check_verdict(verdict: Event | Rejected) -> None:
    if isinstance(verdict, Rejected):
        assert verdict.reason in REASONS
        assert verdict.reason != "undecodable", verdict.detail
        assert 0 < len(verdict.detail) <= 300
    else:
        assert 0 <= verdict.timestamp <= NOW + 300
        assert len(msgspec.json.encode(verdict)) < 1_000_000


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.one_of(st.none(), st.binary(), values(), JSON.map(lambda v: json.dumps(v).encode())),
    st.sampled_from([*TOPICS, "shop", "shop", "views", "elsewhere"]),
    st.one_of(st.none(), st.binary(max_size=200)),
)
def test_nothing_raises(value: bytes | None, topic: str, key: bytes | None) -> None:
    check_verdict(GATE.decode_one(record(value, topic, key=key)))


@pytest.mark.parametrize("topic", list(TOPICS))
@pytest.mark.parametrize(
    "make",
    [
        lambda: b"x" * 10_000_000,
        lambda: b"[" * 65_536,
        lambda: b'"' + b"\\" * 65_534,
        lambda: b'"' * 65_536,
        lambda: b'{"at":' + b"9" * 65_000 + b"}",
        lambda: b'{"timestamp":-' + b"9" * 65_000 + b"}",
        lambda: b'{"timestamp":1e-' + b"9" * 60_000 + b"}",
        lambda: b'{"who":' + b'{"id":' * 9000 + b"}" * 9001,
        lambda: b"{" + b'"a":1,' * 9000 + b'"a":1}',
        lambda: random.Random(1).randbytes(65_536),  # noqa: S311
    ],
)
def test_huge_and_twisted_messages_do_not_raise(topic: str, make: Callable[[], bytes]) -> None:
    verdict = GATE.decode_one(record(make(), topic))
    check_verdict(verdict)
    assert isinstance(verdict, Rejected)


def test_an_event_survives_its_encoding() -> None:
    events: list[tuple[str, Event]] = [
        ("everlearn.clicks", Click(event_id="é", timestamp=1.25, user="u", item="i", position=3)),
        ("everlearn.purchases", Purchase(event_id="e", timestamp=1.0, user="u", item="i", price=2)),
        ("everlearn.items", Item(event_id="e", timestamp=1.0, item="i", title="A", created=0.5)),
    ]
    for topic, event in events:
        assert GATE.decode_one(record(encode(event), topic)) == event

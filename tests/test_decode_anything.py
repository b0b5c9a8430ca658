"""Whatever the bytes: nothing raises, and a batch says what each of its records says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from learners.base import KINDS
from streams.decode import REASONS, Rejected
from streams.events import EVENT_TYPES, Event, Item
from streams.order import Record
from tests.gates import GATE, NOW, TOPICS, click, record

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

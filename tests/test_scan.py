"""The kernel that reads messages takes only what the decoder takes, and reads the same."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import xxhash

from learners.store.xxh3 import MOST_BYTES, hash_64
from streams.decode import Gate, Rejected
from streams.events import Click, Purchase
from streams.order import Record
from streams.scan import ANY_ACT, Scanned, make_scanned, scan
from streams.settings import TopicSettings
from tests.gates import NOW

GATE = Gate({"mixed": TopicSettings(name="mixed", type="mixed")}, now=lambda: NOW)
SPOILERS = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b",",
    b":",
    b"e5",
    b"-",
    b"0",
    b".",
    b"null",
    b"\n",
    b"\xc3",
    b" ",
]


def read(*values: bytes, now: float = NOW) -> Scanned:
    """What the kernel reads of messages of a mixed topic."""
    n = len(values)
    stop = np.cumsum([len(value) for value in values])
    start = np.concatenate([[0], stop])[:-1]
    out = make_scanned(n)
    data = np.frombuffer(b"".join(values), np.uint8)
    expected = np.full(n, ANY_ACT, np.uint8)
    scan(data, start, stop, expected, np.full(n, NOW), now, out)
    return out


def events(seed: int, n: int) -> list[bytes]:
    """Sound clicks and purchases, the fields of each in an order of its own."""
    draw = random.Random(seed)  # noqa: S311
    made = []
    for i in range(n):
        kind = draw.choice(["click", "purchase"])
        event: dict[str, object] = {
            "event_id": f"e{i}",
            "timestamp": draw.choice([draw.uniform(1e9, NOW), draw.randrange(10**9), 0, 1.5]),
            "user": f"user {i}",
            "item": "i" * draw.randrange(1, 129),
            "type": kind,
        }
        extra = {
            "session": draw.choice([None, "s1"]),
            "impression_id": "shown",
            "position": draw.choice([None, 0, 7, 2**31 - 1]),
            "price": draw.choice([None, 9.99, 1e12, 0]) if kind == "purchase" else 3,
            "new": draw.choice([True, False, None, "text", 12.75]),
            "context": None,
        }
        names = draw.sample(sorted(extra), draw.randrange(len(extra)))
        event |= {name: extra[name] for name in names}
        fields = draw.sample(sorted(event), len(event))
        blanks = draw.choice([None, 1])
        made.append(json.dumps({f: event[f] for f in fields}, indent=blanks).encode())
    return made


def test_sound_messages_are_read_as_the_decoder_reads_them() -> None:
    values = events(1, 2000)
    out = read(*values)
    data = b"".join(values)
    assert out.sound.mean() > 0.99  # a number here and there is left to the decoder
    for i in np.flatnonzero(out.sound).tolist():
        event = GATE.decode_one(Record("mixed", 0, i, int(NOW * 1000), None, values[i]))
        assert isinstance(event, Click | Purchase)
        texts = [data[a:b].decode() for a, b in zip(out.start[:, i], out.stop[:, i], strict=True)]
        assert texts == [event.user, event.item, event.session or ""]
        assert out.timestamp[i] == event.timestamp
        assert out.kind[i] == (type(event) is Purchase)
        assert out.event_hash[i] == xxhash.xxh3_64_intdigest(event.event_id.encode())


def test_what_the_decoder_rejects_is_never_taken() -> None:
    draw = random.Random(2)  # noqa: S311
    spoilt = []
    for value in events(3, 6000):
        place, length = draw.randrange(len(value)), draw.randrange(3)
        spoilt.append(value[:place] + draw.choice(SPOILERS) + value[place + length :])
    out = read(*spoilt)
    rejected = [
        isinstance(GATE.decode_one(Record("mixed", 0, 0, int(NOW * 1000), None, value)), Rejected)
        for value in spoilt
    ]
    assert 0.3 < np.mean(rejected) < 0.95  # both kinds are here
    assert not (out.sound & np.array(rejected)).any()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[]",
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i"}',  # a mixed topic names the type
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i","type":"erasure"}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i","type":"click"}}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i","type":"click","user":"v"}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i","type":"click","position":1.5}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"","type":"click"}',
        b'{"event_id":"e","timestamp":01,"user":"u","item":"i","type":"click"}',
        b'{"event_id":"e","timestamp":9e12,"user":"u","item":"i","type":"click"}',
        b'{"event_id":"e","timestamp":9999999999,"user":"u","item":"i","type":"click"}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"i","type":"click","session":""}',
        b'{"event_id":"e","timestamp":1,"user":"u","item":"' + b"x" * 129 + b'","type":"click"}',
    ],
)
def test_doubtful_messages_are_left_alone(value: bytes) -> None:
    assert not read(value).sound[0]


def test_numbers_are_rounded_as_python_rounds_them() -> None:
    draw = random.Random(4)  # noqa: S311
    texts = [repr(draw.uniform(1.4e9, NOW)) for _ in range(3000)]
    texts += [repr(round(draw.uniform(0, 1e5), draw.randrange(9))) for _ in range(3000)]
    values = [
        b'{"event_id":"e","timestamp":%s,"user":"u","item":"i","type":"click"}' % text.encode()
        for text in texts
    ]
    out = read(*values)
    assert out.sound.mean() > 0.99
    expected = np.array([float(text) for text in texts])
    assert (out.timestamp[out.sound] == expected[out.sound]).all()


@pytest.mark.parametrize("n", range(MOST_BYTES + 1))
def test_a_hash_is_the_library_s(n: int) -> None:
    raw = random.Random(n).randbytes(n + 7)  # noqa: S311
    data, text = np.frombuffer(raw, np.uint8), raw[3 : 3 + n]
    assert int(hash_64(data, 3, 3 + n)) == xxhash.xxh3_64_intdigest(text)

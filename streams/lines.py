"""JSON lines: events in a file or on standard input, each naming its `type`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import msgspec

from learners.errors import DataError
from streams.decode import Gate, Rejected
from streams.events import MAX_AHEAD_SECONDS, Event
from streams.order import Record
from streams.settings import TopicSettings

__all__ = ["LINES_TOPIC", "Line", "check_lines", "lines_gate", "read_lines"]

BOM = b"\xef\xbb\xbf"  # what some editors put before the first line
LINES_TOPIC = "lines"  # stands for the topic of events that come from no topic


class Line(NamedTuple):
    """A line of a file, numbered from 1: its event, or why it is none."""

    number: int
    outcome: Event | Rejected


def lines_gate() -> Gate:
    """Gate for events that name their type and come from no topic."""
    return Gate({LINES_TOPIC: TopicSettings(name=LINES_TOPIC, type="mixed")})


def check_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """Decode lines as they come; `event_id` and `timestamp` are made where a line has none.

    >>> [line.outcome.reason for line in check_lines([b'{"type": "click"}', b"oops"])]
    ['bad_field', 'malformed_json']
    """
    gate = lines_gate()
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip():
            made = {"event_id": uuid4().hex, "timestamp": time.time()}
            record = Record(LINES_TOPIC, 0, number, -1, None, _completed(line.strip(), made))
            yield Line(number, gate.decode_one(record))


def _completed(line: bytes, made: dict[str, object]) -> bytes:
    """Add what an object lacks of an id and a time; leave anything else to the gate."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    missing = {name: value for name, value in made.items() if name not in fields}
    return msgspec.json.encode(missing | fields) if missing else line


def read_lines(path: str | Path) -> list[Record]:
    """Read JSON lines as records; `offset` is the line's number, from 0, empty lines are left out.

    A line without `event_id` or `timestamp` is given one that is the same whenever it is read:
    `line-7`, from its number, and the time of the line before it. The lines before the first that
    tells a time have that one's time; where no line tells one, a second passes from line to line.
    A time that no event may have, as it is too far ahead, is nobody else's.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; give a file of JSON lines, or -") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a file or -") from error
    lines = text.removeprefix(BOM).split(b"\n")
    told = [_told(line) for line in lines]
    now = next((time for _, time in told if time is not None), None)
    records = []
    for number, (line, (complete, own)) in enumerate(zip(lines, told, strict=True)):
        if not line.strip():
            continue
        now = now if own is None else own
        if not complete:
            seconds = float(number) if now is None else now
            made: dict[str, object] = {"event_id": f"line-{number + 1}", "timestamp": seconds}
            line = _completed(line, made)
        records.append(Record(LINES_TOPIC, 0, number, -1, None, line))
    return records


class _Told(msgspec.Struct):
    event_id: msgspec.Raw = msgspec.Raw()
    timestamp: msgspec.Raw = msgspec.Raw()


_read_told = msgspec.json.Decoder(_Told).decode


def _told(line: bytes) -> tuple[bool, float | None]:
    """Whether an object has both id and time (anything else is the gate's), and the time."""
    try:
        told = _read_told(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True, None
    complete = bool(bytes(told.event_id) and bytes(told.timestamp))
    try:
        seconds = msgspec.json.decode(told.timestamp, type=float)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return complete, None
    return complete, seconds if 0.0 <= seconds <= time.time() + MAX_AHEAD_SECONDS else None

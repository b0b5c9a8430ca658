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
from streams.events import Event
from streams.order import Record
from streams.settings import TopicSettings

__all__ = ["LINES_TOPIC", "Line", "check_lines", "lines_gate", "read_lines"]

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
        if line.strip():
            record = Record(LINES_TOPIC, 0, number, -1, None, _completed(line.strip()))
            yield Line(number, gate.decode_one(record))


def _completed(line: bytes) -> bytes:
    """Add an id and a time to an object that has none; leave anything else to the gate."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    made = {"event_id": uuid4().hex, "timestamp": time.time()}
    missing = {name: value for name, value in made.items() if name not in fields}
    return msgspec.json.encode(missing | fields) if missing else line


def read_lines(path: str | Path) -> list[Record]:
    """Read JSON lines as records; `offset` is the line's number, from 0, empty lines are left out.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a file or -") from error
    return [
        Record(LINES_TOPIC, 0, number, -1, None, line)
        for number, line in enumerate(text.split(b"\n"))
        if line.strip()
    ]

"""JSON lines: events in a file or on standard input, each naming its `type`."""

from __future__ import annotations

import sys
from pathlib import Path

from learners.errors import DataError
from streams.order import Record

__all__ = ["LINES_TOPIC", "read_lines"]

LINES_TOPIC = "lines"  # stands for the topic of events that come from no topic


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

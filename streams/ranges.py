"""Which records of a topic: a range of offsets or of times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from learners.errors import SettingsError

__all__ = ["EVERYTHING", "Range"]


@dataclass(frozen=True, slots=True)
class Range:
    """Which records: offsets (in every partition) or record times in seconds; `stop` is outside."""

    start_offset: int = 0
    stop_offset: int | None = None
    start_time: float | None = None
    stop_time: float | None = None

    @classmethod
    def parse(cls, start: str | None, stop: str | None) -> Range:
        """Read `--from` and `--to`: an offset, or a time as ISO 8601 (UTC without a zone).

        >>> Range.parse("100", "2025-06-01T12:00")
        Range(start_offset=100, stop_offset=None, start_time=None, stop_time=1748779200.0)
        """
        values: dict[str, Any] = {}
        for end, text in (("start", start), ("stop", stop)):
            if text is not None and text.isascii() and text.isdigit():
                values[f"{end}_offset"] = int(text)
            elif text is not None:
                values[f"{end}_time"] = _seconds(text)
        return cls(**values)

    def keeps(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Keep the records that are inside."""
        conditions = [pl.col("offset") >= self.start_offset]
        if self.stop_offset is not None:
            conditions.append(pl.col("offset") < self.stop_offset)
        if self.start_time is not None:
            conditions.append(pl.col("timestamp") >= self.start_time * 1000)
        if self.stop_time is not None:
            conditions.append(pl.col("timestamp") < self.stop_time * 1000)
        return frame.filter(*conditions)


EVERYTHING = Range()


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{text!r} is neither an offset nor a time: write 1200 or 2025-06-01T12:00:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

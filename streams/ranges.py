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

        Raises
        ------
        SettingsError
            A text is neither, or nothing can lie between the two.
        """
        values: dict[str, Any] = {}
        for end, text in (("start", start), ("stop", stop)):
            if text is not None and text.isascii() and text.isdigit():
                values[f"{end}_offset"] = int(text)
            elif text is not None:
                values[f"{end}_time"] = _seconds(text)
        chosen = cls(**values)
        if chosen.is_empty:
            raise SettingsError(
                f"nothing lies between --from {start or 0} and --to {stop}: give a --to after it "
                "(it is the first that is left out)"
            )
        return chosen

    @property
    def is_empty(self) -> bool:
        """Whether its end does not lie after its start."""
        if self.stop_offset is not None and self.start_offset >= self.stop_offset:
            return True
        if self.start_time is None or self.stop_time is None:
            return False
        return self.start_time >= self.stop_time

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

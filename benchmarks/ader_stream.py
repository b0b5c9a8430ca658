"""Diginetica's weeks as arrays: the clicks, who came before whom, and what a period is tested on.

The data set is the one that ADER published its table on (Mi, Lin, Faltings: ADER, RecSys 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from learners.errors import DataError
from learners.frozen import Clicks
from streams.datasets import DIGINETICA_START_SECONDS, WEEK_SECONDS, load_dataset

__all__ = ["Part", "Stream", "make_stream", "previous_in", "read_stream"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some clicks in time order, with their sessions."""

    clicks: Clicks
    session: NDArray[np.int32]  # (n,) sessions as they begin; over a week's end there are two
    sampled: NDArray[np.bool_]  # (n,) whether the session was chosen to be tested

    def targets(self) -> NDArray[np.int64]:
        """Return the places of what is to be foreseen: from a session's second click on."""
        return np.flatnonzero((self.clicks.previous >= 0) & self.sampled)


@dataclass(frozen=True, slots=True)
class Stream(Part):
    """All clicks. Items are numbered as they are first clicked, so what is known is a range."""

    starts: NDArray[np.int64]  # (periods + 1,) where each period begins

    @property
    def periods(self) -> int:
        """How many periods there are; the first is only learnt."""
        return len(self.starts) - 1

    def known_before(self, place: int) -> int:
        """Return how many items were clicked before a place."""
        return int(self.clicks.item[:place].max(initial=-1)) + 1

    def seen_before(self) -> NDArray[np.bool_]:
        """Tell of each click whether its item was clicked before it; (n,)."""
        item = self.clicks.item
        newest = np.maximum.accumulate(np.concatenate([[-1], item[:-1]]))
        return np.asarray(item <= newest)

    def unlearnt(self, begin: int, end: int) -> Part:
        """Return a run of clicks to be tested before any of it is learnt.

        Clicks on items that were never learnt are dropped first; then a session of one click has
        no target.
        """
        item = self.clicks.item[begin:end]
        places = begin + np.flatnonzero(item < self.known_before(begin))
        session = self.session[places]
        clicks = Clicks(self.clicks.item[places], self.clicks.time[places], previous_in(session))
        return Part(clicks, session, self.sampled[places])


def previous_in(session: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the place of the click before each in its session, -1 where there is none.

    >>> previous_in(np.array([7, 8, 7, 7, 8], np.int32)).tolist()
    [-1, -1, 0, 2, 1]
    """
    order = np.argsort(session, kind="stable")
    same = session[order[1:]] == session[order[:-1]]
    previous = np.full(len(session), -1, np.int32)
    previous[order[1:][same]] = order[:-1][same]
    return previous


def make_stream(
    period: NDArray[np.int64],
    session: NDArray[np.int64],
    item: NDArray[np.int64],
    time: NDArray[np.float64],
    sampled: NDArray[np.bool_],
) -> Stream:
    """Number what was read; all (n,), in time order."""
    sessions = np.stack([period, session])
    numbers = _by_appearance(np.unique(sessions, axis=1, return_inverse=True)[1])
    items = _by_appearance(np.unique(item, return_inverse=True)[1])
    starts = np.searchsorted(period, np.arange(period[-1] + 2))
    return Stream(Clicks(items, time, previous_in(numbers)), numbers, sampled, starts)


def read_stream(path: Path, sample: int = 1) -> Stream:
    """Read `diginetica-weekly.parquet`; one session in `sample` is tested, chosen by its id's hash.

    Raises
    ------
    DataError
        The file is missing, is something else, or has a single period.
    """
    frame = load_dataset("diginetica", path).frame.filter(pl.col("reason").is_null())
    if frame.is_empty():
        raise DataError(f"{path} holds no clicks")
    time = frame["timestamp"].to_numpy(writable=True)
    period = ((time - DIGINETICA_START_SECONDS) // WEEK_SECONDS).astype(np.int64)
    names = frame["session"].unique(maintain_order=True)
    numbers = frame["session"].replace_strict(names, pl.int_range(len(names), eager=True))
    chosen = np.array([xxhash.xxh3_64_intdigest(name.encode()) % sample == 0 for name in names])
    item = frame["item"].cast(pl.Categorical).to_physical().cast(pl.Int64)
    if period[0] != 0 or period[-1] < 1:
        raise DataError(
            f"{path} has the periods {period[0]} to {period[-1]}: the protocol learns period 0 "
            "and tests those after it"
        )
    session = numbers.to_numpy()
    return make_stream(period, session, item.to_numpy(), time, chosen[session])


def _by_appearance(code: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number codes anew in the order in which they first come."""
    first = np.full(int(code.max()) + 1, len(code), np.int64)
    np.minimum.at(first, code, np.arange(len(code)))
    number = np.empty(len(first), np.int32)
    number[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
    return np.asarray(number[code.reshape(-1)])

"""Public data sets as event streams: for importing into Kafka, and straight into the engine.

A reader turns a file into one frame with a row per event in learning order; `Dataset.events` makes
event structs of it for producers, `Dataset.batches` the columns that the gate would have decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from learners.base import CLICK, ITEM, PURCHASE, Batch, CatalogueEntry
from learners.errors import DataError
from streams.events import Click, Event, Item, Purchase
from streams.targets import no_file

__all__ = ["DATASETS", "Dataset", "Listed", "load_dataset"]

Listed = Literal["first_use", "release"]

DIGINETICA_START_SECONDS = 1451865600  # Monday 4 January 2016; the file has weeks but no clock
WEEK_SECONDS = 7 * 86400
# An item's entry comes this much after its first use, also across topics: to list what is just
# about to be clicked would tell what comes next.
ITEM_LAG_MS = 1

_NO_TEXT = pl.lit(None, dtype=pl.String)
_NO_NUMBER = pl.lit(None, dtype=pl.Float64)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as events; `frame` has a row per event, those with a `reason` are rejected."""

    name: str
    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    @property
    def label(self) -> str:
        """The log that the events come from, as positions name it."""
        return f"{self.name}/0"

    @property
    def rejected(self) -> dict[str, int]:
        """How many rows are no events, by reason."""
        return _count_reasons(self.frame)

    def events(self, chunk: int = 65_536) -> Iterator[Event]:
        """Yield the events in order, catalogue entries after the first use of their item."""
        for part in self.frame.iter_slices(chunk):
            for row in part.filter(pl.col("reason").is_null()).iter_rows(named=True):
                yield _event(row)

    def batches(self, start: int = 0, stop: int | None = None, size: int = 4096) -> Iterator[Batch]:
        """Yield rows `start` to `stop` as batches of `size` rows, without going through JSON."""
        stop = len(self) if stop is None else min(stop, len(self))
        for begin in range(start, stop, size):
            end = min(begin + size, stop)
            yield _batch(self.frame[begin:end], self.label, end)


def load_dataset(name: str, path: str | Path, listed: Listed = "first_use") -> Dataset:
    """Read a data set.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    path : str or Path
        Its parquet file.
    listed : {"first_use", "release"}
        When an item's entry comes: just after its first use, which is all that a log without
        times of release tells, or when it was created, at the latest then, and with the first
        event where it was created before that or nobody knows when. Only the second is a
        catalogue from which an item can be recommended before its first use.

    Raises
    ------
    DataError
        If the name is unknown, the file is missing, or it is not that data set.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    columns, reader = DATASETS[name]
    path = Path(path)
    frame = _read_columns(path, columns, name)
    try:
        uses = reader(frame, path)
        return Dataset(name, _with_item_events(uses, name, listed))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not {name}: {error}") from error


def _read_columns(path: Path, columns: tuple[str, ...], name: str) -> pl.DataFrame:
    """Read a parquet file that must have these columns; adds `row`, the row number."""
    if not path.is_file():
        raise DataError(f"{path} {no_file(path)}; {name} is one parquet file")
    try:
        found = list(pl.read_parquet_schema(path))
        missing = [column for column in columns if column not in found]
        if not missing:
            return pl.read_parquet(path, columns=list(columns)).with_row_index("row")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is no parquet file, or a damaged one; {name} is one") from error
    raise DataError(
        f"{path} is not {name}: expected the columns {', '.join(columns)}; "
        f"found {', '.join(found)}; missing {', '.join(missing)}"
    )


def _uses(frame: pl.DataFrame, *, item: pl.Expr, user: pl.Expr, **columns: pl.Expr) -> pl.DataFrame:
    """Build the frame of uses (clicks and purchases), in time order, from a reader's columns."""
    defaults = {
        "kind": pl.lit(CLICK, dtype=pl.UInt8),
        "session": _NO_TEXT,
        "price": _NO_NUMBER,
        "quantity": pl.lit(1.0),
        "category": _NO_TEXT,
        "title": _NO_TEXT,
        "created": _NO_NUMBER,
        "reason": _NO_TEXT,
    }
    named = {"user": user, "item": item, **defaults, **columns}
    uses = frame.select("row", **named).with_columns(
        reason=pl.when(pl.col("user").is_null() | pl.col("item").is_null())
        .then(pl.lit("missing_id"))
        .when(pl.col("time_ms").is_null())
        .then(pl.lit("missing_time"))
        .otherwise(pl.col("reason")),
        time_ms=pl.col("time_ms").fill_null(strategy="forward").fill_null(0),
    )
    return uses if uses["time_ms"].is_sorted() else uses.sort("time_ms", maintain_order=True)


def _read_taobao(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Views, carts and favourites are clicks, `buy` is a purchase, items have categories."""
    behaviour = pl.col("behaviour")
    return _uses(
        frame,
        user=pl.col("user").cast(pl.String),
        item=pl.col("item").cast(pl.String),
        time_ms=pl.col("timestamp").cast(pl.Int64) * 1000,
        kind=_kind(behaviour == "buy"),
        category=pl.col("category").cast(pl.String),
        reason=pl.when(~behaviour.is_in(["pv", "cart", "fav", "buy"]))
        .then(pl.lit("unknown_behaviour"))
        .otherwise(_NO_TEXT),
    )


def _read_online_retail(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Each invoice line is a purchase; an invoice is a session; some customers are guests."""
    invoice = pl.col("InvoiceNo")
    return _uses(
        frame,
        user=pl.coalesce(
            pl.col("CustomerID").cast(pl.Int64).cast(pl.String), pl.format("guest-{}", invoice)
        ),
        item=pl.col("StockCode"),
        time_ms=pl.col("InvoiceDate").cast(pl.Datetime("ms")).cast(pl.Int64),
        kind=_kind(pl.lit(True)),
        session=invoice,
        price=pl.col("UnitPrice").cast(pl.Float64),
        quantity=pl.col("Quantity").cast(pl.Float64),
        title=pl.col("Description").str.strip_chars(),
        reason=pl.when(invoice.str.starts_with("C"))
        .then(pl.lit("cancellation"))
        .when(invoice.str.starts_with("A"))
        .then(pl.lit("adjustment"))
        .when(pl.col("Quantity") <= 0)
        .then(pl.lit("no_quantity"))
        .when(pl.col("UnitPrice") < 0)
        .then(pl.lit("negative_price"))
        .otherwise(_NO_TEXT),
    )


def _read_diginetica(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Spread each period's rows evenly over its week, so that row order is time order."""
    place = pl.int_range(pl.len()).over("period") / pl.len().over("period")
    seconds = DIGINETICA_START_SECONDS + (pl.col("period").cast(pl.Int64) + place) * WEEK_SECONDS
    return _uses(
        frame,
        user=pl.col("session").cast(pl.String),
        item=pl.col("item").cast(pl.String),
        session=pl.col("session").cast(pl.String),
        time_ms=(seconds * 1000).floor().cast(pl.Int64),
    )


def _read_ml_100k(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Ratings are clicks; the catalogue is `<name>-items.parquet` beside the ratings, if there."""
    catalogue = path.with_name(f"{path.stem}-items.parquet")
    entries: dict[str, pl.Expr] = {}
    if catalogue.is_file():
        columns = ("item_id", "movie_title", "release_year", "class")
        films = _read_columns(catalogue, columns, "ml-100k's catalogue").drop("row")
        frame = frame.join(films, left_on="item", right_on="item_id", how="left").sort("row")
        year = pl.col("release_year").cast(pl.Int32, strict=False)
        entries = {
            "title": pl.col("movie_title"),
            "category": pl.col("class").str.strip_chars().str.replace_all(" +", "|"),
            "created": pl.when(year >= 1970)  # an event's times start there
            .then(pl.date(year, 1, 1).cast(pl.Datetime("ms")).cast(pl.Int64) / 1000)
            .otherwise(_NO_NUMBER),
        }
    return _uses(
        frame,
        user=pl.col("user").cast(pl.String),
        item=pl.col("item").cast(pl.String),
        time_ms=pl.col("timestamp").cast(pl.Int64) * 1000,
        **entries,
    )


_Reader = Callable[[pl.DataFrame, Path], pl.DataFrame]
DATASETS: dict[str, tuple[tuple[str, ...], _Reader]] = {
    "taobao": (("user", "item", "category", "behaviour", "timestamp"), _read_taobao),
    "online-retail": (
        (
            "InvoiceNo",
            "StockCode",
            "Description",
            "Quantity",
            "InvoiceDate",
            "UnitPrice",
            "CustomerID",
        ),
        _read_online_retail,
    ),
    "diginetica": (("period", "session", "item"), _read_diginetica),
    "ml-100k": (("user", "item", "rating", "timestamp"), _read_ml_100k),
}
"""Name of each data set -> the columns its file must have, and what reads it."""


def _kind(bought: pl.Expr) -> pl.Expr:
    """Say which rows are purchases; the others are clicks."""
    return pl.when(bought).then(pl.lit(PURCHASE)).otherwise(pl.lit(CLICK)).cast(pl.UInt8)


def _with_item_events(uses: pl.DataFrame, name: str, listed: Listed) -> pl.DataFrame:
    """Put an item event after the first use of an item, and after its first titled use."""
    uses = uses.with_columns(
        event_id=pl.format(f"{name}-{{}}", "row"), place=pl.int_range(pl.len(), dtype=pl.Int64)
    )
    says_something = pl.any_horizontal(
        pl.col("category", "price", "title", "created").is_not_null()
    )
    has_title = pl.col("title").is_not_null()
    first_titled = has_title & pl.struct("item", has_title.alias("has")).is_first_distinct()
    news = uses.filter(pl.col("reason").is_null()).filter(
        (pl.col("item").is_first_distinct() & says_something) | first_titled
    )
    entries = news.with_columns(
        kind=pl.lit(ITEM, dtype=pl.UInt8),
        user=pl.lit(""),
        session=_NO_TEXT,
        quantity=pl.lit(1.0),
        time_ms=pl.col("time_ms") + ITEM_LAG_MS,
        event_id=pl.format(f"{name}-item-{{}}", "row"),
    )
    parts = [_at_release(entries, uses), uses] if listed == "release" else [uses, entries]
    events = pl.concat(parts).sort("place", maintain_order=True)
    return events.drop("place", "row").with_columns(
        timestamp=pl.col("time_ms") / 1000, watermark=pl.col("time_ms").cum_max() / 1000
    )


def _at_release(entries: pl.DataFrame, uses: pl.DataFrame) -> pl.DataFrame:
    """Move each item's entry, one that has a title if any has, to the time of its release."""
    one_each = entries.sort(pl.col("title").is_null(), maintain_order=True)
    first_use = pl.col("time_ms").min().over("item")
    start = max(int(uses["time_ms"][0]) - 1, 0)
    created = (pl.col("created") * 1000).cast(pl.Int64).fill_null(start).clip(lower_bound=start)
    moved = one_each.with_columns(time_ms=pl.min_horizontal(first_use, created))
    moved = moved.unique("item", keep="first", maintain_order=True)
    places = uses["time_ms"].search_sorted(moved["time_ms"], side="left")
    order = ["time_ms", "created", "item"]
    return moved.with_columns(place=places.cast(pl.Int64)).sort(order, maintain_order=True)


def _event(row: dict[str, Any]) -> Event:
    """Build the event that a row of the frame describes."""
    kind = row["kind"]
    names = ["event_id", "timestamp", "item"]
    if kind == ITEM:
        return Item(**_told(row, [*names, "category", "price", "title", "created"]))
    if kind == PURCHASE:
        return Purchase(**_told(row, [*names, "user", "session", "price", "quantity"]))
    return Click(**_told(row, [*names, "user", "session"]))


def _told(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name] is not None}


def _batch(rows: pl.DataFrame, label: str, position: int) -> Batch:
    """Build the batch of some rows; rejected ones are counted and move the position too."""
    watermark = rows["watermark"][-1]
    rejected = _count_reasons(rows)
    if rejected:
        rows = rows.filter(pl.col("reason").is_null())
    ids = rows["event_id"].cast(pl.Binary).to_list()
    return Batch(
        kind=rows["kind"].to_numpy(),
        user=rows["user"].to_list(),
        item=rows["item"].to_list(),
        session=rows["session"].fill_null("").to_list(),
        timestamp=rows["timestamp"].to_numpy(),
        event_hash=np.fromiter(map(xxhash.xxh3_64_intdigest, ids), np.uint64, len(ids)),
        log=np.zeros(len(ids), np.int32),
        logs=[label],
        catalogue=_catalogue(rows),
        value=_values(rows),
        positions={label: position},
        watermarks={label: watermark},
        rejected=rejected,
    )


def _values(rows: pl.DataFrame) -> NDArray[np.float32]:
    """Price x quantity of the purchases, NaN without a price; 0 of the other events."""
    paid = (rows["price"] * rows["quantity"].fill_null(1)).to_numpy()
    return np.where(rows["kind"].to_numpy() == PURCHASE, paid, 0.0).astype(np.float32)


def _catalogue(rows: pl.DataFrame) -> dict[int, CatalogueEntry]:
    """Collect the item events of some rows, by place."""
    items = rows.with_row_index("place").filter(pl.col("kind") == ITEM)
    columns = items.select("place", "category", "price", "title", "created").iter_rows()
    return {
        place: CatalogueEntry(category=category, price=price, title=title, created=created)
        for place, category, price, title, created in columns
    }


def _count_reasons(frame: pl.DataFrame) -> dict[str, int]:
    reasons = frame["reason"].drop_nulls()
    return dict(reasons.value_counts().sort("reason").iter_rows())

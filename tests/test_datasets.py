"""Data sets: their rows as events, the two ways to have them, and wrong files named as such."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from learners.base import Batch
from learners.errors import DataError
from streams.datasets import DATASETS, Dataset, load_dataset
from streams.decode import Gate
from streams.events import Click, Event, Item, Purchase
from streams.order import Record
from streams.settings import TopicSettings

DATA = Path(os.environ.get("EVERLEARN_DATA", Path(__file__).parents[2] / "shared" / "data"))
FILES = {
    "taobao": "taobao-9days.parquet",
    "online-retail": "online-retail.parquet",
    "diginetica": "diginetica-weekly.parquet",
    "ml-100k": "ml-100k.parquet",
}


def real(name: str) -> Path:
    path = DATA / FILES[name]
    if not path.is_file():
        pytest.skip(f"{path} is missing: set EVERLEARN_DATA to the folder of the data sets")
    return path


def small_taobao(folder: Path) -> Path:
    rows = [
        (1, 10, 7, "pv", 100),
        (2, 10, 7, "cart", 100),
        (1, 11, 8, "fav", 101),
        (1, 11, 8, "buy", 105),
        (1, 11, 8, "stare", 105),
    ]
    columns = ["user", "item", "category", "behaviour", "timestamp"]
    return write(folder, pl.DataFrame(rows, schema=columns, orient="row"))


def small_retail(folder: Path) -> Path:
    at = datetime(2010, 12, 1, 8, 26)
    rows = [
        ("536365", "A1", None, 6, at, 2.5, 17850.0),
        ("536365", "A1", " TEA POT ", 1, at, 2.5, 17850.0),
        ("536366", "B2", "CUP", 2, at, 1.25, None),
        ("C536367", "B2", "CUP", -2, at, 1.25, None),
        ("536368", "B2", "damaged", -9, at, 0.0, None),
        ("A563186", "B", "Adjust bad debt", 1, at, -11062.06, None),
        ("536369", "B2", "CUP", 1, at, -1.0, None),
    ]
    columns: dict[str, Any] = {
        "InvoiceNo": pl.String,
        "StockCode": pl.String,
        "Description": pl.String,
        "Quantity": pl.Int64,
        "InvoiceDate": pl.Datetime("us"),
        "UnitPrice": pl.Float64,
        "CustomerID": pl.Float64,
    }
    return write(folder, pl.DataFrame(rows, schema=columns, orient="row"))


def small_diginetica(folder: Path) -> Path:
    rows = [(0, 5, 1), (0, 6, 2), (0, 5, 3), (0, 5, 1), (1, 7, 1), (1, 7, 9)]
    columns: dict[str, Any] = {"period": pl.Int8, "session": pl.Int32, "item": pl.Int32}
    return write(folder, pl.DataFrame(rows, schema=columns, orient="row"))


def small_ml_100k(folder: Path) -> Path:
    rows = [(1, 10, 4, 1000), (2, 11, 5, 1001), (1, 12, 3, 1002), (1, 10, 1, 1003)]
    films = [
        (10, "Toy Story", "1995", "Animation Comedy"),
        (11, "Old One", "1931", "Drama"),
        (12, "Odd One", "V", "Comedy"),
    ]
    names = ["item_id", "movie_title", "release_year", "class"]
    items = pl.DataFrame(films, schema=names, orient="row")
    items.write_parquet(folder / "log-items.parquet")
    return write(
        folder, pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    )


SMALL = {
    "taobao": small_taobao,
    "online-retail": small_retail,
    "diginetica": small_diginetica,
    "ml-100k": small_ml_100k,
}


def write(folder: Path, frame: pl.DataFrame) -> Path:
    path = folder / "log.parquet"
    frame.write_parquet(path)
    return path


def through_the_gate(dataset: Dataset) -> Batch:
    """The batch that a node has after the data set's events came over Kafka."""
    topic = TopicSettings(name=dataset.name, type="mixed")
    records = [
        Record(dataset.name, 0, i, round(e.timestamp * 1000), None, msgspec.json.encode(e))
        for i, e in enumerate(dataset.events())
    ]
    batch, rejected = Gate({dataset.name: topic}).decode(records)
    assert not rejected
    return batch


def assert_same(columns: Batch, decoded: Batch) -> None:
    for name in ("kind", "timestamp", "event_hash", "log"):
        ours, theirs = getattr(columns, name), getattr(decoded, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, name)
    for name in ("user", "item", "session", "logs"):
        assert list(getattr(columns, name)) == list(getattr(decoded, name)), name
    assert dict(columns.catalogue) == dict(decoded.catalogue)


@pytest.mark.parametrize("name", DATASETS)
def test_columns_are_what_the_gate_decodes(name: str, tmp_path: Path) -> None:
    dataset = load_dataset(name, SMALL[name](tmp_path))
    (columns,) = dataset.batches()
    decoded = through_the_gate(dataset)
    assert_same(columns, decoded)
    assert columns.watermarks == decoded.watermarks
    assert columns.positions == {f"{name}/0": len(dataset)}


@pytest.mark.parametrize("name", DATASETS)
def test_columns_of_real_data_are_what_the_gate_decodes(name: str) -> None:
    whole = load_dataset(name, real(name))
    dataset = Dataset(name, whole.frame[-20_000:])
    (columns,) = dataset.batches(size=20_000)
    assert_same(columns, through_the_gate(dataset))


@pytest.mark.parametrize("name", DATASETS)
def test_batches_are_the_same_events_whatever_their_size(name: str, tmp_path: Path) -> None:
    dataset = load_dataset(name, SMALL[name](tmp_path))
    (whole,) = dataset.batches()
    cut = [*dataset.batches(stop=3, size=2), *dataset.batches(start=3, size=2)]
    assert [item for batch in cut for item in batch.item] == list(whole.item)
    assert np.concatenate([batch.event_hash for batch in cut]).tolist() == whole.event_hash.tolist()
    assert sum((Counter(batch.rejected) for batch in cut), Counter()) == Counter(whole.rejected)
    assert cut[-1].positions == whole.positions
    assert cut[-1].watermarks == whole.watermarks


def named(events: list[Event]) -> list[tuple[str, str]]:
    return [(type(event).__name__, event.event_id) for event in events]


def test_taobao_views_are_clicks_and_categories_come_after_the_first_use(tmp_path: Path) -> None:
    dataset = load_dataset("taobao", small_taobao(tmp_path))
    events = list(dataset.events())
    assert named(events) == [
        ("Click", "taobao-0"),
        ("Item", "taobao-item-0"),
        ("Click", "taobao-1"),
        ("Click", "taobao-2"),
        ("Item", "taobao-item-2"),
        ("Purchase", "taobao-3"),
    ]
    click, entry = events[0], events[1]
    assert isinstance(entry, Item)
    assert (entry.item, entry.category, entry.timestamp) == ("10", "7", 100.001)
    assert isinstance(click, Click)
    assert (click.user, click.item, click.session, click.timestamp) == ("1", "10", None, 100.0)
    assert dataset.rejected == {"unknown_behaviour": 1}


def test_online_retail_lines_are_purchases_of_an_invoice(tmp_path: Path) -> None:
    dataset = load_dataset("online-retail", small_retail(tmp_path))
    events = list(dataset.events())
    assert named(events) == [
        ("Purchase", "online-retail-0"),
        ("Item", "online-retail-item-0"),
        ("Purchase", "online-retail-1"),
        ("Item", "online-retail-item-1"),
        ("Purchase", "online-retail-2"),
        ("Item", "online-retail-item-2"),
    ]
    assert [(e.title, e.price) for e in events if isinstance(e, Item)] == [
        (None, 2.5),
        ("TEA POT", 2.5),
        ("CUP", 1.25),
    ]
    bought, guest = events[0], events[4]
    assert isinstance(bought, Purchase)
    assert isinstance(guest, Purchase)
    assert (bought.user, bought.session, bought.quantity, bought.price) == (
        "17850",
        "536365",
        6,
        2.5,
    )
    assert bought.timestamp == 1291191960.0
    assert guest.user == "guest-536366"
    assert dataset.rejected == {
        "adjustment": 1,
        "cancellation": 1,
        "negative_price": 1,
        "no_quantity": 1,
    }


def test_diginetica_rows_are_spread_evenly_over_their_week(tmp_path: Path) -> None:
    dataset = load_dataset("diginetica", small_diginetica(tmp_path))
    events = [event for event in dataset.events() if isinstance(event, Click)]
    day = 86400.0
    start = events[0].timestamp
    assert [(e.timestamp - start) / day for e in events] == [0, 1.75, 3.5, 5.25, 7, 10.5]
    assert [(e.user, e.session, e.item) for e in events][:2] == [("5", "5", "1"), ("6", "6", "2")]


def test_ml_100k_ratings_are_clicks_on_films_with_title_genre_and_year(tmp_path: Path) -> None:
    dataset = load_dataset("ml-100k", small_ml_100k(tmp_path))
    films = {e.item: e for e in dataset.events() if isinstance(e, Item)}
    assert [films[i].title for i in ("10", "11", "12")] == ["Toy Story", "Old One", "Odd One"]
    assert [films[i].category for i in ("10", "11", "12")] == [
        "Animation|Comedy",
        "Drama",
        "Comedy",
    ]
    assert [films[i].created for i in ("10", "11", "12")] == [788918400.0, None, None]
    clicks = [e for e in dataset.events() if isinstance(e, Click)]
    assert [(e.user, e.item) for e in clicks] == [
        ("1", "10"),
        ("2", "11"),
        ("1", "12"),
        ("1", "10"),
    ]


def test_a_catalogue_can_be_there_before_anything_is_used(tmp_path: Path) -> None:
    path = small_ml_100k(tmp_path)
    items = pl.read_parquet(tmp_path / "log-items.parquet")
    late = pl.when(pl.col("item_id") == 12).then(pl.lit("1970")).otherwise("release_year")
    items.with_columns(release_year=late).write_parquet(tmp_path / "log-items.parquet")
    names = [e.item for e in load_dataset("ml-100k", path, "release").events()]
    assert names[:3] == ["11", "12", "10"]
    assert names[3:] == ["10", "11", "12", "10"]
    at_use = [e.item for e in load_dataset("ml-100k", path).events()]
    assert at_use == ["10", "10", "11", "11", "12", "12", "10"]
    times = [e.timestamp for e in load_dataset("ml-100k", path, "release").events()]
    assert times == sorted(times)


def test_ml_100k_does_without_its_catalogue(tmp_path: Path) -> None:
    path = small_ml_100k(tmp_path)
    (tmp_path / "log-items.parquet").unlink()
    assert all(isinstance(event, Click) for event in load_dataset("ml-100k", path).events())


def test_rows_out_of_time_order_are_sorted_and_keep_their_ids(tmp_path: Path) -> None:
    rows = [(1, 10, 4, 1002), (2, 11, 5, 1001), (3, 12, 3, 1002)]
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    events = load_dataset("ml-100k", write(tmp_path, frame)).events()
    assert [event.event_id for event in events] == ["ml-100k-1", "ml-100k-0", "ml-100k-2"]


def test_rows_without_ids_or_time_are_rejected_with_their_reason(tmp_path: Path) -> None:
    rows = [(1, 10, 4, 1000), (None, 11, 5, 1001), (3, None, 3, 1002), (3, 10, 3, None)]
    frame = pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row")
    dataset = load_dataset("ml-100k", write(tmp_path, frame))
    assert [event.event_id for event in dataset.events()] == ["ml-100k-0"]
    assert dataset.rejected == {"missing_id": 2, "missing_time": 1}


@pytest.mark.parametrize(
    ("name", "events", "rejected"),
    [
        ("taobao", {Click: 82_690, Purchase: 1_750, Item: 55_344}, {}),
        (
            "online-retail",
            {Purchase: 531_282, Item: 3_980},
            {"adjustment": 3, "cancellation": 9_288, "no_quantity": 1_336},
        ),
        ("diginetica", {Click: 993_483}, {}),
        ("ml-100k", {Click: 100_000, Item: 1_682}, {}),
    ],
)
def test_real_data_loses_nothing(
    name: str, events: dict[type[Event], int], rejected: dict[str, int]
) -> None:
    dataset = load_dataset(name, real(name))
    numbers = dict(
        dataset.frame.filter(pl.col("reason").is_null())["kind"].value_counts().iter_rows()
    )
    kinds = {Click: 0, Purchase: 1, Item: 3}
    assert numbers == {kinds[kind]: count for kind, count in events.items()}
    assert dataset.rejected == rejected
    assert dataset.frame["watermark"].is_sorted()


def test_a_wrong_file_is_named_with_what_was_expected_and_found(tmp_path: Path) -> None:
    path = small_diginetica(tmp_path)
    with pytest.raises(DataError, match=r"not taobao.*user, item.*found period, session, item"):
        load_dataset("taobao", path)


def test_what_is_no_data_set_at_all_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'netflix'.*taobao"):
        load_dataset("netflix", tmp_path / "x.parquet")
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("taobao", tmp_path / "x.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    with pytest.raises(DataError, match="is no parquet file, or a damaged one"):
        load_dataset("taobao", text)
    frame = pl.DataFrame({"user": [1], "item": [1], "rating": [1], "timestamp": ["noon"]})
    with pytest.raises(DataError, match=r"is not ml-100k.*noon"):
        load_dataset("ml-100k", write(tmp_path, frame))

"""Batches that cannot be unpacked: passed over, by a node and by a recording of the same topic."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.broker import EmbeddedBroker
from streams.log import read_log
from streams.order import KafkaRecord
from streams.record import record_topics
from streams.source import BatchSource
from streams.unreadable import Unreadable
from tests.batches import constantly, publish_unreadable
from tests.test_source import places, read, settings_for, write


@pytest.mark.parametrize(
    ("codec", "damaged"),
    [(0, True), (1, False), (2, False), (3, False), (4, False), (5, False)],
)
def test_a_recording_holds_what_a_node_learns(
    embedded_broker: EmbeddedBroker, tmp_path: Path, codec: int, damaged: bool
) -> None:
    for number in range(3):
        write(embedded_broker.address, [("a", i % 3, 1000 + i) for i in range(30)])
        publish_unreadable(embedded_broker.address, "a", number % 2, codec, 4, damaged=damaged)
    settings = settings_for(embedded_broker.address, ["a"])
    records = read(settings, 90 + 12)
    readable = [record for record in records if not isinstance(record, Unreadable)]
    assert len(readable) == 90
    record_topics(settings, tmp_path / "log.parquet")
    log, _ = read_log(tmp_path / "log.parquet")
    columns = log.select("topic", "partition", "offset")
    assert sorted(columns.rows()) == sorted(places(readable))


def test_what_arrives_beside_a_batch_that_cannot_be_read_is_not_lost(
    embedded_broker: EmbeddedBroker,
) -> None:
    write(embedded_broker.address, [("a", 0, 1000), ("a", 1, 1000)])

    def live(source: BatchSource, records: list[KafkaRecord]) -> None:
        if len(records) > 50 * len(published):
            publish_unreadable(embedded_broker.address, "a", 0, 5, 2)
            published.append(2)

    published: list[int] = []
    with constantly(embedded_broker.address, "a", 1):
        records = read(settings_for(embedded_broker.address, ["a"]), 400, during=live)
    unreadable = [record.offset for record in records if isinstance(record, Unreadable)]
    assert len(unreadable) >= 2
    assert unreadable == list(range(1, len(unreadable) + 1))
    others = [record.offset for record in records if record.partition == 1]
    assert others == list(range(len(others)))

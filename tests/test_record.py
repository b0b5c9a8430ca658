"""Recording: what is in the topics is in the file, by range, and so is what a replay must know."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from learners.base import EngineConfig
from learners.errors import BrokerError, DataError, SettingsError, TopicError
from serving.cli import app
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker, free_port
from streams.log import SCHEMA, LogAbout, LogWriter, frame_of, in_order, read_log, records_of
from streams.order import Record, merge_order
from streams.publisher import Publisher
from streams.record import Range, TopicReader, record_topics
from streams.settings import Settings, TopicSettings
from streams.topics import create_topics
from tests.batches import publish_unreadable

CLICKS, PURCHASES = "everlearn.clicks", "everlearn.purchases"
START = datetime(2025, 6, 1, tzinfo=UTC).timestamp()


def publish(broker: str, topic: str, count: int, *, minutes: int = 1, first: int = 0) -> None:
    """Events a minute apart from the start, user by user in turn."""
    with Publisher(broker) as publisher:
        for i in range(first, first + count):
            value = {"event_id": f"{topic}-{i}", "timestamp": START, "user": "u", "item": "i"}
            at = round((START + i * minutes * 60) * 1000)
            publisher.put(topic, f"u{i}".encode(), json.dumps(value).encode(), at)
        publisher.flush()


def test_all_that_is_in_the_topics_is_in_the_file(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings(broker=embedded_broker.address)
    publish(settings.broker, CLICKS, 500)
    publish(settings.broker, PURCHASES, 20)
    with Publisher(settings.broker) as publisher:
        publisher.put("everlearn.items", b"teapot", None, 1000)
        publisher.put("elsewhere", b"k", b"v", 1000)
    seen: list[tuple[int, int]] = []
    file = tmp_path / "log.parquet"
    counts = record_topics(settings, file, progress=lambda *at: seen.append(at))
    assert counts == {CLICKS: 500, PURCHASES: 20, "everlearn.items": 1}
    assert seen[-1] == (521, 521)
    log, about = read_log(file)
    assert dict(log.schema) == SCHEMA
    clicks = log.filter(topic=CLICKS)
    ids = {json.loads(value)["event_id"] for value in clicks["value"]}
    assert ids == {f"{CLICKS}-{i}" for i in range(500)}
    assert clicks.group_by("partition").agg(pl.col("offset").sort().is_sorted())["offset"].all()
    assert log.filter(topic="everlearn.items").rows()[0][3:] == (1000, b"teapot", None)
    assert about.topics[CLICKS] == settings.topics["clicks"]
    assert not list(tmp_path.glob(".*")), "no parts are left behind"


def test_what_matters_for_a_replay_is_in_the_file(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    engine = EngineConfig(seed=5, evaluate_one_in=3, transition_half_lives_seconds=(9.0, 8.0))
    web = TopicSettings(name="web", type="click", fields={"user": "visitor"}, timestamp_unit="ms")
    settings = Settings(broker=embedded_broker.address, engine=engine, topics={"clicks": web})
    publish(settings.broker, "web", 3)
    record_topics(settings, tmp_path / "log.parquet")
    _, about = read_log(tmp_path / "log.parquet")
    assert about.engine == engine
    assert about.topics == {"web": web}


def test_a_range_of_offsets_or_times_is_recorded(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker.address, CLICKS, 120)
    settings = Settings(broker=embedded_broker.address)
    assert recorded(settings, tmp_path, "2025-06-01T00:30", "2025-06-01T01:00") == set(
        range(30, 60)
    )
    assert recorded(settings, tmp_path, None, "2025-06-01T02:30:00+02:00") == set(range(30))
    by_offset = record_topics(settings, tmp_path / "log.parquet", chosen=Range.parse("2", "5"))
    log, _ = read_log(tmp_path / "log.parquet")
    assert set(log["offset"]) == {2, 3, 4}
    assert by_offset[CLICKS] == log.height == 12


def recorded(settings: Settings, folder: Path, start: str | None, stop: str | None) -> set[int]:
    file = folder / "log.parquet"
    record_topics(settings, file, [CLICKS], chosen=Range.parse(start, stop))
    log, _ = read_log(file)
    return {int(json.loads(value)["event_id"].rsplit("-", 1)[1]) for value in log["value"]}


@pytest.mark.kafka
def test_a_range_of_times_is_found_by_apache_kafka(
    apache_kafka: ApacheKafka, prefix: str, tmp_path: Path
) -> None:
    topic = TopicSettings(name=f"{prefix}clicks", type="click", retention_days=-1)
    settings = Settings(broker=apache_kafka.address, topics={"clicks": topic})
    create_topics(settings)
    publish(settings.broker, topic.name, 120)
    for start, stop, expected in (
        ("2025-06-01T00:30", "2025-06-01T01:00", 30),
        ("2025-06-01T01:50", None, 10),
        ("2025-06-02", None, 0),
    ):
        chosen = Range.parse(start, stop)
        counts = record_topics(settings, tmp_path / "log", [topic.name], chosen=chosen)
        assert counts == {topic.name: expected}
    reader = TopicReader(settings, [topic.name], chosen=Range.parse("2025-06-01T01:50", None))
    assert reader.total < 30, "it does not read from the beginning"
    reader.close()


def test_it_stops_at_the_ends_of_its_start_unless_it_follows(
    embedded_broker: EmbeddedBroker,
) -> None:
    publish(embedded_broker.address, CLICKS, 10)
    settings = Settings(broker=embedded_broker.address)
    reader = TopicReader(settings)
    publish(embedded_broker.address, CLICKS, 10, first=10)
    assert sum(frame.height for frame in reader.frames()) == 10
    reader.close()

    following = TopicReader(settings, follow=True)
    frames = following.frames()
    got = next(frames).height
    more = threading.Thread(target=publish, args=(embedded_broker.address, CLICKS, 5), daemon=True)
    more.start()
    while got < 25:
        got += next(frames).height
    more.join()
    following.close()
    assert got == 25


@pytest.mark.parametrize("codec", [1, 5])
def test_batches_that_nobody_can_decompress_are_passed_over(
    embedded_broker: EmbeddedBroker, tmp_path: Path, codec: int
) -> None:
    broker = embedded_broker.address
    publish(broker, CLICKS, 40)
    publish_unreadable(broker, CLICKS, 1, codec, 5)
    publish(broker, CLICKS, 40, first=40)
    publish_unreadable(broker, CLICKS, 2, codec, 3)
    assert record_topics(Settings(broker=broker), tmp_path / "log.parquet") == {CLICKS: 80}
    log, _ = read_log(tmp_path / "log.parquet")
    assert len({json.loads(value)["event_id"] for value in log["value"]}) == 80


def test_a_large_log_is_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.PART_ROWS", 10)
    records = [Record(CLICKS, 0, i, i, None, b"v") for i in range(35)]
    with LogWriter(tmp_path / "log.parquet", LogAbout({})) as writer:
        for start in range(0, 35, 7):
            writer.append(frame_of(records[start : start + 7]))
    assert records_of(read_log(tmp_path / "log.parquet")[0]) == records


def test_a_killed_recording_is_kept_as_a_log_when_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streams.log.PART_ROWS", 10)
    records = [Record(CLICKS, 0, i, i, None, b"v") for i in range(25)]
    killed = LogWriter(tmp_path / "log.parquet", LogAbout({}, EngineConfig(seed=7)))
    killed.__enter__()
    for record in records:
        killed.append(frame_of([record]))
    with LogWriter(tmp_path / "log.parquet", LogAbout({})) as writer:
        writer.append(frame_of(records[:1]))
    rescued, about = read_log(tmp_path / "log.parquet.rescued-1")
    assert records_of(rescued) == records[:20]
    assert about.engine.seed == 7
    assert "log.parquet.rescued-1" in caplog.text
    assert records_of(read_log(tmp_path / "log.parquet")[0]) == records[:1]


def test_a_log_was_recorded_when_it_ended(tmp_path: Path) -> None:
    about = LogAbout.of(Settings(), [])
    with LogWriter(tmp_path / "log.parquet", about) as writer:
        before = time.time()
        writer.append(frame_of([Record(CLICKS, 0, 0, 0, None, b"v")]))
    assert before <= read_log(tmp_path / "log.parquet")[1].recorded_at <= time.time()


def test_a_recording_that_gets_nothing_says_where(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.record.SILENCE_SECONDS", 1.0)
    publish(embedded_broker.address, CLICKS, 1)
    publish_unreadable(embedded_broker.address, CLICKS, 1, 0, 5)  # damaged before its checksum
    with pytest.raises(BrokerError, match=f"{CLICKS}/1 at .*--from"):
        record_topics(Settings(broker=embedded_broker.address), tmp_path / "log.parquet")


def test_an_interrupted_recording_leaves_the_file_of_before(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    with LogWriter(file, LogAbout({})) as writer:
        writer.append(frame_of([Record(CLICKS, 0, 0, 0, None, b"old")]))
    with pytest.raises(ZeroDivisionError), LogWriter(file, LogAbout({})) as writer:
        writer.append(frame_of([Record(CLICKS, 0, 0, 1 // 0, None, b"new")]))
    assert read_log(file)[0]["value"].to_list() == [b"old"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


parts = st.sampled_from([("a", 0), ("a", 1), ("b", 0)])


@given(st.lists(st.tuples(parts, st.integers(0, 20)), max_size=60))
def test_a_log_has_the_order_in_which_a_node_learns(log: list[tuple[tuple[str, int], int]]) -> None:
    offsets = dict.fromkeys([("a", 0), ("a", 1), ("b", 0)], -1)
    records = []
    for part, at in log:
        offsets[part] += 1
        records.append(Record(*part, offsets[part], at, None, b"v"))
    expected = merge_order(records)
    ordered, watermarks = in_order(
        frame_of([*records, *records]).sample(fraction=1.0, shuffle=True)
    )
    assert records_of(ordered) == expected
    assert watermarks.tolist() == sorted(watermarks.tolist())


def test_the_record_command_prints_what_it_wrote(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker.address, CLICKS, 40)
    file = tmp_path / "log.parquet"
    words = ["record", str(file), "--broker", embedded_broker.address]
    printed = CliRunner().invoke(app, [*words, "--topics", CLICKS, "--json"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout) == {
        "file": str(file),
        "records": 40,
        "topics": {CLICKS: 40},
    }
    shown = CliRunner().invoke(app, [*words, "--to", "2"])
    assert "8  records in" in shown.stdout


def test_a_recording_that_follows_keeps_what_it_has_when_it_is_stopped(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker.address, CLICKS, 10)
    settings = Settings(broker=embedded_broker.address)
    file = tmp_path / "log.parquet"
    reached: list[int] = []

    def press_ctrl_c(read: int, total: int) -> None:
        if not reached:
            publish(embedded_broker.address, CLICKS, 10, first=10)
        reached.append(read)
        if read == 20:
            raise KeyboardInterrupt

    assert record_topics(settings, file, follow=True, progress=press_ctrl_c) == {CLICKS: 20}
    assert read_log(file)[0].height == 20


def test_what_cannot_be_recorded_is_said_in_words(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = Settings(broker=embedded_broker.address)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TopicError, match="has no topic"):
        TopicReader(settings)
    publish(settings.broker, CLICKS, 1)
    with pytest.raises(TopicError, match="no event topic is named 'web'"):
        TopicReader(settings, ["web"])
    with pytest.raises(TopicError, match=f"has no topic {PURCHASES}"):
        TopicReader(settings, [PURCHASES])
    with pytest.raises(SettingsError, match="neither an offset nor a time"):
        Range.parse("yesterday", None)
    with pytest.raises(DataError, match="cannot write"):
        record_topics(settings, tmp_path / "file" / "log.parquet")
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=nobody):
        TopicReader(Settings(broker=nobody))


def test_a_file_that_is_no_recorded_log_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_log(tmp_path / "log.parquet")
    pl.DataFrame({"user": [1]}).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(DataError, match=r"its columns are user.*--dataset"):
        read_log(tmp_path / "users.parquet")
    (tmp_path / "text").write_text("text")
    with pytest.raises(DataError, match="cannot be read as a recorded log"):
        read_log(tmp_path / "text")
    newer = json.dumps({"format": 99})
    pl.DataFrame(schema=SCHEMA).write_parquet(tmp_path / "newer", metadata={"everlearn": newer})
    with pytest.raises(DataError, match="its format is 99"):
        read_log(tmp_path / "newer")

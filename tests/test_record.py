"""Recording: what is in the topics is in the file, by range, and so is what a replay must know."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from learners.base import EngineConfig
from learners.errors import BrokerError, DataError, SettingsError, TopicError
from serving.cli import app
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker, free_port
from streams.log import SCHEMA, read_log
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
    ):
        chosen = Range.parse(start, stop)
        counts = record_topics(settings, tmp_path / "log", [topic.name], chosen=chosen)
        assert counts == {topic.name: expected}
    reader = TopicReader(settings, [topic.name], chosen=Range.parse("2025-06-01T01:50", None))
    assert reader.total < 30, "it does not read from the beginning"
    reader.close()
    with pytest.raises(DataError, match="nothing was recorded"):
        record_topics(settings, tmp_path / "log", chosen=Range.parse("2025-06-02", None))


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


def test_a_recording_that_gets_nothing_says_where(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.record.SILENCE_SECONDS", 1.0)
    publish(embedded_broker.address, CLICKS, 1)
    publish_unreadable(embedded_broker.address, CLICKS, 1, 0, 5)  # damaged before its checksum
    with pytest.raises(BrokerError, match=f"{CLICKS}/1 at .*--from"):
        record_topics(Settings(broker=embedded_broker.address), tmp_path / "log.parquet")


@pytest.mark.parametrize(
    ("start", "stop"), [("5", "3"), ("5", "5"), (None, "0"), ("2025-06-02", "2025-06-01")]
)
def test_a_range_that_can_hold_nothing_is_refused(start: str | None, stop: str) -> None:
    with pytest.raises(SettingsError, match=f"nothing lies between --from .* and --to {stop}"):
        Range.parse(start, stop)


def test_a_range_without_records_leaves_the_file_of_before(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker.address, CLICKS, 10)
    file = tmp_path / "log.parquet"
    file.write_bytes(b"of before")
    words = ["record", str(file), "--broker", embedded_broker.address, "--from", "2040-01-01"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 1
    assert "nothing was recorded" in str(said.exception)
    assert f"{file} stays as it was" in str(said.exception)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of before"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "it is a folder; name a file in it"),
        ("missing/log.parquet", "there is no folder .*missing"),
        ("file/log.parquet", "is a file, no folder"),
        ("pipe", "it is no ordinary file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_nothing_can_be_written_is_told_before_the_broker_is_asked(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    os.mkfifo(tmp_path / "pipe")
    nobody = Settings(broker=f"127.0.0.1:{free_port()}")
    with pytest.raises(DataError, match=f"cannot write .*{message}"):
        record_topics(nobody, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_full_disk_as_simulated_leaves_the_file_of_before(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    def fill_disk(frame: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise pl.exceptions.ComputeError("parquet: underlying IO error (os error 28)")

    monkeypatch.setattr("streams.log.PART_ROWS", 2)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", fill_disk)
    publish(embedded_broker.address, CLICKS, rows)
    file = tmp_path / "log.parquet"
    file.write_bytes(b"of before")
    with pytest.raises(DataError, match="No space left on device; free space or name another"):
        record_topics(Settings(broker=embedded_broker.address), file)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of before"]


def test_where_the_broker_has_dropped_older_events_is_told(
    embedded_broker: EmbeddedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(broker=embedded_broker.address)
    with Publisher(settings.broker) as publisher:
        for _ in range(150):
            publisher.put(CLICKS, b"u1", b"x" * 50_000)
        publisher.flush()
    record_topics(settings, tmp_path / "log.parquet")
    log, _ = read_log(tmp_path / "log.parquet")
    partition, first = log.select("partition", "offset").row(0)
    assert first > 0
    told = f"the broker has dropped older events: {CLICKS}/{partition} begins at {first}"
    assert [record.message for record in caplog.records] == [told]
    caplog.clear()
    record_topics(settings, tmp_path / "log.parquet", chosen=Range.parse(str(first + 1), None))
    assert not caplog.records, "what was not asked for is not missed"


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


def test_a_recording_that_follows_ends_when_all_partitions_have_passed_its_end(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    publish(embedded_broker.address, CLICKS, 12)
    settings, file = Settings(broker=embedded_broker.address), tmp_path / "log.parquet"
    more: list[int] = []

    def send_more(read: int, total: int) -> None:
        if not more:
            publish(embedded_broker.address, CLICKS, 40, first=12)
        more.append(read)

    chosen = Range.parse(None, "5")
    counts = record_topics(settings, file, chosen=chosen, follow=True, progress=send_more)
    assert counts == {CLICKS: 20}, "five of each of four partitions"
    assert set(read_log(file)[0]["offset"]) == set(range(5))


def test_a_recording_that_follows_ends_with_the_chosen_time(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(embedded_broker.address, CLICKS, 30)
    settings, file = Settings(broker=embedded_broker.address), tmp_path / "log.parquet"
    passed = Range.parse(None, "2025-06-01T00:10")
    assert record_topics(settings, file, chosen=passed, follow=True) == {CLICKS: 10}

    before = START + 60
    monkeypatch.setattr("streams.record.time.time", lambda: before)
    assert record_topics(settings, file, chosen=passed, follow=True) == {CLICKS: 10}, "by records"


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


def test_a_recording_that_is_stopped_before_its_end_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*words: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30.0)

    monkeypatch.setattr("streams.record.record_topics", press)
    file = tmp_path / "log.parquet"
    said = CliRunner().invoke(app, ["record", str(file)])
    assert said.exit_code == 128 + signal.SIGTERM
    assert said.stderr == f"stopped before the end: nothing is written to {file}\n"

"""`everlearn send`: good lines reach their topics, bad ones are told with number and reason."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import app
from streams.broker import EmbeddedBroker, free_port
from streams.decode import Gate
from streams.events import Click, Erasure, Event, Item, Purchase
from streams.log import records_of
from streams.record import TopicReader
from streams.settings import Settings

GOOD: list[dict[str, Any]] = [
    {"type": "click", "event_id": "e1", "timestamp": 5.0, "user": "anna", "item": "teapot"},
    {"type": "purchase", "event_id": "e2", "timestamp": 6, "user": "anna", "item": "teapot"},
    {"type": "item", "event_id": "e3", "timestamp": 1, "item": "teapot", "price": 12.5},
    {"type": "erasure", "event_id": "e4", "timestamp": 9, "user": "bert"},
]


def events_in(broker: str) -> dict[str, Event]:
    settings = Settings(broker=broker)
    reader = TopicReader(settings)
    records = [record for frame in reader.frames() for record in records_of(frame)]
    reader.close()
    events = [Gate(settings.event_topics()).decode_one(record) for record in records]
    return {event.event_id: event for event in events if isinstance(event, Event)}


def send(broker: str, text: str, *words: str) -> Any:
    return CliRunner().invoke(app, ["send", "-", "--broker", broker, *words], input=text)


def test_a_file_of_events_is_published_to_their_topics(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("\n\n".join(map(json.dumps, GOOD)) + "\n")
    sent = CliRunner().invoke(app, ["send", str(file), "--broker", embedded_broker.address])
    assert sent.exit_code == 0, sent.output
    assert sent.stdout == "4 events sent, 0 lines rejected\n"
    found = events_in(embedded_broker.address)
    kinds = {"e1": Click, "e2": Purchase, "e3": Item, "e4": Erasure}
    assert {name: type(event) for name, event in found.items()} == kinds
    assert found["e1"] == Click(event_id="e1", timestamp=5.0, user="anna", item="teapot")


def test_id_and_time_are_made_where_a_line_has_none(embedded_broker: EmbeddedBroker) -> None:
    line = '{"type": "click", "user": "anna", "item": "teapot"}\n'
    assert send(embedded_broker.address, line * 2).exit_code == 0
    found = events_in(embedded_broker.address)
    assert len(found) == 2
    assert all(abs(event.timestamp - time.time()) < 60 for event in found.values())


def test_a_file_as_windows_writes_it_is_sent_whole(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(
        "\r\n".join(["\ufeff" + json.dumps(GOOD[0]), *map(json.dumps, GOOD[1:])]).encode()
    )
    sent = CliRunner().invoke(app, ["send", str(file), "--broker", embedded_broker.address])
    assert (sent.exit_code, sent.stdout) == (0, "4 events sent, 0 lines rejected\n")


def test_bad_lines_are_told_and_the_good_ones_are_sent(embedded_broker: EmbeddedBroker) -> None:
    lines = [
        json.dumps(GOOD[0]),
        "no json",
        '{"type": "click", "user": "anna"}',
        '{"type": "wish", "user": "anna", "item": "teapot"}',
        '{"user": "anna", "item": "teapot"}',
        '{"type": "click", "user": "anna", "item": "teapot", "timestamp": 99999999999}',
        json.dumps({"type": "click", "user": "u" * 129, "item": "teapot"}),
        '["click"]',
        "",
        json.dumps(GOOD[1]),
    ]
    sent = send(embedded_broker.address, "\n".join(lines), "--json")
    assert sent.exit_code == 1
    row = json.loads(sent.stdout)
    assert row["sent"] == 2
    assert [(bad["line"], bad["reason"]) for bad in row["rejected"]] == [
        (2, "malformed_json"),
        (3, "bad_field"),
        (4, "unknown_type"),
        (5, "unknown_type"),
        (6, "future_timestamp"),
        (7, "id_too_long"),
        (8, "bad_field"),
    ]
    assert "line 3: bad_field: " in sent.stderr
    assert "item" in sent.stderr
    assert set(events_in(embedded_broker.address)) == {"e1", "e2"}


def test_of_a_wrong_file_ten_lines_are_told_and_all_are_counted(
    embedded_broker: EmbeddedBroker,
) -> None:
    text = "no json\n" * 1200 + '{"type": "wish"}\n' + json.dumps(GOOD[0])
    sent = send(embedded_broker.address, text)
    assert sent.exit_code == 1
    assert len(sent.stderr.splitlines()) == 10
    assert sent.stdout == (
        "1 event sent, 1,201 lines rejected (1,200 malformed_json, 1 unknown_type)\n"
    )
    row = json.loads(send(embedded_broker.address, text, "--json").stdout)
    assert row["reasons"] == {"malformed_json": 1200, "unknown_type": 1}
    assert len(row["rejected"]) == 10


def test_a_file_that_is_not_there_is_named(embedded_broker: EmbeddedBroker) -> None:
    words = ["send", "/nowhere/events.jsonl", "--broker", embedded_broker.address]
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code == 1
    assert "/nowhere/events.jsonl" in str(failed.exception)


def test_without_a_broker_it_says_so() -> None:
    failed = send(f"127.0.0.1:{free_port()}", "")
    assert failed.exit_code == 1
    assert "127.0.0.1" in str(failed.exception)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_nothing_to_send_is_no_error(embedded_broker: EmbeddedBroker, text: str) -> None:
    assert "0 events sent" in send(embedded_broker.address, text).stdout

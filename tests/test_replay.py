"""Replay: one log, one result, from whatever it is read and however often it is stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from learners.base import EngineConfig
from learners.checkpoint import hold_folder
from learners.errors import CheckpointError, DataError, SettingsError
from streams.broker import EmbeddedBroker
from streams.events import Event
from streams.importer import EventWriter
from streams.publisher import Publisher
from streams.record import record_topics
from streams.replay import ReplayResult, replay_log
from streams.settings import Settings
from streams.shop import Shop, ShopConfig

DATA = Path(os.environ.get("EVERLEARN_DATA", Path(__file__).parents[2] / "shared" / "data"))
SMALL = EngineConfig(users=2000, items=1000, sessions=2000, dedupe_events=10_000)
SETTINGS = Settings(engine=SMALL)
START = 1_750_000_000.0
FILES = {
    "taobao": "taobao-9days.parquet",
    "diginetica": "diginetica-weekly.parquet",
    "online-retail": "online-retail.parquet",
    "ml-100k": "ml-100k.parquet",
}
SAMPLE, MOST = 8, 300_000  # of the data sets: enough to tell, in seconds


def shop_events(count: int = 1500, seed: int = 1) -> list[Event]:
    shop = Shop(ShopConfig(users=150, items=100, seed=seed))
    happened = shop.step(START + 2.0 * np.arange(float(count))).events()
    return [*shop.catalogue(START), *happened]


def write_lines(folder: Path, events: Sequence[Event]) -> Path:
    path = folder / "log.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, events)) + b"\n")
    return path


def publish(settings: Settings, events: Sequence[Event]) -> None:
    with Publisher(settings.broker) as publisher:
        writer = EventWriter(publisher, settings)
        for event in events:
            writer.write(event)
        publisher.flush()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("log"), shop_events())


@pytest.fixture(scope="module")
def replayed(lines: Path) -> ReplayResult:
    return replay_log(lines, settings=SETTINGS)


def test_a_replay_says_how_well_each_event_was_foreseen(replayed: ReplayResult) -> None:
    report = replayed.report
    assert report["events"] == 1600
    assert report["learnt"]["click"] + report["learnt"]["purchase"] == 1500
    assert report["rejected"] == {}
    assert report["microseconds_per_event"] > 0
    assert replayed.hit_rate(20) > 1.3 * replayed.hit_rate(20, "popularity") > 0
    assert replayed.hit_rate(10) <= replayed.hit_rate(20)
    assert report["purchases"]["blend"]["n"] > 100


def test_it_recommends_as_a_node_would_after_the_last_event(replayed: ReplayResult) -> None:
    last = shop_events()[-1]
    items = replayed.recommend(last.user, k=5)  # type: ignore[attr-defined]
    assert len(items) == 5
    assert items != replayed.recommend("nobody", k=5)


def test_figures_that_are_not_measured_are_said_in_words(replayed: ReplayResult) -> None:
    with pytest.raises(SettingsError, match=r"at 7 is not measured; there are hr@10, hr@20"):
        replayed.hit_rate(7)
    with pytest.raises(SettingsError, match=r"no source 'magic'; there are blend"):
        replayed.hit_rate(20, "magic")


def test_two_runs_have_one_fingerprint_and_other_events_another(
    lines: Path, replayed: ReplayResult, tmp_path: Path
) -> None:
    assert replay_log(lines, settings=SETTINGS).fingerprint == replayed.fingerprint
    other = write_lines(tmp_path, shop_events(seed=2))
    assert replay_log(other, settings=SETTINGS).fingerprint != replayed.fingerprint


@pytest.mark.parametrize("stops", [(1,), (700,), (333, 800, 801)])
def test_a_replay_in_pieces_ends_with_the_same_fingerprint(
    lines: Path, replayed: ReplayResult, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:
        part = replay_log(lines, settings=SETTINGS, stop_at=stop, checkpoint=tmp_path / "state")
        assert part.report["events"] == stop
    whole = replay_log(lines, settings=SETTINGS, checkpoint=tmp_path / "state")
    assert whole.fingerprint == replayed.fingerprint
    assert whole.metrics == replayed.metrics
    again = replay_log(lines, settings=SETTINGS, checkpoint=tmp_path / "state")
    assert again.fingerprint == replayed.fingerprint, "nothing is left to learn"


def test_a_folder_goes_on_with_its_own_log_only(tmp_path: Path) -> None:
    state, line = tmp_path / "state", '{"type": "click", "user": "%s", "item": "sofa"}\n'
    monday, tuesday = tmp_path / "mon.jsonl", tmp_path / "tue.jsonl"
    monday.write_text("".join(line % user for user in ("ann", "bob")))
    tuesday.write_text("".join(line % user for user in ("cas", "dov", "eve")))
    learnt = replay_log(monday, settings=SETTINGS, checkpoint=state)
    told = "state holds what was learnt from mon.jsonl, and tue.jsonl does not begin with the same"
    with pytest.raises(DataError, match=f"{told} 2 rows: name another folder with --checkpoint"):
        replay_log(tuesday, settings=SETTINGS, checkpoint=state)
    moved = tmp_path / "moved" / "log.jsonl"
    moved.parent.mkdir()
    moved.write_text(monday.read_text() + tuesday.read_text())
    grown = replay_log(moved, settings=SETTINGS, checkpoint=state)
    assert (learnt.report["events"], grown.report["events"]) == (2, 5)
    assert grown.fingerprint == replay_log(moved, settings=SETTINGS).fingerprint
    with pytest.raises(DataError, match=r"learnt from log.jsonl, and mon.jsonl does not begin"):
        replay_log(monday, settings=SETTINGS, checkpoint=state)


def test_a_folder_goes_on_with_its_own_data_set_only(tmp_path: Path) -> None:
    first, other = tmp_path / "first.parquet", tmp_path / "other.parquet"
    for path, user in ((first, 7), (other, 8)):
        columns = {"user": [user] * 2, "item": [1, 2], "rating": [5, 4]}
        pl.DataFrame(columns | {"timestamp": [1000, 2000]}).write_parquet(path)
    replay_log(first, dataset="ml-100k", settings=SETTINGS, checkpoint=tmp_path / "state")
    replay_log(first, dataset="ml-100k", settings=SETTINGS, checkpoint=tmp_path / "state")
    with pytest.raises(DataError, match=r"learnt from first.parquet, and other.parquet does not"):
        replay_log(other, dataset="ml-100k", settings=SETTINGS, checkpoint=tmp_path / "state")


def test_a_folder_does_not_mix_kinds_of_logs_nor_go_back(tmp_path: Path) -> None:
    lines = write_lines(tmp_path, shop_events(40))
    replay_log(lines, settings=SETTINGS, checkpoint=tmp_path / "state")
    told = f"state holds what was learnt from {lines.name}, and taobao.* is another kind of log"
    with pytest.raises(DataError, match=told):
        replay_log(
            data_set("taobao"), dataset="taobao", settings=SETTINGS, checkpoint=tmp_path / "state"
        )
    lines.write_text("\n" * 9 + lines.read_text())  # empty lines are none of the events
    state = tmp_path / "other"
    replay_log(lines, settings=SETTINGS, stop_at=100, checkpoint=state)
    with pytest.raises(DataError, match=r"holds 100 events of .*, --stop-at 39 is before that"):
        replay_log(lines, settings=SETTINGS, stop_at=39, checkpoint=state)
    onwards = replay_log(lines, settings=SETTINGS, stop_at=104, checkpoint=state)
    assert onwards.report["events"] == 104


def test_rejected_rows_are_counted_once_however_often_it_stops(tmp_path: Path) -> None:
    bad = [b"no json", b'{"type": "click"}', b""]
    good = [msgspec.json.encode(event) for event in shop_events(100)]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([*good[:150], *bad, *good[150:], b'{"type": "wish"}']))
    expected = {"bad_field": 1, "malformed_json": 1, "unknown_type": 1}
    assert replay_log(path, settings=SETTINGS).report["rejected"] == expected
    for stop in (151, 152, None):
        result = replay_log(path, settings=SETTINGS, stop_at=stop, checkpoint=tmp_path / "state")
    assert result.report["rejected"] == expected
    assert result.report["events"] == 200


def test_lines_without_id_or_time_are_given_the_same_ones_each_time(tmp_path: Path) -> None:
    told = [
        '{"type": "click", "user": "ann", "item": "sofa"}',
        "",
        '{"type": "click", "user": "ann", "item": "lamp", "timestamp": 1700000000}',
        '{"type": "click", "user": "eve", "item": "sofa", "event_id": "mine"}',
    ]
    made = [
        '{"type":"click","user":"ann","item":"sofa","event_id":"line-1","timestamp":1700000000}',
        '{"type":"click","user":"ann","item":"lamp","event_id":"line-3","timestamp":1700000000}',
        '{"type":"click","user":"eve","item":"sofa","event_id":"mine","timestamp":1700000000}',
    ]
    for name, lines in (("told", told), ("made", made)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    first = replay_log(tmp_path / "told.jsonl", settings=SETTINGS)
    assert (first.report["events"], first.report["rejected"]) == (3, {})
    for name in ("told", "made"):
        again = replay_log(tmp_path / f"{name}.jsonl", settings=SETTINGS)
        assert again.fingerprint == first.fingerprint
        assert again.engine.ledger()["lines/0"] == first.engine.ledger()["lines/0"]


def test_a_time_that_is_refused_is_not_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = '{"type": "click", "user": "u", "item": "i"}'
    path.write_text("\n".join([good, good[:-1] + ', "timestamp": 1750000000000}', good]))
    report = replay_log(path, settings=SETTINGS).report
    assert (report["events"], report["rejected"]) == (2, {"future_timestamp": 1})


def test_where_no_line_tells_a_time_a_second_passes_from_line_to_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"type": "click", "user": "ann", "item": "sofa"}\n' * 5)
    result = replay_log(path, settings=SETTINGS)
    assert (result.report["events"], result.engine.clock) == (5, 4.0)


@pytest.mark.parametrize(
    "url", ["kafka://", "kafka://host", "kafka://host:9092/clicks", "kafka:///"]
)
def test_a_broker_is_named_in_one_form(url: str) -> None:
    with pytest.raises(SettingsError, match=r"kafka://host:port: .* kafka://127.0.0.1:9092"):
        replay_log(url, settings=SETTINGS)


def test_a_recording_and_its_topics_have_one_fingerprint(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    node = Settings(broker=embedded_broker.address, engine=SMALL)
    publish(node, shop_events(600))
    record_topics(node, tmp_path / "log.parquet")
    recorded = replay_log(tmp_path / "log.parquet")
    topics = replay_log(f"kafka://{embedded_broker.address}", settings=SETTINGS)
    assert recorded.fingerprint == topics.fingerprint
    assert recorded.report["events"] == 700
    assert set(recorded.engine.positions) >= {"everlearn.clicks/0", "everlearn.items/3"}
    half = tmp_path / "half"
    replay_log(tmp_path / "log.parquet", stop_at=311, checkpoint=half)
    resumed = replay_log(tmp_path / "log.parquet", checkpoint=half)
    assert resumed.fingerprint == recorded.fingerprint
    assert resumed.engine.positions == recorded.engine.positions
    assert resumed.engine.watermarks == recorded.engine.watermarks


def test_a_recording_is_learnt_as_its_node_was_set(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Settings(broker=embedded_broker.address, engine=SMALL)
    publish(node, shop_events(600))
    log = tmp_path / "log.parquet"
    record_topics(node, log)
    sampled = replay_log(log)
    assert sampled.engine.config == SMALL
    assert 10 < sampled.metrics["blend"]["n"] < 80, "one in sixteen, as in the node"
    everything = replay_log(log, sample=1)
    assert everything.metrics["blend"]["n"] > 450
    monkeypatch.setenv("EVERLEARN_ENGINE__EVALUATE_ONE_IN", "2")
    assert 150 < replay_log(log).metrics["blend"]["n"] < 350
    settings = tmp_path / "everlearn.toml"
    settings.write_text("[engine]\nseed = 9\n")
    assert replay_log(log, settings=settings).engine.config.seed == 9


def test_a_folder_that_another_uses_is_left_alone(lines: Path, tmp_path: Path) -> None:
    with hold_folder(tmp_path, "node", ""):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(
            CheckpointError, match=rf"another node \(process {os.getpid()}\).*--che"
        ):
            replay_log(lines, settings=SETTINGS, checkpoint=tmp_path)
        assert sorted(tmp_path.rglob("*")) == before
    replay_log(lines, settings=SETTINGS, stop_at=50, checkpoint=tmp_path)
    with hold_folder(tmp_path, "node", ""):
        pass


def test_a_replay_that_is_stopped_goes_on_from_its_checkpoint(
    lines: Path, replayed: ReplayResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.replay_sources.BATCH", 256)
    stop = threading.Event()
    part = replay_log(
        lines,
        settings=SETTINGS,
        checkpoint=tmp_path,
        progress=lambda passed, total, engine: stop.set(),
        stopping=nullcontext(stop),
    )
    assert (part.stopped, part.report["events"]) == (True, 256)
    rest = replay_log(lines, settings=SETTINGS, checkpoint=tmp_path)
    assert (rest.stopped, rest.fingerprint) == (False, replayed.fingerprint)


def test_a_spoilt_checkpoint_is_not_begun_over_in_silence(lines: Path, tmp_path: Path) -> None:
    replay_log(lines, settings=SETTINGS, stop_at=100, checkpoint=tmp_path)
    for manifest in tmp_path.glob("*/manifest.json"):
        manifest.write_text("{")
    with pytest.raises(DataError, match="empty"):
        replay_log(lines, settings=SETTINGS, checkpoint=tmp_path)


def data_set(name: str) -> Path:
    path = DATA / FILES[name]
    if not path.is_file():
        pytest.skip(f"{path} is missing: set EVERLEARN_DATA to the folder of the data sets")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_real_people_are_foreseen_best_by_the_blend(name: str) -> None:
    path = data_set(name)
    result = replay_log(path, dataset=name, settings=Settings(), stop_at=MOST, sample=SAMPLE)
    assert result.report["events"] > 90_000
    blend = result.metrics.pop("blend")
    assert blend["n"] > 4000
    for figure in ("hr@20", "mrr@20"):
        best = max(result.metrics, key=lambda source: result.metrics[source][figure])
        assert blend[figure] >= result.metrics[best][figure], f"{figure} of {best} is higher"


@pytest.mark.slow
def test_a_data_set_has_one_fingerprint_in_one_run_and_in_two(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "path": data_set("taobao"),
        "dataset": "taobao",
        "settings": Settings(),
        "sample": SAMPLE,
    }
    whole = replay_log(**arguments)
    assert whole.report["events"] == 139_784
    assert replay_log(**arguments).fingerprint == whole.fingerprint
    replay_log(**arguments, stop_at=70_001, checkpoint=tmp_path)
    resumed = replay_log(**arguments, checkpoint=tmp_path)
    assert resumed.fingerprint == whole.fingerprint
    assert resumed.metrics == whole.metrics

"""The trainer on a real broker: lessons, promotion, rollback, and kills at any moment."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer

from learners.base import CLICK
from learners.deep.lifelong import Lifelong
from streams.announce import Announcement
from streams.broker import EmbeddedBroker
from streams.settings import Settings
from streams.trainer_config import lifelong_config
from tests.forked_trainer import TRAINER, ForkedTrainer
from tests.traffic import Traffic, make_topics, topics
from tests.walks import hold_shuffled, hold_with_nan, walks

KILLS = 20


def send(traffic: Traffic, events: list[tuple[int, str, str, float]], first: int = 0) -> None:
    """Publish walks, and wait for the broker."""
    for number, (kind, user, item, at) in enumerate(events, first):
        assert kind == CLICK
        traffic.send({"event_id": f"w{number}", "timestamp": at, "user": user, "item": item})
    traffic.flush()


def announced(broker: str, topic: str, wanted: str) -> list[Announcement]:
    """Read announcements until one of this kind has come."""
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "t", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    read: list[Announcement] = []
    deadline = time.monotonic() + 20
    while not any(told.what == wanted for told in read):
        assert time.monotonic() < deadline, read
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            read.append(msgspec.json.decode(message.value() or b"", type=Announcement))
    consumer.close()
    return read


@pytest.fixture
def traffic(embedded_broker: EmbeddedBroker) -> Traffic:
    return Traffic(embedded_broker.address)


def test_a_challenger_is_born_judged_promoted_and_announced(
    trainer: ForkedTrainer, traffic: Traffic, embedded_broker: EmbeddedBroker
) -> None:
    send(traffic, walks(2400))
    trainer.start()
    (promoted,) = trainer.until_told("promoted")
    champion = trainer.registry.alias("champion")
    assert promoted["snapshot"] == champion
    manifest = trainer.registry.manifest(champion or "")
    assert manifest["events"] == 1500
    assert manifest["gate"]["challenger_hr@20"] > manifest["gate"]["champion_hr@20"]
    told = announced(embedded_broker.address, "everlearn.snapshots", "promoted")
    assert [each.what for each in told] == ["born", "promoted"]
    assert (told[-1].snapshot, told[-1].champion) == (champion, champion)
    assert told[-1].figures["challenger_hr@20"] == manifest["gate"]["challenger_hr@20"]
    trainer.until_learnt(traffic.books.ends)
    assert trainer.stop() == 0
    assert traffic.books.differences(trainer.manifest()["ledger"]) == {}


def test_it_ends_in_order_in_the_middle_of_a_lesson(
    trainer: ForkedTrainer, traffic: Traffic
) -> None:
    trainer.settings["trainer"] = TRAINER | {"epochs_first": 1000}
    send(traffic, walks(1600))
    trainer.start()
    trainer.until(lambda: bool(trainer.entries("begun")), "a lesson")
    trainer.until_learnt(traffic.books.ends)
    assert trainer.stop() == 0
    assert trainer.registry.ids() == []
    trainer.settings["trainer"] = TRAINER | {"every_events": 2000}
    trainer.start().until_started()
    send(traffic, walks(3200)[1600:], 1600)
    trainer.until_told("promoted")


@pytest.mark.parametrize(
    ("poison", "why"), [(hold_with_nan, "no finite numbers"), (hold_shuffled, "not better")]
)
def test_a_poisoned_first_challenger_is_discarded(
    trainer: ForkedTrainer, traffic: Traffic, poison: Any, why: str
) -> None:
    trainer.held = poison
    send(traffic, walks(2400))
    trainer.start()
    discarded = trainer.until_told("discarded")
    assert why in discarded[0]["why"]
    assert trainer.registry.alias("champion") is None


def test_one_that_turns_out_bad_live_is_rolled_back_by_itself(
    trainer: ForkedTrainer, traffic: Traffic, embedded_broker: EmbeddedBroker
) -> None:
    trainer.settings["trainer"] = TRAINER | {"every_events": 10**6}
    send(traffic, walks(2000))
    trainer.start()
    trainer.until_told("promoted")
    registry = trainer.registry
    good = registry.read(registry.alias("champion") or "")
    code = np.random.default_rng(1).permutation(good.arrays["code"])
    bad = registry.write({**good.arrays, "code": code}, good.items, good.manifest)
    registry.promote(bad)
    send(traffic, walks(3000)[2000:], 2000)
    (told,) = trainer.until_told("rolled_back")
    assert told["snapshot"] == bad
    assert registry.alias("champion") == good.id
    last = announced(embedded_broker.address, "everlearn.snapshots", "rolled_back")[-1]
    assert last.champion == good.id


def taught(lifelong: Lifelong) -> Counter[tuple[int, str, float]]:
    """Every event that is held to be foreseen, or was: user, item, time."""
    names, memory = lifelong.memory.items.ids, lifelong.memory
    memory.hand_out(lifelong.books.events)
    lifelong.memory.let_go(lifelong.books.events)
    buffer = memory.buffer
    held = np.flatnonzero(buffer.length)
    found: Counter[tuple[int, str, float]] = Counter()
    for slot in held.tolist():
        user = int(buffer.user[slot])
        for place in range(int(buffer.context[slot]), int(buffer.length[slot])):
            found[user, names[int(buffer.item[slot, place])], float(buffer.time[slot, place])] += 1
    return found


def killed_again_and_again(
    broker: str, traffic: Traffic, folder: Path, kills: int, **more: Any
) -> None:
    """Kill a trainer at random moments; then nothing may be missing, twice, or half-written."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    # All that is ever handed out stays in the buffer, so that it can be counted.
    sizes = TRAINER | {"newest": 4000, "reservoir": 10, "first_events": 600, "every_events": 600}
    sizes |= {"epochs_first": 8, "epochs": 2}  # so that some lessons end between two kills
    trainer = ForkedTrainer(folder, broker=broker, trainer=sizes, checkpoint_seconds=0.1, **more)
    events = walks(6000, turns_at=3000)
    each = 5000 // kills
    for kill in range(kills):
        send(traffic, events[kill * each : (kill + 1) * each], kill * each)
        trainer.start()
        if kill % 4:
            trainer.until_reading()
        time.sleep(draw.uniform(0.0, 1.5))
        trainer.kill()
        for id in filter(None, trainer.registry.aliases().values()):
            assert trainer.registry.read(id).id == id
        assert all(told["state"] != "damaged" for told in trainer.registry.manifests())
    trainer.start().until_told("born")
    send(traffic, events[5000:], 5000)
    trainer.until_told("promoted")
    trainer.until_learnt(traffic.books.ends)
    assert trainer.stop() == 0
    assert traffic.books.differences(trainer.manifest()["ledger"]) == {}
    assert trainer.manifest()["events"] == len(events)
    lifelong = Lifelong(lifelong_config(Settings(**trainer.settings)), trainer.registry)
    found = trainer.store().newest()
    assert found is not None
    lifelong.load_state(found[2])
    assert_every_event_once(lifelong, events)


def assert_every_event_once(lifelong: Lifelong, events: list[tuple[int, str, str, float]]) -> None:
    """A user's first event is context; each later one is held once, but of those held out."""
    from learners.store.texts import keys_64

    keys = dict(zip({user for _, user, *_ in events}, range(10**6), strict=False))
    hashed = dict(zip(keys, keys_64(list(keys)).tolist(), strict=True))
    expected: Counter[tuple[int, str, float]] = Counter()
    met: set[str] = set()
    for _, user, item, at in events:
        if user in met and not lifelong.memory.holds_out(hashed[user]):
            expected[hashed[user], item, at] += 1
        met.add(user)
    assert taught(lifelong) == expected


def test_nothing_is_lost_or_taught_twice_through_20_kills(
    embedded_broker: EmbeddedBroker, traffic: Traffic, tmp_path: Path
) -> None:
    killed_again_and_again(embedded_broker.address, traffic, tmp_path, KILLS)


@pytest.mark.kafka
@pytest.mark.slow
def test_nothing_is_lost_or_taught_twice_on_apache_kafka(
    apache_kafka: Any, prefix: str, tmp_path: Path
) -> None:
    make_topics(apache_kafka.address, prefix)
    traffic = Traffic(apache_kafka.address, prefix)
    killed_again_and_again(apache_kafka.address, traffic, tmp_path, KILLS, topics=topics(prefix))


def test_a_state_of_other_capacities_is_refused(trainer: ForkedTrainer, traffic: Traffic) -> None:
    send(traffic, walks(100))
    trainer.start().until_learnt(traffic.books.ends)
    assert trainer.stop() == 0
    trainer.settings["trainer"] = TRAINER | {"width": 32}
    assert trainer.start().wait() == 1
    assert "made with trainer.width = 16, the settings say 32: set it back" in trainer.log_text()

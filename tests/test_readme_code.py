"""The README's Python examples, run as they are printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from streams.broker import EmbeddedBroker
from streams.record import TopicReader
from streams.settings import Settings

README = Path(__file__).parent.parent / "README.md"
BROKER = "127.0.0.1:9092"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
VISITS = {
    "ann": ["sofa", "lamp", "vase"],
    "bob": ["tent", "stove", "lamp"],
    "dan": ["tent", "stove"],
    "eve": ["sofa", "lamp", "vase"],
    "kim": ["tent", "stove", "sofa"],
    "mia": ["tent"],
}


def block(word: str) -> str:
    (found,) = [text for text in BLOCKS if word in text]
    return str(found)


def test_the_producer_publishes_what_it_says(embedded_broker: EmbeddedBroker) -> None:
    example = block("EventProducer")
    assert BROKER in example
    exec(compile(example.replace(BROKER, embedded_broker.address), "README.md", "exec"), {})  # noqa: S102
    with closing(TopicReader(Settings(broker=embedded_broker.address))) as reader:
        published = [value for frame in reader.frames() for value in frame["value"]]
    events = [json.loads(value) for value in published]
    assert sorted(event["type"] for event in events) == ["click", "item", "purchase"]
    assert {event["item"] for event in events} == {"tent"}


def test_the_replay_test_passes_on_a_log(tmp_path: Path) -> None:
    clicks = [(user, item) for user, items in VISITS.items() for item in items]
    lines = [
        {"type": "click", "event_id": f"e{n}", "timestamp": 1e9 + n, "user": user, "item": item}
        for n, (user, item) in enumerate(clicks)
    ]
    log = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "yesterday.jsonl").write_text(log, encoding="utf-8")
    (tmp_path / "test_yesterday.py").write_text(block("replay("), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr

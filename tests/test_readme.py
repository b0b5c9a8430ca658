"""The README's own sequence of curl commands, on a node that has learnt nothing yet."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.child import NodeProcess
from streams.apache import ApacheKafka
from streams.broker import EmbeddedBroker
from streams.settings import Settings
from streams.topics import create_topics

README = Path(__file__).parent.parent / "README.md"
URL = "http://127.0.0.1:8080"
BASH = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def sequence() -> str:
    """The README's block that asks, clicks and asks again."""
    blocks = BASH.findall(README.read_text(encoding="utf-8"))
    (block,) = [block for block in blocks if "curl" in block]
    assert URL in block
    return str(block)


@contextmanager
def node(tmp_path: Path, port: int, broker: str, *flags: str) -> Iterator[NodeProcess]:
    state, log = tmp_path / "state", tmp_path / "node.log"
    with NodeProcess(broker=broker, state_dir=state, port=port, log=log, flags=flags) as running:
        running.wait_until_live()
        yield running


def answers(url: str) -> list[list[str]]:
    """Run the sequence as a reader would, in bash; the items of each answer that is a list."""
    script = sequence().replace(URL, url)
    environment = {"PATH": os.environ["PATH"], "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [[entry["item"] for entry in line["items"]] for line in lines]


def check_what_the_readme_says(before: list[str], after: list[str]) -> None:
    """First what is popular; after a click on the tent what goes with it, and the tent no more."""
    assert len(before) == 3
    assert before[0] == "lamp", "three people looked at it, at nothing else more than two"
    assert after[0] == "stove"
    assert "tent" not in after


@needs_curl
def test_the_sequence_on_the_embedded_broker(
    tmp_path: Path, embedded_broker: EmbeddedBroker, free_port: Callable[[], int]
) -> None:
    with node(tmp_path, free_port(), embedded_broker.address) as running:
        before, after = answers(running.url)
    check_what_the_readme_says(before, after)


@needs_curl
@pytest.mark.kafka
def test_the_sequence_on_apache_kafka(
    tmp_path: Path, apache_kafka: ApacheKafka, prefix: str, free_port: Callable[[], int]
) -> None:
    topics = {role: topic.name for role, topic in Settings().topics.items()}
    settings = Settings(
        broker=apache_kafka.address,
        topics={role: {"name": prefix + name} for role, name in topics.items()},
    )
    create_topics(settings)
    file = tmp_path / "everlearn.toml"
    file.write_text(
        "".join(f'[topics.{role}]\nname = "{prefix}{name}"\n' for role, name in topics.items())
    )
    with node(tmp_path, free_port(), apache_kafka.address, "--settings", str(file)) as running:
        before, after = answers(running.url)
    check_what_the_readme_says(before, after)

"""The demo: an embedded broker, a node and a trainer as processes, and shoppers who use them.

The shoppers click by their true taste on what the node recommends to them; the node predicts each
of their events before it learns it, so that the hit rates say what learning is worth. The trainer
fine-tunes the deep model, and puts a snapshot into service when it has proved better.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from learners.deep.registry import Registry
from learners.errors import BrokerError
from serving.child import NodeProcess, TrainerProcess, clean_environment
from serving.figures import Figures, fetch, read_figures
from serving.stopping import told_to_stop
from streams.broker import EmbeddedBroker, check_port, free_port
from streams.importer import EventWriter
from streams.publisher import Publisher
from streams.scratch import scratch_folder
from streams.settings import Settings
from streams.shop import Shop, ShopConfig
from streams.simulate import Api, Shown, Simulated, Simulation

__all__ = ["Demo", "DemoState", "FirstAnswer", "choose_port"]

PORT = 8080
RATE = 200.0  # events a second
LOOK_SECONDS = 0.5
DRAIN_SECONDS = 10.0
# The shop is small and the machine idle, so every event is predicted, not a sample.
EVALUATE_ALL = {"EVERLEARN_ENGINE__EVALUATE_ONE_IN": "1"}
# Of the same reason: lessons after seconds, and every event is asked for.
SMALL_LESSONS = {
    "EVERLEARN_TRAINER__EVALUATE_ONE_IN": "1",
    "EVERLEARN_TRAINER__FIRST_EVENTS": "2000",
    "EVERLEARN_TRAINER__EVERY_EVENTS": "4000",
    "EVERLEARN_TRAINER__GATE_TARGETS": "1000",
    "EVERLEARN_TRAINER__WIDTH": "32",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoState:
    """What there is to see at one moment; `before` are the figures a `between_seconds` earlier."""

    url: str
    figures: Figures
    before: Figures
    between_seconds: float
    shop: Simulated
    first_answer_seconds: float | None
    failed_requests: int
    seconds: float
    snapshots: list[dict[str, Any]] = field(default_factory=list)  # manifests, oldest first

    @property
    def champion(self) -> dict[str, Any] | None:
        """The snapshot that serves."""
        return next((told for told in self.snapshots if told["state"] == "champion"), None)

    def counted(self) -> dict[str, int]:
        """How many snapshots were born, and what became of them."""
        decided = [told.get("gate", {}).get("decision") for told in self.snapshots]
        return {
            "born": len(self.snapshots),
            "promoted": decided.count("promote"),
            "discarded": sum(told["state"] == "discarded" for told in self.snapshots),
        }

    def summary(self) -> dict[str, object]:
        """The object that `--json` ends with."""
        return {
            "events": self.figures.events,
            "blend": {"hr@20": _rounded(self.figures.hit_rate("blend"))},
            "popularity": {"hr@20": _rounded(self.figures.hit_rate("popularity"))},
            "first_answer_seconds": self.first_answer_seconds,
            "failed_requests": self.failed_requests,
            "snapshots": self.counted() | {"champion": (self.champion or {}).get("id")},
        }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


class FirstAnswer:
    """Asks for the shoppers, and notes when an answer first says more than what is popular.

    Parameters
    ----------
    api
        What asks.
    url
        Where the node answers.
    since
        When the clock was started, in seconds of the monotonic clock.
    """

    def __init__(self, api: Callable[[str], Shown | None], url: str, since: float) -> None:
        self.api = api
        self.url = url
        self.since = since
        self.seconds: float | None = None
        self.failed = 0

    def __call__(self, user: str) -> Shown | None:
        """Ask for a shopper."""
        shown = self.api(user)
        if self.seconds is None and shown is not None and self._is_personal(user):
            self.seconds = round(time.monotonic() - self.since, 2)
        return shown

    def _is_personal(self, user: str) -> bool:
        try:
            answer = msgspec.json.decode(fetch(f"{self.url}/recommend/{quote(user, safe='')}"))
        except OSError:
            self.failed += 1
            return False
        return any(
            part > 0
            for entry in answer["items"]
            for source, part in entry["sources"].items()
            if source != "popularity"
        )


class Demo:
    """Runs the demo.

    Parameters
    ----------
    seconds
        How long the shop is open; without it, until Ctrl-C.
    port
        Where the node's API answers.
    show
        Called twice a second with what there is to see.
    started
        When the user asked for the demo, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        *,
        seconds: float | None,
        port: int,
        show: Callable[[DemoState], None],
        started: float,
    ) -> None:
        self.seconds = seconds
        self.port = port
        self.show = show
        self.started = started
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._failed_looks = 0
        self._trainer: TrainerProcess | None = None
        self._registry: Registry | None = None

    def run(self) -> DemoState | None:
        """Run to the end; return what there was to see last, if the shop was open at all.

        Raises
        ------
        EverlearnError
            The node or the shoppers failed.
        """
        with (
            told_to_stop(self._stop),
            scratch_folder("demo") as folder,
            EmbeddedBroker() as broker,
        ):
            make_topics(broker.address)
            environment = snapshots_in(folder / "snapshots")
            node = NodeProcess(
                broker=broker.address,
                state_dir=folder / "state",
                port=self.port,
                log=folder / "node.log",
                environment=environment | EVALUATE_ALL,
            )
            trainer = TrainerProcess(
                broker=broker.address,
                state_dir=folder / "training",
                log=folder / "trainer.log",
                environment=environment | SMALL_LESSONS,
            )
            with node, trainer, Publisher(broker.address) as publisher:
                if not node.wait_until_live(stop=self._stop):
                    return None
                self._trainer, self._registry = trainer, Registry(folder / "snapshots")
                return self._open_shop(node, EventWriter(publisher, Settings()))

    def _open_shop(self, node: NodeProcess, writer: EventWriter) -> DemoState:
        api = FirstAnswer(Api(node.url), node.url, self.started)
        simulation = Simulation(Shop(ShopConfig()), writer, rate=RATE, api=api)
        shoppers = threading.Thread(target=self._shop, args=(simulation,), name="shoppers")
        shoppers.start()
        figures, at = Figures(), time.monotonic()
        try:
            while True:
                self._stop.wait(LOOK_SECONDS)
                closing = self._stop.is_set()
                if closing:
                    shoppers.join()
                    self._drain(node)
                node.check()
                if self._trainer is not None:
                    self._trainer.check()
                before, figures = figures, self._look(node, figures)
                last, at = at, time.monotonic()
                state = DemoState(
                    url=node.url,
                    figures=figures,
                    before=before,
                    between_seconds=at - last,
                    shop=simulation.so_far,
                    first_answer_seconds=api.seconds,
                    failed_requests=self._failed_looks
                    + api.failed
                    + simulation.so_far.failed_requests,
                    seconds=at - self.started,
                    snapshots=self._registry.manifests() if self._registry else [],
                )
                self.show(state)
                if closing:
                    return state
        finally:
            self._stop.set()
            shoppers.join()
            if self._failure is not None:
                raise self._failure

    def _shop(self, simulation: Simulation) -> None:
        try:
            simulation.run(seconds=self.seconds, stop=self._stop)
        except BaseException as error:
            self._failure = error
        finally:
            self._stop.set()

    def _drain(self, node: NodeProcess) -> None:
        """Wait until the node has learnt what was published."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._look(node, Figures()).lag != 0 and time.monotonic() < deadline:
            node.check()
            time.sleep(0.1)

    def _look(self, node: NodeProcess, otherwise: Figures) -> Figures:
        try:
            return read_figures(node.url)
        except OSError:
            self._failed_looks += 1
            return otherwise


def choose_port(asked: int | None) -> int:
    """The port asked for; else the usual one, or a free one where somebody has that.

    Raises
    ------
    BrokerError
        The port asked for is not free.
    """
    if asked == 0:
        return free_port()
    try:
        check_port(asked or PORT)
    except BrokerError:
        if asked:
            raise
        return free_port()
    return asked or PORT


def snapshots_in(folder: Path) -> dict[str, str]:
    """The environment of processes that share a folder of snapshots."""
    return clean_environment() | {"EVERLEARN_SNAPSHOT_DIR": str(folder)}


def make_topics(broker: str) -> None:
    """Ask an embedded broker for each topic: it makes what it is asked for."""
    from confluent_kafka import Producer

    asking = Producer({"bootstrap.servers": broker})
    settings = Settings()
    for topic in (*settings.event_topics(), settings.topics["snapshots"].name):
        asking.list_topics(topic, timeout=10)

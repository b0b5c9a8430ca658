"""A living node: broker, history learnt, events that flow; each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.brokers import Broker, Kind, fill, run_broker
from benchmarks.data import STEP_SECONDS, Crowd, Message, message_of, recorded
from benchmarks.processes import Part, busy_seconds, cpu_seconds
from benchmarks.untrained import write_untrained
from learners.deep.registry import Registry
from learners.errors import EverlearnError
from serving.child import HOST, NodeProcess, clean_environment
from serving.figures import Figures, read_figures
from streams.broker import free_port
from streams.events import Click, Purchase
from streams.settings import Settings
from streams.shop_events import item_name

__all__ = ["HOST", "Living", "living_node"]

LEARN_SECONDS = 120.0
ASKED = 20_000  # users that are asked for, drawn from those who act


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A node that has learnt its history; `users` is a file of who acts, a user a line."""

    crowd: Crowd
    history: int  # events of the shop that were learnt
    broker: Broker
    node: NodeProcess
    users: Path
    snapshots: Registry  # of untrained models, whose answers take as long as any

    @contextmanager
    def traffic(self, rate: float) -> Iterator[Part | None]:
        """Let so many events a second flow while the block runs; 0 for none."""
        if rate <= 0:
            yield None
            return
        job = {"broker": self.broker.address, "rate": rate, "skip": self.history}
        with Part("benchmarks.traffic", job | {"crowd": asdict(self.crowd)}) as part:
            part.line()
            yield part

    def spent(self, traffic: Part | None = None) -> dict[str, float]:
        """CPU seconds so far: of each part but the load generator, and of the whole machine."""
        pids = {"broker": self.broker.pid}
        if self.node.process is not None:
            pids["node"] = self.node.process.pid
        if traffic is not None:
            pids["traffic"] = traffic.process.pid
        return {name: cpu_seconds(pid) for name, pid in pids.items()} | {"machine": busy_seconds()}

    def figures(self) -> Figures:
        """The node's own figures."""
        self.node.check()
        return read_figures(self.node.url)


@contextmanager
def living_node(
    *,
    crowd: Crowd,
    history: int,
    broker: Kind,
    say: Callable[[str], None],
    snapshots: int = 0,
) -> Iterator[Living]:
    """Run a broker and a node that has learnt a history ending now.

    Parameters
    ----------
    crowd
        Users and items; each occurs in the history.
    history
        Events of the shop on top of that.
    broker
        Which broker.
    say
        Told what happens.
    snapshots
        How many deep models there are; the first one serves.
    """
    say("starting the broker")
    with run_broker(broker) as running, TemporaryDirectory(prefix="everlearn-bench-") as temporary:
        folder = Path(temporary)
        history = running.room(crowd.lead_in, history)
        settings = Settings(broker=running.address)
        say(f"publishing {crowd.lead_in + history:,} events")
        asked: list[str] = []
        published = fill(settings, _history(crowd, history, settings, asked))
        users = folder / "users"
        users.write_text("\n".join(np.random.default_rng(crowd.seed).permutation(asked)[:ASKED]))
        registry = Registry(folder / "snapshots")
        for seed in range(snapshots):
            write_untrained(registry, [item_name(item) for item in range(crowd.items)], seed)
        if snapshots:
            registry.promote(registry.ids()[0])
        say("starting the node")
        environment = {"EVERLEARN_SNAPSHOT_DIR": str(registry.root)}
        node = NodeProcess(
            broker=running.address,
            state_dir=folder / "state",
            port=free_port(),
            log=folder / "node.log",
            environment=clean_environment() | environment,
        )
        with node:
            node.wait_until_live()
            living = Living(
                crowd=crowd,
                history=history,
                broker=running,
                node=node,
                users=users,
                snapshots=registry,
            )
            _wait_until_learnt(living, published)
            yield living


def _history(
    crowd: Crowd, history: int, settings: Settings, asked: list[str]
) -> Iterator[tuple[str, Message]]:
    """The history with the topic of each event; `asked` takes who acted in the shop."""
    clicks, purchases = settings.topics["clicks"].name, settings.topics["purchases"].name
    start = time.time() - (crowd.lead_in + history) * STEP_SECONDS
    for number, event in enumerate(recorded(crowd, history, start)):
        if number >= crowd.lead_in and isinstance(event, Click):
            asked.append(event.user)
        yield purchases if isinstance(event, Purchase) else clicks, message_of(event)


def _wait_until_learnt(living: Living, published: int) -> None:
    deadline = time.monotonic() + LEARN_SECONDS
    while (seen := living.figures()).events < published or seen.lag:
        if time.monotonic() > deadline:
            raise EverlearnError(
                f"the node learnt {seen.events:,} of {published:,} events within "
                f"{LEARN_SECONDS:g} s: give a smaller --history\n{living.node.tail()}"
            )
        time.sleep(0.2)

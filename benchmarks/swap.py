"""Promotions under load: does anybody notice when another deep model takes the place of one?

The same rate is asked twice, once while nothing is promoted. Beside the load, both times, somebody
asks one by one, and reads which snapshot each answer names: `mixed` counts answers that name one
which does not serve, or has served before. (That a list is all of one snapshot is what
`tests/test_champion.py` shows, where nothing is learnt meanwhile.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise

import httpx

from benchmarks.brokers import Kind
from benchmarks.data import Crowd
from benchmarks.latency import Asking
from benchmarks.living import Living, living_node
from benchmarks.rows import Row, make_row
from learners.errors import EverlearnError

__all__ = ["run"]

PAUSE_SECONDS = 0.02  # between two answers that are read
SERVE_SECONDS = 30.0


def run(
    *,
    crowd: Crowd | None = None,
    history: int = 200_000,
    events_per_second: float = 5_000.0,
    rate: float = 200.0,
    swaps: int = 3,
    seconds: float = 20.0,
    broker: Kind = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Ask a learning node at a constant rate, without promotions and through some.

    Parameters
    ----------
    crowd
        Users and items that the node knows.
    history
        Events it has learnt before, besides one for each user and item.
    events_per_second
        Clicks and purchases that it learns meanwhile.
    rate
        Requests a second.
    swaps
        Promotions, evenly spread.
    seconds
        How long each row is measured.
    broker, say
        Which broker; told what happens.
    """
    crowd = crowd or Crowd()
    with (
        living_node(
            crowd=crowd, history=history, broker=broker, say=say, snapshots=swaps + 1
        ) as living,
        living.traffic(events_per_second) as traffic,
    ):
        asking = Asking(living, traffic)
        _wait_for(living, living.snapshots.ids()[0])
        say(f"{rate:g} requests/s without a promotion")
        before: list[str] = []
        with _reading(living, before):
            quiet = asking.measure(rate, seconds)
        yield _row("quiet", quiet, swaps=0, read=len(before))
        say(f"{rate:g} requests/s through {swaps} promotions")
        named: list[str] = []
        with _reading(living, named), _promoting(living, seconds / (swaps + 1)):
            figures = asking.measure(rate, seconds)
        mixed = _mixed(living, before + named)
        told = {"p99_of_quiet": round(figures["p99_ms"] / quiet["p99_ms"], 3), "read": len(named)}
        yield _row("promotions", figures, swaps=swaps, mixed=mixed, **told)


def _row(method: str, figures: dict[str, float], **told: float) -> Row:
    shown = {name: value for name, value in figures.items() if name != "seconds"}
    return make_row("swap", method, shown | told, figures["seconds"])


def _wait_for(living: Living, snapshot: str) -> None:
    deadline = time.monotonic() + SERVE_SECONDS
    while httpx.get(f"{living.node.url}/health/ready").json()["snapshot"] != snapshot:
        if time.monotonic() > deadline:
            raise EverlearnError(f"snapshot {snapshot} does not serve\n{living.node.tail()}")
        time.sleep(PAUSE_SECONDS)


@contextmanager
def _beside(job: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a job on a thread; tell it when it is enough. What it raises is raised here."""
    enough = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job, enough)
        try:
            yield
        finally:
            enough.set()
        running.result()


def _promoting(living: Living, every_seconds: float) -> AbstractContextManager[None]:
    """Promote one snapshot after the other."""

    def promote(enough: threading.Event) -> None:
        for snapshot in living.snapshots.ids()[1:]:
            if enough.wait(every_seconds):
                return
            living.snapshots.promote(snapshot)
            _wait_for(living, snapshot)

    return _beside(promote)


def _reading(living: Living, named: list[str]) -> AbstractContextManager[None]:
    """Note the snapshot of one answer after the other."""
    user = living.users.read_text().partition("\n")[0]

    def read(enough: threading.Event) -> None:
        with httpx.Client(base_url=living.node.url) as client:
            while not enough.wait(PAUSE_SECONDS):
                answer = client.get(f"/recommend/{user}").raise_for_status().json()
                named.append(str(answer["snapshot"]))

    return _beside(read)


def _mixed(living: Living, named: list[str]) -> int:
    """Count answers that name a snapshot which does not serve yet, or no longer."""
    ids = living.snapshots.ids()
    if set(named) != set(ids):
        raise EverlearnError(
            f"{len(set(named))} of {len(ids)} snapshots have answered: give more --seconds"
        )
    order = {snapshot: place for place, snapshot in enumerate(ids)}
    places = [order.get(snapshot, -1) for snapshot in named]
    return places.count(-1) + sum(
        now not in (before, before + 1) for before, now in pairwise(places)
    )

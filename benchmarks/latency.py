"""How long an answer takes while the node learns, from the moment its request was due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.brokers import Kind
from benchmarks.data import Crowd
from benchmarks.living import Living, living_node
from benchmarks.processes import Part
from benchmarks.rows import Row, make_row
from learners.errors import EverlearnError

__all__ = ["Asking", "run"]

BOUND_MS = 7.0  # of the 90th percentile, for the highest rate
FIRST_RATE = 1000.0
STEP = 1.15
STEP_SECONDS = 6.0  # a checkpoint is written in each
KEPT_UP = 0.98  # share of the asked rate that must have been answered

Figures = dict[str, float]


def run(
    *,
    crowd: Crowd | None = None,
    history: int = 200_000,
    events_per_second: float = 5_000.0,
    rates: Sequence[float] = (200.0, 1000.0),
    highest: bool = True,
    seconds: float = 15.0,
    deep: bool = False,
    broker: Kind = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Ask a learning node at constant rates, then at the highest that keeps p90 within 7 ms.

    Parameters
    ----------
    crowd
        Users and items that the node knows.
    history
        Events it has learnt before, besides one for each user and item.
    events_per_second
        Clicks and purchases that it learns meanwhile.
    rates
        Requests a second, a row each.
    highest
        Whether to search the highest rate, upward in steps.
    seconds
        How long each row is measured.
    deep
        Whether a deep model of all items is among the sources.
    broker, say
        Which broker; told what happens.
    """
    crowd = crowd or Crowd()
    with (
        living_node(
            crowd=crowd, history=history, broker=broker, say=say, snapshots=int(deep)
        ) as living,
        living.traffic(events_per_second) as traffic,
    ):
        asking = Asking(living, traffic)
        for rate in rates:
            say(f"{rate:g} requests/s")
            yield asking.row(f"{rate:g}_per_second", asking.measure(rate, seconds))
        if highest:
            yield asking.row(f"highest_p90_{BOUND_MS:g}_ms", _highest(asking, seconds, say))


class Asking:
    """Asks one node at one rate after the other."""

    def __init__(self, living: Living, traffic: Part | None) -> None:
        self.living = living
        self.traffic = traffic

    def measure(self, rate: float, seconds: float, *, give_up: bool = False) -> Figures:
        """Ask at a rate for so long, from a fresh process."""
        living = self.living
        job = {"port": living.node.port, "users": str(living.users), "rate": rate}
        # Reading the node's figures costs it some milliseconds: outside of what is measured.
        before, looked = living.figures().events, time.monotonic()
        with Part("benchmarks.load", job | {"seconds": seconds, "give_up": give_up}) as load:
            load.line()
            spent, started = living.spent(self.traffic), time.monotonic()
            figures: Figures = load.line()
            passed = time.monotonic() - started
            for part, cpu in living.spent(self.traffic).items():
                figures[f"{part}_cpu"] = round((cpu - spent[part]) / passed, 3)
        after, looked = living.figures(), time.monotonic() - looked
        figures["events_per_second"] = round((after.events - before) / looked)
        figures["lag"] = -1 if after.lag is None else after.lag
        return figures

    def row(self, method: str, figures: Figures) -> Row:
        """The row of some figures."""
        living = self.living
        more = {"items": living.crowd.items, "users": living.crowd.users}
        more["snapshots"] = len(living.snapshots.ids())
        shown = {name: value for name, value in figures.items() if name != "seconds"} | more
        return make_row(
            "latency", method, shown | {"broker": living.broker.kind}, figures["seconds"]
        )


def _highest(asking: Asking, seconds: float, say: Callable[[str], None]) -> Figures:
    """Search upward until the bound is broken; then measure in full, going down if need be."""

    def kept(rate: float, seconds: float) -> Figures | None:
        figures = asking.measure(rate, seconds, give_up=True)
        say(f"{rate:g} requests/s for {seconds:g} s: p90 {figures['p90_ms']} ms")
        return figures if _within(figures, rate) else None

    rate = FIRST_RATE
    # A step that fails is tried once more: somebody else may have needed the machine.
    while kept(rate, STEP_SECONDS) or kept(rate, STEP_SECONDS):
        rate = _rounded(rate * STEP)
    while True:
        rate = _rounded(rate / STEP)
        if figures := kept(rate, seconds):
            return figures
        if rate <= 1:
            raise EverlearnError(
                f"not one request a second is answered with p90 <= {BOUND_MS:g} ms\n"
                f"{asking.living.node.tail()}"
            )


def _within(figures: Figures, rate: float) -> bool:
    return (
        figures["p90_ms"] <= BOUND_MS
        and not figures["failed"]
        and figures["requests_per_second"] >= KEPT_UP * rate
    )


def _rounded(rate: float) -> float:
    """A rate in round numbers: tens, or whole ones below a hundred."""
    return float(round(rate, -1) if rate >= 100 else max(1, round(rate)))

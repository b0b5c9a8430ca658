"""How long until a click has changed the answers of its user, from the producer's acknowledgement.

A user's answer is asked for without what they have seen. The first item of it is clicked; once the
broker has acknowledged that to the producer, the same answer is asked for again and again, until
it leaves the clicked item out: then the node has learnt this very click.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from benchmarks.brokers import Kind
from benchmarks.data import Crowd
from benchmarks.living import Living, living_node
from benchmarks.load import Connection
from benchmarks.rows import Row, make_row, percentiles
from learners.errors import EverlearnError
from streams.producer import EventProducer
from streams.settings import Settings

__all__ = ["run"]

PAUSE_SECONDS = 0.02  # at most, between two clicks, so that they fall in step with nothing
ASK_SECONDS = 0.0005  # between two questions, so that asking does not slow down learning
LOST_SECONDS = 5.0


def run(
    *,
    crowd: Crowd | None = None,
    history: int = 200_000,
    clicks: int = 1_000,
    events_per_second: float = 5_000.0,
    deep: bool = False,
    broker: Kind = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Measure while nothing else happens, and while other events flow.

    Parameters
    ----------
    crowd, history, deep, broker, say
        As in `benchmarks.latency`.
    clicks
        How many clicks each row measures.
    events_per_second
        What the node learns besides; 0 leaves that row out.
    """
    crowd = crowd or Crowd()
    with living_node(
        crowd=crowd, history=history, broker=broker, say=say, snapshots=int(deep)
    ) as living:
        for method, rate in (("quiet", 0.0), ("while_learning", events_per_second)):
            if method == "quiet" or rate > 0:
                say(f"{clicks:,} clicks, {rate:g} other events/s")
                with living.traffic(rate):
                    yield _row(method, living, clicks, rate)


def _row(method: str, living: Living, clicks: int, rate: float) -> Row:
    started = time.perf_counter()
    waits, acknowledged = _measure(living, clicks)
    figures = {
        **percentiles(waits, 50, 90, 99),
        "n": len(waits),
        "events_per_second": rate,
        "acknowledged_p50_ms": percentiles(acknowledged, 50)["p50_ms"],
        "items": living.crowd.items,
        "users": living.crowd.users,
        "snapshots": len(living.snapshots.ids()),
        "broker": living.broker.kind,
    }
    return make_row("freshness", method, figures, time.perf_counter() - started)


def _measure(living: Living, clicks: int) -> tuple[list[float], list[float]]:
    """Seconds from acknowledgement to changed answer, and from click to acknowledgement."""
    rng = np.random.default_rng()
    users = rng.permutation(living.users.read_text().split())
    asking = Connection(living.node.port)
    waits, acknowledged = [], []
    with EventProducer(living.broker.address, Settings(broker=living.broker.address)) as producer:
        for i in range(clicks):
            user = str(users[i % len(users)])
            item = _ask(asking, user)[0]
            sent = time.perf_counter()
            producer.click(user=user, item=item)
            producer.flush()
            heard = time.perf_counter()
            while item in _ask(asking, user):
                if time.perf_counter() - heard > LOST_SECONDS:
                    raise EverlearnError(
                        f"{user} is still shown {item} {LOST_SECONDS:g} s after clicking it\n"
                        f"{living.node.tail()}"
                    )
                time.sleep(ASK_SECONDS)
            waits.append(time.perf_counter() - heard)
            acknowledged.append(heard - sent)
            time.sleep(rng.uniform(0.0, PAUSE_SECONDS))
    asking.close()
    return waits, acknowledged


def _ask(asking: Connection, user: str) -> list[str]:
    """The items that a user would be shown, without those they have seen."""
    asking.send(f"GET /recommend/{user}?exclude=seen HTTP/1.1\r\nHost: {user}\r\n\r\n".encode(), 0)
    while not asking.receive():
        pass
    answer = msgspec.json.decode(asking.got.partition(b"\r\n\r\n")[2])
    return [entry["item"] for entry in answer["items"]]

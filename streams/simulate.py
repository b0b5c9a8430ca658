"""The synthetic shop, live: shoppers whose events are published, and who may ask a node's API."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
import numpy as np

from learners.base import CLICK, PURCHASE
from learners.errors import SettingsError
from streams.importer import EventWriter
from streams.shop import Shop

__all__ = ["Api", "Shown", "Simulated", "Simulation", "check_pace"]

TICK_SECONDS = 0.05
ASKING = 0.6  # chance that a shopper looks at what the API recommends before going on
CONNECTIONS = 4
LEAST_RATE, MOST_RATE = 0.01, 1e6  # events a second
MOST_SECONDS = 366 * 86_400.0

Progress = Callable[["Simulated"], None]


class Shown(NamedTuple):
    """A list that the API gave for a shopper, and the name of its impression."""

    items: Sequence[str]
    impression_id: str


@dataclass(slots=True)
class Simulated:
    """What has happened in a simulation so far; `seconds` is how long it has run."""

    events: int = 0
    clicks: int = 0
    purchases: int = 0
    asked: int = 0
    clicked_shown: int = 0
    failed_requests: int = 0
    seconds: float = 0.0


class Api:
    """Asks a node for recommendations over connections that are kept open, one a thread.

    Parameters
    ----------
    url
        Where the node answers, e.g. `http://127.0.0.1:8080`.
    k
        Items to ask for.
    timeout_seconds
        After this long a question has failed.

    Attributes
    ----------
    problem : str
        Why the latest question that failed has failed, empty while none has.
    """

    def __init__(self, url: str, k: int = 10, timeout_seconds: float = 5.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise SettingsError(f"{url!r} is no address of an API: write http://127.0.0.1:8080")
        self.k = k
        self.problem = ""
        self._parts = parts
        self._timeout_seconds = timeout_seconds
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._opened:
            connection.close()

    def check(self) -> None:
        """Check that a node answers.

        Raises
        ------
        SettingsError
            None does; the message says why.
        """
        if self._ask("/health/live") is None:
            raise SettingsError(
                f"no node answers at {self._parts.geturl()} ({self.problem}): start one "
                "(`everlearn node`), or name where yours answers"
            )

    def __call__(self, user: str) -> Shown | None:
        """Return what is recommended to a user; None when the node did not answer."""
        body = self._ask(f"/recommend/{quote(user, safe='')}?k={self.k}")
        if body is None:
            return None
        try:
            answer = ANSWERS.decode(body)
        except msgspec.DecodeError:
            self.problem = "its answer is no list of items"
            return None
        return Shown([entry.item for entry in answer.items], answer.impression_id)

    def _ask(self, path: str) -> bytes | None:
        connection = self._connection()
        for _ in range(2):
            try:
                connection.request("GET", self._parts.path.rstrip("/") + path)
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.problem = getattr(error, "strerror", None) or str(error) or "no answer"
                connection.close()  # perhaps the node had closed it: ask once more, over a new one
                continue
            if response.status == 200:
                return body
            self.problem = f"status {response.status}"
            return None
        return None

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            secure = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
            host, port = self._parts.hostname or "", self._parts.port
            self._local.connection = kind(host, port, timeout=self._timeout_seconds)
            self._opened.append(self._local.connection)
        connection: http.client.HTTPConnection = self._local.connection
        return connection


def _has_port(parts: SplitResult) -> bool:
    """Whether the port of an address is one, or is left out."""
    try:
        return parts.port != 0
    except ValueError:
        return False


class _AnswerItem(msgspec.Struct):
    item: str


class _Answer(msgspec.Struct):
    impression_id: str
    items: list[_AnswerItem]


# Made here: two threads that need it first at the same time may crash the interpreter.
ANSWERS = msgspec.json.Decoder(_Answer)


def check_pace(rate: float, seconds: float | None = None, events: int | None = None) -> None:
    """Check how fast and how long a simulation is to run.

    Raises
    ------
    SettingsError
        A number is not finite, or out of bounds.
    """
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise SettingsError(
            f"a rate of {rate:g} events a second is none: give {LEAST_RATE:g} to {MOST_RATE:,.0f}"
        )
    if seconds is not None and not 0.0 < seconds <= MOST_SECONDS:
        raise SettingsError(
            f"{seconds:g} seconds are no length of a run: give more than 0 and at most "
            f"{MOST_SECONDS:,.0f}, or none to run until Ctrl-C"
        )
    if events is not None and events < 1:
        raise SettingsError(f"{events} events are no length of a run: give 1 or more")


class Simulation:
    """A shop that is open: at `rate` events a second its shoppers click and buy.

    Parameters
    ----------
    shop
        The shop, with its drift to come.
    writer
        Publishes what happens.
    rate
        Events a second; what cannot be kept up with is made up for later.
    api
        Gives what is shown to a shopper, e.g. `Api`; without it they look around alone.
    """

    def __init__(
        self,
        shop: Shop,
        writer: EventWriter,
        *,
        rate: float,
        api: Callable[[str], Shown | None] | None = None,
    ) -> None:
        check_pace(rate)
        self.shop = shop
        self.writer = writer
        self.rate = rate
        self.api = api
        self.so_far = Simulated()
        self._asking = np.random.default_rng([shop.config.seed, 3])
        self._last_time = 0.0

    def run(
        self,
        *,
        seconds: float | None = None,
        events: int | None = None,
        stop: threading.Event | None = None,
        progress: Progress = lambda so_far: None,
    ) -> Simulated:
        """Publish the catalogue, then let shoppers act until `seconds`, `events` or `stop`.

        Raises
        ------
        SettingsError
            `seconds` or `events` is no length of a run.
        DeliveryError
            The broker did not acknowledge an event.
        """
        check_pace(self.rate, seconds, events)
        stop = stop or threading.Event()
        start = time.monotonic()
        for entry in self.shop.catalogue(time.time()):
            self.writer.write(entry)
        self.writer.publisher.flush()
        opened = time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            while not stop.is_set() and (events is None or self.so_far.events < events):
                open_seconds = time.monotonic() - opened
                if seconds is not None and open_seconds >= seconds:
                    break
                due = int(open_seconds * self.rate) - self.so_far.events
                if events is not None:
                    due = min(due, events - self.so_far.events)
                if due > 0:
                    self._turn(due, pool)
                self.so_far.seconds = time.monotonic() - start
                progress(self.so_far)
                if due < len(self.shop.user):
                    stop.wait(TICK_SECONDS)
        self.writer.publisher.flush()
        self.so_far.seconds = time.monotonic() - start
        return self.so_far

    def _turn(self, due: int, pool: ThreadPoolExecutor) -> None:
        """Let as many shoppers act as are due, each at most once, and publish what they did."""
        turn = self.shop.turn(due)
        shown = self._ask(self.shop.user_names(turn), pool) if self.api else {}
        # Wall clocks may step back; what a shopper does next must not lie before what came first.
        self._last_time = max(self._last_time, time.time())
        times = np.full(len(turn), self._last_time)
        happened = self.shop.act(turn, times, {i: lst.items for i, lst in shown.items()})
        for event in happened.events({i: lst.impression_id for i, lst in shown.items()}):
            self.writer.write(event)
        self.so_far.events += len(happened)
        self.so_far.clicks += int((happened.kind == CLICK).sum())
        self.so_far.purchases += int((happened.kind == PURCHASE).sum())
        self.so_far.clicked_shown += int((happened.position >= 0).sum())

    def _ask(self, users: Sequence[str], pool: ThreadPoolExecutor) -> dict[int, Shown]:
        """Ask the API for some of the shoppers; lists by place in the turn."""
        if self.api is None:
            return {}
        asking = np.flatnonzero(self._asking.random(len(users)) < ASKING).tolist()
        answers = list(pool.map(self.api, [users[i] for i in asking]))
        self.so_far.asked += len(asking)
        self.so_far.failed_requests += sum(answer is None for answer in answers)
        return {i: answer for i, answer in zip(asking, answers, strict=True) if answer is not None}

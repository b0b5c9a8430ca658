"""The producer for applications: publishes events with acks=all, keyed by user (kafka-python)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

import msgspec

from learners.errors import BrokerError, DataError, DeliveryError
from streams.broker import is_embedded
from streams.decode import Gate, Rejected
from streams.events import Click, Erasure, Event, Impression, Item, Purchase
from streams.order import Record
from streams.security import kafka_python_options
from streams.settings import load_settings
from streams.shapes import ROLES, in_shape_of, key_of

if TYPE_CHECKING:
    from kafka import KafkaProducer

    from streams.settings import Settings, TopicSettings

__all__ = ["EventProducer"]

E = TypeVar("E", bound=Event)

# kafka-python keeps what is not acknowledged in memory without a bound of its own.
WAITING_EVENTS = 10_000


class EventProducer:
    """Publishes events, each to the topic of its type, keyed by user (items by item).

    acks=all, idempotent where the broker can; the record carries the event's own time. An event
    that no node would accept is refused here. A failed delivery is raised by the next call, at
    the latest by `close`. Safe from any thread.

    Parameters
    ----------
    broker
        `host:port[,host:port]`; without it, the one of the settings (EVERLEARN_BROKER).
    settings
        Topics, their shapes, TLS and SASL; without it, `load_settings`.
    delivery_seconds
        How long the broker may take to acknowledge an event.

    Raises
    ------
    BrokerError
        Nobody answers at the broker's address.

    Examples
    --------
    >>> from streams.broker import EmbeddedBroker
    >>> with EmbeddedBroker() as broker, EventProducer(broker.address) as producer:
    ...     sent = producer.click(user="anna", item="teapot")
    >>> sent.user, sent.item
    ('anna', 'teapot')
    """

    def __init__(
        self,
        broker: str | None = None,
        settings: Settings | None = None,
        *,
        delivery_seconds: float = 30.0,
    ) -> None:
        self.settings = settings or load_settings(broker=broker)
        self.broker = broker or self.settings.broker
        self.delivery_seconds = delivery_seconds
        self.topics = {kind: self.settings.topics[role] for kind, role in ROLES.items()}
        self._gate = Gate(self.settings.event_topics())
        self._waiting = threading.BoundedSemaphore(WAITING_EVENTS)
        self._failure: tuple[str, Exception] | None = None
        self._producer = self._connect()

    def send(self, event: Event) -> None:
        """Publish an event; it returns once the event is queued.

        Raises
        ------
        DataError
            No node would accept the event; the message says why.
        DeliveryError
            An event sent before was not acknowledged, or this one cannot be queued.
        """
        self._raise_failure()
        fields = msgspec.to_builtins(event)
        topic = self.topics[fields["type"]]
        record = self._checked(topic, fields)
        if not self._waiting.acquire(timeout=self.delivery_seconds):
            raise _undelivered(topic.name, f"{WAITING_EVENTS} events wait for an acknowledgement")
        try:
            future = self._producer.send(
                topic.name, record.value, record.key, timestamp_ms=record.timestamp
            )
        except Exception as error:
            self._waiting.release()
            raise _undelivered(topic.name, error) from error
        future.add_callback(self._acknowledged)
        future.add_errback(self._failed, topic.name)

    def click(self, *, user: str, item: str, **fields: Any) -> Click:
        """Publish a click; `event_id` and `timestamp` are made when not given."""
        return self._sent(Click(user=user, item=item, **_complete(fields)))

    def purchase(self, *, user: str, item: str, **fields: Any) -> Purchase:
        """Publish a purchase; see `click`."""
        return self._sent(Purchase(user=user, item=item, **_complete(fields)))

    def impression(self, *, user: str, items: Sequence[str], **fields: Any) -> Impression:
        """Publish which items were shown to a user, in order; see `click`."""
        return self._sent(Impression(user=user, items=list(items), **_complete(fields)))

    def item(self, *, item: str, **fields: Any) -> Item:
        """Publish an entry of the catalogue; see `click`."""
        return self._sent(Item(item=item, **_complete(fields)))

    def erase(self, *, user: str, **fields: Any) -> Erasure:
        """Publish that a user wants to be forgotten; see `click`."""
        return self._sent(Erasure(user=user, **_complete(fields)))

    def flush(self) -> None:
        """Wait until every event sent so far is acknowledged.

        Raises
        ------
        DeliveryError
            An event was not acknowledged; the message names topic and cause.
        """
        try:
            self._producer.flush(self.delivery_seconds + 5.0)
        except Exception as error:
            raise DeliveryError(f"events still wait for {self.broker}: {_cause(error)}") from error
        self._raise_failure()

    def close(self) -> None:
        """Flush, then disconnect; raises as `flush` does."""
        try:
            self.flush()
        finally:
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._disconnect()

    def _disconnect(self) -> None:
        from kafka.errors import KafkaError

        # What is still unsent has been told by `flush`.
        with suppress(KafkaError):
            self._producer.close(timeout=1.0)

    def _connect(self) -> KafkaProducer:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        milliseconds = int(self.delivery_seconds * 1000)
        options: dict[str, Any] = kafka_python_options(self.settings)
        if not options and is_embedded(self.broker):
            options = {"api_version": (2, 3), "enable_idempotence": False}
        try:
            return KafkaProducer(
                bootstrap_servers=self.broker.split(","),
                acks="all",
                linger_ms=1,
                max_block_ms=milliseconds,
                delivery_timeout_ms=milliseconds,
                request_timeout_ms=max(1, milliseconds - 1),
                bootstrap_timeout_ms=min(10_000, milliseconds),
                **options,
            )
        except KafkaError as error:
            raise BrokerError(f"no connection to {self.broker}: {_cause(error)}") from error

    def _checked(self, topic: TopicSettings, fields: Mapping[str, Any]) -> Record:
        kind, seconds = fields["type"], fields["timestamp"]
        milliseconds = int(seconds * 1000) if math.isfinite(seconds) else 0
        key = key_of(topic, fields).encode("utf-8", "surrogatepass")
        value = msgspec.json.encode(in_shape_of(topic, fields))
        record = Record(topic.name, 0, 0, milliseconds, key, value)
        verdict = self._gate.decode_one(record)
        if isinstance(verdict, Rejected):
            raise DataError(
                f"no node would accept this {kind} ({verdict.reason}): {verdict.detail}"
            )
        return record

    def _sent(self, event: E) -> E:
        self.send(event)
        return event

    def _acknowledged(self, metadata: object) -> None:
        self._waiting.release()

    def _failed(self, topic: str, error: Exception) -> None:
        self._waiting.release()
        self._failure = self._failure or (topic, error)

    def _raise_failure(self) -> None:
        if self._failure:
            (topic, error), self._failure = self._failure, None
            raise _undelivered(topic, error) from error


def _complete(fields: dict[str, Any]) -> dict[str, Any]:
    return {"event_id": uuid4().hex, "timestamp": time.time()} | fields


def _undelivered(topic: str, cause: Exception | str) -> DeliveryError:
    said = cause if isinstance(cause, str) else _cause(cause)
    return DeliveryError(f"an event for topic {topic!r} was not acknowledged: {said}")


def _cause(error: Exception) -> str:
    from kafka.errors import KafkaTimeoutError

    if isinstance(error, KafkaTimeoutError):
        return "the broker did not answer in time; it is not sent again, but may have arrived"
    return str(error) or type(error).__name__

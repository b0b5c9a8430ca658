"""The fast publisher: what a node, an importer or a benchmark sends to Kafka (confluent-kafka)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from learners.errors import DeliveryError
from streams.broker import why_unreachable
from streams.security import confluent_options

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["Publisher"]

Headers = Sequence[tuple[str, bytes]]
Acknowledged = tuple[int, int]  # partition, offset

SILENT_SECONDS = 1.5  # messages that wait so long while none is acknowledged raise a doubt
LOOK_SECONDS = 0.5
IMPATIENT_SECONDS = 5.0  # a request waits so long for a broker that accepts but never answers
# The client says these again at every attempt to connect; `_ALL_BROKERS_DOWN` says what they mean.
REPEATED = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE)
GIVEN_UP = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)

log = logging.getLogger("everlearn.publisher")


class Publisher:
    """Publishes messages with acks=all, idempotent; partitions by key as Java's clients do.

    Safe from any thread, and `publish` from any event loop. It starts without a broker: messages
    wait in a bounded queue, and fail after `delivery_seconds`.

    Parameters
    ----------
    broker
        `host:port[,host:port]`.
    settings
        Where TLS and SASL are found.
    queue_messages
        Messages that may wait; beyond, `publish_nowait` drops, `publish` and `put` wait.
    delivery_seconds
        How long a message may take until it counts as failed.
    linger_milliseconds
        How long a message may wait for others to share its batch.
    count_delivered
        Without, only failures are heard of, which spares the interpreter a turn a message.

    Attributes
    ----------
    delivered, failed, dropped : int
        Messages acknowledged by the broker, given up, and never queued.
    last_error : str
        Why the latest message failed, empty while none has.
    away : str
        Why nobody answers at the broker's address, empty while nothing speaks against it.
    """

    def __init__(
        self,
        broker: str,
        settings: Settings | None = None,
        *,
        queue_messages: int = 100_000,
        delivery_seconds: float = 30.0,
        linger_milliseconds: float = 1.0,
        count_delivered: bool = True,
    ) -> None:
        self.broker, self.settings = broker, settings
        self.queue_messages = queue_messages
        self.delivery_seconds = delivery_seconds
        self.linger_milliseconds = linger_milliseconds
        self.count_delivered = count_delivered
        self.delivered = self.failed = self.dropped = 0
        self.last_error = self.away = ""
        self._put_error = self._given_up = ""  # why the latest messages were
        self._impatient: dict[asyncio.Future[Acknowledged], float] = {}  # its deadline
        self._doubted = False
        self._told: int | None = None
        self._look_at = self._heard_at = 0.0  # when nothing waited, or one was acknowledged
        self._producer: Producer | None = None
        self._poller: threading.Thread | None = None
        self._closing = threading.Event()

    def start(self) -> Self:
        """Start publishing; it never waits for the broker."""
        options: dict[str, Any] = {
            "bootstrap.servers": self.broker,
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "queue.buffering.max.messages": self.queue_messages,
            "message.timeout.ms": int(self.delivery_seconds * 1000),
            "topic.metadata.propagation.max.ms": min(10_000, int(self.delivery_seconds * 1000)),
            "linger.ms": self.linger_milliseconds,
            "delivery.report.only.error": not self.count_delivered,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,
            "error_cb": self._troubled,
        }
        self._closing.clear()
        self._heard_at = time.monotonic()
        self._producer = Producer(options | confluent_options(self.settings), logger=log)
        self._poller = threading.Thread(target=self._poll, name="everlearn-publisher", daemon=True)
        self._poller.start()
        return self

    def close(self, seconds: float = 10.0) -> None:
        """Wait up to `seconds` for what was published, then stop; what is left counts as failed."""
        if self._producer is None or self._poller is None:
            return
        self._drain(seconds)
        away = f"no broker answers at {self.broker} ({self.away})" if self.away else ""
        self._give_up(self._producer, away or "it still waited when publishing ended")
        self._drain(1.0)
        self._closing.set()
        self._poller.join()
        self._producer = self._poller = None
        if self.failed or self.dropped:
            why = self.last_error or "the queue was full"
            log.warning("%d messages failed, %d were dropped (%s)", self.failed, self.dropped, why)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(10.0 if kind is None else 0.0)

    @property
    def waiting(self) -> int:
        """Messages that wait for the broker."""
        return len(self._producer) if self._producer is not None else 0

    def publish_nowait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> bool:
        """Queue a message and forget it; False when it is dropped (queue full, or too large)."""
        try:
            queued = self._produce(topic, key, value, timestamp_ms, headers, self._note)
        except DeliveryError as error:
            queued, self.last_error = False, str(error)
        self.dropped += not queued
        return queued

    def put(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Queue a message, waiting while the queue is full: for bulk loads, before `flush`.

        Raises
        ------
        DeliveryError
            A message that was put before has failed.
        """
        while not self._produce(topic, key, value, timestamp_ms, headers, self._note_put):
            self._raise_put_error()
            time.sleep(0.002)
        self._raise_put_error()

    def flush(self, seconds: float = 60.0) -> None:
        """Wait until everything published so far is acknowledged.

        Raises
        ------
        DeliveryError
            A message that was `put` has failed, or messages still wait after `seconds`.
        """
        waiting = self._drain(seconds)
        self._raise_put_error()
        if waiting:
            raise DeliveryError(
                f"{waiting} messages are not acknowledged by {self.broker} after {seconds:g} s: "
                "is the broker up? (`everlearn doctor` tells)"
            )

    async def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
        *,
        patient: bool = True,
    ) -> Acknowledged:
        """Publish a message and return its partition and offset once the broker has it.

        Impatient, it does not wait for a broker that is away, and `IMPATIENT_SECONDS` at most for
        one that does not answer; it sends nothing later.

        Raises
        ------
        DeliveryError
            The broker refused it or did not acknowledge it in time; names topic and cause.
        """
        if self.away and not patient:
            raise DeliveryError(
                f"no broker answers at {self.broker} ({self.away}): nothing is sent"
            )
        future: asyncio.Future[Acknowledged] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic() + (self.delivery_seconds if patient else IMPATIENT_SECONDS)
        if not patient:
            self._impatient[future] = deadline
        note = partial(self._note_awaited, future)
        try:
            while not self._produce(topic, key, value, timestamp_ms, headers, note):
                if time.monotonic() > deadline:
                    self.dropped += 1
                    raise _undelivered(topic, f"{self.queue_messages} messages are waiting already")
                await asyncio.sleep(0.005)
            return await future
        finally:
            self._impatient.pop(future, None)

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None,
        headers: Headers | None,
        note: Callable[[KafkaError | None, Message], None],
    ) -> bool:
        if self._producer is None:
            raise DeliveryError(f"cannot publish to {topic!r}: start() the publisher first")
        try:
            self._producer.produce(
                topic,
                value,
                key,
                on_delivery=note,
                timestamp=timestamp_ms or 0,
                headers=list(headers) if headers else None,
            )
        except BufferError:
            return False
        except KafkaException as error:
            raise _undelivered(topic, error.args[0].str()) from error
        return True

    def _poll(self) -> None:
        while not self._closing.is_set() and self._producer is not None:
            self._producer.poll(0.1)
            self._look(self._producer)

    def _look(self, producer: Producer) -> None:
        """In doubt, note whether the broker is away; give up all when somebody waited too long."""
        now = time.monotonic()
        if any(now > deadline for deadline in tuple(self._impatient.values())):
            why = f"no acknowledgement from {self.broker} within {IMPATIENT_SECONDS:g} s"
            self._give_up(producer, why)
        if not len(producer):
            self._heard_at = now
        if now < self._look_at or not (self._doubted or now - self._heard_at > SILENT_SECONDS):
            return
        self.away = why_unreachable(self.broker)
        self._doubted = bool(self.away)
        self._look_at = time.monotonic() + LOOK_SECONDS
        if self.away and self._impatient:
            self._give_up(producer, f"no broker answers at {self.broker} ({self.away})")

    def _give_up(self, producer: Producer, why: str) -> None:
        self._given_up = why
        producer.purge()

    def _drain(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while self.waiting and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.waiting

    def _raise_put_error(self) -> None:
        if self._put_error:
            message, self._put_error = self._put_error, ""
            raise DeliveryError(message)

    # The poll thread alone calls these, so that plain counters are exact.

    def _troubled(self, error: KafkaError) -> None:
        self._doubted |= error.code() == KafkaError._ALL_BROKERS_DOWN
        if error.code() not in (*REPEATED, self._told):
            self._told = error.code()
            log.warning("publishing to %s is in trouble: %s", self.broker, error.str())

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.delivered += 1
            self._heard_at = time.monotonic()
            self._told = None
        else:
            self.failed += 1
            self.last_error = str(_undelivered(message.topic(), self._cause(error)))

    def _cause(self, error: KafkaError) -> str:
        if error.code() == KafkaError._MSG_TIMED_OUT:
            cause = f"no acknowledgement from {self.broker} within {self.delivery_seconds:g} s"
        elif error.code() in GIVEN_UP:
            cause = self._given_up
        else:
            return error.str()
        return f"{cause}; it is not sent again, but may have arrived"

    def _note_put(self, error: KafkaError | None, message: Message) -> None:
        self._note(error, message)
        if error is not None and not self._put_error:
            self._put_error = self.last_error

    def _note_awaited(
        self, future: asyncio.Future[Acknowledged], error: KafkaError | None, message: Message
    ) -> None:
        self._note(error, message)
        outcome: Acknowledged | str = self.last_error
        if error is None:
            outcome = (message.partition() or 0, message.offset() or 0)
        # The loop may have ended: then nobody waits for the answer any more.
        with suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(_resolve, future, outcome)


def _resolve(future: asyncio.Future[Acknowledged], outcome: Acknowledged | str) -> None:
    if future.done():
        return
    if isinstance(outcome, str):
        future.set_exception(DeliveryError(outcome))
    else:
        future.set_result(outcome)


def _undelivered(topic: str | None, cause: str) -> DeliveryError:
    return DeliveryError(f"the broker did not take a message for topic {topic!r}: {cause}")

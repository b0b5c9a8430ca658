"""The embedded broker: the real Kafka protocol on a loopback port, from pip alone."""

from __future__ import annotations

import logging
import secrets
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from learners.errors import BrokerError

if TYPE_CHECKING:
    from confluent_kafka import Producer

__all__ = [
    "EMBEDDED_LIMITS",
    "EmbeddedBroker",
    "broker_apis",
    "check_port",
    "free_port",
    "is_embedded",
    "why_unreachable",
]

EMBEDDED_LIMITS = (
    "The embedded broker keeps the newest 5 MB of a partition in memory and drops older events; "
    "all of it is gone when it stops. Topics appear on first use with 4 partitions. For data that "
    "stays: `make kafka`, or any Kafka."
)

API_VERSIONS, CREATE_TOPICS = 18, 19
# Below the range from which systems take ports for outgoing connections, so that nobody takes the
# port between the question and the broker's start.
PORTS = range(20_000, 32_000)


class EmbeddedBroker:
    """librdkafka's in-process cluster of one broker, on a free port of 127.0.0.1.

    In memory: the newest 5 MiB of a partition, as its producers compressed them, older batches are
    dropped and all is gone at exit. It creates topics (4 partitions) on first use only. The system
    chooses the port.

    Examples
    --------
    >>> with EmbeddedBroker() as broker:
    ...     broker.address.split(":")[0], is_embedded(broker.address)
    ('127.0.0.1', True)
    """

    def __init__(self) -> None:
        self._cluster: Producer | None = None
        self.address = ""

    def start(self) -> Self:
        """Start the broker; `address` is known afterwards."""
        from confluent_kafka import Producer

        logger = logging.getLogger("everlearn.broker")
        options = {"test.mock.num.brokers": 1, "log_level": 4}
        self._cluster = Producer(options, logger=logger)
        (broker,) = self._cluster.list_topics(timeout=10).brokers.values()
        self.address = f"{broker.host}:{broker.port}"
        return self

    def stop(self) -> None:
        """Stop the broker; everything it held is gone."""
        self._cluster = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, for a server that starts in a moment."""
    for _ in range(200):
        port = secrets.choice(PORTS)
        with suppress(BrokerError):
            check_port(port)
            return port
    raise BrokerError(f"no free port among {PORTS.start} to {PORTS.stop} on 127.0.0.1")


def check_port(port: int) -> None:
    """Check that a server can listen on a port of 127.0.0.1.

    Raises
    ------
    BrokerError
        Somebody listens there, or this user may not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "ports are 0 to 65535"
            raise BrokerError(
                f"port {port} of 127.0.0.1 is not free ({why}): stop what listens there, or "
                "choose another port (--port 0 takes a free one)"
            ) from error


def why_unreachable(broker: str, timeout_seconds: float = 1.0) -> str:
    """Return why none of `host:port[,host:port]` accepts a connection; nothing if one does."""
    problems = []
    for address in broker.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_seconds).close()
        except (OSError, ValueError) as error:
            problems.append(getattr(error, "strerror", None) or str(error))
            continue
        return ""
    return "; ".join(dict.fromkeys(problems))


def is_embedded(broker: str, timeout_seconds: float = 3.0) -> bool:
    """Tell whether an address is an embedded broker: it cannot create topics on request.

    Raises
    ------
    BrokerError
        Nobody answers at the address, or not as Kafka does.
    """
    return CREATE_TOPICS not in broker_apis(broker, timeout_seconds)


def broker_apis(broker: str, timeout_seconds: float = 3.0) -> frozenset[int]:
    """Ask the first reachable broker of `host:port[,host:port]` which requests it answers.

    One request by hand, because kafka-python needs half a minute to fail on an embedded broker.

    Raises
    ------
    BrokerError
        Nobody answers, or not as Kafka does (a TLS listener, another service).
    """
    problems = []
    for address in broker.split(","):
        try:
            return _ask_apis(address.strip(), timeout_seconds)
        except (OSError, ValueError, struct.error) as error:
            why = getattr(error, "strerror", None) or error
            problems.append(f"{address.strip()} ({why})")
    raise BrokerError(
        f"no Kafka broker answers at {', '.join(problems)}; start one (`everlearn broker`, "
        "`make kafka`) or name yours with EVERLEARN_BROKER=host:port"
    )


def _ask_apis(address: str, timeout_seconds: float) -> frozenset[int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("is not host:port")
    client = b"everlearn"
    request = struct.pack(">hhih", API_VERSIONS, 0, 1, len(client)) + client
    with socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            if not 10 <= size <= 65_536:
                raise ValueError("does not speak Kafka's plain protocol")
            answer = stream.read(size)
    _, failure, count = struct.unpack_from(">ihi", answer)
    if failure:
        raise ValueError(f"refused with Kafka's error code {failure}")
    return frozenset(key for key, _, _ in struct.iter_unpack(">hhh", answer[10 : 10 + 6 * count]))

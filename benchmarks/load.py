"""The load generator: requests at a constant rate, whatever becomes of the ones before.

`python -m benchmarks.load JOB` sends `GET /recommend` over raw keep-alive sockets; it prints a line
when it is warm and one with the figures. A latency counts from the moment when its request was due,
so that a server that stalls is charged for everybody it keeps waiting. One thread, `select` with
its microseconds, and no parsing beyond what tells a whole answer from a part: it takes a small part
of a processor (`load_cpu`), and so measures the server and not itself.
"""

from __future__ import annotations

import gc
import json
import math
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import job_of
from benchmarks.rows import percentiles

__all__ = ["HOST", "Connection", "Load"]

HOST = "127.0.0.1"
CONNECTIONS = 64
GRACE_SECONDS = 5.0  # for the last answers; what comes later has failed
WARM_SECONDS = 1.0  # sent first, at the same rate, and not counted
LOST_SECONDS = 1.0  # a rate under which requests wait so long cannot be kept up
CHUNK = 1 << 16
LENGTH = b"content-length:"


class Connection:
    """A keep-alive connection that has at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=GRACE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.got = b""
        self.needed = math.inf

    def fileno(self) -> int:
        """The file descriptor, as `select` asks for it."""
        return self.socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at this moment."""
        self.due, self.got, self.needed = due, b"", math.inf
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what has come; True when the answer is whole.

        Raises
        ------
        OSError
            The server closed the connection.
        """
        part = self.socket.recv(CHUNK)
        if not part:
            raise OSError("the server closed the connection")
        self.got += part
        if self.needed is math.inf and (head := self.got.find(b"\r\n\r\n")) >= 0:
            place = self.got.find(LENGTH, 0, head) + len(LENGTH)
            self.needed = head + 4 + int(self.got[place : self.got.find(b"\r", place)])
        return len(self.got) >= self.needed

    def is_list(self, k: int) -> bool:
        """Whether the answer is a list of k items."""
        return self.got.startswith(b"HTTP/1.1 200 ") and self.got.count(b'{"item":') == k

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class Load:
    """Requests for recommendations at a constant rate.

    Parameters
    ----------
    port
        Where the node answers.
    users
        Who is asked for, one after the other.
    rate
        Requests a second.
    k
        Items asked for; an answer with another number of them has failed.
    """

    def __init__(self, *, port: int, users: Sequence[str], rate: float, k: int = 10) -> None:
        self.rate = rate
        self.k = k
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.failed = 0
        self._port = port
        self._requests = [
            f"GET /recommend/{user}?k={k} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
            for user in users
        ]
        self._idle = deque(Connection(port) for _ in range(CONNECTIONS))
        self._busy: set[Connection] = set()

    def run(self, seconds: float, *, give_up: bool = False) -> dict[str, Any]:
        """Send for so long and wait for the last answers; return the figures.

        Parameters
        ----------
        give_up
            Stop early when the server falls behind by a second; then `failed` counts the rest.
        """
        self.latencies, self.late, self.failed = [], [], 0
        total = int(seconds * self.rate)
        cpu, started = time.process_time(), time.perf_counter() + 0.001
        sent = self._drive(total, started, give_up)
        passed = time.perf_counter() - started
        self.failed += len(self._busy) + total - sent
        self._replace(list(self._busy))
        return {
            "requests_per_second": round(len(self.latencies) / max(passed, seconds), 1),
            **percentiles(self.latencies, 50, 90, 99),
            "failed": self.failed,
            "requests": total,
            "sent_late_p99_ms": percentiles(self.late, 99)["p99_ms"],
            "load_cpu": round((time.process_time() - cpu) / passed, 3),
            "seconds": passed,
        }

    def close(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._busy):
            connection.close()

    def _drive(self, total: int, started: float, give_up: bool) -> int:
        """Send each request when it is due and a connection is free; return how many were sent."""
        idle, busy, clock = self._idle, self._busy, time.perf_counter
        end = started + total / self.rate + GRACE_SECONDS
        sent, due = 0, started
        while (sent < total or busy) and (now := clock()) < end:
            while sent < total and due <= now and idle:
                self._send(idle.popleft(), sent, due, now)
                sent += 1
                due = started + sent / self.rate
            if give_up and now - due > LOST_SECONDS:
                break
            waits = due - clock() if sent < total and idle else end - now
            for connection in select.select(busy, (), (), max(0.0, waits))[0]:
                self._receive(connection)
        return sent

    def _send(self, connection: Connection, number: int, due: float, now: float) -> None:
        if len(self._idle) >= CONNECTIONS // 2:
            self.late.append(now - due)  # later than it had to be: our fault, not the server's
        try:
            connection.send(self._requests[number % len(self._requests)], due)
            self._busy.add(connection)
        except OSError:
            self.failed += 1
            self._idle.append(connection)
            self._replace([connection])

    def _receive(self, connection: Connection) -> None:
        try:
            if not connection.receive():
                return
        except OSError:
            self.failed += 1
            self._replace([connection])
            return
        self.latencies.append(time.perf_counter() - connection.due)
        self.failed += not connection.is_list(self.k)
        self._busy.discard(connection)
        self._idle.append(connection)

    def _replace(self, broken: Sequence[Connection]) -> None:
        """Put new connections in the place of broken ones."""
        for connection in broken:
            connection.close()
            self._busy.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._idle.append(Connection(self._port))


def main() -> None:
    """Warm up, then measure."""
    job, _ = job_of(sys.argv[1:])
    users = Path(job["users"]).read_text().split()
    load = Load(port=job["port"], users=users, rate=job["rate"])
    gc.disable()
    load.run(WARM_SECONDS)
    print(json.dumps("warm"), flush=True)
    figures = load.run(job["seconds"], give_up=job["give_up"])
    load.close()
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

"""A node or trainer in a process of its own, for demo and tests: it never outlives its parent.

The child reads a pipe that only the parent holds open. However the parent ends, killed or not, the
pipe ends with it, and the child stops as if it had been told to.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from learners.errors import EverlearnError
from streams.processes import how_it_ended

__all__ = ["ChildProcess", "NodeProcess", "TrainerProcess", "clean_environment"]

HOST = "127.0.0.1"
STOP_SECONDS = 20.0
LOG_TAIL_BYTES = 2000


class ChildProcess:
    """A command of ours as a child process.

    Parameters
    ----------
    words
        The command line after `everlearn`.
    log
        The file that takes the child's log.
    environment
        Variables of the child; by default this process's own without `EVERLEARN_...`, so that
        nobody's settings leak in.
    """

    what = "the process"

    def __init__(
        self, words: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.words = words
        self.log = log
        self.environment = environment if environment is not None else clean_environment()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "serving.child", *self.words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,  # Ctrl-C is for the parent, which stops the child in order
            )
        return self

    def check(self) -> None:
        """Raise an error with the log's tail if the process has ended."""
        if self.process is None or self.process.poll() is not None:
            code = None if self.process is None else self.process.returncode
            raise EverlearnError(f"{self.what} has ended, {how_it_ended(code)}\n{self.tail()}")

    def stop(self) -> int:
        """Stop the process in order; return its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            if self.process.stdin is not None:
                self.process.stdin.close()

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class TrainerProcess(ChildProcess):
    """`everlearn train` as a child process.

    Parameters
    ----------
    broker, state_dir
        As the flags of `everlearn train`.
    log, environment
        As of any child.
    """

    what = "the trainer"

    def __init__(
        self, *, broker: str, state_dir: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        words = ["train", "--broker", broker, "--state-dir", str(state_dir.resolve())]
        super().__init__(words, log=log, environment=environment)


class NodeProcess(ChildProcess):
    """`everlearn node` as a child process, on 127.0.0.1.

    Parameters
    ----------
    broker, state_dir, port
        As the flags of `everlearn node`.
    log, environment
        As of any child.
    flags
        More flags of `everlearn node`.
    """

    what = "the node"

    def __init__(
        self,
        *,
        broker: str,
        state_dir: Path,
        port: int,
        log: Path,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        words = ["node", "--broker", broker, "--state-dir", str(state_dir.resolve())]
        words += ["--host", HOST, "--port", str(port), *flags]
        super().__init__(words, log=log, environment=environment)
        self.state_dir = state_dir
        self.port = port
        self.url = f"http://{HOST}:{port}"

    def wait_until_live(self, seconds: float = 90.0, stop: threading.Event | None = None) -> bool:
        """Wait until the API answers; False when `stop` was set before.

        Raises
        ------
        EverlearnError
            The process ended, or does not answer in time; the message ends with its log's tail.
        """
        stop = stop or threading.Event()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            if _answers(self.port):
                return True
            if stop.wait(0.05):
                return False
        raise EverlearnError(f"the node does not answer after {seconds:g} s\n{self.tail()}")


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of everlearn, but where its caches are."""
    kept = {"EVERLEARN_CACHE"}
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EVERLEARN_") or name in kept
    }


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop_with_the_pipe() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_the_pipe, name="parent", daemon=True).start()
    from serving.cli import main

    main()

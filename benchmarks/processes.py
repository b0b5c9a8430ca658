"""Processes of a benchmark: each part has its own, which ends with us and whose CPU is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.rows import ROOT
from learners.errors import EverlearnError
from serving.child import clean_environment

__all__ = ["Part", "busy_seconds", "cpu_seconds", "end_with_parent", "job_of", "run_part"]

STOP_SECONDS = 20.0
TAIL_BYTES = 3000


class Part:
    """A module of ours as a child process; it reads a pipe that ends when we do.

    Parameters
    ----------
    module
        What `python -m` runs.
    words
        Its arguments; a mapping is given as one word of JSON.
    """

    def __init__(self, module: str, *words: str | Mapping[str, object]) -> None:
        self.module = module
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        given = [word if isinstance(word, str) else json.dumps(word) for word in words]
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, *given],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: we stop the parts in order
        )

    def line(self) -> Any:
        """Wait for the next line it prints, which is JSON.

        Raises
        ------
        EverlearnError
            It ended without one; the message has the end of its log.
        """
        text = self.process.stdout.readline() if self.process.stdout else ""
        if not text:
            code = self.process.wait()
            raise EverlearnError(f"{self.module} ended with code {code}:\n{self.tail()}")
        return json.loads(text)

    def tail(self) -> str:
        """The end of what it wrote to standard error."""
        end = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, end - TAIL_BYTES))
        return self.log.read().decode(errors="replace")

    def stop(self) -> None:
        """End it, in order if it listens."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def run_part(module: str, *words: str | Mapping[str, object], seconds: float) -> Any:
    """Run a module to the end in a fresh process; return the one line of JSON it prints.

    Raises
    ------
    EverlearnError
        It failed, or took longer than `seconds`.
    """
    ended_late = threading.Event()

    def end() -> None:
        ended_late.set()
        part.process.kill()

    with Part(module, *words) as part:
        late = threading.Timer(seconds, end)
        late.start()
        try:
            return part.line()
        except EverlearnError as error:
            if ended_late.is_set():
                raise EverlearnError(
                    f"{module} was not done after {seconds:g} s; give it less to do\n{part.tail()}"
                ) from error
            raise
        finally:
            late.cancel()


def job_of(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The job (JSON, last word) of a process that `Part` started, and the words before it."""
    end_with_parent()
    return json.loads(words[-1]), words[:-1]


def end_with_parent() -> None:
    """End this process at once when the pipe on its standard input ends."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children, user and system; 0 where the system tells nothing."""
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(path.parent.name)] = int(fields[1])
        spent[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    return sum(ticks for each, ticks in spent.items() if _descends(each, pid, parents)) / tick


def busy_seconds() -> float:
    """CPU time of everything on this machine; 0 where the system tells nothing."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, interrupt, soft_interrupt, stolen = map(int, fields)
    busy = user + nice + system + interrupt + soft_interrupt + stolen
    return busy / os.sysconf("SC_CLK_TCK")


def _descends(process: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    while process and process != ancestor:
        process = parents.get(process, 0)
    return process == ancestor

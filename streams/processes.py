"""Child processes: stopped however their parent ends, and how they ended, in words."""

from __future__ import annotations

import signal
import subprocess

__all__ = ["Watcher", "how_it_ended"]


class Watcher:
    """Stops a process when we end, killed or not.

    A shell reads a pipe that only we hold open; with us the pipe ends, and the shell sends SIGTERM.
    """

    def __init__(self, process: int) -> None:
        self._shell = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", 'cat; kill "$1" 2>/dev/null', "watcher", str(process)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Watch no more, because the process has ended or is about to."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            self._shell.stdin.close()


def how_it_ended(code: int | None) -> str:
    """Say what a process's exit code means.

    >>> how_it_ended(1), how_it_ended(-9)
    ('exit code 1', 'killed by SIGKILL (by somebody, or for want of memory)')
    >>> how_it_ended(-15)
    'killed by SIGTERM'
    """
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (by somebody, or for want of memory)"
    return f"killed by {signal.Signals(-code).name}"

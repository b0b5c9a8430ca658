"""Ctrl-C and SIGTERM: the one way in which a command that goes on and on is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

__all__ = ["Stop", "interrupted_when_told", "told_to_stop"]


class Stop(threading.Event):
    """An event that either signal sets while its block runs; `number` is the signal's."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self._signals = _on_signals(self._note)

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._signals.__exit__(*error)

    def _note(self, number: int) -> None:
        self.number = number
        _set(self)

    @property
    def exit_code(self) -> int:
        """What a shell expects of a command that a signal has ended."""
        return 128 + self.number


@contextmanager
def told_to_stop(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """Lend an event that both signals set while the block runs, so that it ends in order.

    A thread sets it: the one that waits for the event may hold its lock when a signal comes.
    """
    chosen = stop or threading.Event()
    with _on_signals(lambda _: _set(chosen)):
        yield chosen


def _set(stop: threading.Event) -> None:
    threading.Thread(target=stop.set, name="told to stop", daemon=True).start()


@contextmanager
def interrupted_when_told() -> Iterator[None]:
    """Let both signals raise KeyboardInterrupt(number) in the block, wherever it waits."""
    with _on_signals(_interrupt):
        yield


def _interrupt(number: int) -> NoReturn:
    raise KeyboardInterrupt(number)


@contextmanager
def _on_signals(act: Callable[[int], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, lambda told, _: act(told)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

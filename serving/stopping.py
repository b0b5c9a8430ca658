"""Ctrl-C and SIGTERM: the one way in which a command that goes on and on is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["interrupted_when_told", "told_to_stop"]


@contextmanager
def told_to_stop(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """Lend an event that both signals set while the block runs, so that it ends in order.

    A thread sets it: the one that waits for the event may hold its lock when a signal comes.
    """
    chosen = stop or threading.Event()

    def set_it() -> None:
        threading.Thread(target=chosen.set, name="told to stop", daemon=True).start()

    with _on_signals(set_it):
        yield chosen


@contextmanager
def interrupted_when_told() -> Iterator[None]:
    """Let both signals raise KeyboardInterrupt in the block, wherever it waits."""
    with _on_signals(_interrupt):
        yield


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _on_signals(act: Callable[[], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, lambda *_: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

"""A progress bar on standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.console import make_console

__all__ = ["progress_bar"]

Update = Callable[[int, int | None, str], None]  # done, in all (None: unknown), a note


@contextmanager
def progress_bar(what: str, *, with_rate: bool = True) -> Iterator[Update]:
    """Show a bar with done, total, rate and time while the block runs; nothing into a pipe."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeRemaining

    console = make_console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} {task.fields[of]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemaining(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, rate="", note="", of="")

        def update(done: int, total: int | None, note: str = "") -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed and with_rate else ""
            of = f"of {total:,}" if total is not None else ""
            bar.update(task, completed=done, total=total, rate=rate, note=note, of=of)

        yield update

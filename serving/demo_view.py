"""What `everlearn demo` shows: a live summary, lines where nobody watches, a table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.demo import DemoState

__all__ = ["DemoView"]

LINE_EVERY_SECONDS = 5.0
PLAIN = "popularity"
WHY_SO_HIGH = (
    "The simulated shoppers often pick from the list that the node has just ranked for them, which "
    "is why the hit rate of the blend is high; a real shop's is lower."
)


class DemoView:
    """Shows the demo on a console.

    Parameters
    ----------
    console
        A terminal shows the summary in place; anything else gets a line every 5 seconds.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self._next_line = 0.0
        self._told_url = False

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show from here to the end of the block."""
        if not self.console.is_terminal:
            yield
            return
        starting = Text("Starting a broker, a node and shoppers ...")
        with Live(starting, console=self.console, transient=True, auto_refresh=False) as live:
            self.live = live
            yield
        self.live = None

    def show(self, state: DemoState) -> None:
        """Show the demo as it is now."""
        if not self._told_url:
            self._told_url = True
            self.console.print(f"everlearn answers at {state.url} (its API: {state.url}/docs)")
        if self.live is not None:
            status = map(Text, _status(state))
            self.live.update(Group(_table(state), *status, Text("Ctrl-C ends.", "dim")))
            self.live.refresh()
        elif state.seconds >= self._next_line:
            self._next_line = state.seconds + LINE_EVERY_SECONDS
            blend, plain = (_percent(state.figures.hit_rate(name)) for name in ("blend", PLAIN))
            rates = f"hit rate of the blend {blend}, of {PLAIN} {plain}"
            line = "; ".join([*_status(state), rates])
            self.console.print(line, soft_wrap=True)

    def end(self, state: DemoState) -> None:
        """Show the table that the demo ends with."""
        self.console.print(_table(state))
        self.console.print(WHY_SO_HIGH, style="dim", soft_wrap=not self.console.is_terminal)
        for line in _status(state, closed=True):
            self.console.print(line, highlight=False)
        if state.snapshots:
            self.console.print(_snapshots(state))
        first = state.first_answer_seconds
        if first is not None:
            self.console.print(f"first personal answer {first:.1f} s after the start of the demo")


def _table(state: DemoState) -> Table:
    figures = state.figures
    table = Table(title="Was the next item among the first 20?", title_justify="left")
    table.add_column("source")
    for title in ("since the start", "lately", "among 10"):
        table.add_column(title, justify="right")
    for source in figures.sources:
        table.add_row(
            source,
            _percent(figures.hit_rate(source)),
            _percent(figures.recent_hit_rates.get((source, 20))),
            _percent(figures.hit_rate(source, 10)),
            style="bold" if source == "blend" else None,
        )
    return table


def _status(state: DemoState, *, closed: bool = False) -> list[str]:
    """What the node and the shoppers have done; lines that a terminal of 80 columns holds."""
    now, before = state.figures, state.before
    rate = (now.events - before.events) / max(state.between_seconds, 1e-9)
    pace = "" if closed or not before.events else f" ({max(rate, 0):.0f}/s)"
    learnt = [
        f"{state.shop.seconds:.0f} s",
        f"{now.events:,} events learnt{pace}",
        f"lag {'?' if now.lag is None else now.lag}",
        f"learnt after {_mean_ms(now.freshness_seconds, now.fresh_events)} on average",
    ]
    answered = [
        f"{now.answers:,} answers, {_mean_ms(now.answer_seconds, now.answers)} each",
        f"{state.shop.clicked_shown:,} recommended items clicked",
    ]
    if state.failed_requests:
        answered.append(f"{state.failed_requests} requests failed")
    return [", ".join(learnt), ", ".join(answered), _deep(state)]


def _deep(state: DemoState) -> str:
    """What has become of the deep model's snapshots; one line."""
    told = ", ".join(f"{count} {what}" for what, count in state.counted().items())
    champion = state.champion
    gate = (champion or {}).get("gate", {})
    if champion is None or not gate:
        return f"deep model: {told}"
    now, before = (_percent(gate[f"{name}_hr@20"]) for name in ("challenger", "champion"))
    return f"deep model: {told}; {champion['id']} serves ({now}, before {before})"


def _snapshots(state: DemoState) -> Table:
    table = Table(title="Snapshots of the deep model", title_justify="left")
    for title in ("snapshot", "state", "parent"):
        table.add_column(title)
    for title in ("events", "hr@20", "before"):
        table.add_column(title, justify="right")
    for told in state.snapshots:
        gate = told.get("gate", {})
        table.add_row(
            told["id"],
            told["state"],
            told.get("parent") or "-",
            f"{told.get('events', 0):,}",
            _percent(gate.get("challenger_hr@20")),
            _percent(gate.get("champion_hr@20")),
        )
    return table


def _mean_ms(seconds: float, count: int) -> str:
    return f"{1000 * seconds / count:.1f} ms" if count else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"

"""What a replay shows: a table of prequential figures, a plot over time, `report.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learners.errors import DataError
from serving.console import make_console
from streams.targets import check_target, write_whole
from streams.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["check_targets", "plot_report", "print_report", "shown_json", "write_report"]

Report = Mapping[str, Any]

FIGURES = ("hr@10", "hr@20", "mrr@20", "ndcg@20", "coverage@20")
GROUPS = {"metrics": "all events", "purchases": "purchases"}
PLOT_SUFFIXES = (".png", ".svg", ".pdf")
JSON_KEYS = (
    *("events", "rejected", "first_rejected", "fingerprint", "microseconds_per_event"),
    *("evaluated_one_in", "metrics", "clicks", "purchases", "outcomes", "alarms"),
    *("learnt", "duplicates", "kept_out", "users", "items", "snapshot", "snapshots"),
)
# Okabe and Ito's colours, told apart by nearly everybody.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
ALARM_COLOUR = "#C1272D"
GREY = "#666666"
POINTS = 80  # of a curve at most: more are noise to the eye
DATES = 6
MOST_LINES = 12  # alarms that are lines across the plot; more would hide the curves
WHAT_AN_ALARM_IS = (
    "drift alarm: the blend hits less often than before, by more than chance explains, "
    "because tastes changed or because other people came"
)


def shown_json(report: Report) -> dict[str, Any]:
    """Take what `everlearn replay --json` prints out of a report: all but the curves."""
    return {key: report[key] for key in JSON_KEYS if key in report}


def write_report(report: Report, path: Path) -> None:
    """Write the whole report, curves included, as JSON.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    write_whole(path, (json.dumps(report, indent=2) + "\n").encode())


def print_report(report: Report) -> None:
    """Print the report as tables for people."""
    console = make_console()
    for part in _rendered(report):
        console.print(part, soft_wrap=isinstance(part, str), highlight=False)


def _rendered(report: Report) -> list[RenderableType]:
    rejected = sum(report["rejected"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["rejected"].items())
    lines = [
        f"{counted(report['events'], 'event')} learnt at {report['microseconds_per_event']:g} µs "
        f"each, {rejected:,} rejected{f' ({reasons})' if reasons else ''}",
    ]
    if report.get("first_rejected"):
        lines.append(f"the first that is no event: {report['first_rejected']}")
    lines.append(f"fingerprint {report['fingerprint']}")
    if sampled := _sampled(report):
        lines.append(f"{sampled}: all figures are of these (--sample 1 ranks every one)")
    lines += _purchase_lines(report)
    lines += _snapshot_lines(report.get("snapshots", ()))
    return [_table(report), *lines, *_alarm_lines(report.get("alarms", ()))]


def _purchase_lines(report: Report) -> list[str]:
    """Say how much value was foreseen, and whether the probabilities of a purchase came true."""
    lines = []
    blend = report["purchases"].get("blend", {})
    if "value_hr@20" in blend:
        lines.append(f"of what was spent, {blend['value_hr@20']:.4f} stood in the blend's first 20")
    outcomes = report.get("outcomes", {})
    if outcomes.get("outcomes"):
        lines.append(
            f"of {counted(outcomes['outcomes'], 'click')} followed up, {outcomes['bought']:,} led "
            f"to a purchase; calibration error of its probability "
            f"{outcomes['calibration_error']:.4f}"
        )
    return lines


def _snapshot_lines(happened: Sequence[Report]) -> list[str]:
    """Say what became of each snapshot of the deep model."""
    return [
        f"at event {told['events']:,}: snapshot {told['snapshot']} {told['what'].replace('_', ' ')}"
        f"{': ' if told['why'] else ''}{told['why']}"
        for told in happened
        if told["snapshot"]
    ]


def _sampled(report: Report) -> str:
    """Say which targets the figures are of, when not of all."""
    one_in = report.get("evaluated_one_in", 1)
    return "" if one_in == 1 else f"one event in {one_in:,} was ranked before it was learnt"


def _alarm_lines(alarms: Sequence[Report]) -> list[str]:
    if not alarms:
        return []
    last = alarms[-1]
    parts = sum(alarm["where"] != "overall" for alarm in alarms)
    return [
        f"{counted(len(alarms), 'drift alarm')} ({len(alarms) - parts} overall, {parts} in a "
        f"category or segment), the last at click or purchase {last['event']:,} ({last['where']}): "
        f"the blend's hit rate at 20 went from {last['before']:.3f} to {last['after']:.3f}",
        WHAT_AN_ALARM_IS,
    ]


def _table(report: Report) -> Table:
    """Build the table of figures; the best of each column and group is bold."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("evaluated")
    table.add_column("source")
    for name in (*FIGURES, "targets"):
        table.add_column(name.upper() if "@" in name else name, justify="right")
    for group, title in GROUPS.items():
        sources: Mapping[str, Mapping[str, float]] = report[group]
        if not any(figures["n"] for figures in sources.values()):
            continue
        best = {
            name: max((figures.get(name, 0.0) for figures in sources.values()), default=0.0)
            for name in FIGURES
        }
        for i, (source, figures) in enumerate(sources.items()):
            cells = [_cell(figures, name, best[name]) for name in FIGURES]
            table.add_row(title if i == 0 else "", source, *cells, f"{int(figures['n']):,}")
        table.add_section()
    return table


def _cell(figures: Mapping[str, float], name: str, best: float) -> str:
    if name not in figures or not figures["n"]:
        return "-"
    text = f"{figures[name]:.4f}"
    return f"[bold]{text}[/bold]" if figures[name] == best > 0 else text


def check_targets(report: Path | None, plot: Path | None, log: str) -> None:
    """Refuse files that could not be written, before the replay whose result they take.

    Raises
    ------
    DataError
        Such as `write_report` or `plot_report` would raise, or it is the log itself.
    """
    if report is not None:
        check_target(report, source=log)
    if plot is not None:
        _check_suffix(plot)
        check_target(plot, source=log)


def _check_suffix(path: Path) -> None:
    if not path.is_dir() and path.suffix.lower() not in PLOT_SUFFIXES:
        what = f"nothing draws {path.suffix}" if path.suffix[1:] else "its name has no suffix"
        raise DataError(
            f"cannot plot to {path}: {what}; name a file such as plot.png, .svg or .pdf"
        )


def plot_report(report: Report, path: Path, title: str = "") -> None:
    """Plot each source's hit rate at 20 over the log, with the drift alarms; format by suffix.

    Raises
    ------
    DataError
        The report has no curve to plot, the suffix is unknown, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    _check_suffix(path)
    if not report["windows"]["events"]:
        raise DataError("nothing was evaluated, so there is nothing to plot: replay more events")
    windows = _smoothed(report["windows"])
    figure = Figure(figsize=(10, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    top = _plot_curves(axes, windows, report["metrics"])
    _plot_alarms(axes, report.get("alarms", ()), top)
    axes.set_xlabel("clicks and purchases learnt", labelpad=20)
    axes.set_ylabel("hit rate at 20, before learning")
    axes.set_ylim(0.0, top)
    axes.set_xlim(0, windows["events"][-1])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    _add_dates(axes, windows, report.get("began"))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    notes = [_sampled(report), WHAT_AN_ALARM_IS if report.get("alarms") else ""]
    figure.supxlabel("\n".join(filter(None, notes)), x=0.01, ha="left", size="small", color=GREY)
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    write_whole(path, drawn.getvalue())


def _smoothed(windows: Report) -> dict[str, Any]:
    """Join windows to at most `POINTS` of about as many events each."""
    import numpy as np

    ends = np.asarray(windows["events"], np.float64)
    weights = np.diff(ends, prepend=0.0)
    group = np.ceil(ends / ends[-1] * POINTS - 1e-9).astype(np.int64)
    last = np.append(np.flatnonzero(np.diff(group)), len(ends) - 1)
    if len(last) > 1 and ends[last[-1]] - ends[last[-2]] < 0.5 * ends[-1] / len(last):
        last = np.delete(last, -2)  # too few events for a point of their own
    starts = np.append(0, last[:-1] + 1)
    sums = np.add.reduceat(weights, starts)
    return {
        "events": ends[last].astype(int).tolist(),
        "time": [windows["time"][place] for place in last],
        "hr@20": {
            source: (np.add.reduceat(np.asarray(rates) * weights, starts) / sums).tolist()
            for source, rates in windows["hr@20"].items()
        },
    }


def _plot_curves(axes: Axes, windows: Report, metrics: Report) -> float:
    """Draw a line a source, the first (the blend) on top; return the axis' upper end."""
    top = 0.05
    for i, (source, rates) in enumerate(windows["hr@20"].items()):
        total = metrics[source]["hr@20"]
        axes.plot(
            windows["events"],
            rates,
            label=f"{source} ({total:.3f} overall)",
            color=COLOURS[i % len(COLOURS)],
            linewidth=2.4 if i == 0 else 1.3,
            zorder=10 - i,
        )
        top = max(top, *rates)
    return min(1.0, top * 1.08)


def _plot_alarms(axes: Axes, alarms: Sequence[Report], top: float) -> None:
    """Mark the alarms: a triangle for one overall, a dot for one in a category or segment."""
    for overall, marker in ((True, "v"), (False, "o")):
        events = [each["event"] for each in alarms if (each["where"] == "overall") == overall]
        if events:
            label = f"drift alarm {'overall' if overall else 'in a part'} ({len(events)})"
            if len(alarms) <= MOST_LINES:
                axes.vlines(events, 0.0, top, ALARM_COLOUR, "dashed", linewidth=0.8, alpha=0.35)
            heights = [top * (0.95 if overall else 0.98)] * len(events)
            axes.scatter(
                events, heights, s=26, c=ALARM_COLOUR, marker=marker, label=label, zorder=20
            )


def _add_dates(axes: Axes, windows: Report, began: float | None) -> None:
    """Write on a second axis, at some places, when that was; `began` is when the log began."""
    events, times = windows["events"], windows["time"]
    if began is not None:
        events, times = [0, *events], [began, *times]
    places = sorted({round(i * (len(events) - 1) / (DATES - 1)) for i in range(DATES)})
    span = times[-1] - times[0]
    form = "%d %b %H:%M" if span < 5 * 86400 else "%d %b %Y"
    dates = axes.secondary_xaxis(-0.055)
    dates.set_xticks([events[place] for place in places])
    dates.set_xticklabels(
        [datetime.fromtimestamp(times[place], UTC).strftime(form) for place in places],
        fontsize="small",
        color=GREY,
    )
    dates.spines["bottom"].set_visible(False)
    dates.tick_params(length=0)

"""The figure of `bench drift`: the hit rate over events, a panel a scenario, a line a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.drift_stream import BIN
from streams.targets import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.drift import Course

__all__ = ["plot_courses"]

# Okabe and Ito's colours, told apart by nearly everybody.
COLOURS = ("#0072B2", "#009E73", "#E69F00", "#999999")
ALARM_COLOUR = "#C1272D"
SMOOTH = 8  # bins


def plot_courses(courses: Mapping[str, Mapping[str, Sequence[Course]]], path: Path) -> None:
    """Draw the first seed of every scenario; the format goes by suffix.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    for axes, (name, methods) in zip(panels, courses.items(), strict=True):
        _draw(axes, name, {method: each[0] for method, each in methods.items()})
    for axes in panels[::2]:
        axes.set_ylabel("hit rate at 20, before learning")
    for axes in panels[2:]:
        axes.set_xlabel("clicks and purchases")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside lower center")
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    write_whole(path, drawn.getvalue())


def _draw(axes: Axes, name: str, methods: Mapping[str, Course]) -> None:
    for i, (method, course) in enumerate(methods.items()):
        ones = np.ones(min(SMOOTH, len(course.hits)))
        rate = np.convolve(course.hits, ones, "valid") / np.maximum(
            np.convolve(course.targets, ones, "valid"), 1
        )
        ends = (np.arange(len(rate)) + len(ones)) * BIN
        width = 2.2 if i == 0 else 1.4
        axes.plot(ends, rate, label=method, color=COLOURS[i], linewidth=width, zorder=10 - i)
    ours = methods["everlearn"]
    for change in ours.scenario.changes:
        axes.axvline(change, color="#444444", linestyle=":", linewidth=1.2)
    alarms = [event for _, event in ours.alarms]
    axes.scatter(
        alarms,
        np.full(len(alarms), 0.98),
        s=30,
        c=ALARM_COLOUR,
        marker="v",
        label="everlearn's alarms",
        transform=axes.get_xaxis_transform(),
        zorder=20,
    )
    axes.set_title(f"{name} drift (dotted)", loc="left")
    axes.set_xlim(0, len(ours.hits) * BIN)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

"""The reliability figure of `bench purchases`: told probabilities against what came true."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from streams.targets import write_whole

__all__ = ["plot_reliability"]

COLOUR, GREY = "#0072B2", "#666666"


def plot_reliability(outcomes: Mapping[str, Any], dataset: str, path: Path) -> None:
    """Draw the share of clicks that led to a purchase over the probability told for them.

    A point is a tenth of the clicks; its bar is two standard errors. The format goes by suffix.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = outcomes["reliability"]
    n = np.array([row["n"] for row in rows], np.float64)
    told = np.array([row["told"] for row in rows])
    true = np.array([row["came_true"] for row in rows])
    bars = 2.0 * np.sqrt(true * (1.0 - true) / n)
    figure = Figure(figsize=(6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    ends = [0.7 * min(told.min(), max(true.min(), 1e-3)), 1.4 * max(told.max(), true.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1.0, linestyle="dashed", label="as told")
    axes.errorbar(
        told,
        np.maximum(true, ends[0]),
        yerr=[np.minimum(bars, np.maximum(true - ends[0], 0.0)), bars],
        color=COLOUR,
        marker="o",
        linestyle="none",
        capsize=3,
        label="a tenth of the clicks, ± 2 standard errors",
    )
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.set_minor_formatter("")
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_xlabel("probability of a purchase, told when the click came")
    axes.set_ylabel("share of those clicks that led to one")
    axes.grid(color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(
        f"{dataset}: {outcomes['outcomes']:,} clicks, calibration error "
        f"{outcomes['calibration_error']:.4f}",
        loc="left",
    )
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    write_whole(path, drawn.getvalue())

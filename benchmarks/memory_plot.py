"""The figure of `bench memory`: memory and hit rate as more ids come than there are rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from streams.targets import write_whole

__all__ = ["plot_overflow"]

# Okabe and Ito's colours, told apart by nearly everybody.
COLOURS = {"bounded": "#0072B2", "enough": "#E69F00"}
LABELS = {"bounded": "rows for {items:,} items, {users:,} users", "enough": "rows for all"}


def plot_overflow(
    course: Mapping[str, Sequence[Mapping[str, Any]]], users: int, items: int, path: Path
) -> None:
    """Draw resident memory and the hit rate at 20 over the ids met; the format goes by suffix.

    Raises
    ------
    DataError
        The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, samples in course.items():
        met = [sample["items_met"] / items for sample in samples]
        label = LABELS[name].format(users=users, items=items)
        look = {"color": COLOURS[name], "label": label, "linewidth": 2.0}
        upper.plot(met, [sample["resident_bytes"] / 2**20 for sample in samples], **look)
        lower.plot(met, [sample["hr@20"] for sample in samples], **look)
    upper.set_ylabel("resident memory, MiB")
    lower.set_ylabel("hit rate at 20, before learning")
    lower.set_xlabel("item ids met so far, times the rows of the smaller engine")
    for axes in (upper, lower):
        axes.set_ylim(0.0)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, loc="lower right")
    upper.set_title("More ids than rows: memory stays, quality degrades gently", loc="left")
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    write_whole(path, drawn.getvalue())

"""Tables for people: folded to the width of a terminal, whole lines into a pipe or a file."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import typer

from serving.console import make_console

__all__ = ["print_table"]


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Collection[str] = ()
) -> None:
    """Print rows of texts below their titles; only a terminal's width may break a text.

    Those below the titles that are to be `whole` are never broken, to be copied.
    """
    if sys.stdout.isatty():
        _print_folded(titles, rows, whole)
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _print_folded(
    titles: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[str]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title, *cells in zip(titles, *rows, strict=True):
        least = max(map(len, (title, *cells))) if title in whole else None
        table.add_column(title, overflow="fold", no_wrap=title in whole, min_width=least)
    for row in rows:
        table.add_row(*map(Text, row))
    make_console().print(table)

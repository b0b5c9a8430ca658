"""Measuring the engine alone: `bench memory`, `growth`, `kernels`, `allocations`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.commands.options import JsonRows, Runs

__all__ = ["add_to"]

Queries = Annotated[int, typer.Option(min=1, help="Different users who are asked for.")]
Batches = Annotated[int, typer.Option(min=1, help="Batches of 1,000 events that are timed.")]


def memory(
    users: Annotated[int, typer.Option(min=100, help="Users that are held.")] = 1_000_000,
    items: Annotated[int, typer.Option(min=100, help="Items that are held.")] = 100_000,
    history_length: Annotated[
        int, typer.Option(min=1, help="Events kept of a user (engine.history_length).")
    ] = 24,
    measured: Annotated[
        bool, typer.Option(help="Fill an engine and look at its process, three times.")
    ] = True,
    overflow_users: Annotated[
        int, typer.Option(min=0, help="Rows of the engine that meets ten times as many; 0: none.")
    ] = 20_000,
    overflow_items: Annotated[
        int, typer.Option(min=100, help="Its items; ten times as many come.")
    ] = 5_000,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw memory and hit rate beyond capacity (.png, .svg, .pdf)."),
    ] = None,
    as_json: JsonRows = False,
) -> None:
    """Bytes of an engine: the bound, a full process, ten times more ids than rows.

    The bound is what `everlearn doctor` states before anything is learnt, part
    by part; `measured` is the resident memory of fresh processes that learn
    until every row is used. Bytes a user and an item are what one more costs.
    Some five minutes at the default sizes.

    \b
    Examples:
      everlearn bench memory --plot memory.png
      everlearn bench memory --no-measured --overflow-users 0 --history-length 20 --json
    """
    from serving.commands.bench import _module, _print, _say

    if plot is not None:
        from serving.report import check_targets

        check_targets(None, plot, "")
    rows = _module("memory").run(
        users=users,
        items=items,
        history_length=history_length,
        measured=measured,
        overflow_users=overflow_users,
        overflow_items=overflow_items,
        plot=plot,
        say=_say,
    )
    _print(rows, as_json)


def growth(
    items: Annotated[
        list[int] | None,
        typer.Option(min=100, help="Items, a row each; default: 10, 100, 1,000 thousand."),
    ] = None,
    users: Annotated[int, typer.Option(min=10, help="Users, the same in each row.")] = 100_000,
    events: Annotated[
        int, typer.Option(min=1, help="Learnt first; eight for each item where that is more.")
    ] = 1_500_000,
    queries: Queries = 2_000,
    batches: Batches = 100,
    runs: Runs = 7,
    as_json: JsonRows = False,
) -> None:
    """Microseconds of an event and of a query as the catalogue grows.

    Every item is clicked several times first. Each row tells its ratio to the
    first one; the target is 1.5 from first to last. Some two minutes.

    \b
    Examples:
      everlearn bench growth
      everlearn bench growth --items 10000 --items 50000 --json
    """
    from serving.commands.bench import _module, _print, _say

    growths = _module("growth")
    rows = growths.run(
        sizes=items or growths.SIZES,
        users=users,
        least_events=events,
        queries=queries,
        batches=batches,
        runs=runs,
        say=_say,
    )
    _print(rows, as_json)


def kernels(
    items: Annotated[int, typer.Option(min=24, help="Items of the shop.")] = 50_000,
    users: Annotated[int, typer.Option(min=8, help="Users of the shop.")] = 100_000,
    history: Annotated[
        int, typer.Option(min=0, help="Events learnt before, besides one for each user and item.")
    ] = 600_000,
    queries: Queries = 1_000,
    batches: Batches = 50,
    runs: Runs = 25,
    asked: Annotated[
        int, typer.Option(min=1, help="Queries beside unbroken learning, one every 2 ms.")
    ] = 2_000,
    captures: Annotated[
        int, typer.Option(min=1, help="Checkpoints beside unbroken learning.")
    ] = 10,
    as_json: JsonRows = False,
) -> None:
    """Microseconds of the engine's parts, who waits for it, what a checkpoint stops.

    A scored query by stages, learnt and tested events, an answer beside
    unbroken learning, the pause of a checkpoint. Without Kafka, in one process.

    \b
    Examples:
      everlearn bench kernels
      everlearn bench kernels --items 5000 --users 5000 --history 50000 --json
    """
    from serving.commands.bench import _module, _print, _say

    rows = _module("kernels").run(
        crowd=_module("data").Crowd(users=users, items=items),
        history=history,
        queries=queries,
        batches=batches,
        runs=runs,
        asked=asked,
        captures=captures,
        say=_say,
    )
    _print(rows, as_json)


def allocations(
    items: Annotated[int, typer.Option(min=24, help="Items of the shop.")] = 5_000,
    users: Annotated[int, typer.Option(min=8, help="Users of the shop.")] = 10_000,
    history: Annotated[
        int, typer.Option(min=0, help="Events learnt before, besides one for each user and item.")
    ] = 50_000,
    batches: Annotated[int, typer.Option(min=1, help="Batches that are looked at.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Users who are asked for.")] = 500,
    as_json: JsonRows = False,
) -> None:
    """Objects that an event asks Python for: decoding, learning, answers.

    With memray, place by place. An object for each event would show as 1.
    Without Kafka, in one process.

    \b
    Examples:
      everlearn bench allocations
      everlearn bench allocations --batches 2 --json
    """
    from serving.commands.bench import _module, _print, _say

    rows = _module("allocations").run(
        crowd=_module("data").Crowd(users=users, items=items),
        history=history,
        batches=batches,
        queries=queries,
        say=_say,
    )
    _print(rows, as_json)


def add_to(bench: typer.Typer) -> None:
    """Add this module's commands to those of `bench`."""
    for command in (memory, growth, kernels, allocations):
        bench.command()(command)

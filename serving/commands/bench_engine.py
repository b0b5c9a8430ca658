"""Measuring the engine alone: `bench memory`, `growth`, `kernels` and others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.commands.options import SettingsFile

__all__ = ["add_to"]

AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON rows, one a line.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs of the queries; the best counts.")]
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
    as_json: AsJson = False,
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
    as_json: AsJson = False,
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
    as_json: AsJson = False,
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
    as_json: AsJson = False,
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


def coldstart(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="ml-100k.parquet, ml-100k-items.parquet beside it; else in EVERLEARN_DATA."
        ),
    ] = None,
    stream: Annotated[
        list[str] | None, typer.Option(help="ml-100k or catalogue_shock; default: both.")
    ] = None,
    events: Annotated[int, typer.Option(min=100, help="Events of the shop.")] = 60_000,
    users: Annotated[int, typer.Option(min=8, help="Users of the shop.")] = 1_000,
    items: Annotated[int, typer.Option(min=24, help="Items of the shop.")] = 1_000,
    shock: Annotated[
        int, typer.Option(min=1, help="Event of the shop with which its catalogue changes.")
    ] = 30_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shop.")] = 1,
    runs: Runs = 7,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Hits on items that nobody has clicked yet, with and without their entries.

    MovieLens 100K with genres, each film listed when it came out, and the
    synthetic shop whose catalogue changes; rows with_content and
    without_content for each. First clicks, items with fewer than 10 clicks,
    all clicks. Some two minutes.

    \b
    Examples:
      everlearn bench coldstart ml-100k.parquet --json
      everlearn bench coldstart --stream catalogue_shock --events 20000 --shock 10000
    """
    from serving.commands.bench import _check_methods, _module, _print, _say
    from streams.settings import load_settings
    from streams.shop_tastes import ShopConfig

    module = _module("coldstart")
    _check_methods(stream, module.STREAMS, "stream")
    rows = module.run(
        path,
        config=load_settings(settings_file).engine,
        shop=ShopConfig(users=users, items=items, seed=seed, drift="catalogue", drift_at=shock),
        events=events,
        streams=stream or module.STREAMS,
        runs=runs,
        say=_say,
    )
    _print(rows, as_json)


def explore(
    share: Annotated[
        list[float] | None,
        typer.Option(min=0.0, max=0.5, help="explore_share, a row each; default: 0, 5, 10, 20 %."),
    ] = None,
    items: Annotated[int, typer.Option(min=24, help="Items of the shop.")] = 500,
    users: Annotated[int, typer.Option(min=8, help="Users of the shop.")] = 500,
    events: Annotated[
        int, typer.Option(min=1_000, help="Clicks and purchases; the catalogue changes halfway.")
    ] = 10_000,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Shops, a run of each share.")] = 5,
    as_json: AsJson = False,
) -> None:
    """What exploration costs and brings: coverage, regret, clicks per answer.

    The synthetic shop with known true tastes, asked in one process; halfway,
    30 % of its items are replaced by new ones. Differences are to the first
    share, in the same shops; `within` is half of a 95 % interval. Some three
    minutes.

    \b
    Examples:
      everlearn bench explore
      everlearn bench explore --share 0 --share 0.3 --seeds 3 --json
    """
    from serving.commands.bench import _module, _print, _say

    explores = _module("explore")
    rows = explores.run(
        shares=explores.SHARES if share is None else share,
        users=users,
        items=items,
        events=events,
        seeds=seeds,
        say=_say,
    )
    _print(rows, as_json)


def drift(
    seeds: Annotated[int, typer.Option(min=1, help="Shops that every method meets.")] = 2,
    found_seeds: Annotated[
        int, typer.Option(min=1, help="Other shops, in which only detection is judged.")
    ] = 4,
    events: Annotated[int, typer.Option(min=12_000, help="Events of a run.")] = 50_000,
    users: Annotated[int, typer.Option(min=8, help="Users of the shop.")] = 1_000,
    items: Annotated[int, typer.Option(min=24, help="Items of the shop.")] = 1_000,
    sample: Annotated[int, typer.Option(min=1, help="Test one event in so many.")] = 1,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the hit rates of the first seed (.png, .svg, .pdf).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What drift costs: everlearn, without its action, refitted, and frozen.

    Four scripts of the synthetic shop (sudden, gradual, recurring, catalogue):
    events until the hit rate has recovered, regret by true taste, alarms. The
    last row tells the share of drifts found and the false alarms per million
    events. Some four minutes.

    \b
    Examples:
      everlearn bench drift --plot drift.png
      everlearn bench drift --seeds 4 --found-seeds 100 --json
    """
    from serving.commands.bench import _module, _print, _say

    if plot is not None:
        from serving.report import check_targets

        check_targets(None, plot, "")
    rows = _module("drift").run(
        users=users,
        items=items,
        events=events,
        seeds=seeds,
        found_seeds=found_seeds,
        sample=sample,
        plot=plot,
        say=_say,
    )
    _print(rows, as_json)


def add_to(bench: typer.Typer) -> None:
    """Add this module's commands to those of `bench`."""
    for command in (memory, growth, kernels, allocations, coldstart, explore, drift):
        bench.command()(command)

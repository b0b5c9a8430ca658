"""Measuring what is learnt: `bench coldstart`, `explore`, `drift`, `purchases`, `architectures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.commands.options import JsonRows, Runs, SettingsFile

__all__ = ["add_to"]


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
    as_json: JsonRows = False,
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
    as_json: JsonRows = False,
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
    as_json: JsonRows = False,
) -> None:
    """What drift costs: everlearn acting at alarms, not acting, refitted, frozen.

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


def purchases(
    path: Annotated[Path, typer.Argument(help="Parquet file of the data set.")],
    dataset: Annotated[
        str, typer.Option(help="Which data set it is: taobao or online-retail, or another one.")
    ] = "taobao",
    sample: Annotated[int, typer.Option(min=1, help="Rank one event in so many.")] = 1,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw how probabilities came true (.png, .svg, .pdf)."),
    ] = None,
    as_json: JsonRows = False,
) -> None:
    """Purchases and their value foreseen, with clicks, purchases or value as the objective.

    One row each: hit rates of purchases, plain and weighted by what was paid, of
    clicks, differences to the objective click with paired 95 % intervals, and
    how far the probability of a purchase came true.

    \b
    Examples:
      everlearn bench purchases taobao-9days.parquet --plot reliability.png
      everlearn bench purchases online-retail.parquet --dataset online-retail --sample 8 --json
    """
    from serving.commands.bench import _module, _print, _say

    if plot is not None:
        from serving.report import check_targets

        check_targets(None, plot, "")
    rows = _module("purchases").run(path, dataset, sample=sample, plot=plot, say=_say)
    _print(rows, as_json)


def architectures(
    path: Annotated[Path, typer.Argument(help="diginetica-weekly.parquet: period, session, item.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="An architecture, core for one; may be given again; default: all."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Test one session in so many.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and all draws.")] = 1,
    as_json: JsonRows = False,
) -> None:
    """The architectures of the deep model, on the same data, steps and seed.

    Trained on week 0, tested on week 1: recall and MRR in percent, seconds of
    training, parameters beside the table of items, milliseconds of one query.
    Some five minutes.

    \b
    Examples:
      everlearn bench architectures diginetica-weekly.parquet --json
      everlearn bench architectures diginetica-weekly.parquet --method core --method gru --sample 10
    """
    from learners.deep.config import FineTuneConfig
    from serving.commands.bench import _check_methods, _module, _print
    from serving.progress import progress_bar

    module = _module("architectures")
    _check_methods(method, module.METHODS)
    rows = module.run(
        path,
        methods=method or module.METHODS,
        training=FineTuneConfig(threads=1, seed=seed),
        sample=sample,
        bar=progress_bar,
    )
    _print(rows, as_json)


def add_to(bench: typer.Typer) -> None:
    """Add this module's commands to those of `bench`."""
    for command in (coldstart, explore, drift, purchases, architectures):
        bench.command()(command)

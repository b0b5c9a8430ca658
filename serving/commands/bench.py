"""Commands that measure: `bench throughput`, `latency`, `freshness` and `all` three; `ader`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from serving.commands import bench_engine, bench_learning
from serving.commands.group import Group
from serving.commands.options import JsonRows, SettingsFile

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["register"]

BrokerKind = Literal["auto", "apache", "embedded"]

Items = Annotated[int, typer.Option(min=24, help="Items of the shop.")]
Users = Annotated[int, typer.Option(min=8, help="Users of the shop.")]
Broker = Annotated[
    BrokerKind,
    typer.Option(help="Which broker to start; auto takes Apache Kafka where Java is."),
]
History = Annotated[
    int, typer.Option(min=0, help="Events learnt before, besides one for each user and item.")
]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long each row is measured.")]
Deep = Annotated[
    bool, typer.Option("--deep", help="With a deep model of all items among the sources.")
]
Traffic = Annotated[float, typer.Option(min=0, help="Events a second that are learnt meanwhile.")]

bench = typer.Typer(
    cls=Group,
    help="Measure this machine: one row per result. Needs the source checkout.",
    no_args_is_help=True,
)


@bench.command()
def throughput(
    events: Annotated[int, typer.Option(min=1, help="Events that are measured.")] = 1_000_000,
    items: Items = 50_000,
    users: Users = 100_000,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be given again.")
    ] = None,
    limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a slow method stops.")
    ] = 20.0,
    broker: Broker = "auto",
    as_json: JsonRows = False,
) -> None:
    """Events a second of six ways to read one topic, each in a fresh process.

    A plain Faust agent that does nothing (faust_agent), our batch source
    (batch_source), that with decoding (batch_source_decode), a whole node
    without its API (engine), with a deep model (engine_deep), and the
    learning of River's BiasedMF alone (river_biasedmf). Nobody's clock counts
    the first events, which name every user and every item.

    \b
    Examples:
      everlearn bench throughput
      everlearn bench throughput --json --method engine --method faust_agent
      everlearn bench throughput --events 20000 --users 500 --items 300 --broker embedded
    """
    module = _module("throughput")
    _check_methods(method, module.METHODS)
    rows = module.run(
        crowd=_crowd(users, items),
        events=events,
        limit_seconds=limit,
        methods=method or tuple(module.METHODS),
        broker=broker,
        say=_say,
    )
    _print(rows, as_json)


@bench.command()
def latency(
    rate: Annotated[
        list[float] | None,
        typer.Option(min=1, help="Requests a second, a row each; default: 200 and 1000."),
    ] = None,
    highest: Annotated[
        bool, typer.Option(help="Search the highest rate that keeps p90 within 7 ms.")
    ] = True,
    seconds: Seconds = 15.0,
    deep: Deep = False,
    events_per_second: Traffic = 5_000.0,
    history: History = 200_000,
    items: Items = 50_000,
    users: Users = 100_000,
    broker: Broker = "auto",
    as_json: JsonRows = False,
) -> None:
    """Milliseconds until GET /recommend has answered, while the node learns.

    Counted from when each request was due at a constant rate, so that waiting
    behind others counts. Broker, node, publisher and load generator are
    processes of this machine; each row tells the processors that each took.

    \b
    Examples:
      everlearn bench latency
      everlearn bench latency --rate 500 --no-highest --events-per-second 0 --json
    """
    rows = _module("latency").run(
        crowd=_crowd(users, items),
        history=history,
        events_per_second=events_per_second,
        rates=rate or (200.0, 1000.0),
        highest=highest,
        seconds=seconds,
        deep=deep,
        broker=broker,
        say=_say,
    )
    _print(rows, as_json)


@bench.command()
def swap(
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 200.0,
    swaps: Annotated[int, typer.Option(min=1, help="Promotions, evenly spread.")] = 3,
    seconds: Seconds = 20.0,
    events_per_second: Traffic = 5_000.0,
    history: History = 200_000,
    items: Items = 50_000,
    users: Users = 100_000,
    broker: Broker = "auto",
    as_json: JsonRows = False,
) -> None:
    """Answers while one deep model takes the place of another.

    One row without a promotion, one through some: failed answers, answers of
    a snapshot that does not serve, and how much longer the slowest take.

    \b
    Examples:
      everlearn bench swap
      everlearn bench swap --rate 500 --swaps 5 --json
    """
    rows = _module("swap").run(
        crowd=_crowd(users, items),
        history=history,
        events_per_second=events_per_second,
        rate=rate,
        swaps=swaps,
        seconds=seconds,
        broker=broker,
        say=_say,
    )
    _print(rows, as_json)


@bench.command()
def freshness(
    clicks: Annotated[int, typer.Option(min=1, help="Clicks that each row measures.")] = 1_000,
    deep: Deep = False,
    events_per_second: Traffic = 5_000.0,
    history: History = 200_000,
    items: Items = 50_000,
    users: Users = 100_000,
    broker: Broker = "auto",
    as_json: JsonRows = False,
) -> None:
    """Milliseconds from a click's acknowledgement to a changed answer of its user.

    One row where nothing else happens, one while other events are learnt.

    \b
    Examples:
      everlearn bench freshness
      everlearn bench freshness --deep --clicks 200 --events-per-second 0 --json
    """
    rows = _module("freshness").run(
        crowd=_crowd(users, items),
        history=history,
        clicks=clicks,
        events_per_second=events_per_second,
        deep=deep,
        broker=broker,
        say=_say,
    )
    _print(rows, as_json)


@bench.command()
def ader(
    path: Annotated[Path, typer.Argument(help="diginetica-weekly.parquet: period, session, item.")],
    cycles: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many; default: all 16.")
    ] = None,
    sample: Annotated[
        int,
        typer.Option(min=1, help="Test one session in so many; the blend learns from these alone."),
    ] = 1,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; may be given again.")
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="per_period or per_event; default: both.")
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="The deep model, fine-tuned each week, alone and in the blend."
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            help="With --deep: a folder for each week's model, where `together` finds them."
        ),
    ] = None,
    settings_file: SettingsFile = None,
    as_json: JsonRows = False,
) -> None:
    """Recall and MRR of each source, the blend and V-SKNN on ADER's protocol.

    per_period learns the weeks before and tests a whole week without learning
    in it, as ADER's table does; per_event learns each click right after it was
    tested. In percent, plain mean of the weeks; microseconds a query and an
    event learnt beside them. With --deep the deep model alone, per period, with
    and without rehearsal, distilled, and trained anew each week, seconds of its
    training, and what it still knows of the first weeks; then the blend without
    it, and together.

    \b
    Examples:
      everlearn bench ader diginetica-weekly.parquet --json
      everlearn bench ader diginetica-weekly.parquet --deep --method deep_rehearsal
      everlearn bench ader diginetica-weekly.parquet --sample 20 --cycles 4
      everlearn bench ader diginetica-weekly.parquet --method blend --protocol per_period
    """
    from serving.progress import progress_bar
    from streams.settings import load_settings

    module = _module("ader_lifelong" if deep else "ader")
    _check_methods(method, module.METHODS)
    _check_methods(protocol, module.PROTOCOLS, "protocol")
    told: dict[str, Any] = {"cycles": cycles, "sample": sample, "bar": progress_bar}
    told |= {"methods": method or module.METHODS, "protocols": protocol or module.PROTOCOLS}
    if deep:
        told["save"] = save
    _print(module.run(path, config=load_settings(settings_file).engine, **told), as_json)


@bench.command("all")
def all_(
    items: Items = 50_000,
    users: Users = 100_000,
    broker: Broker = "auto",
    as_json: JsonRows = False,
) -> None:
    """Throughput, latency and freshness, one after the other (some six minutes).

    \b
    Examples:
      everlearn bench all
      everlearn bench all --json > rows.jsonl
    """
    crowd = _crowd(users, items)
    for name in ("throughput", "latency", "freshness"):
        _print(_module(name).run(crowd=crowd, broker=broker, say=_say), as_json)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    bench_engine.add_to(bench)
    bench_learning.add_to(bench)
    app.add_typer(bench, name="bench")


def _module(name: str) -> ModuleType:
    """A module of the benchmarks, which stay in the source checkout.

    Raises
    ------
    EverlearnError
        The package was installed without it.
    """
    from importlib import import_module
    from importlib.util import find_spec

    from learners.errors import EverlearnError

    checkout = Path(__file__).parents[2]
    found = find_spec("benchmarks")
    if found is None or found.origin != str(checkout / "benchmarks" / "__init__.py"):
        raise EverlearnError(
            f"there is no folder benchmarks in {checkout}: everlearn was installed without its "
            "source checkout; clone it, and run `make bench` there"
        )
    return import_module(f"benchmarks.{name}")


def _crowd(users: int, items: int) -> Any:
    return _module("data").Crowd(users=users, items=items)


def _check_methods(given: list[str] | None, known: Iterable[str], what: str = "method") -> None:
    for name in given or ():
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is no {what}: give one of {', '.join(known)}", param_hint=f"--{what}"
            )


def _say(text: str) -> None:
    """Tell whoever watches; nothing into a pipe or a file."""
    import sys

    if sys.stderr.isatty():
        typer.echo(f"  {text} ...", err=True)


def _print(rows: Iterable[dict[str, object]], as_json: bool) -> None:
    """Print each row as soon as it is there."""
    import json

    for row in rows:
        typer.echo(json.dumps(row) if as_json else _for_people(row))


def _for_people(row: dict[str, object]) -> str:
    frame = ("benchmark", "method", "commit", "cpus", "date")
    title = typer.style(f"{row['benchmark']} {row['method']}", bold=True)
    lines = [f"  {name:22} {_number(value)}" for name, value in row.items() if name not in frame]
    return "\n".join([title, *lines])


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)

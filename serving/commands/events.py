"""Commands that publish events: `send` JSON lines, `import` a data set, `simulate` a shop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.commands.options import AsJson, Broker, SettingsFile

if TYPE_CHECKING:
    from streams.importer import Imported
    from streams.shop import Shop
    from streams.simulate import Api, Simulated

__all__ = ["register"]

LINES_TOLD = 10


def send(
    file: Annotated[str, typer.Argument(help="JSON lines, each with its type; - reads stdin.")],
    broker: Broker = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Publish events from JSON lines; ids and times are made when left out.

    Missing topics are made. Lines that are no event are not sent, the others
    are. The first ten of them are reported with number and reason, all are
    counted; the exit code is 1.

    \b
    Examples:
      everlearn send events.jsonl
      echo '{"type": "click", "user": "anna", "item": "teapot"}' | everlearn send -
    """
    import json
    from collections import Counter

    from learners.errors import DataError
    from streams.decode import Rejected
    from streams.lines import check_lines
    from streams.producer import EventProducer
    from streams.settings import load_settings
    from streams.topics import create_topics
    from streams.words import counted

    settings = load_settings(settings_file, broker=broker)
    sent = 0
    bad: list[dict[str, object]] = []
    reasons: Counter[str] = Counter()

    def report(line: int, reason: str, detail: str) -> None:
        reasons[reason] += 1
        if len(bad) < LINES_TOLD:
            bad.append({"line": line, "reason": reason, "detail": detail})
            typer.echo(f"line {line}: {reason}: {detail}", err=True)

    with _opened(file) as lines, EventProducer(settings=settings) as producer:
        create_topics(settings)
        for number, outcome in check_lines(lines):
            if isinstance(outcome, Rejected):
                report(number, outcome.reason, outcome.detail)
                continue
            try:
                producer.send(outcome)
                sent += 1
            except DataError as error:
                report(number, "refused", str(error))
    told = {"sent": sent, "rejected": bad, "reasons": dict(reasons.most_common())}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        rejected = f"{counted(reasons.total(), 'line')} rejected"
        typer.echo(f"{counted(sent, 'event')} sent, {rejected}" + (f" ({why})" if why else ""))
    if bad:
        raise typer.Exit(1)


def import_(
    name: Annotated[str, typer.Argument(help="taobao, online-retail, diginetica or ml-100k.")],
    path: Annotated[Path, typer.Argument(help="Its parquet file.")],
    speed: Annotated[
        str, typer.Option(help="max, or event time against real time: 60x is a minute a second.")
    ] = "max",
    skip: Annotated[
        int, typer.Option(min=0, help="Leave out the first events: to go on after Ctrl-C.")
    ] = 0,
    broker: Broker = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Publish a real data set to its topics, each event at its own time.

    Missing topics are made; it warns when one would not keep events that old.
    Ctrl-C ends it once the broker has what was published, and tells how to go on.

    \b
    Examples:
      everlearn import taobao taobao-9days.parquet
      everlearn import ml-100k ml-100k.parquet --speed 3600x
    """
    import json
    from dataclasses import asdict

    from serving.progress import progress_bar
    from serving.stopping import Stop
    from streams.datasets import load_dataset
    from streams.importer import import_dataset, parse_speed, prepare_topics
    from streams.settings import load_settings

    settings = load_settings(settings_file, broker=broker)
    factor = parse_speed(speed)
    dataset = load_dataset(name, path)
    for warning in prepare_topics(dataset, settings):
        typer.echo(f"warning: {warning}", err=True)
    with Stop() as stop, progress_bar(f"importing {name}") as update:
        done = import_dataset(
            dataset,
            settings,
            speed=factor,
            skip=skip,
            stop=stop,
            progress=lambda published, total: update(published, total, ""),
        )
    if as_json:
        rate = round(done.events / done.seconds) if done.seconds else 0
        typer.echo(json.dumps({"dataset": name, **asdict(done), "events_per_second": rate}))
    else:
        _print_imported(done)
    if done.left:
        typer.echo(
            f"stopped, {done.left:,} events are left: the same command with --skip "
            f"{skip + done.events} goes on",
            err=True,
        )
        raise typer.Exit(stop.exit_code)


def _print_imported(done: Imported) -> None:
    from streams.words import counted

    rate = done.events / done.seconds if done.seconds else 0.0
    kinds = ", ".join(counted(count, kind) for kind, count in done.types.items())
    shown = f" ({kinds})" if kinds else ""
    typer.echo(f"{counted(done.events, 'event')} published{shown} at {rate:,.0f}/s")
    for reason, count in done.rejected.items():
        verb = "is no event" if count == 1 else "are no events"
        typer.echo(f"{counted(count, 'row')} {verb}: {reason}")


def simulate(
    users: Annotated[int, typer.Option(min=4, max=1_000_000, help="Shoppers.")] = 1000,
    items: Annotated[int, typer.Option(min=24, max=200_000, help="Items on sale.")] = 500,
    seconds: Annotated[
        float | None, typer.Option(help="End after so long; default: at Ctrl-C.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    rate: Annotated[float, typer.Option(help="Events a second.")] = 50.0,
    drift: Annotated[
        str, typer.Option(help="none, sudden, gradual, recurring or catalogue.")
    ] = "none",
    drift_at: Annotated[
        int | None,
        typer.Option(min=1, help="Event number of the drift; default: the middle, or 5000."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same shop.")] = 1,
    api: Annotated[
        str | None,
        typer.Option(help="A node's API: shoppers look at what it recommends, and click by taste."),
    ] = None,
    broker: Broker = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Publish what happens in a synthetic shop, live, until its end or Ctrl-C.

    As --drift says, tastes change at once, gradually, or come and go, or a
    part of the catalogue is replaced.

    \b
    Examples:
      everlearn simulate --rate 100 --seconds 60 --api http://127.0.0.1:8080
      everlearn simulate --events 20000 --drift sudden --drift-at 10000 --seed 7
    """
    from streams.importer import EventWriter
    from streams.publisher import Publisher
    from streams.settings import load_settings
    from streams.simulate import Api, Simulation, check_pace
    from streams.topics import check_broker

    settings = load_settings(settings_file, broker=broker)
    check_pace(rate, seconds, events)
    lengths = [length for length in (events, seconds and round(seconds * rate)) if length]
    planned = min(lengths, default=None)
    shop = _shop(users, items, seed, drift, drift_at or max(1, (planned or 10_000) // 2))
    _warn_of_drift(drift, drift_at, planned)
    with ExitStack() as stack:
        asks = stack.enter_context(Api(api)) if api else None
        if asks is not None:
            asks.check()
        check_broker(settings)
        publisher = stack.enter_context(Publisher(settings.broker, settings))
        simulation = Simulation(shop, EventWriter(publisher, settings), rate=rate, api=asks)
        _run_simulation(simulation.run, seconds, events, asks, as_json)


def _warn_of_drift(drift: str, drift_at: int | None, planned: int | None) -> None:
    """Say when a drift was asked for that nobody will see."""
    from streams.words import counted

    if drift_at is None:
        return
    if drift == "none":
        typer.echo("warning: --drift-at does nothing without --drift, e.g. sudden", err=True)
    elif planned is not None and drift_at >= planned:
        typer.echo(
            f"warning: --drift-at {drift_at} comes after the end of this run, which has "
            f"{counted(planned, 'event')}: there will be no drift",
            err=True,
        )


def _shop(users: int, items: int, seed: int, drift: Any, drift_at: int) -> Shop:
    """Open a shop whose events have ids of their own, so that no two runs look like repeats."""
    import time

    from streams.shop import Shop, ShopConfig

    name = f"shop-{time.time_ns() // 1_000_000:x}"
    config = ShopConfig(
        users=users,
        items=items,
        seed=seed,
        drift=drift,
        drift_at=drift_at,
        drift_length=max(1, drift_at // 2),
        name=name,
    )
    return Shop(config)


def _run_simulation(
    run: Callable[..., Simulated],
    seconds: float | None,
    events: int | None,
    api: Api | None,
    as_json: bool,
) -> None:
    import json
    from dataclasses import asdict

    from serving.progress import progress_bar
    from serving.stopping import told_to_stop
    from streams.words import counted

    with told_to_stop() as stop, progress_bar("simulating") as update:
        done = run(
            seconds=seconds,
            events=events,
            stop=stop,
            progress=lambda so_far: update(
                so_far.events,
                events,
                f"{so_far.clicked_shown:,} recommended items clicked" if api else "",
            ),
        )
    problem = api.problem if api and done.failed_requests else ""
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"api_problem": problem}))
        return
    typer.echo(
        f"{counted(done.events, 'event')} in {done.seconds:.1f} s: "
        f"{counted(done.clicks, 'click')}, {counted(done.purchases, 'purchase')}"
    )
    if done.asked:
        failed = f"{counted(done.failed_requests, 'request')} failed"
        typer.echo(
            f"{counted(done.asked, 'list')} asked for, {done.clicked_shown:,} clicked, {failed}"
            + (f" ({problem})" if problem else "")
        )


@contextmanager
def _opened(file: str) -> Iterator[Iterator[bytes]]:
    import sys

    from learners.errors import DataError

    if file == "-":
        yield iter(sys.stdin.buffer)
        return
    try:
        with Path(file).open("rb") as lines:
            yield iter(lines)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; give a file or -") from error


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(send)
    app.command("import")(import_)
    app.command()(simulate)

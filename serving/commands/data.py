"""Commands for logs: `record` writes topics into a file, `replay` learns them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.commands.options import AsJson, Broker, SettingsFile

__all__ = ["DatasetName", "Log", "register"]


Topics = Annotated[
    str | None, typer.Option(help="Topics, joined by commas; default: all that carry events.")
]
From = Annotated[
    str | None,
    typer.Option("--from", help="First offset, or time: 1200 or 2025-06-01T12:00 (UTC)."),
]
To = Annotated[
    str | None,
    typer.Option("--to", help="Offset or time to stop before; default: the topics' ends."),
]
Follow = Annotated[
    bool, typer.Option("--follow", help="Go on with what arrives, until --to or Ctrl-C.")
]
Log = Annotated[
    str,
    typer.Argument(
        help="A recorded log, JSON lines (.jsonl or -), kafka://host:port, or a data set."
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(help="LOG is this data set: taobao, online-retail, diginetica or ml-100k."),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Plot the hit rates over time: a file named .png, .svg or .pdf."),
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", help="Write every figure there, as JSON.")
]
StopAt = Annotated[int | None, typer.Option(min=0, help="Stop after so many events of the log.")]
CheckpointFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder to go on from, if it holds a checkpoint, and to leave one in; not with --deep."
    ),
]
DeepToo = Annotated[
    bool,
    typer.Option(
        "--deep",
        help="Train, judge and serve a deep model on the way, at the same events every time. "
        "Not to be resumed: what was stopped begins anew. Exit code 1 if every lesson failed.",
    ),
]
SnapshotFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of snapshots whose champion answers; with --deep, one without snapshots, "
        "where new ones are left."
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Evaluate one event in so many, which is faster, but of fewer targets: all figures "
        "are of these. Default: all, or what the recorded node did.",
    ),
]


def record(
    file: Annotated[Path, typer.Argument(help="Where the log goes, e.g. last-week.parquet.")],
    topics: Topics = None,
    start: From = None,
    stop: To = None,
    follow: Follow = False,
    broker: Broker = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Write topics into a recorded log (parquet), for `everlearn replay`.

    It reads without a consumer group, up to the ends at its start.
    The log keeps what each topic carries and how the engine is set.
    A file that is there is replaced at the end, when there is anything.

    \b
    Examples:
      everlearn record last-week.parquet --from 2025-06-01 --to 2025-06-08
      everlearn record all.parquet --topics everlearn.clicks,everlearn.purchases --json
    """
    import json

    from serving.progress import progress_bar
    from serving.stopping import interrupted_when_told
    from streams.record import Range, record_topics
    from streams.settings import load_settings

    settings = load_settings(settings_file, broker=broker)
    names = [name.strip() for name in topics.split(",")] if topics else None
    chosen = Range.parse(start, stop)
    try:
        # A service manager's stop ends a recording as Ctrl-C does: what has come is kept.
        with interrupted_when_told(), progress_bar("recording") as update:
            counts = record_topics(
                settings,
                file,
                names,
                chosen=chosen,
                follow=follow,
                progress=lambda read, total: update(read, None if follow else total, ""),
            )
    except KeyboardInterrupt as told:
        typer.echo(f"stopped before the end: nothing is written to {file}", err=True)
        raise typer.Exit(128 + told.args[0]) from told
    if as_json:
        typer.echo(
            json.dumps({"file": str(file), "records": sum(counts.values()), "topics": counts})
        )
        return
    for name, count in counts.items():
        typer.echo(f"{count:>12,}  {name}")
    total = sum(counts.values())
    typer.echo(f"{total:>12,}  {'record' if total == 1 else 'records'} in {file}")


def replay(
    log: Log,
    dataset: DatasetName = None,
    plot: Plot = None,
    report_file: ReportFile = None,
    stop_at: StopAt = None,
    checkpoint: CheckpointFolder = None,
    deep: DeepToo = False,
    snapshots: SnapshotFolder = None,
    sample: Sample = None,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Learn a log again, and say how well each event was foreseen.

    The same log and settings give the same fingerprint, in one run or,
    with --checkpoint, in several: Ctrl-C leaves a checkpoint there, too.

    JSON lines without event_id are given one from their number, those
    without timestamp the time of the line before. What is no event is
    rejected: exit code 0 if anything else was learnt, 1 if nothing.

    \b
    Examples:
      everlearn replay last-week.parquet --plot hit-rate.png --report report.json
      everlearn replay taobao-9days.parquet --dataset taobao --json
      everlearn replay last-week.parquet --deep --snapshots snapshots-of-the-replay
      everlearn replay kafka://127.0.0.1:9092
    """
    import sys

    from serving.progress import progress_bar
    from serving.report import check_targets
    from serving.stopping import Stop
    from streams.targets import check_deep

    check_targets(report_file, plot, log)
    check_deep(deep, checkpoint, snapshots)
    from streams.replay import replay_log  # imports for seconds: what is refused is refused before

    stop = Stop()
    with progress_bar("replaying") as update:
        result = replay_log(
            log,
            dataset=dataset,
            settings=settings_file,
            stop_at=stop_at,
            sample=sample,
            checkpoint=checkpoint,
            deep=deep,
            snapshots=snapshots,
            progress=lambda passed, total, engine: update(passed, total, ""),
            tell=lambda text: print(text, file=sys.stderr, flush=True),
            stopping=stop,
        )
    if result.stopped:
        _say_stopped(result.report, deep, snapshots if deep else checkpoint)
        raise typer.Exit(stop.exit_code)
    _give(result.report, as_json, report_file, plot, title=Path(log).name)


def _give(
    report: Mapping[str, Any], as_json: bool, file: Path | None, plot: Path | None, title: str
) -> None:
    """Print what came out of a replay, write it and plot it, as far as each is wanted."""
    import json

    from serving.report import plot_report, print_report, shown_json, write_report

    if as_json:
        typer.echo(json.dumps(shown_json(report)))
    else:
        print_report(report)
    if file is not None:
        write_report(report, file)
    if plot is not None:
        plot_report(report, plot, title=title)
    _end_without_snapshots(report)


def _end_without_snapshots(report: Mapping[str, Any]) -> None:
    """End with exit code 1 where lessons were begun, and all of them failed."""
    happened = {told["what"] for told in report["snapshots"]}
    if "failed" in happened and "born" not in happened:
        typer.echo("every lesson failed: no snapshot was written", err=True)
        raise typer.Exit(1)


def _say_stopped(report: Mapping[str, Any], deep: bool, folder: Path | None) -> None:
    from streams.words import counted

    kept = _kept_snapshots(report, folder) if deep else _kept(folder)
    typer.echo(f"stopped after {counted(report['events'], 'event')}; {kept}", err=True)


def _kept(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "nothing is kept: with --checkpoint FOLDER it could go on from here"
    return f"they are kept in {checkpoint}: the same command goes on from there"


def _kept_snapshots(report: Mapping[str, Any], folder: Path | None) -> str:
    """Say what a replay with a deep model leaves behind where it was stopped."""
    from streams.words import counted

    anew = "a replay with --deep is not resumed, it begins anew"
    born = sum(told["what"] == "born" for told in report["snapshots"])
    if folder is None or not born:
        return f"nothing is kept: {anew}"
    return (
        f"{counted(born, 'snapshot')} made until then in {folder}, and nothing else is kept: "
        f"{anew}: remove that folder, or name another with --snapshots"
    )


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(record)
    app.command()(replay)

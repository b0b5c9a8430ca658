"""The command that finds an engine's constants on its own log: `tune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.commands.data import DatasetName, Log
from serving.commands.options import AsJson, SettingsFile

if TYPE_CHECKING:
    from streams.tune import Tuned

__all__ = ["register"]


Until = Annotated[
    float | None,
    typer.Option(min=0, help="Take the first so many events; below 1, that share of the log."),
]
Budget = Annotated[
    float, typer.Option(min=1, help="Seconds it may take, on the clock, once the log is read.")
]
TrialCount = Annotated[
    int | None,
    typer.Option(min=1, help="Try so many settings instead: finds the same each time."),
]
Seed = Annotated[int, typer.Option(min=0, help="Order in which constants are tried.")]
Out = Annotated[Path, typer.Option(help="Settings file (TOML) that is written.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def tune(
    log: Log,
    dataset: DatasetName = None,
    until: Until = None,
    budget: Budget = 300.0,
    trials: TrialCount = None,
    seed: Seed = 1,
    out: Out = Path("tuned.toml"),
    force: Force = False,
    settings_file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Find half-lives and constants for a log; write them, and what they gain.

    The first half of the log is only learnt. The search goes by how well
    the third quarter is foreseen (mean of HR@20 and MRR@20 of the blend).
    The last quarter, which it has not seen, says what was gained: a file
    is written only where that is above zero with 95 % confidence.

    Ctrl-C writes the best found so far, which is then not confirmed.

    \b
    Examples:
      everlearn tune last-week.parquet --budget 600
      everlearn tune diginetica-weekly.parquet --dataset diginetica --until 0.25
      everlearn node --settings tuned.toml
    """
    import json
    import sys

    from serving.progress import progress_bar
    from serving.stopping import Stop
    from streams.tune import tune_log, write_tuned

    _check_out(out, log, force)
    stop = Stop()
    unit = "s" if trials is None else "trials"
    with progress_bar(f"tuning ({unit})", with_rate=False) as update:
        tuned = tune_log(
            log,
            dataset=dataset,
            settings=settings_file,
            until=until,
            budget_seconds=budget,
            trials=trials,
            seed=seed,
            progress=lambda done, total, doing: update(int(done), int(total), doing),
            tell=lambda text: print(text, file=sys.stderr, flush=True),
            stopping=stop,
        )
    if tuned.gains:
        first = int(until) if until is not None and until >= 1 else until
        named = {"dataset": dataset, "until": first, "settings": settings_file, "seed": seed}
        write_tuned(tuned, out, _command(log, {**named, "trials": tuned.trials}))
    if as_json:
        typer.echo(json.dumps(_row(tuned, out)))
    else:
        _show(tuned, out)
    if tuned.stopped:
        raise typer.Exit(stop.exit_code)


def _command(log: str, options: dict[str, object]) -> str:
    """Say what finds the same again."""
    words = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["everlearn tune", Path(log).name, *words])


def _check_out(out: Path, log: str, force: bool) -> None:
    """Refuse a file that cannot or may not be written, before the search."""
    from learners.errors import DataError
    from streams.targets import check_target

    if out.exists() and not force:
        raise DataError(f"{out} exists: name another file with --out, or replace it with --force")
    check_target(out, source=log)


def _row(tuned: Tuned, out: Path) -> dict[str, Any]:
    return {
        "file": str(out) if tuned.gains else None,
        "settings": {name: new for name, (_, new) in tuned.changed().items()},
        "before": {name: old for name, (old, _) in tuned.changed().items()},
        "figures": tuned.figures,
        "gain": {"mean": tuned.gain, "low": tuned.low, "high": tuned.high},
        "searched": {"gain": tuned.searched_gain, "n": tuned.searched_targets},
        "events": tuned.events,
        "trials": tuned.trials,
        "seconds": round(tuned.seconds, 1),
        "stopped": tuned.stopped,
    }


def _show(tuned: Tuned, out: Path) -> None:
    from serving.commands.tables import print_table
    from streams.words import counted

    tried = f"{counted(tuned.trials, 'trial')} in {tuned.seconds:.0f} s"
    if tuned.changed():
        pairs = tuned.changed().items()
        print_table(("setting", "before", "found"), [(n, str(a), str(b)) for n, (a, b) in pairs])
    if tuned.figures:
        names = ("hr@20", "mrr@20")
        rows = [_figures(label, tuned.figures[key], names) for label, key in LABELS]
        print_table(("", *names), rows)
        n = counted(int(tuned.figures["best"]["n"]), "target")
        typer.echo(
            f"mean of both, on {n} not searched: {tuned.gain:+.4f} "
            f"(95 %: {tuned.low:+.4f} to {tuned.high:+.4f})"
        )
    if not tuned.gains:
        typer.echo(f"after {tried}, nothing is better than the settings there are: none is written")
        return
    kept = "stopped, and not confirmed: " if tuned.stopped else ""
    typer.echo(f"{kept}the settings are in {out}, after {tried}")
    typer.echo(f"the same again: --trials {tuned.trials}; use it with --settings {out}")


LABELS = (("before", "base"), ("found", "best"))


def _figures(label: str, figures: Any, names: Sequence[str]) -> tuple[str, ...]:
    return (label, *(f"{figures[name]:.4f}" for name in names))


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(tune)

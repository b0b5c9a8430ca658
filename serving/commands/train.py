"""The command that trains the deep model: `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.commands.options import Broker, SettingsFile

__all__ = ["register"]


def train(
    file: SettingsFile = None,
    broker: Broker = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Folder that takes `trainer`, its state.")
    ] = None,
    snapshot_dir: Annotated[
        Path | None, typer.Option("--snapshot-dir", help="Folder of the snapshots.")
    ] = None,
) -> None:
    """Train the deep model on the events of the topics, again and again; promote what is better.

    Reads the log that the nodes read. After so many events or minutes, or at
    a drift alarm, it fine-tunes a copy of the champion on what is new, with
    older events rehearsed. The result serves only when it has foreseen better
    what came next, and has forgotten nothing. One trainer a deployment.

    Runs until Ctrl-C or SIGTERM. A trainer that is killed loses nothing.

    \b
    Examples:
      everlearn train
      everlearn train --broker kafka:9092 --snapshot-dir /var/lib/everlearn/snapshots
      EVERLEARN_TRAINER__EVERY_EVENTS=10000 EVERLEARN_TRAINER__PORT=8090 everlearn train
    """
    import gc

    from streams.settings import load_settings

    given = {"broker": broker, "state_dir": state_dir, "snapshot_dir": snapshot_dir}
    settings = load_settings(file, **given)

    from serving.training import Shown, TrainerMetrics
    from streams.trainer import run_trainer

    metrics = TrainerMetrics()
    with metrics.served(settings.host, settings.trainer.port), Shown(metrics).open() as shown:
        code = run_trainer(settings, shown)
    gc.freeze()  # the process ends: to look through what torch has loaded would take seconds
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(train)

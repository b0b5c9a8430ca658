"""Commands of a node: `node` runs one, `demo` shows one at work, `settings` tells what is set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import AsJson, Broker, SettingsFile

if TYPE_CHECKING:
    from streams.settings import Described

__all__ = ["register"]

Port = Annotated[int | None, typer.Option("--port", help="Port of the API; 0 takes a free one.")]


def node(
    file: SettingsFile = None,
    broker: Broker = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Folder of the checkpoints.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address the API listens on.")] = None,
    port: Port = None,
    node_name: Annotated[
        str | None, typer.Option("--node-name", help="This node's name in logs and metrics.")
    ] = None,
) -> None:
    """Learn every event of the topics as it arrives, and answer from what was learnt.

    Runs until Ctrl-C or SIGTERM, then writes a last checkpoint. A flag that is left out comes from
    the environment (EVERLEARN_BROKER, EVERLEARN_STATE_DIR, EVERLEARN_PORT, EVERLEARN_TOKEN ...) or
    the settings file; `everlearn settings` tells.

    \b
    Examples:
      everlearn node
      everlearn node --broker kafka:9092 --state-dir /var/lib/everlearn --port 8081
      EVERLEARN_TOKEN=$(openssl rand -hex 16) everlearn node --settings shop.toml
    """
    from streams.settings import load_settings

    flags = {
        "broker": broker,
        "state_dir": state_dir,
        "host": host,
        "port": port,
        "node_name": node_name,
    }
    loaded = load_settings(file, **flags)

    from learners.errors import EverlearnError
    from serving.node import run

    try:
        code = run(loaded)
    except EverlearnError as error:
        _leave(1, f"everlearn: {error}")
        raise
    _leave(code)
    raise typer.Exit(code)


def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=1, help="End after so many seconds; default: at Ctrl-C."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Port of the API; 0 takes a free one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a node and a trainer at work: an embedded broker, shoppers who click on what is shown.

    Every event is predicted before it is learnt. The table says how often the next item was among
    the first 20: for what is simply popular, for each source, and for the blend that answers.
    Below, the snapshots of the deep model: born, proved, promoted.

    \b
    Examples:
      everlearn demo
      everlearn demo --seconds 60 --json
    """
    import time

    started = time.monotonic()

    from serving.console import make_console
    from serving.demo import Demo, choose_port
    from serving.demo_view import DemoView

    view = DemoView(make_console(stderr=as_json))
    with view.open():
        last = Demo(seconds=seconds, port=choose_port(port), show=view.show, started=started).run()
    if last is None:
        return
    if as_json:
        import json

        typer.echo(json.dumps(last.summary()))
    else:
        view.end(last)


def settings(
    file: SettingsFile = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a complete settings file to start from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting with its value and where the value came from.

    Flags win over the environment (EVERLEARN_...), which wins over the settings file.

    \b
    Examples:
      everlearn settings
      EVERLEARN_PORT=9000 everlearn settings --json
      everlearn settings --example > everlearn.toml
    """
    from streams.settings import describe, example_toml, load_settings

    if example:
        typer.echo(example_toml(), nl=False)
        return
    described = describe(load_settings(file))
    if as_json:
        import json

        rows = [setting._asdict() for setting in described]
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    _print_settings(described)


def _print_settings(described: Sequence[Described]) -> None:
    from serving.commands.tables import print_table

    rows = [
        (name, "" if value is None else str(value), origin, meaning)
        for name, value, origin, meaning in described
    ]
    print_table(("setting", "value", "from", "meaning"), rows)


def _leave(code: int, last_words: str = "") -> None:
    """End now if a thread would keep the process: all is saved, and nobody stops it any more.

    A Faust app that is stopped while it starts leaves one behind.
    """
    import os
    import sys
    import threading

    if all(each.daemon or each is threading.main_thread() for each in threading.enumerate()):
        return
    if last_words:
        print(last_words, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(node)
    app.command()(demo)
    app.command()(settings)

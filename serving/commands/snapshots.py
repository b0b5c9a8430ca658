"""Commands about the deep model's snapshots: `snapshots list`, `show`, `promote`, `rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.commands.group import Group
from serving.commands.options import AsJson, Broker, SettingsFile

if TYPE_CHECKING:
    from learners.deep.registry import Registry
    from streams.settings import Settings

__all__ = ["register"]

snapshots = typer.Typer(
    cls=Group, help="List, inspect, promote and roll back snapshots.", no_args_is_help=True
)

Folder = Annotated[
    Path | None,
    typer.Option("--snapshot-dir", help="Folder of the snapshots; default: the settings'."),
]
Id = Annotated[str, typer.Argument(help="Id of a snapshot, or champion, previous, challenger.")]


@snapshots.command("list")
def list_(file: SettingsFile = None, folder: Folder = None, as_json: AsJson = False) -> None:
    """List the snapshots, oldest first: parent, state, events, old and new figures.

    Where `aliases.json` is damaged, nobody can tell who serves: the list says so,
    and the exit code is 1.

    \b
    Examples:
      everlearn snapshots list
      everlearn snapshots list --snapshot-dir /var/lib/everlearn/snapshots --json
    """
    _, registry = _open(file, folder)
    listed = registry.manifests()
    if as_json:
        _print_json({**registry.aliases(), "snapshots": listed})
        return
    champion, problem = _champion(registry)
    if listed:
        from serving.commands.tables import print_table

        titles = ("snapshot", "state", "parent", "events", "hr@20", "of the champion", "why")
        states = [_state(told, champion, problem) for told in listed]
        rows = [_row(*each) for each in zip(listed, states, strict=True)]
        print_table(titles, rows, whole=("snapshot",))
    elif registry.root.is_dir():
        typer.echo(f"{registry.root} holds no snapshot: `everlearn train` writes the first")
    elif not problem:
        typer.echo(f"there is no folder {registry.root} yet: `everlearn train` makes it")
    if problem:
        typer.echo(f"everlearn: {problem}", err=True)
        raise typer.Exit(1)


@snapshots.command()
def show(id: Id, file: SettingsFile = None, folder: Folder = None, as_json: AsJson = False) -> None:
    """Verify a snapshot to the last byte, and print its manifest.

    \b
    Examples:
      everlearn snapshots show champion
      everlearn snapshots show 00000007-1a2b3c4d --json
    """
    _, registry = _open(file, folder)
    snapshot = registry.read(_named(registry, id))
    if as_json:
        _print_json(snapshot.manifest)
        return
    import json

    for name, value in snapshot.manifest.items():
        plain = value if isinstance(value, str) else json.dumps(value)
        typer.echo(f"{name:12} {plain}")


@snapshots.command()
def promote(
    id: Id,
    file: SettingsFile = None,
    folder: Folder = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Put a snapshot into service, whatever the gate said; the nodes are told.

    \b
    Examples:
      everlearn snapshots promote 00000007-1a2b3c4d
      everlearn snapshots promote challenger --json
    """
    settings, registry = _open(file, folder, broker)
    snapshot = _named(registry, id)
    registry.promote(snapshot)
    _tell(settings, registry, "promoted", snapshot, as_json)


@snapshots.command()
def rollback(
    file: SettingsFile = None,
    folder: Folder = None,
    broker: Broker = None,
    as_json: AsJson = False,
) -> None:
    """Put the champion before this one into service again; the nodes are told.

    \b
    Examples:
      everlearn snapshots rollback
      everlearn snapshots rollback --json
    """
    settings, registry = _open(file, folder, broker)
    _tell(settings, registry, "rolled_back", registry.rollback(), as_json)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(snapshots, name="snapshots")


def _open(
    file: Path | None, folder: Path | None, broker: str | None = None
) -> tuple[Settings, Registry]:
    from learners.deep.registry import Registry
    from learners.errors import SnapshotError
    from streams.settings import load_settings

    if folder is not None and not folder.is_dir():
        what = f"{folder} is a file" if folder.exists() else f"there is no folder {folder}"
        raise SnapshotError(f"{what}: name the folder of the snapshots with --snapshot-dir")
    settings = load_settings(file, snapshot_dir=folder, broker=broker)
    return settings, Registry(settings.snapshot_dir, settings.trainer.keep)


def _named(registry: Registry, name: str) -> str:
    """Return the id that an alias names, else what was given."""
    from learners.deep.registry import ALIASES
    from learners.errors import SnapshotError

    if name not in ALIASES:
        return name
    id = registry.alias(name)
    if id is None:
        raise SnapshotError(f"{registry.root} has no {name}: `everlearn snapshots list` tells")
    return id


def _tell(settings: Settings, registry: Registry, what: str, id: str, as_json: bool) -> None:
    """Announce who serves now, and print it."""
    import time

    from streams.announce import announcement, publish

    told = announcement(registry, what, id, why="asked for by a command", time=time.time())
    problem = publish(settings.broker, settings.topics["snapshots"].name, told, settings)
    if as_json:
        moved = {"champion": told.champion, "previous": told.previous}
        _print_json({**moved, "announced": not problem, "problem": problem})
        return
    typer.echo(f"{told.champion} serves now, before it {told.previous or 'none'}")
    if problem:
        typer.echo(f"not announced, nodes look for themselves: {problem}", err=True)


def _champion(registry: Registry) -> tuple[str | None, str]:
    """Return the champion's id, and why nobody can tell it."""
    from learners.errors import SnapshotError

    try:
        return registry.alias("champion"), ""
    except SnapshotError as error:
        return None, str(error)


def _state(told: dict[str, Any], champion: str | None, problem: str) -> str:
    """Return a snapshot's state; who serves is shown as the champion, damaged or not."""
    state = str(told["state"])
    if problem and state == "retired":
        return "unknown"
    named = champion == told["id"] and state != "champion"
    return f"champion, {state}" if named else state


def _row(told: dict[str, Any], state: str) -> tuple[str, ...]:
    gate = told.get("gate", {})
    return (
        told["id"],
        state,
        told.get("parent") or "-",
        f"{told['events']:,}" if "events" in told else "-",
        _percent(gate.get("challenger_hr@20")),
        _percent(gate.get("champion_hr@20")),
        str(told.get("problem") or told.get("why") or gate.get("reason") or ""),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _print_json(data: object) -> None:
    import json

    typer.echo(json.dumps(data))

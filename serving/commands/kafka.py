"""Commands for Kafka: `broker` and `kafka` run one, `topics` makes ours, `doctor` looks at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.group import Group
from serving.commands.options import AsJson, Broker, SettingsFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.settings import Settings
    from streams.topics import TopicReport

__all__ = ["register"]

topics = typer.Typer(
    cls=Group, help="Make and list the topics of the settings.", no_args_is_help=True
)


def broker(as_json: AsJson = False) -> None:
    """Run the embedded broker until Ctrl-C: the Kafka protocol, in memory, no Java.

    It keeps the newest 5 MB of a partition, about 35,000 clicks, and drops older
    events; everything is gone when it stops. The system chooses the port.

    \b
    Examples:
      everlearn broker
      everlearn broker --json
    """
    from serving.stopping import told_to_stop
    from streams.broker import EMBEDDED_LIMITS, EmbeddedBroker

    with told_to_stop() as stopped, EmbeddedBroker() as embedded:
        _announce("Embedded broker", embedded.address, EMBEDDED_LIMITS, as_json)
        while not stopped.wait(1.0):
            pass


def kafka(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 9092,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the topics; default: a temporary one, gone at exit."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a single Apache Kafka broker on 127.0.0.1 until Ctrl-C (needs Java and Maven).

    Maven fetches its jars at the first start (43 MB, into ~/.cache/everlearn).

    \b
    Examples:
      everlearn kafka
      everlearn kafka --port 19092 --data ~/kafka-data
    """
    from learners.errors import BrokerError
    from serving.stopping import told_to_stop
    from streams.apache import KAFKA_VERSION, ApacheKafka

    # Told before it is up, a broker that is starting is stopped in order, too.
    with (
        told_to_stop() as stopped,
        ApacheKafka(port=port, data=data, say=lambda text: typer.echo(text, err=True)) as apache,
    ):
        kept = f"Topics are kept in {apache.data}" + ("." if data else ", until it stops only.")
        _announce(f"Apache Kafka {KAFKA_VERSION}", apache.address, kept, as_json)
        while not stopped.wait(0.2):
            if not apache.running:
                raise BrokerError(f"Apache Kafka has ended, {apache.why_ended()}")


@topics.command()
def create(file: SettingsFile = None, broker: Broker = None, as_json: AsJson = False) -> None:
    """Make the topics that are missing and say what differs in those that exist.

    Exit code 1 when a topic differs from the settings.

    \b
    Examples:
      everlearn topics create
      everlearn topics create --broker kafka:9092 --settings shop.toml --json
    """
    from streams.topics import create_topics

    settings = _load(file, broker)
    reports = create_topics(settings)
    _print_topics(settings, reports, as_json)
    if any(report.differences for report in reports):
        raise typer.Exit(1)


@topics.command("list")
def list_(file: SettingsFile = None, broker: Broker = None, as_json: AsJson = False) -> None:
    """Show how each topic of the settings stands in Kafka; nothing is made.

    \b
    Examples:
      everlearn topics list
      everlearn topics list --broker kafka:9092 --json
    """
    from streams.topics import list_topics

    settings = _load(file, broker)
    _print_topics(settings, list_topics(settings), as_json)


def doctor(file: SettingsFile = None, broker: Broker = None, as_json: AsJson = False) -> None:
    """Look at everything a node needs and say in words what is missing or wrong.

    Exit code 1 when something fails.

    \b
    Examples:
      everlearn doctor
      EVERLEARN_BROKER=kafka:9092 everlearn doctor --json
    """
    from serving.doctor import examine

    checks = []
    for check in examine(_load(file, broker)):
        checks.append(check)
        if not as_json:
            _print_check(check.status, check.what, check.value, check.cure)
    if as_json:
        _print_json([check._asdict() for check in checks])
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(broker)
    app.command()(kafka)
    app.add_typer(topics, name="topics")
    app.command()(doctor)


def _load(file: Path | None, broker: str | None) -> Settings:
    from streams.settings import load_settings

    return load_settings(file, broker=broker)


def _announce(what: str, address: str, more: str, as_json: bool) -> None:
    if as_json:
        _print_json({"broker": address})
        return
    typer.echo(
        f"{what} at {address}, until Ctrl-C\n\n  export EVERLEARN_BROKER={address}\n\n{more}"
    )


def _print_json(data: object) -> None:
    import json

    typer.echo(json.dumps(data))


def _print_topics(settings: Settings, reports: Sequence[TopicReport], as_json: bool) -> None:
    if as_json:
        rows = [report._asdict() for report in reports]
        for row in rows:
            row["differences"] = [difference._asdict() for difference in row["differences"]]
        _print_json(rows)
        return
    from serving.commands.tables import print_table
    from streams.broker import EMBEDDED_LIMITS

    lines = []
    for report in reports:
        kept = report.retention_days
        days = "" if kept is None else "for ever" if kept < 0 else f"{kept:g}"
        partitions, cleanup = str(report.partitions or ""), report.cleanup_policy or ""
        lines.append((report.name, report.state, partitions, cleanup, days))
    print_table(("topic", "state", "partitions", "cleanup", "days kept"), lines)
    for report in reports:
        for what, wanted, found in report.differences:
            typer.echo(
                f"{report.name}: {what} is {found}, the settings say {wanted}: change the topic "
                f"with your Kafka tools, or topics.{report.role} in the settings"
            )
    if any(report.state == "theirs" for report in reports):
        typer.echo(
            "theirs: a topic that the settings map belongs to whoever writes it; it is read as "
            "it is, and neither compared nor changed"
        )
    if any(report.state == "on first use" for report in reports):
        typer.echo(f"{settings.broker} is an embedded broker. {EMBEDDED_LIMITS}")


def _print_check(status: str, what: str, value: str, cure: str) -> None:
    color = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW}.get(status, typer.colors.RED)
    typer.echo(f"{typer.style(f'{status:4}', fg=color)}  {what}: {value}")
    if cure:
        typer.echo(f"      {cure}")

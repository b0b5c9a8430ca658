"""Options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Broker", "JsonRows", "Runs", "SettingsFile"]

AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on standard output.")]
Broker = Annotated[
    str | None,
    typer.Option("--broker", help="Kafka as host:port; default: that of the settings."),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="Settings file (TOML); default: everlearn.toml if there."),
]
JsonRows = Annotated[bool, typer.Option("--json", help="Print only JSON rows, one a line.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs of the queries; the best counts.")]

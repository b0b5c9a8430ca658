"""The command `everlearn`: each module of `serving.commands` adds its own commands here."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from learners.errors import EverlearnError

__all__ = ["app", "main"]

COMMAND_MODULES = ("kafka", "events", "node", "data", "bench")

app = typer.Typer(
    name="everlearn",
    help="A recommender that never stops learning: a click on Kafka changes the next answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for _module in COMMAND_MODULES:
    import_module(f"serving.commands.{_module}").register(app)


def main() -> None:
    """Run the command line; an error of ours is printed as one message, exit code 1."""
    try:
        app()
    except EverlearnError as error:
        print(f"everlearn: {error}", file=sys.stderr)
        sys.exit(1)

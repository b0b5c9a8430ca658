"""The command line `everlearn`: each module of `serving.commands` adds its own commands here."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from learners.errors import EverlearnError
from serving.commands.group import Group

__all__ = ["app", "main"]

COMMAND_MODULES = ("kafka", "events", "node", "data", "tune", "train", "snapshots", "bench")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(
    name="everlearn",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help leaves the lines of an example whole, however narrow the terminal.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"everlearn {version('everlearn')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback()
def everlearn(version: Version = False) -> None:
    """A recommender that never stops learning: a click on Kafka changes the next answer."""


for _module in COMMAND_MODULES:
    import_module(f"serving.commands.{_module}").register(app)


def main() -> None:
    """Run the command line; an error of ours is printed as one message, exit code 1."""
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except EverlearnError as error:
        print(f"everlearn: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        # What is left in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"everlearn: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(1)

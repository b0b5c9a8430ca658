"""How commands explain themselves: help that is not cut, and mistakes told in words."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Group"]


class Group(TyperGroup):
    """A group of commands, each listed with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in self.commands.items()
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for; a value that does not fit is shown with what would."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _in_words(error)
            raise


def _in_words(error: typer.BadParameter) -> str:
    """What is wrong with a value, where pydantic found it."""
    problems = getattr(error.__cause__, "errors", None)
    if problems is None:
        return error.message
    from streams.words import of_bad_value, shown

    first = problems()[0]
    told = of_bad_value(first)
    return told if first["type"] == "value_error" else f"{shown(first['input'])} {told}"

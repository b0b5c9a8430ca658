"""The command line: every command explains itself, and `settings` tells where values come from."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serving.cli import app

ROOT: Any = typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that can be run."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, inner in command.commands.items():
        yield from commands(inner, (*path, name))


def run(*words: str, code: int = 0, **environment: str) -> str:
    result = CliRunner().invoke(app, list(words), env=environment)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("words", list(commands(ROOT)), ids=" ".join)
def test_every_command_explains_itself_with_an_example(words: tuple[str, ...]) -> None:
    shown = run(*words, "--help", COLUMNS="200", TERM="dumb")
    assert "Usage: " in shown
    examples = shown.partition("Examples:")[2]
    command = f"everlearn {' '.join(words)}"
    assert command in examples, f"end the docstring with '\\b', 'Examples:' and a {command} line"


def test_settings_name_the_origin_of_each_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("port = 9001\nnode_name = 'shop'\n")
    monkeypatch.setenv("EVERLEARN_PORT", "9002")
    rows = json.loads(run("settings", "--settings", str(file), "--json"))
    found = {row["name"]: (row["value"], row["origin"]) for row in rows}
    assert found["port"] == (9002, "EVERLEARN_PORT")
    assert found["node_name"] == ("shop", str(file))
    assert found["checkpoint_seconds"] == (5.0, "default")
    assert all(row["meaning"] for row in rows)


def test_settings_are_a_table_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLEARN_TOKEN", "very-secret-token")
    shown = run("settings", COLUMNS="300")
    assert "checkpoint_seconds" in shown
    assert "EVERLEARN_TOKEN" in shown
    assert "very-secret-token" not in shown


def test_the_example_file_is_a_settings_file(tmp_path: Path) -> None:
    text = run("settings", "--example")
    file = tmp_path / "everlearn.toml"
    file.write_text(text)
    assert not any(isinstance(value, int | str) for value in tomllib.loads(text).values())
    rows = json.loads(run("settings", "--settings", str(file), "--json"))
    assert {row["origin"] for row in rows} == {"default"}

"""The command line: every command explains itself, and `settings` tells where values come from."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.tables import print_table
from streams.settings import Settings, describe

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


@pytest.mark.parametrize("words", [*commands(ROOT), ()], ids=" ".join)
def test_help_is_the_same_with_h_and_cuts_nothing_in_a_narrow_terminal(
    words: tuple[str, ...],
) -> None:
    narrow = run(*words, "-h", COLUMNS="40")
    wide = run(*words, "--help", COLUMNS="200")
    for line in wide.partition("Examples:")[2].partition("Options:")[0].splitlines():
        assert line.strip() in narrow, "an example can be copied as it stands"
    assert narrow.split() == wide.split(), "the same words, however they are broken"
    assert "<bool>" not in narrow


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version") == f"everlearn {version('everlearn')}\n"


@pytest.mark.parametrize("words", ["settings --json", "--help", "--version"])
def test_output_that_nobody_takes_is_told_in_a_line(words: str) -> None:
    called = f"from serving.cli import main; import sys; sys.argv[1:] = {words.split()}; main()"
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-c", called], stdout=full, stderr=subprocess.PIPE)
    told = b"everlearn: cannot write the output: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("node", "--port", "abc"), "'--port': \"abc\" must be a whole number"),
        (("simulate", "--users", "2"), "'--users': \"2\" must be 4 or more"),
        (("bench", "latency", "--broker", "no"), "'no' is not one of 'auto', 'apache'"),
        (("node", "--prot", "1"), "No such option: --prot"),
        (("simulat",), "Did you mean 'simulate'?"),
    ],
)
def test_a_wrong_flag_is_told_with_its_value(words: tuple[str, ...], told: str) -> None:
    shown = run(*words, code=2)
    assert told in shown
    assert "Input should" not in shown


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
    shown = run("settings", COLUMNS="40").splitlines()
    assert "very-secret-token" not in "".join(shown)
    rows = {row.split()[0]: row for row in shown}
    assert rows["token"].split()[1:3] == ["**********", "EVERLEARN_TOKEN"]
    assert "[3600.0, 21600.0, 172800.0, 1209600.0]" in rows["engine.popularity_half_lives_seconds"]
    for setting in describe(Settings()):
        assert rows[setting.name].endswith(setting.meaning), "nothing is cut in a pipe"


def test_the_example_file_is_a_settings_file(tmp_path: Path) -> None:
    text = run("settings", "--example")
    file = tmp_path / "everlearn.toml"
    file.write_text(text)
    assert not any(isinstance(value, int | str) for value in tomllib.loads(text).values())
    rows = json.loads(run("settings", "--settings", str(file), "--json"))
    assert {row["origin"] for row in rows} == {"default"}


def test_a_table_is_folded_to_the_width_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("name", "value"), [("seed", "x" * 40)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 30  # the titles are bold
    assert "".join(lines).count("x") == 40


def test_what_is_to_be_copied_is_not_broken_in_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    id, titles = "00000007-1a2b3c4d", ("snapshot", "state", "parent", "events", "of it", "why")
    print_table(titles, [(id, "retired", id, "1,000", "12.5 %", "z" * 90)], whole=("snapshot",))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(id) for line in lines)
    assert "".join(lines).count("z") == 90


@pytest.mark.parametrize(("no_color", "bold"), [("1", False), ("", True)])
def test_no_color_means_not_bold_either(
    no_color: str, bold: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    print_table(("name",), [("seed",)])
    assert ("\x1b[" in capsys.readouterr().out) is bold

"""Snapshots for people and programs: the commands and the routes, on the same registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from learners.deep.registry import Registry
from serving.cli import app
from tests.api_nodes import TOKEN, Node, error_of
from tests.test_registry import flip, promoted, written

NOBODY = "127.0.0.1:1"  # where no broker answers


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two champions, one after the other, and a challenger that was discarded."""
    registry = Registry(tmp_path / "snapshots")
    promoted(registry, 1, events=100)
    promoted(registry, 2, events=200, gate={"champion_hr@20": 0.25, "challenger_hr@20": 0.5})
    registry.discard(written(registry, 3), "it forgot")
    return registry


def run(registry: Registry, *words: str, code: int = 0) -> str:
    environment = {
        "EVERLEARN_SNAPSHOT_DIR": str(registry.root),
        "EVERLEARN_BROKER": NOBODY,
    }
    result = CliRunner().invoke(app, ["snapshots", *words], env=environment)
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_list_shows_parents_states_and_figures(registry: Registry) -> None:
    first, second, third = registry.ids()
    lines = run(registry, "list").splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        [first, "retired", "-"],
        [second, "champion", first],
        [third, "discarded", second],
    ]
    assert "50.0 %" in lines[2]
    assert "25.0 %" in lines[2]
    assert "it forgot" in lines[3]
    told = json.loads(run(registry, "list", "--json"))
    assert told["champion"] == second
    assert [each["state"] for each in told["snapshots"]] == ["retired", "champion", "discarded"]


def test_without_snapshots_the_list_says_who_writes_them(tmp_path: Path) -> None:
    assert "`everlearn train` writes the first" in run(Registry(tmp_path), "list")


def test_show_verifies_what_it_shows(registry: Registry) -> None:
    assert "it forgot" in run(registry, "show", registry.ids()[2])
    assert json.loads(run(registry, "show", "champion", "--json"))["events"] == 200
    flip(registry.root / "snapshots" / registry.ids()[1] / "weights.safetensors", 500)
    result = CliRunner().invoke(
        app, ["snapshots", "show", "champion", "--snapshot-dir", str(registry.root)]
    )
    assert "weights.safetensors has SHA-256" in str(result.exception)
    assert "put a whole copy of its folder back, or promote another" in str(result.exception)


def test_a_list_says_that_nobody_can_tell_who_serves(registry: Registry) -> None:
    aliases = registry.root / "aliases.json"
    aliases.write_bytes(b"{")
    words = ["snapshots", "list", "--snapshot-dir", str(registry.root)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    states = [line.split()[1] for line in result.stdout.splitlines()[1:]]
    assert states == ["unknown", "unknown", "discarded"]
    assert f"{aliases} is refused: aliases.json is no JSON" in result.stderr
    assert "name who is to serve with `everlearn snapshots promote ID`" in result.stderr


def test_a_damaged_champion_is_listed_as_the_champion(registry: Registry) -> None:
    champion = registry.alias("champion") or ""
    (registry.root / "snapshots" / champion / "manifest.json").write_bytes(b"{")
    line = run(registry, "list").splitlines()[2]
    assert line.startswith(f"{champion}  champion, damaged")
    assert "manifest.json is no JSON" in line


def test_a_folder_that_is_not_there_is_told_from_an_empty_one(tmp_path: Path) -> None:
    nowhere, file = tmp_path / "nowhere", tmp_path / "file"
    file.touch()
    for command in (["list"], ["show", "champion"], ["rollback"]):
        for folder, told in ((nowhere, f"there is no folder {nowhere}"), (file, "is a file")):
            words = ["snapshots", *command, "--snapshot-dir", str(folder)]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 1
            assert told in str(result.exception)
    assert f"there is no folder {nowhere} yet" in run(Registry(nowhere), "list")


def test_promote_and_rollback_by_command(registry: Registry) -> None:
    first, second, third = registry.ids()
    told = json.loads(run(registry, "promote", third, "--json"))
    assert (told["champion"], told["previous"], told["announced"]) == (third, second, False)
    assert json.loads(run(registry, "rollback", "--json"))["champion"] == second
    assert f"{first} serves now" in run(registry, "rollback")
    run(registry, "rollback", code=1)
    run(registry, "promote", "challenger", code=1)


@pytest.fixture
def node(make_node: Callable[..., Node], registry: Registry) -> Node:
    return make_node(snapshot_dir=registry.root, token=TOKEN)


def test_the_routes_ask_for_the_token(node: Node) -> None:
    one = "/00000001-00000000"
    asked = ("GET", ""), ("GET", one), ("POST", f"{one}/promote"), ("POST", "/rollback")
    for method, path in asked:
        refused = error_of(node.client.request(method, f"/snapshots{path}"), 401)
        assert refused["message"].startswith("this needs the header")


def test_promote_and_rollback_over_the_api_are_announced(node: Node, registry: Registry) -> None:
    _, second, third = registry.ids()
    node.client.headers["Authorization"] = f"Bearer {TOKEN}"
    listed = node.client.get("/snapshots").json()
    assert listed["champion"] == second
    assert [each["state"] for each in listed["snapshots"]] == ["retired", "champion", "discarded"]
    assert node.client.get("/snapshots/champion").json()["id"] == second
    assert node.client.get("/snapshots/previous").json()["id"] == listed["previous"]
    one = node.client.get(f"/snapshots/{third}").json()
    assert (one["parent"], one["manifest"]["why"]) == (second, "it forgot")
    moved = node.client.post(f"/snapshots/{third}/promote").json()
    assert moved == {"champion": third, "previous": second, "announced": True}
    back = node.client.post("/snapshots/rollback").json()
    assert back["champion"] == registry.alias("champion") == second
    whats = [(told["what"], told["champion"]) for told in node.published()]
    assert whats == [("promoted", third), ("rolled_back", second)]
    assert node.publisher.sent[0][0] == "everlearn.snapshots"


def test_what_cannot_serve_is_refused_over_the_api(node: Node, registry: Registry) -> None:
    first, second, third = registry.ids()
    node.client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert error_of(node.client.get("/snapshots/..%2F.."), 404)["code"] == "not_found"
    for path in ("00000009-00000000", "7", "challenger"):
        assert error_of(node.client.get(f"/snapshots/{path}"), 404)["code"] == "unknown_snapshot"
        asked = node.client.post(f"/snapshots/{path}/promote")
        assert error_of(asked, 404)["code"] == "unknown_snapshot"
    error_of(node.client.get("/snapshots/rollback"), 405)
    error_of(node.client.post("/snapshots/7"), 405)
    unknown = error_of(node.client.post("/snapshots/00000009-00000000/promote"), 404)
    assert unknown["code"] == "unknown_snapshot"
    flip(registry.root / "snapshots" / third / "weights.safetensors", 500)
    assert "damaged" in error_of(node.client.post(f"/snapshots/{third}/promote"), 409)["message"]
    assert registry.alias("champion") == second
    node.client.post("/snapshots/rollback")
    assert registry.alias("champion") == first
    error_of(node.client.post("/snapshots/rollback"), 409)
    assert node.live.ready()["ready"]

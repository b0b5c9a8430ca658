"""The project's own files: pinned versions, make targets, what CI runs."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"([a-z0-9-]+)==([0-9][0-9A-Za-z.]*)")


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    found = [PIN.fullmatch(line) for line in lines_of("constraints.txt")]
    return {match[1]: match[2] for match in found if match}


def planned(*arguments: str, **environment: str) -> str:
    """What make would run."""
    run = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "MAKEFLAGS"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def test_every_line_pins_one_version_and_names_no_address() -> None:
    assert all(PIN.fullmatch(line) for line in lines_of("constraints.txt"))
    assert lines_of("constraints.txt") == sorted(lines_of("constraints.txt"))


def test_everything_installed_is_pinned_at_its_version() -> None:
    """What pip brings itself is no dependency; whatever else is here came by the pins."""
    installed = {canonical(d.name): d.version for d in metadata.distributions()}
    for own in ("pip", "setuptools", "everlearn"):
        installed.pop(own, None)
    unpinned = {name: v for name, v in installed.items() if pins().get(name) != v}
    assert not unpinned, "add them to constraints.txt, or install what it says: make setup"


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {canonical(re.split(r"[\[<>=!~; ]", name)[0]) for name in named} <= set(pins())


@pytest.mark.parametrize("target", ["demo", "test", "check", "format", "bench", "kafka"])
def test_every_target_sets_up_what_it_needs(target: str) -> None:
    assert "uv pip install" in planned("--assume-new=pyproject.toml", target)


@pytest.mark.parametrize("target", ["setup", "demo", "test", "bench"])
def test_kernels_are_compiled_where_they_are_used(target: str) -> None:
    assert "-m streams.warmup" in planned("--assume-new=learners/engine.py", target)


def test_only_seconds_given_to_make_end_the_demo() -> None:
    assert "demo --seconds 60" in planned("demo", "SECONDS=60")
    assert "--seconds" not in planned("demo", SECONDS="60")  # bash counts in a variable so named


def test_ci_runs_what_a_developer_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["check", "test"]
    assert "set -euo pipefail" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)

"""The pytest plugin: a user's replay test in five lines, run as a user would."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from streams.warmup import warm_up
from tests.test_replay import shop_events

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Import now what pytester would forget afterwards: compiled modules load only once."""
    warm_up()
    import_module("river.drift")


@pytest.fixture
def log(pytester: pytest.Pytester) -> Path:
    """A recorded week, as JSON lines, beside the user's tests."""
    path = pytester.path / "last-week.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, shop_events(600))))
    (pytester.path / "everlearn.toml").write_text("[engine]\nusers = 1000\nitems = 1000\n")
    return path


def test_a_replay_test_takes_five_lines(pytester: pytest.Pytester, log: Path) -> None:
    pytester.makepyfile(
        """
        def test_last_week(replay):
            result = replay("last-week.jsonl")
            assert result.hit_rate(20) >= result.hit_rate(20, source="popularity")
            assert len(result.recommend("user-00042", k=10)) == 10
            assert result.fingerprint == replay("last-week.jsonl").fingerprint

        def test_the_first_day(replay):
            result = replay("last-week.jsonl", stop_at=200, settings="everlearn.toml", sample=2)
            assert result.report["events"] == 200
            assert result.metrics["blend"]["n"] < 100

        def test_that_is_wrong(replay):
            assert replay("last-week.jsonl", stop_at=300).hit_rate(20) > 0.99
        """
    )
    outcome = pytester.inline_run("-p", "no:cacheprovider")
    outcome.assertoutcome(passed=2, failed=1)


def test_the_fixture_is_there_by_itself_and_says_what_it_is(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest_inprocess("--fixtures", "-p", "no:cacheprovider")
    shown.stdout.fnmatch_lines(["*replay*serving/pytest_plugin.py*"])


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, serving.pytest_plugin; "
        "heavy = {'numpy', 'numba', 'polars', 'river', 'streams.replay', 'learners.engine'}; "
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

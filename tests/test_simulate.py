"""`everlearn simulate`: what it refuses before it begins, and what it says at the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from learners.errors import EverlearnError
from serving.cli import app
from streams.broker import EmbeddedBroker, free_port
from streams.simulate import Api


def simulate(*words: str) -> Any:
    return CliRunner().invoke(app, ["simulate", *words])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--rate", "nan"), "a rate of nan events a second"),
        (("--rate", "inf"), "a rate of inf"),
        (("--rate", "0"), "a rate of 0"),
        (("--rate", "-5"), "a rate of -5"),
        (("--seconds", "nan"), "nan seconds"),
        (("--seconds", "inf"), "inf seconds"),
        (("--seconds", "0"), "0 seconds"),
        (("--seconds", "-3"), "-3 seconds"),
        (("--drift", "weekly"), "unknown drift 'weekly'"),
        (("--api", "http://127.0.0.1:99999"), "no address of an API"),
    ],
)
def test_numbers_that_are_none_are_refused_before_anybody_is_asked(
    words: tuple[str, ...], told: str
) -> None:
    failed = simulate("--broker", f"127.0.0.1:{free_port()}", *words)
    assert failed.exit_code == 1
    assert isinstance(failed.exception, EverlearnError)
    assert told in str(failed.exception)


@pytest.mark.parametrize(
    ("words", "bound"),
    [(("--users", "2000000"), "1,000,000"), (("--items", "999999"), "200,000")],
)
def test_a_shop_too_large_for_a_machine_is_refused(words: tuple[str, str], bound: str) -> None:
    failed = simulate(*words)
    assert failed.exit_code == 2
    assert bound in failed.stderr


def test_without_a_broker_it_ends_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    failed = simulate("--broker", address, "--events", "10")
    assert failed.exit_code == 1
    assert f"no Kafka broker answers at {address} (Connection refused)" in str(failed.exception)


def test_an_api_where_nobody_answers_is_refused_with_the_reason(
    embedded_broker: EmbeddedBroker,
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    failed = simulate("--broker", embedded_broker.address, "--events", "10", "--api", url)
    assert failed.exit_code == 1
    assert f"no node answers at {url} (Connection refused)" in str(failed.exception)


def test_why_a_question_failed_is_kept() -> None:
    with Api(f"http://127.0.0.1:{free_port()}") as api:
        assert api("ada") is None
        assert api.problem == "Connection refused"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--drift", "sudden", "--drift-at", "10"), "comes after the end of this run"),
        (("--drift-at", "5"), "does nothing without --drift"),
        (("--drift", "sudden", "--drift-at", "5"), ""),
    ],
)
def test_a_drift_that_nobody_will_see_is_told(
    embedded_broker: EmbeddedBroker, words: tuple[str, ...], told: str
) -> None:
    run = ("--broker", embedded_broker.address, "--events", "10", "--rate", "5000")
    done = simulate(*run, *words)
    assert done.exit_code == 0, done.output
    assert told in done.stderr
    assert ("warning" in done.stderr) == bool(told)


def test_one_event_is_one_event_and_lists_are_told_of_only_where_there_were_any(
    embedded_broker: EmbeddedBroker,
) -> None:
    words = ("--broker", embedded_broker.address, "--events", "1", "--rate", "5000")
    told = simulate(*words).stdout
    assert told.startswith("1 event in ")
    assert "list" not in told
    assert json.loads(simulate(*words, "--json").stdout)["api_problem"] == ""

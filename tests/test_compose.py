"""docker-compose.yml and the Dockerfile against the program they start, without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
NODES = {name: service for name, service in OURS.items() if service["command"][0] == "node"}
URL = re.compile(r"http://127\.0\.0\.1:(\d+)(/[\w/-]+)")

WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
DURATION = {"type": "string", "pattern": r"^(\d+(h|m|s|ms))+$"}
NAME = "^[a-zA-Z0-9._-]+$"
SERVICE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "build": {"type": "string"},
        "image": {"type": "string"},
        "command": {"type": "array", "items": {"type": "string"}},
        "init": {"type": "boolean"},
        "hostname": {"type": "string"},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "stop_grace_period": DURATION,
        "profiles": WORDS,
        "cap_drop": WORDS,
        "security_opt": WORDS,
        "ports": {**WORDS, "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {**WORDS, "items": {"type": "string", "pattern": r"^[\w.-]+:/[\w/.-]+$"}},
        "environment": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Z][A-Z0-9_]*$"},
            "additionalProperties": {"type": ["string", "number", "null"]},
        },
        "depends_on": {
            "type": "object",
            "propertyNames": {"enum": list(SERVICES)},
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {
                    "condition": {
                        "enum": [
                            "service_started",
                            "service_healthy",
                            "service_completed_successfully",
                        ]
                    }
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "minProperties": 1,
            "properties": {
                "disable": {"type": "boolean"},
                "test": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer", "minimum": 1},
            },
        },
    },
}
# What the file uses of the Compose Specification's schema, as strict as there or stricter.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {
            "type": "object",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": SERVICE,
        },
        "volumes": {
            "type": "object",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"type": "null"},
        },
    },
}


def image_environment() -> dict[str, str]:
    """Variables that the Dockerfile's last stage sets."""
    lines = DOCKERFILE.rsplit("\nFROM ", 1)[1].replace("\\\n", " ").splitlines()
    pairs = [word for line in lines if line.startswith("ENV ") for word in shlex.split(line[4:])]
    return dict(pair.split("=", 1) for pair in pairs)


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    given = service.get("environment", {})
    return image_environment() | {k: str(v) for k, v in given.items() if v is not None}


def check_parses(arguments: list[str]) -> None:
    """Parse a command line by our own commands, without running it."""
    import typer

    from serving.cli import app

    command: Any = typer.main.get_command(app)
    context, rest = None, list(arguments)
    name = "everlearn"
    while True:
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)


def test_it_is_a_valid_compose_file() -> None:
    jsonschema.validate(COMPOSE, SCHEMA)


def test_every_volume_is_declared_and_only_snapshots_are_shared() -> None:
    used = [v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", [])]
    shared = {name for name in used if used.count(name) > 1}
    assert shared == {"snapshots"}, "two nodes must not share a state folder"
    assert set(used) == set(COMPOSE["volumes"])


def test_trainer_and_nodes_share_the_folder_of_snapshots() -> None:
    assert OURS["trainer"]["command"] == ["train"]
    for name in (*NODES, "trainer"):
        folder = environment_of(OURS[name])["EVERLEARN_SNAPSHOT_DIR"]
        assert f"snapshots:{folder}" in OURS[name]["volumes"]


def test_no_host_port_is_taken_twice() -> None:
    ports = [
        port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])
    ]
    assert len(ports) == len(set(ports))


def test_kafka_is_the_version_that_the_tests_run() -> None:
    from streams import apache

    assert SERVICES["kafka"]["image"] == f"apache/kafka:{apache.KAFKA_VERSION}"


@pytest.mark.parametrize("service", OURS)
def test_every_command_line_is_one_of_ours(service: str) -> None:
    check_parses(OURS[service]["command"])


def test_the_image_starts_a_command_of_ours() -> None:
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)[-1])
    command = json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])
    assert entrypoint == ["everlearn"]
    check_parses(command)


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting_with_a_legal_value(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streams.settings import load_settings

    for name in [name for name in os.environ if name.startswith("EVERLEARN_")]:
        monkeypatch.delenv(name)
    for name, value in environment_of(OURS[service]).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()  # refuses unknown names

    assert settings.broker == "kafka:19092"
    assert "INSIDE://kafka:19092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]


@pytest.mark.parametrize("node", NODES)
def test_a_node_listens_where_its_port_volume_and_health_check_say(node: str) -> None:
    service = NODES[node]
    environment = environment_of(service)
    assert environment["EVERLEARN_HOST"] == "0.0.0.0"  # noqa: S104 - inside the container only
    assert [port.split(":")[2] for port in service["ports"]] == [environment["EVERLEARN_PORT"]]
    assert [v.split(":")[1] for v in service["volumes"]] == [
        environment["EVERLEARN_STATE_DIR"],
        environment["EVERLEARN_SNAPSHOT_DIR"],
    ]
    assert environment["EVERLEARN_NODE_NAME"] == node
    assert URL.findall(" ".join(service["healthcheck"]["test"])) == [
        (environment["EVERLEARN_PORT"], "/health/ready")
    ]


def test_every_address_in_a_command_is_a_node() -> None:
    text = " ".join(word for service in OURS.values() for word in service["command"])
    named = re.findall(r"http://([\w-]+):(\d+)", text)
    assert named
    for node, port in named:
        assert environment_of(NODES[node])["EVERLEARN_PORT"] == port


def test_every_health_path_is_served() -> None:
    from serving.api import make_api
    from streams.settings import Settings

    nobody = cast(Any, None)  # no request is made
    served = make_api(nobody, nobody, Settings(), nobody).openapi()["paths"]
    health = re.findall(r"HEALTHCHECK.*?\n\s*CMD (.*)", DOCKERFILE)
    tests = [json.dumps(s["healthcheck"]) for s in OURS.values() if "healthcheck" in s]
    paths = {path for text in [*health, *tests] for _, path in URL.findall(text)}
    assert paths == {"/health/ready"}
    assert paths <= set(served)


def test_the_image_runs_without_root_and_without_build_tools() -> None:
    _, build, final = DOCKERFILE.split("\nFROM ")
    assert re.findall(r"^USER (\S+)$", final, re.MULTILINE) == ["everlearn"]
    assert not re.search(r"\b(apt-get|apk|gcc|pip|uv)\b", final)
    assert "-c constraints.txt" in build
    assert "--without-pip" in build

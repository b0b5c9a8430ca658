"""The generated documents: in step with the program, valid, and true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.decode import Gate, Rejected
from streams.events import EVENT_TYPES, Event
from streams.order import Record
from streams.schema import EXAMPLES, asyncapi, documents, event_schema
from streams.settings import Settings
from streams.shapes import ROLES

DOCS = Path(__file__).parent.parent / "docs"
NOW = 1_750_000_000.0
TOPICS = {kind: Settings().topics[role].name for kind, role in ROLES.items()}
GATE = Gate(Settings().event_topics(), now=lambda: NOW)


def verdict(kind: str, value: object) -> Event | Rejected:
    record = Record(TOPICS[kind], 0, 0, int(NOW * 1000), b"k", msgspec.json.encode(value))
    return GATE.decode_one(record)


def valid(kind: str, value: object) -> bool:
    return jsonschema.Draft202012Validator(event_schema(kind)).is_valid(value)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_the_files_say_what_the_program_does() -> None:
    stale = [
        name
        for name, text in documents().items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    assert not stale, "stale: write them with `python -m streams.schema`"
    present = {path.relative_to(DOCS).as_posix() for path in (DOCS / "events").iterdir()}
    assert present == {name for name in documents() if name.startswith("events/")}


@pytest.mark.parametrize("kind", list(EVENT_TYPES))
def test_each_schema_is_valid_and_so_is_its_example(kind: str) -> None:
    schema = json.loads((DOCS / "events" / f"{kind}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    (example,) = schema["examples"]
    jsonschema.validate(example, schema)
    assert verdict(kind, example) == EXAMPLES[kind]
    del example["type"]
    assert verdict(kind, example) == EXAMPLES[kind]
    for needed in schema["required"]:
        less = {name: value for name, value in example.items() if name != needed}
        assert not valid(kind, less)
        assert isinstance(verdict(kind, less), Rejected)


@pytest.mark.parametrize("kind", list(EVENT_TYPES))
def test_every_field_says_what_it_means(kind: str) -> None:
    for name, spec in event_schema(kind)["properties"].items():
        assert name == "type" or '"description"' in json.dumps(spec), name


def test_ids_say_their_bound_in_bytes() -> None:
    for kind in EVENT_TYPES:
        assert event_schema(kind)["properties"]["event_id"]["x-max-bytes"] == 128
    assert isinstance(verdict("click", fields(user="é" * 65)), Rejected)


def fields(**change: Any) -> dict[str, Any]:
    return msgspec.to_builtins(EXAMPLES["click"]) | change


ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.text(max_size=3),
    st.sampled_from(["x" * 129, "x" * 1025, 1e13, 2**31, ["a"], ["a"] * 501, [""], {"a": 1}]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(EVENT_TYPES)), st.data())
def test_the_schema_decides_as_the_gate_does(kind: str, data: st.DataObject) -> None:
    names = [name for name in event_schema(kind)["properties"] if name != "type"]
    spoilt = data.draw(st.dictionaries(st.sampled_from([*names, "new"]), ANY, max_size=3))
    value = msgspec.to_builtins(EXAMPLES[kind]) | spoilt
    if isinstance(value["timestamp"], float | int):
        value["timestamp"] = min(value["timestamp"], NOW)  # no schema can say what is ahead
    if isinstance(value.get("position"), float):
        value["position"] = 1  # a schema takes 1.0 for an integer, the gate does not
    assert valid(kind, value) == (not isinstance(verdict(kind, value), Rejected))


def test_no_line_of_the_page_is_indented_which_would_make_it_code() -> None:
    page = (DOCS / "events" / "README.md").read_text(encoding="utf-8")
    assert not [line for line in page.splitlines() if line.startswith(" ")]


def test_asyncapi_names_every_topic_its_messages_and_nothing_that_is_missing() -> None:
    written = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert written == asyncapi()
    topics = Settings().topics
    assert {c["address"] for c in written["channels"].values()} == {t.name for t in topics.values()}
    for role, channel in written["channels"].items():
        assert channel["bindings"]["kafka"]["partitions"] == topics[role].partitions
        if topics[role].type:
            assert list(channel["messages"]) == [topics[role].type]
    for reference in references(written):
        node = written
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in written["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_asyncapi_tells_the_key_and_headers_of_each_message() -> None:
    messages = asyncapi()["components"]["messages"]
    keys = {name: m["bindings"]["kafka"]["key"]["description"] for name, m in messages.items()}
    assert keys["click"] == "the user, UTF-8"
    assert keys["item"] == "the item, UTF-8"
    assert keys["dead_letter"] == "topic/partition/offset, UTF-8"
    assert {"reason", "detail"} <= set(messages["dead_letter"]["headers"]["properties"])

"""The events for other people's programs: JSON Schemas, an AsyncAPI document, a reference page.

`python -m streams.schema` writes them to `docs/`; a test says when they are stale.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from streams.decode import MAX_DEPTH, REASONS
from streams.events import (
    EVENT_TYPES,
    MAX_AHEAD_SECONDS,
    MAX_BYTES,
    MAX_ID_BYTES,
    Click,
    Erasure,
    Event,
    Impression,
    Item,
    Purchase,
)
from streams.settings import ROLE_MEANINGS, Settings, TopicSettings

__all__ = ["EXAMPLES", "asyncapi", "documents", "event_schema", "write"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DAY_MILLISECONDS = 86_400_000
COMMAND = "python -m streams.schema"

_MOMENT: dict[str, Any] = {"timestamp": 1_750_000_000.0, "user": "u-17"}
EXAMPLES: dict[str, Event] = {
    "click": Click(event_id="c-1", item="i-42", session="s-9", **_MOMENT),
    "purchase": Purchase(event_id="p-1", item="i-42", price=19.9, quantity=2.0, **_MOMENT),
    "impression": Impression(
        event_id="m-1",
        items=["i-42", "i-7"],
        impression_id="answer-5",
        explored={"i-7": 0.0125},
        **_MOMENT,
    ),
    "item": Item(
        event_id="t-1", timestamp=1_750_000_000.0, item="i-42", category="shoes", price=19.9
    ),
    "erasure": Erasure(event_id="e-1", **_MOMENT),
}

BOUNDS = (
    f"Every text is UTF-8. An id is at most {MAX_ID_BYTES} bytes (`x-max-bytes`; JSON Schema "
    f"counts characters), a message at most {MAX_BYTES} bytes and nested at most {MAX_DEPTH} "
    f"levels, a time at most {MAX_AHEAD_SECONDS:.0f} seconds ahead of the record's and of the "
    "clock. Unknown fields are ignored. What breaks a bound becomes a dead letter."
)

LETTER_HEADERS = {
    "reason": "why, one word: " + ", ".join(reason for reason in REASONS if reason != "ignored"),
    "detail": "why, in full",
    "timestamp": "the record's time, milliseconds since 1970",
    "key": "the record's key, where it has one",
    "truncated_from": "bytes of the message, where only its beginning is here",
}


def event_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a type of event; `type` is optional, as the topic implies it."""
    kind = EVENT_TYPES[name]
    _, components = msgspec.json.schema_components([kind])
    schema = components[kind.__name__]
    properties, needed = schema["properties"], set(schema["required"]) - {"type"}
    first = {field: properties[field] for field in ("type", "event_id", "timestamp")}
    return {
        "title": schema["title"],
        "description": inspect.getdoc(kind),
        "type": "object",
        "properties": first | properties,
        "required": [name for name in (first | properties) if name in needed],
        "examples": [msgspec.to_builtins(EXAMPLES[name])],
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3 document: every topic with its keys, headers and payloads."""
    topics = Settings().topics
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "everlearn",
            "version": version("everlearn"),
            "description": f"Topics of a recommender that never stops learning. {BOUNDS}",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": Settings().broker, "protocol": "kafka"}},
        "channels": {role: _channel(role, topic) for role, topic in topics.items()},
        "operations": dict(_operations(topics)),
        "components": {
            "messages": {name: _message(name) for name in EVENT_TYPES} | {"dead_letter": _LETTER},
            "schemas": {name: event_schema(name) for name in EVENT_TYPES},
        },
    }


def _channel(role: str, topic: TopicSettings) -> dict[str, Any]:
    message = "dead_letter" if role == "dead_letters" else topic.type
    keeps = topic.retention_days * DAY_MILLISECONDS if topic.retention_days > 0 else -1
    cleanup = ["compact"] * topic.compacted + ["delete"] * (keeps > 0 or not topic.compacted)
    return {
        "address": topic.name,
        "description": ROLE_MEANINGS[role],
        "messages": {message: {"$ref": f"#/components/messages/{message}"}} if message else {},
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": {"cleanup.policy": cleanup, "retention.ms": int(keeps)},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operations(topics: dict[str, TopicSettings]) -> Iterator[tuple[str, dict[str, Any]]]:
    for role, topic in topics.items():
        channel = {"$ref": f"#/channels/{role}"}
        if topic.type:
            summary = f"Every node learns {role}."
            yield f"learn_{role}", {"action": "receive", "channel": channel, "summary": summary}
    for role, summary in (
        ("dead_letters", "A node that reads a message which is no event writes it here."),
        ("impressions", "A node writes what each of its answers showed."),
    ):
        channel = {"$ref": f"#/channels/{role}"}
        yield f"write_{role}", {"action": "send", "channel": channel, "summary": summary}


def _message(name: str) -> dict[str, Any]:
    key = "item" if name == "item" else "user"
    return {
        "name": name,
        "title": EVENT_TYPES[name].__name__,
        "summary": (EVENT_TYPES[name].__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "headers": {"type": "object", "description": "none are needed, any are ignored"},
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": _key(f"the {key}"), "bindingVersion": "0.5.0"}},
    }


def _key(meaning: str) -> dict[str, str]:
    return {"type": "string", "description": f"{meaning}, UTF-8"}


_LETTER: dict[str, Any] = {
    "name": "dead_letter",
    "title": "Dead letter",
    "summary": "A message that is no event, as it came; an absent value is empty here.",
    "contentType": "application/octet-stream",
    "headers": {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in LETTER_HEADERS.items()
        },
        "required": ["reason", "detail", "timestamp"],
    },
    "payload": {"type": "string", "description": "any bytes"},
    "bindings": {"kafka": {"key": _key("topic/partition/offset"), "bindingVersion": "0.5.0"}},
}


def _page() -> str:
    parts = [
        "# Events\n\nWhat producers publish: one JSON object a Kafka message. Generated by "
        f"`{COMMAND}`, with a JSON Schema for each and an [AsyncAPI document](../asyncapi.yaml).\n",
        f"\n{BOUNDS}\n",
        "\nThe topic implies `type`, so it may be left out there; `POST /events` and `everlearn "
        "send` need it.\n",
    ]
    parts += [_section(name) for name in EVENT_TYPES]
    rows = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items())
    parts.append(f"\n## Why a message is rejected\n\n| reason | meaning |\n|---|---|\n{rows}")
    headers = "".join(f"| `{name}` | {text} |\n" for name, text in LETTER_HEADERS.items())
    parts.append(f"\nHeaders of a dead letter:\n\n| header | meaning |\n|---|---|\n{headers}")
    return "".join(parts)


def _section(name: str) -> str:
    schema = event_schema(name)
    rows = "".join(
        f"| `{field}` | {_type(spec)} | {'yes' if field in schema['required'] else ''} | "
        f"{_about(spec)} |\n"
        for field, spec in schema["properties"].items()
    )
    example = msgspec.json.encode(EXAMPLES[name]).decode()
    return (
        f"\n## {name}\n\n{schema['description']} Schema: [{name}.json]({name}.json)\n\n"
        f"| field | type | needed | meaning |\n|---|---|---|---|\n{rows}\n"
        f"```json\n{example}\n```\n"
    )


def _said(spec: dict[str, Any]) -> dict[str, Any]:
    return next((one for one in spec.get("anyOf", []) if one.get("type") != "null"), spec)


def _type(spec: dict[str, Any]) -> str:
    said = _said(spec)
    return "text" if said.get("type", "string") == "string" else str(said["type"])


def _about(spec: dict[str, Any]) -> str:
    said = _said(spec)
    if "enum" in said:
        return " or ".join(f"`{value}`" for value in said["enum"])
    named = {
        "x-max-bytes": "at most {} bytes",
        "maxItems": "at most {} of them",
        "maxLength": "at most {} characters",
        "minimum": "at least {}",
        "maximum": "at most {:,.0f}",
    }
    bounds = [text.format(said[key]) for key, text in named.items() if key in said]
    if "x-max-bytes" in said:
        bounds.remove(named["maxLength"].format(said["maxLength"]))
    if spec.get("default") is not None:
        bounds.append(f"{json.dumps(spec['default'])} when left out")
    return "; ".join(filter(None, [said.get("description"), *bounds]))


def documents() -> dict[str, str]:
    """Return every generated file: its path below `docs/`, and its text."""
    import yaml  # type: ignore[import-untyped]  # of the extra "dev": only who changes an event writes these files

    heading = f"# Generated by `{COMMAND}`.\n"
    texts = {
        "asyncapi.yaml": heading
        + yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=100),
        "events/README.md": _page(),
    }
    for name in EVENT_TYPES:
        schema = {"$schema": DIALECT, "$id": f"urn:everlearn:event:{name}"} | event_schema(name)
        texts[f"events/{name}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return texts


def write(docs: Path) -> list[Path]:
    """Write every generated file below a folder of documents, and return their paths."""
    paths = []
    for name, text in documents().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(__file__).parent.parent / "docs"):
        print(written)

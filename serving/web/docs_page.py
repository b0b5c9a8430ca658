"""The page at `/docs`: the OpenAPI document as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
article { border: 1px solid #8886; border-radius: .5rem; margin: 1rem 0; padding: .2rem 1rem 1rem; }
code, pre { font: .9em ui-monospace, monospace; }
pre { background: #8882; border-radius: .3rem; overflow-x: auto; padding: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-top: 1px solid #8884; padding: .2rem .6rem .2rem 0; }
th, td { text-align: left; vertical-align: top; }
th { font-weight: 600; } td:first-child { white-space: nowrap; }
.method { font-weight: 700; margin-right: .5rem; }
"""
CODE = re.compile(r"`([^`]+)`")
METHODS = ("get", "post", "put", "delete")


def page(document: Mapping[str, Any], origin: str) -> str:
    """The document as HTML; `origin` (http://host:port) is used in the examples."""
    tags = {tag["name"]: tag.get("description", "") for tag in document.get("tags", [])}
    parts = "".join(
        f"<h2>{escape(tag)}</h2><p>{escape(meaning)}</p>" + "".join(_tagged(document, tag, origin))
        for tag, meaning in tags.items()
    )
    info = document["info"]
    title, text = escape(info["title"]), _text(info.get("description", ""))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title} API</title><style>{STYLE}</style>"
        f"<h1>{title} API</h1><p>version {escape(info['version'])}, "
        "<a href=/openapi.json>openapi.json</a></p>"
        f"{text}{parts}<h2>types</h2>{''.join(_schemas(document))}</html>"
    )


def _tagged(document: Mapping[str, Any], tag: str, origin: str) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method in METHODS:
            operation = operations.get(method)
            if operation is not None and tag in operation.get("tags", []):
                yield _operation(method.upper(), path, operation, origin)


def _operation(method: str, path: str, operation: Mapping[str, Any], origin: str) -> str:
    rows = [
        (f"<code>{escape(p['name'])}</code>", _type(p["schema"]), escape(p.get("description", "")))
        for p in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    if body:
        rows.append(("body", _type(body["content"]["application/json"]["schema"]), "JSON"))
    answers = [
        (status, _answer_type(answer), escape(answer["description"]))
        for status, answer in sorted(operation["responses"].items())
    ]
    return (
        f"<article><h3><span class=method>{method}</span><code>{escape(path)}</code></h3>"
        f"<p><b>{escape(operation['summary'])}</b></p>{_text(operation.get('description', ''))}"
        f"<pre>{escape(_curl(method, path, operation, origin))}</pre>"
        f"{_table(('takes', 'type', 'meaning'), rows)}"
        f"{_table(('answers', 'type', 'meaning'), answers)}</article>"
    )


def _curl(method: str, path: str, operation: Mapping[str, Any], origin: str) -> str:
    url = f"{origin}{path.replace('{user}', 'ann').replace('{item}', 'tent')}"
    words = ["curl"] + (["-X", method] if method == "DELETE" else [])
    if operation.get("security"):
        words.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        example = '{"type": "click", "user": "ann", "item": "tent"}'
        words.append(f"-d '[{example}]'")
    return " ".join([*words, url])


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        required = schema.get("required", [])
        rows = [
            (
                f"<code>{escape(field)}</code>" + ("" if field in required else " (optional)"),
                _type(inner),
                escape(inner.get("description", "")),
            )
            for field, inner in schema.get("properties", {}).items()
        ]
        yield (
            f"<article id='{escape(name)}'><h3>{escape(name)}</h3>"
            f"{_text(schema.get('description', ''))}"
            f"{_table(('field', 'type', 'meaning'), rows)}</article>"
        )


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(inner) for inner in schema[key])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("maximum", "to"),
            ("minLength", "length from"),
            ("maxLength", "length to"),
            ("default", "default"),
        )
        if schema.get(key) not in (None, "")
    ]
    return escape(", ".join([schema.get("type", "anything"), *bounds]))


def _answer_type(answer: Mapping[str, Any]) -> str:
    content = answer.get("content", {})
    return next((_type(kind["schema"]) for kind in content.values()), "")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(text: str) -> str:
    marked = CODE.sub(r"<code>\1</code>", escape(text))
    return "".join(f"<p>{paragraph}</p>" for paragraph in marked.split("\n\n") if paragraph)

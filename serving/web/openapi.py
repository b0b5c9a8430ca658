"""The OpenAPI page: schemas from the msgspec types, and the routes FastAPI does not document."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Path, Query
from fastapi.openapi.utils import get_openapi

from serving.web.answers import (
    Accepted,
    Alive,
    AnonymousEvent,
    AnonymousQuery,
    Answer,
    ErasureAnswer,
    Failure,
    Health,
    Moved,
    SnapshotAnswer,
    SnapshotsAnswer,
    UserAnswer,
)
from serving.web.limits import EVENTS_MAX, ID_BYTES, K_DEFAULT, K_MAX
from streams.events import EVENT_TYPES

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = [
    "After",
    "ItemPath",
    "UserPath",
    "accepts",
    "accepts_events",
    "answers",
    "install",
    "needs_token",
]

After = Annotated[
    str | None,
    Query(description="a token from POST /events: answer only when that position is learnt"),
]
UserPath = Annotated[str, Path(description=f"id of the user, at most {ID_BYTES} bytes")]
ItemPath = Annotated[str, Path(description=f"id of the item, at most {ID_BYTES} bytes")]

REFUSALS = {
    401: "The bearer token is missing or wrong",
    403: "The request was sent by a foreign web page",
    404: "Nothing is known of this id",
    409: "The snapshot is damaged, or there is none to go back to",
    413: "The body is larger than 64 KiB, or holds more than 1,000 events",
    415: "The body is compressed",
    422: "The request is out of bounds",
    503: "The broker did not acknowledge, or too many requests wait for a position",
    504: "The position was not learnt in time",
}

TEMPLATE = "#/components/schemas/{name}"
SCHEMAS = (
    Accepted,
    Alive,
    AnonymousEvent,
    AnonymousQuery,
    Answer,
    ErasureAnswer,
    Failure,
    Health,
    Moved,
    SnapshotAnswer,
    SnapshotsAnswer,
    UserAnswer,
    *EVENT_TYPES.values(),
)
FILLED_IN = {"event_id", "timestamp"}


def answers(kind: Any, *refusals: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """What a route answers, for its `responses`: a type of `serving.web.answers` and refusals."""
    documented: dict[int | str, dict[str, Any]] = {
        status: {"description": _first_line(kind), "content": _content(_reference(kind))}
    }
    for refusal in refusals:
        documented[refusal] = {
            "description": REFUSALS[refusal],
            "content": _content(_reference(Failure)),
        }
    return documented


def accepts(kind: Any) -> dict[str, Any]:
    """The body of a route, for its `openapi_extra`."""
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=TEMPLATE)
    return {"requestBody": {"required": True, "content": _content(schema)}}


def accepts_events() -> dict[str, Any]:
    """The body of `POST /events`, for its `openapi_extra`."""
    one = {
        "oneOf": [_reference(kind) for kind in EVENT_TYPES.values()],
        "discriminator": {
            "propertyName": "type",
            "mapping": {
                name: TEMPLATE.format(name=kind.__name__) for name, kind in EVENT_TYPES.items()
            },
        },
    }
    either = {"anyOf": [one, {"type": "array", "items": one, "maxItems": EVENTS_MAX}]}
    return {"requestBody": {"required": True, "content": _content(either)}}


def needs_token(is_set: bool) -> dict[str, Any]:
    """That a route asks for the bearer token, for its `openapi_extra`."""
    return {"security": [{"bearer": []}]} if is_set else {}


def install(app: FastAPI) -> None:
    """Let the app's OpenAPI document tell of every route."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        tags=app.openapi_tags,
        routes=app.routes,
    )
    document["paths"] = {"/recommend/{user}": {"get": _recommend()}} | document["paths"]
    document["components"] = {
        "schemas": _schemas(),
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    return document


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(SCHEMAS, ref_template=TEMPLATE)
    for kind in EVENT_TYPES.values():
        schema = schemas[kind.__name__]
        schema["description"] = inspect.getdoc(kind)
        schema["required"] = [name for name in schema["required"] if name not in FILLED_IN]
    return dict(sorted(schemas.items()))


def _recommend() -> dict[str, Any]:
    parameters = [
        _parameter("user", "path", f"id of the user, at most {ID_BYTES} bytes", _ID),
        _parameter(
            "k",
            "query",
            "how many items",
            {"type": "integer", "minimum": 1, "maximum": K_MAX, "default": K_DEFAULT},
        ),
        _parameter(
            "exclude",
            "query",
            "leave out items `seen`, `bought` or `seen,bought`",
            {"type": "string", "default": ""},
        ),
        _parameter(
            "after",
            "query",
            "a token from POST /events: answer only when that position is learnt",
            {"type": "string"},
        ),
    ]
    return {
        "tags": ["recommend"],
        "operationId": "recommend_to_user",
        "summary": "Items for a user",
        "description": "A user nobody has seen gets what is popular. Pass `k`, what to leave "
        "out, and the token of your last write to read it back.",
        "parameters": parameters,
        "responses": {
            str(status): answer for status, answer in answers(Answer, 422, 503, 504).items()
        },
    }


_ID = {"type": "string", "minLength": 1, "maxLength": ID_BYTES}


def _parameter(name: str, place: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": meaning,
        "schema": schema,
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(kind: Any) -> dict[str, Any]:
    return {"$ref": TEMPLATE.format(name=kind.__name__)}


def _first_line(kind: Any) -> str:
    return str(kind.__doc__).splitlines()[0]

"""What every failed request answers: one JSON envelope, `{"error": {code, message, detail}}`.

A handler raises `Refusal`; everything else that goes wrong (unknown path, wrong method, a query
parameter out of bounds, a bug) is put into the same envelope by the handlers installed here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from streams.words import of_bad_value

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Refusal", "broken", "envelope", "install", "invalid"]

log = logging.getLogger("everlearn.api")

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported",
    422: "invalid",
    500: "internal",
    503: "unavailable",
    504: "deadline",
}


class Refusal(HTTPException):
    """An answer other than 2xx: what was wrong, the value, the cure.

    Parameters
    ----------
    status_code
        The HTTP status.
    message
        One sentence for people.
    code
        A stable word for programs; by default the status's own (`CODES`).
    more
        Anything else that helps, as JSON.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        code: str | None = None,
        more: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.code = code or CODES.get(status_code, "error")
        self.more = more


def invalid(message: str, more: Any = None) -> Refusal:
    """A request that is understood but out of bounds: status 422."""
    return Refusal(422, message, more=more)


def envelope(
    status: int,
    code: str,
    message: str,
    detail: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that carries an error.

    >>> envelope(404, "not_found", "no such path").body
    b'{"error":{"code":"not_found","message":"no such path","detail":null}}'
    """
    body = msgspec.json.encode({"error": {"code": code, "message": message, "detail": detail}})
    return Response(body, status, headers=headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Answer every error of this app in the envelope."""
    from fastapi.exceptions import RequestValidationError

    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(Exception, broken)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return envelope(
            error.status_code, error.code, error.detail, error.more, headers=error.headers
        )
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = CODES.get(status, "error")
    if status == 404:
        return envelope(404, code, f"no such path: {request.url.path}; GET /docs lists them")
    if status == 405:
        allowed = ", ".join(_allowed_methods(request))
        message = f"{request.method} is not served at {request.url.path}; use {allowed}"
        return envelope(405, code, message, headers={"Allow": allowed})
    message = error.detail if isinstance(error, HTTPException) else str(error)
    return envelope(status, code, message)


async def _unprocessable(_: Request, error: Exception) -> Response:
    problems: list[dict[str, Any]] = getattr(error, "errors", list)()
    detail = [
        {
            "where": ".".join(str(part) for part in problem["loc"]),
            "problem": of_bad_value(problem),
            "value": str(problem.get("input"))[:200],
        }
        for problem in problems
    ]
    told = [f"{d['where'].rpartition('.')[2]} {d['problem']}, not {d['value']!r}" for d in detail]
    return envelope(422, CODES[422], told[0] if told else "the request is out of bounds", detail)


async def broken(request: Request, error: Exception) -> Response:
    """The answer to a request at which the server failed; the log gets the traceback."""
    log.error("a request failed: %s %s", request.method, request.url.path, exc_info=error)
    return envelope(500, CODES[500], "the server failed at this request; its log has the traceback")


def _allowed_methods(request: Request) -> list[str]:
    allowed: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            allowed |= getattr(route, "methods", None) or set()
    return sorted(allowed)

"""What a request may be: its size, the ids it names, the token it shows."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.web.errors import Refusal, envelope, invalid
from streams.words import of_bad_json

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = [
    "BODY_BYTES",
    "EVENTS_MAX",
    "ID_BYTES",
    "K_DEFAULT",
    "K_MAX",
    "SHOWN",
    "RequestLimits",
    "exclusions",
    "has_body",
    "id_in_bounds",
    "is_loopback",
    "read_json",
    "writer",
]

BODY_BYTES = 64 * 1024
ID_BYTES = 128
K_DEFAULT = 10
K_MAX = 500
EVENTS_MAX = 1000  # of one request; each takes memory and the loop until it is acknowledged
CLOSE = {"Connection": "close"}  # nobody reads the rest of the body
SHOWN = ContextVar("everlearn_shown", default=True)  # whether somebody sees the answer
EXCLUSIONS = frozenset({"seen", "bought"})


class RequestLimits:
    """Middleware that refuses, before any route, what no route takes.

    That is a path that is not UTF-8, and a body that is compressed or larger than 64 KiB, announced
    or chunked. What a route answers to GET, it answers to HEAD; the web server drops the body, so
    that nobody is `SHOWN` it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body of a request that may have one, then hand both on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
            SHOWN.set(False)  # for this request: each has a context of its own
        try:
            _check_path(scope)
            if has_body(scope):
                receive = _replay(await _read(scope, receive), receive)
        except Refusal as refusal:
            answer = envelope(
                refusal.status_code, refusal.code, refusal.detail, headers=refusal.headers
            )
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def id_in_bounds(name: str, value: str) -> str:
    """The id, if it has 1 to 128 bytes; else a refusal that says so."""
    size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= ID_BYTES:
        raise invalid(f"{name} must have 1 to {ID_BYTES} bytes, this one has {size}")
    return value


def exclusions(text: str) -> frozenset[str]:
    """What a list leaves out, from `seen,bought`.

    >>> sorted(exclusions("seen,bought"))
    ['bought', 'seen']
    """
    if not text:
        return frozenset()
    wanted = frozenset(text.split(","))
    if unknown := sorted(wanted - EXCLUSIONS):
        raise invalid(f"exclude can name seen and bought, not {unknown[0]!r}")
    return wanted


async def read_json(request: Request, kind: Any) -> Any:
    """The body, decoded as `kind`; a refusal that names the place if it is not."""
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        told = of_bad_json(str(error), body, "the body")
        raise invalid(f"the body is not what this route takes: {told}") from error


def writer(settings: Settings) -> Callable[[Request], None]:
    """A check that a request may write: the bearer token when one is set, and no foreign page.

    Browsers name the page that sends a request in `Origin`; one that is not ours is refused, so
    that no web page can publish events through a reader's browser. A page may also come from a
    name that its owner has pointed at this node: where no token keeps it out, the page must be of
    this machine or of the address that the node listens on.
    """
    token = settings.token.get_secret_value().encode() if settings.token else None

    def check(request: Request) -> None:
        if token is not None and not hmac.compare_digest(_bearer(request), token):
            raise Refusal(
                401,
                "this needs the header 'Authorization: Bearer <token>' with this node's token",
                headers={"WWW-Authenticate": "Bearer"},
            )
        origin = request.headers.get("origin")
        if origin is not None and not _is_ours(
            origin, request.headers.get("host"), None if token else settings.host
        ):
            raise Refusal(403, f"writes from a page of {origin[:200]!r} are not accepted")

    return check


def _bearer(request: Request) -> bytes:
    """The token that a request shows; nothing if it shows none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip().encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address reaches this machine only.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "shop")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_ours(origin: str, host: str | None, only: str | None) -> bool:
    """Tell whether a page is of the host that was asked, and (if given) of no name but this."""
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    name = page.hostname
    if name is None or host is None or page.netloc.lower() != host.lower():
        return False
    return only is None or is_loopback(name) or name == only.lower()


def _check_path(scope: Scope) -> None:
    if "\ufffd" not in scope["path"]:  # what the web server puts for bytes that are not UTF-8
        return
    try:
        unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError:
        path = scope["raw_path"][:64].decode("ascii", "replace")
        raise invalid(f"an id in a path is percent-encoded UTF-8, which {path!r} is not") from None


def has_body(scope: Scope) -> bool:
    """Tell whether a request announces a body."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _read(scope: Scope, receive: Receive) -> bytes:
    headers = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    if encoding.strip().lower() not in ("", "identity"):
        raise Refusal(
            415,
            f"a body with Content-Encoding {encoding[:64]!r} is not read; send it as plain JSON",
            headers=CLOSE,
        )
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large() -> Refusal:
    message = f"the body is larger than {BODY_BYTES} bytes; send it in smaller parts"
    return Refusal(413, message, headers=CLOSE)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

"""What the API refuses: at once, with what was wrong, the value and the cure, and never a 500."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learners.errors import SettingsError
from serving.live import position_token
from serving.web.http import bind
from tests.api_nodes import TOKEN, Node, click, error_of


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node that lets a read wait for longer than any test takes."""
    return make_node(after_seconds=60)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/recommend/%ff%fe", "GET"),
        ("/recommend/a%EF%BF%BD%c3", "GET"),
        ("/users/%ed%a0%80", "GET"),
        ("/users/%ff", "DELETE"),
        ("/items/%c3%28/similar", "GET"),
    ],
)
def test_a_path_that_is_not_utf_8_names_nobody(node: Node, path: str, method: str) -> None:
    message = error_of(node.client.request(method, path), 422)["message"]
    assert "UTF-8" in message
    assert path in message
    assert node.publisher.sent == []


def test_the_replacement_character_itself_is_an_id(node: Node) -> None:
    assert node.client.get("/recommend/" + quote("a\ufffd")).status_code == 200


def test_events_that_are_all_refused_are_no_success(node: Node) -> None:
    one = error_of(node.client.post("/events", json=click(user=17)), 422)
    assert one["message"] == "no event was accepted; event 0: user must be text, not 17"
    assert one["detail"] == {
        "accepted": 0,
        "rejected": [{"index": 0, "reason": "bad_field", "detail": "user must be text, not 17"}],
    }
    two = error_of(node.client.post("/events", json=[click(item=""), {"type": "sale"}]), 422)
    assert [refused["index"] for refused in two["detail"]["rejected"]] == [0, 1]
    assert node.publisher.sent == []
    assert node.client.post("/events", json=[]).json()["accepted"] == 0
    counted = 'everlearn_requests_refused_total{reason="bad_field"} 2.0'
    assert counted in node.client.get("/metrics").text


@pytest.mark.parametrize(
    ("positions", "told"),
    [
        ({"nosuch/0": 1}, "'nosuch/0', which is in no topic of events"),
        ({"everlearn.dead-letters/0": 1}, "'everlearn.dead-letters/0', which is in no topic"),
        (
            {"everlearn.clicks/99": 1},
            "'everlearn.clicks/99', but 'everlearn.clicks' ends with partition 0; pass",
        ),
        ({"everlearn.clicks/-1": 1}, "'everlearn.clicks/-1', but"),
        ({"everlearn.clicks/00": 1}, "'everlearn.clicks/00', but"),
        ({"everlearn.clicks": 1}, "'everlearn.clicks', which is in no topic"),
        ({"": 1}, "'', which is in no topic"),
        ({"everlearn.clicks/0": -1}, "the offset -1 of 'everlearn.clicks/0'"),
        ({"everlearn.clicks/0": 10**400}, "the offset 1000"),
    ],
)
def test_a_position_that_no_node_will_learn_is_refused_at_once(
    node: Node, positions: dict[str, int], told: str
) -> None:
    token = position_token(positions)
    for path in ("/recommend/ada", "/trending", "/users/ada"):
        assert told in error_of(node.client.get(f"{path}?after={token}"), 422)["message"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/items/item-1/similar?k=0", "k must be a whole number from 1 to 500, not '0'"),
        ("/trending?k=1e300", "k must be a whole number from 1 to 500, not '1e300'"),
        ("/trending?k=1_0", "k must be a whole number from 1 to 500, not '1_0'"),
        ("/recommend/ada?k=0", "k must be a whole number from 1 to 500, not '0'"),
        ("/recommend/ada?exclude=all", "exclude can name seen and bought, not 'all'"),
        ("/health/ready?fingerprint=maybe", "fingerprint must be true or false, not 'maybe'"),
    ],
)
def test_a_query_that_is_out_of_bounds_is_told_in_words(node: Node, path: str, told: str) -> None:
    assert error_of(node.client.get(path), 422)["message"] == told


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the JSON ends too early"),
        (b"3", "the body must be an object or a list, not 3"),
        (b'[{"item": ""}]', "[0].item must have 1 or more characters, this has 0"),
        (b'[{"item": 5}]', "[0].item must be text, not 5"),
        (b'[{"item": "a", "type": "sold"}]', '[0].type cannot be "sold"'),
        (b'[{"item": "a", "timestamp": -1}]', "[0].timestamp must be 0 or more, not -1"),
        (
            b'[{"item": "a", "timestamp": 1e999}]',
            "[0].timestamp must be a number between -1.8e308 and 1.8e308, not 1e999",
        ),
        (
            b'[{"item": "\xff"}]',
            "the body must be UTF-8, its byte 11 is 0xff: encode it as UTF-8",
        ),
        (b'{"events": [], "k": 0}', "k must be 1 or more, not 0"),
        (b'{"k": 1}', "events is missing"),
        (b'{"events": [], "exclude": "seen"}', 'exclude must be a list, not "seen"'),
    ],
)
def test_a_body_that_is_out_of_bounds_is_told_in_words(node: Node, body: bytes, told: str) -> None:
    message = error_of(node.client.post("/recommend", content=body), 422)["message"]
    assert message == f"the body is not what this route takes: {told}"


def test_a_number_too_large_for_any_is_named_with_its_field(node: Node) -> None:
    body = b'[{"type": "click"}, {"type": "item", "price": -1e999}]'
    message = error_of(node.client.post("/events", content=body), 422)["message"]
    deep = error_of(node.client.post("/events", content=b"[" * 60_000), 422)["message"]
    assert "the body nests lists or objects too deeply" in deep
    assert message.endswith("[1].price must be a number between -1.8e308 and 1.8e308, not -1e999")


def test_an_address_that_is_not_of_this_machine_is_blamed_not_the_port() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1:0 .* give an address of this machine"):
        bind("192.0.2.1", 0)


def test_a_time_in_words_is_refused_where_a_number_is_meant(make_node: Callable[..., Node]) -> None:
    clicks = {"name": "web", "fields": {"user": "uid"}, "timestamp_unit": "ms"}
    node = make_node(topics={"clicks": clicks})
    answer = node.client.post("/events", json=click(timestamp="noon"))
    assert error_of(answer, 422)["message"].endswith('timestamp must be a number, not "noon"')


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/metrics", "/trending", "/docs"]
)
def test_head_answers_what_get_does_without_a_body(node: Node, path: str) -> None:
    head, get = node.client.head(path), node.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_a_node_that_is_not_ready_says_so(make_node: Callable[..., Node]) -> None:
    node = make_node()
    node.live.health["ready"] = False
    assert node.client.head("/health/ready").status_code == 503


@pytest.mark.parametrize("path", ["/events", "/recommend"])
def test_a_compressed_body_is_refused_with_the_cure(node: Node, path: str) -> None:
    body = gzip.compress(msgspec.json.encode(click()))
    for encoding in ("gzip", "GZIP", "identity, gzip"):
        answer = node.client.post(path, content=body, headers={"Content-Encoding": encoding})
        error = error_of(answer, 415)
        assert error["code"] == "unsupported"
        assert (
            f"Content-Encoding '{encoding}' is not read; send it as plain JSON" in error["message"]
        )


def test_the_scheme_of_a_token_is_read_in_any_case(make_node: Callable[..., Node]) -> None:
    node = make_node(token=TOKEN)
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {TOKEN}", "Content-Encoding": "identity"}
        assert node.client.post("/events", json=click(), headers=headers).status_code == 200
    for shown in (TOKEN, f"Bearer{TOKEN}", f"bearer {TOKEN.upper()}", "bearer"):
        answer = node.client.post("/events", json=click(), headers={"Authorization": shown})
        error_of(answer, 401)


PATHS = [
    "/recommend/{}",
    "/recommend",
    "/users/{}",
    "/items/{}/similar",
    "/trending",
    "/events",
    "/health/ready",
    "/{}",
]
QUERY = st.sampled_from(["k", "exclude", "after", "fingerprint", "x"])
VALUE = st.one_of(
    st.text(max_size=5).map(lambda text: quote(text.encode("utf-8", "surrogatepass"))),
    st.sampled_from(["%ff", "%00", "1e400", "9" * 400, "-1", "seen,", "e30", "WzFd", "true", ""]),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2).map(
        lambda positions: quote(position_token(positions))
    ),
)
BODY = st.one_of(
    st.binary(max_size=30),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["type", "user", "item", "items", "events", "k", "timestamp"]),
                st.one_of(inner, st.sampled_from(["click", "purchase", "impression", "item"])),
            ),
        ),
        max_leaves=8,
    ).map(msgspec.json.encode),
)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "TRACE"]),
    st.sampled_from(PATHS),
    VALUE,
    st.lists(st.tuples(QUERY, VALUE), max_size=2),
    BODY,
)
def test_no_request_makes_the_server_fail(
    node: Node, method: str, path: str, name: str, query: list[tuple[str, str]], body: bytes
) -> None:
    url = path.format(name) + "?" + "&".join(f"{key}={value}" for key, value in query)
    answer = node.client.request(method, url, content=body if method in ("POST", "PUT") else None)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert set(answer.json()["error"]) == {"code", "message", "detail"}


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /recommend/\xff HTTP/1.1",
        b"GET /recommend/%zz?k=%zz HTTP/1.1",
        b"GET //recommend/ada HTTP/1.1",
        b"GET http://other.example/recommend/ada HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /recommend/ada#k=3 HTTP/1.1",
        b"POST /events HTTP/1.1\r\nContent-Length: x",
        b"POST /events HTTP/1.1\r\nContent-Encoding: \xff\r\nContent-Length: 2",
        b"DELETE /users/ada HTTP/1.1\r\nAuthorization: \xff \xfe",
        b"GARBAGE",
    ],
)
def test_a_twisted_request_is_answered(node: Node, request_line: bytes) -> None:
    url = node.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as wire:
        wire.sendall(request_line + b"\r\nHost: a\r\nConnection: close\r\n\r\n{}")
        status = wire.makefile("rb").readline()
    assert status.startswith(b"HTTP/1.1 ")
    assert not status.startswith(b"HTTP/1.1 5"), status


def test_many_requests_in_one_piece_are_answered_in_their_order(node: Node) -> None:
    node.send(*(click(user="ada", item=f"item-{i}") for i in range(12)))
    node.learn()
    url = node.client.base_url
    paths = [f"/recommend/ada?k={1 + i % 9}" if i % 50 else "/health/live" for i in range(2_000)]
    asked = "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths)
    asked += "GET /recommend/ada?k=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=30) as wire:
        sender = threading.Thread(target=wire.sendall, args=(asked.encode(),))
        sender.start()
        answers = wire.makefile("rb").read()
        sender.join()
    parts = answers.split(b"HTTP/1.1 200 OK")[1:]
    bodies = [json.loads(part.split(b"\r\n\r\n", 1)[1]) for part in parts]
    sizes = [len(body["items"]) if "items" in body else "live" for body in bodies]
    assert sizes == [1 + i % 9 if i % 50 else "live" for i in range(2_000)] + [1]

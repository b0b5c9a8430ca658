"""What the API takes: events, erasures, tokens, and the limits of it all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from serving.live import position_token
from tests.api_nodes import TOKEN, Node, click, error_of
from tests.fakes import START


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


@pytest.fixture
def locked(make_node: Callable[..., Node]) -> Node:
    return make_node(token=TOKEN)


def test_erasing_publishes_the_erasure_and_gives_a_token(node: Node) -> None:
    answer = node.client.delete("/users/ada")
    assert answer.status_code == 202
    assert node.publisher.sent[0][:2] == ("everlearn.erasures", b"ada")
    assert node.published()[0]["user"] == "ada"
    assert answer.json()["token"] == position_token({"everlearn.erasures/0": 0})


def test_one_event_is_published_complete_and_keyed(node: Node) -> None:
    answer = node.client.post("/events", json=click())
    assert answer.json() == {
        "accepted": 1,
        "rejected": [],
        "token": position_token({"everlearn.clicks/0": 0}),
    }
    topic, key, value = node.publisher.sent[0]
    event = msgspec.json.decode(value)
    assert (topic, key) == ("everlearn.clicks", b"ada")
    assert event["event_id"]
    assert event["timestamp"] > 1.7e9


def test_what_the_client_says_is_kept(node: Node) -> None:
    event = click(event_id="e-1", timestamp=5.5, session="s", context={"page": "home"})
    node.client.post("/events", json=event)
    assert node.published() == [event]


def test_many_events_each_to_its_topic(node: Node) -> None:
    events = [
        click(),
        {"type": "purchase", "user": "ada", "item": "tea", "price": 3.5, "quantity": 2},
        {"type": "item", "item": "tea", "category": "drinks"},
        {"type": "impression", "user": "ada", "items": ["tea", "pot"]},
        {"type": "erasure", "user": "bob"},
    ]
    assert node.client.post("/events", json=events).json()["accepted"] == 5
    assert [(topic, key) for topic, key, _ in node.publisher.sent] == [
        ("everlearn.clicks", b"ada"),
        ("everlearn.purchases", b"ada"),
        ("everlearn.items", b"tea"),
        ("everlearn.impressions", b"ada"),
        ("everlearn.erasures", b"bob"),
    ]


def test_each_bad_event_is_named_and_the_good_ones_go_through(node: Node) -> None:
    bad: list[Any] = [
        3,
        None,
        {},
        {"type": "sale"},
        {"type": ["click"]},
        {"type": "click", "user": "ada"},
        click(item=""),
        click(item="x" * 129),
        click(item="日" * 43),
        click(timestamp=-1),
        click(timestamp=9e12),
        click(event_id=None),
        click(user=17),
        {"type": "purchase", "user": "a", "item": "b", "price": -1},
        click(context={"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}}),
    ]
    answer = node.client.post("/events", json=[click(), *bad, click()]).json()
    assert answer["accepted"] == 2
    assert [refusal["index"] for refusal in answer["rejected"]] == list(range(1, len(bad) + 1))
    assert all(refusal["reason"] and refusal["detail"] for refusal in answer["rejected"])
    assert len(node.publisher.sent) == 2


@pytest.mark.parametrize("body", [b"", b"nonsense", b"3", b'"click"', b"\xff\xfe", b"[" * 60_000])
def test_a_body_that_is_no_event_is_refused_whole(node: Node, body: bytes) -> None:
    error_of(node.client.post("/events", content=body), 422)


def test_an_event_for_somebody_elses_topic_is_written_in_their_shape(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(
        topics={
            "clicks": {
                "name": "web.tracking",
                "type": "mixed",
                "fields": {
                    "user": "@key",
                    "item": "product.id",
                    "type": "action",
                    "timestamp": "at",
                },
                "types": {"view": "click"},
                "timestamp_unit": "ms",
            }
        }
    )
    answer = node.client.post("/events", json=click(timestamp=START + 0.25, event_id="e")).json()
    assert answer["rejected"] == []
    assert node.publisher.sent[0][:2] == ("web.tracking", b"ada")
    assert node.published() == [
        {"event_id": "e", "product": {"id": "tea"}, "action": "view", "at": 1_750_000_000_250}
    ]


def test_events_that_the_broker_did_not_take_are_counted(node: Node) -> None:
    node.publisher.refuse_after = 1
    error = error_of(node.client.post("/events", json=[click(), click(), click()]), 503)
    assert error["code"] == "not_acknowledged"
    assert error["detail"]["acknowledged"] == 1
    assert error["detail"]["token"] == position_token({"everlearn.clicks/0": 0})
    assert "2 of 3" in error["message"]
    assert "event_id" in error["message"]


def test_there_is_no_token_where_nothing_was_written(node: Node) -> None:
    assert node.client.post("/events", json=[]).json()["token"] is None
    node.publisher.refuse_after = 0
    error = error_of(node.client.post("/events", json=click()), 503)
    assert error["detail"] == {"acknowledged": 0, "token": None}


def test_an_erasure_that_the_broker_did_not_take_is_to_be_asked_for_again(node: Node) -> None:
    node.publisher.refuse_after = 0
    error = error_of(node.client.delete("/users/ada"), 503)
    assert error["message"] == (
        "the erasure was not acknowledged by the broker (the broker is away); ask for it again"
    )


@pytest.mark.parametrize(
    "path", ["/recommend/ada", "/trending", "/items/item-0/similar", "/users/ada"]
)
def test_a_read_waits_until_the_token_is_learnt(node: Node, path: str) -> None:
    for event in (click(item="item-0"), click()):
        node.send(event)
    node.learn()
    token = node.send(click())
    late = error_of(node.client.get(f"{path}?after={token}"), 504)
    assert late["code"] == "deadline"
    assert late["detail"] == {"positions": {"everlearn.clicks/0": 2}}
    node.learn()
    assert node.client.get(f"{path}?after={token}").status_code == 200


@pytest.mark.parametrize(
    "shown", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer é", f"Bearer {TOKEN}x"]
)
def test_writes_need_the_token_when_one_is_set(locked: Node, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode()}
    refusal = locked.client.post("/events", json=click(), headers=headers)
    assert error_of(refusal, 401)["code"] == "unauthorized"
    assert refusal.headers["www-authenticate"] == "Bearer"
    error_of(locked.client.delete("/users/ada", headers=headers), 401)
    assert locked.publisher.sent == []


def test_the_token_opens_writes_and_reads_need_none(locked: Node) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.client.post("/events", json=click(), headers=headers).json()["accepted"] == 1
    assert locked.client.delete("/users/ada", headers=headers).status_code == 202
    assert locked.client.get("/recommend/ada").status_code == 200


def write(node: Node, origin: str, host: str, **headers: str) -> httpx.Response:
    return node.client.post(
        "/events", json=click(), headers={"Origin": origin, "Host": host} | headers
    )


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1:8080"),
        ("http://[", "127.0.0.1:8080"),
        ("http://[", "["),
        ("null", "127.0.0.1:8080"),
        ("null", ""),
        ("", ""),
        # A name that its owner has pointed at this machine.
        ("http://evil.example", "evil.example"),
        ("http://evil.example:8080", "evil.example:8080"),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("http://192.0.2.7:8080", "192.0.2.7:8080"),
    ],
)
def test_a_foreign_web_page_cannot_write(node: Node, origin: str, host: str) -> None:
    assert error_of(write(node, origin, host), 403)["code"] == "forbidden"
    assert error_of(node.client.delete("/users/ada", headers={"Origin": origin, "Host": host}), 403)
    assert node.publisher.sent == []


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST"])
def test_a_page_of_this_machine_can_write(node: Node, host: str) -> None:
    assert write(node, f"http://{host}", host).status_code == 200


def test_a_page_of_the_bound_host_can_write(make_node: Callable[..., Node]) -> None:
    node = make_node(host="shop.internal")
    assert write(node, "http://shop.internal:8080", "shop.internal:8080").status_code == 200
    error_of(write(node, "http://evil.example", "evil.example"), 403)


def test_with_a_token_any_name_of_the_node_will_do(locked: Node) -> None:
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert write(locked, "http://shop.example", "shop.example", **shown).status_code == 200
    error_of(write(locked, "http://evil.example", "shop.example", **shown), 403)
    error_of(write(locked, "http://shop.example", "shop.example"), 401)


def test_a_thousand_events_are_accepted_and_one_more_is_not(node: Node) -> None:
    answer = node.client.post("/events", json=[1] * 1000)
    refused = error_of(answer, 422)["detail"]["rejected"]
    assert [refusal["index"] for refusal in refused] == list(range(1000))
    refused = node.client.post("/events", json=[1] * 1001)
    assert "1,001 events" in error_of(refused, 413)["message"]
    error_of(node.client.post("/events", content=b"[" + b"1," * 32_000 + b"1]"), 413)
    items = node.client.get("/openapi.json").json()["paths"]["/events"]["post"]["requestBody"]
    assert items["content"]["application/json"]["schema"]["anyOf"][1]["maxItems"] == 1000


@pytest.mark.parametrize(
    "positions",
    [{f"everlearn.clicks/{n}": 1 for n in range(1001)}, {"a/0": 1.5}, {"a/0": "1"}, [1]],
    ids=["many", "fraction", "text", "list"],
)
def test_a_token_that_no_answer_gives_is_refused(node: Node, positions: Any) -> None:
    answer = node.client.get(f"/recommend/ada?after={position_token(positions)}")
    assert "must be a token" in error_of(answer, 422)["message"]


@pytest.mark.parametrize("path", ["/recommend/ada", "/trending", "/users/ada"])
@pytest.mark.parametrize("token", ["", "e30"])
def test_an_empty_position_is_refused(node: Node, path: str, token: str) -> None:
    error = error_of(node.client.get(f"{path}?after={token}"), 422)
    assert error["message"].endswith(
        f"must be a token that POST /events or DELETE /users answered, not {token!r}"
    )


def test_those_who_wait_are_bounded(make_node: Callable[..., Node]) -> None:
    node = make_node(after_seconds=20, waiters=2)
    path = f"/recommend/ada?after={node.send(click())}"
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(node.client.get, path) for _ in range(2)]
        while node.live.waiting < 2:
            assert not any(answer.done() for answer in waiting)
        assert error_of(node.client.get(path), 503)["code"] == "busy"
        assert node.client.get("/recommend/ada").status_code == 200
        node.learn()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
    assert node.client.get(path).status_code == 200


def test_64_kib_is_accepted_and_a_byte_more_is_not(node: Node) -> None:
    filler = b" " * (64 * 1024 - len(msgspec.json.encode(click())))
    whole = msgspec.json.encode(click()) + filler
    assert node.client.post("/events", content=whole).status_code == 200
    assert error_of(node.client.post("/events", content=whole + b" "), 413)["code"] == "too_large"


@pytest.mark.parametrize("path", ["/events", "/recommend"])
def test_a_chunked_body_is_bounded_as_well(node: Node, path: str) -> None:
    chunks = (b" " * 1024 for _ in range(65))
    error_of(node.client.post(path, content=chunks), 413)

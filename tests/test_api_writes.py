"""What the API takes: events, erasures, tokens, and the limits of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from learners.base import UserView
from serving.live import position_token
from tests.api_nodes import TOKEN, Node, click, error_of, nodes


@pytest.fixture(scope="module")
def make_node() -> Iterator[Callable[..., Node]]:
    with nodes() as make:
        yield make


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
    answer = node.client.post("/events", json=click(timestamp=5.25, event_id="e")).json()
    assert answer["rejected"] == []
    assert node.publisher.sent[0][:2] == ("web.tracking", b"ada")
    assert node.published() == [
        {"event_id": "e", "product": {"id": "tea"}, "action": "view", "at": 5250}
    ]


def test_events_that_the_broker_did_not_take_are_counted(node: Node) -> None:
    node.publisher.refuse_after = 1
    error = error_of(node.client.post("/events", json=[click(), click(), click()]), 503)
    assert error["code"] == "not_acknowledged"
    assert error["detail"]["acknowledged"] == 1
    assert "2 of 3" in error["message"]


@pytest.mark.parametrize(
    "path", ["/recommend/ada", "/trending", "/items/item-0/similar", "/users/ada"]
)
def test_a_read_waits_until_the_token_is_learnt(node: Node, path: str) -> None:
    node.engine.users["ada"] = UserView("ada", [], 0, 0)
    token = node.client.post("/events", json=click()).json()["token"]
    late = error_of(node.client.get(f"{path}?after={token}"), 504)
    assert late["code"] == "deadline"
    node.live.positions["everlearn.clicks/0"] = 1
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


def test_a_foreign_web_page_cannot_write(node: Node) -> None:
    headers = {"Origin": "http://evil.example"}
    error_of(node.client.post("/events", json=click(), headers=headers), 403)
    own = {"Origin": str(node.client.base_url).rstrip("/")}
    assert node.client.post("/events", json=click(), headers=own).status_code == 200


def test_64_kib_is_accepted_and_a_byte_more_is_not(node: Node) -> None:
    filler = b" " * (64 * 1024 - len(msgspec.json.encode(click())))
    whole = msgspec.json.encode(click()) + filler
    assert node.client.post("/events", content=whole).status_code == 200
    assert error_of(node.client.post("/events", content=whole + b" "), 413)["code"] == "too_large"


@pytest.mark.parametrize("path", ["/events", "/recommend"])
def test_a_chunked_body_is_bounded_as_well(node: Node, path: str) -> None:
    chunks = (b" " * 1024 for _ in range(65))
    error_of(node.client.post(path, content=chunks), 413)

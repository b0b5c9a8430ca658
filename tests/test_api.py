"""The HTTP API: every route, every limit, one shape for every failure, and its own description."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

from learners.base import UserView
from serving.api import make_api
from serving.live import position_token
from streams.settings import Settings
from tests.fakes import FakeEngine, FakeLive, FakePublisher
from tests.served import Served, serving

TOKEN = "correct-horse-battery"  # noqa: S105


@dataclass
class Node:
    client: httpx.Client
    engine: FakeEngine
    publisher: FakePublisher
    live: FakeLive

    def published(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for _, _, value in self.publisher.sent]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture
def make_node(served: Served) -> Iterator[Callable[..., Node]]:
    clients: list[httpx.Client] = []

    def make(**settings: Any) -> Node:
        engine, publisher, live = FakeEngine(), FakePublisher(), FakeLive()
        app = make_api(engine, publisher, Settings(**settings), live, after_seconds=0.05)
        clients.append(served.client(app))
        return Node(clients[-1], engine, publisher, live)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


@pytest.fixture
def locked(make_node: Callable[..., Node]) -> Node:
    return make_node(token=TOKEN)


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "detail"}
    return answer.json()["error"]


def click(**more: Any) -> dict[str, Any]:
    return {"type": "click", "user": "ada", "item": "tea"} | more


def test_a_recommendation_says_what_it_is_made_of(node: Node) -> None:
    answer = node.client.get("/recommend/ada?k=3&exclude=seen,bought").json()
    assert [entry["item"] for entry in answer["items"]] == ["item-0", "item-1", "item-2"]
    assert answer["items"][0]["sources"] == {"popularity": 1.0}
    assert answer["as_of"] == 1000.0
    assert node.engine.asked == {
        "user": "ada",
        "events": [],
        "k": 3,
        "exclude": {"seen", "bought"},
    }


def test_ten_items_without_k(node: Node) -> None:
    assert len(node.client.get("/recommend/ada").json()["items"]) == 10


def test_what_was_shown_is_published_as_an_impression(node: Node) -> None:
    answer = node.client.get("/recommend/ada?k=2").json()
    topic, key, value = node.publisher.shown[0]
    event = msgspec.json.decode(value)
    assert (topic, key) == ("everlearn.impressions", b"ada")
    assert event["type"] == "impression"
    assert event["impression_id"] == answer["impression_id"]
    assert event["items"] == ["item-0", "item-1"]


def test_a_full_queue_drops_impressions_not_answers(node: Node) -> None:
    node.publisher.full = True
    assert node.client.get("/recommend/ada").status_code == 200
    assert 'everlearn_impressions_total{outcome="dropped"} 1.0' in node.client.get("/metrics").text


@pytest.mark.parametrize("user", ["a/b", "日本", "a b", "?", "a%2Fb", "x" * 128, "recommend"])
def test_any_id_of_128_bytes_is_a_user(node: Node, user: str) -> None:
    answer = node.client.get("/recommend/" + percent(user))
    assert answer.status_code == 200
    assert node.engine.asked["user"] == user


def percent(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@pytest.mark.parametrize(
    "path",
    [
        "/recommend/",
        "/recommend/" + "x" * 129,
        "/recommend/" + percent("日" * 43),
        "/recommend/ada?k=0",
        "/recommend/ada?k=501",
        "/recommend/ada?k=ten",
        "/recommend/ada?k=1_0",
        "/recommend/ada?k=" + "9" * 5000,
        "/recommend/ada?exclude=all",
        "/recommend/ada?after=no-token",
        "/recommend/ada?after=%F0%9F%92%A3",
        "/trending?k=501",
        "/trending?k=ten",
        "/items/" + "x" * 129 + "/similar",
        "/users/" + "x" * 129,
        "/health/ready?fingerprint=perhaps",
    ],
)
def test_out_of_bounds_is_refused_with_a_reason(node: Node, path: str) -> None:
    assert error_of(node.client.get(path), 422)["message"]


def test_a_visitor_is_answered_from_a_list_of_events(node: Node) -> None:
    events = [{"item": "tea"}, {"item": "pot", "type": "purchase", "timestamp": 990.5}]
    answer = node.client.post("/recommend?k=4", json=events)
    assert len(answer.json()["items"]) == 4
    assert node.engine.asked["events"] == [("tea", "click", 1000.0), ("pot", "purchase", 990.5)]
    assert node.engine.asked["user"] is None


def test_a_visitor_may_send_k_with_the_events(node: Node) -> None:
    body = {"events": [{"item": "tea"}], "k": 2, "exclude": ["seen"]}
    assert len(node.client.post("/recommend", json=body).json()["items"]) == 2
    assert node.engine.asked["exclude"] == {"seen"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"3", b'{"events": 3}', b'[{"item": ""}]', b'[{"item": "a", "type": "sold"}]',
     b"\xff", b"[" * 60_000, b'{"events": [], "k": 0}', b'[{"item": "' + b"x" * 129 + b'"}]'],
)  # fmt: skip
def test_a_bad_list_of_events_is_refused(node: Node, body: bytes) -> None:
    error_of(node.client.post("/recommend", content=body), 422)


def test_similar_items_and_trending(node: Node) -> None:
    similar = node.client.get("/items/item-0/similar?k=5").json()
    assert "item-0" not in [entry["item"] for entry in similar["items"]]
    assert {"as_of", "impression_id", "items"} <= set(similar)
    assert len(node.client.get("/trending?k=7").json()["items"]) == 7


def test_an_unknown_item_has_no_similar_ones(node: Node) -> None:
    assert error_of(node.client.get("/items/zebra/similar"), 404)["code"] == "unknown_item"


def test_what_is_held_of_a_user(node: Node) -> None:
    node.engine.users["ada"] = UserView("ada", [("tea", "click", 990.0)], 7, 1)
    assert node.client.get("/users/ada").json() == {
        "user": "ada",
        "events": [{"item": "tea", "type": "click", "timestamp": 990.0}],
        "total_events": 7,
        "session_length": 1,
        "as_of": 1000.0,
    }
    assert error_of(node.client.get("/users/bob"), 404)["code"] == "unknown_user"


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


def test_unknown_paths_and_methods_answer_in_the_envelope(node: Node) -> None:
    assert "/docs" in error_of(node.client.get("/nothing/here"), 404)["message"]
    wrong = node.client.put("/users/ada")
    assert error_of(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "DELETE, GET"
    error_of(node.client.get("/events"), 405)
    error_of(node.client.post("/recommend/ada"), 405)


def test_a_bug_answers_in_the_envelope(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(node.engine, "recommend", broken)
    assert error_of(node.client.get("/recommend/ada"), 500)["code"] == "internal"


def test_health_of_a_node_that_has_learnt_everything(node: Node) -> None:
    assert node.client.get("/health/live").json() == {"status": "live"}
    assert node.client.get("/health/ready").json() == {
        "ready": True,
        "reasons": [],
        "lag": 0,
        "positions": {"everlearn.clicks/0": 3},
        "last_checkpoint": 999.0,
        "checkpoint_problems": [],
        "missing_topics": [],
        "fingerprint": "00c0ffee00c0ffee",
        "error": None,
    }


def test_a_node_that_is_not_ready_says_why_and_answers_all_the_same(node: Node) -> None:
    node.live.health |= {"ready": False, "reasons": ["the broker is away"], "lag": 7}
    refusal = node.client.get("/health/ready")
    assert refusal.status_code == 503
    assert refusal.json()["reasons"] == ["the broker is away"]
    assert refusal.json()["error"]["code"] == "not_ready"
    assert node.client.get("/recommend/ada").status_code == 200


def test_the_fingerprint_costs_nothing_while_nothing_moves(node: Node) -> None:
    for _ in range(3):
        assert node.client.get("/health/ready").json()["fingerprint"]
    assert node.engine.fingerprints == 1
    node.live.health |= {"ready": True, "lag": 7}
    node.engine.positions = {"everlearn.clicks/0": 1}
    assert node.client.get("/health/ready").json()["fingerprint"] is None
    assert node.client.get("/health/ready?fingerprint=1").json()["fingerprint"]
    assert node.engine.fingerprints == 2

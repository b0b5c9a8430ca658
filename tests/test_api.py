"""What the API answers: every route that reads, and one shape for every failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import msgspec
import pytest

from learners.base import UserView
from tests.api_nodes import Node, error_of, nodes


@pytest.fixture(scope="module")
def make_node() -> Iterator[Callable[..., Node]]:
    with nodes() as make:
        yield make


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


def percent(text: str) -> str:
    return quote(text, safe="")


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


def test_no_two_answers_have_the_same_impression(node: Node) -> None:
    answers = [node.client.get("/recommend/ada").json() for _ in range(3)]
    answers += [node.client.get("/trending").json()]
    assert len({answer["impression_id"] for answer in answers}) == 4


def test_a_full_queue_drops_impressions_not_answers(node: Node) -> None:
    node.publisher.full = True
    assert node.client.get("/recommend/ada").status_code == 200
    assert 'everlearn_impressions_total{outcome="dropped"} 1.0' in node.client.get("/metrics").text


@pytest.mark.parametrize("user", ["a/b", "日本", "a b", "?", "a%2Fb", "x" * 128, "recommend"])
def test_any_id_of_128_bytes_is_a_user(node: Node, user: str) -> None:
    answer = node.client.get("/recommend/" + percent(user))
    assert answer.status_code == 200
    assert node.engine.asked["user"] == user


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

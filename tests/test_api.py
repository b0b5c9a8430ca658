"""What the API answers: every route that reads, and one shape for every failure."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import msgspec
import pytest

from tests.api_nodes import ITEMS, Node, click, error_of, shopping
from tests.fakes import START, learn


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node that has learnt what six users did."""
    node = make_node()
    node.send(*shopping())
    node.learn()
    return node


def percent(text: str) -> str:
    return quote(text, safe="")


def test_a_recommendation_says_what_it_is_made_of(node: Node) -> None:
    answer = node.client.get("/recommend/user-5?k=3").json()
    assert len(answer["items"]) == 3
    for entry in answer["items"]:
        assert entry["item"] in ITEMS
        assert 0 < entry["score"] <= 1
        assert entry["sources"].keys() <= {"neighbours", "transitions", "popularity"}
        assert entry["sources"]
    assert answer["as_of"] == START + 5004.0


def test_k_cuts_the_list_and_ten_is_usual(node: Node) -> None:
    whole = node.items("/recommend/user-5", k=500)
    assert sorted(whole) == sorted(ITEMS)
    assert node.items("/recommend/user-5") == whole[:10]
    assert node.items("/recommend/user-5", k=3) == whole[:3]


def test_what_was_seen_or_bought_is_left_out_when_asked(node: Node) -> None:
    node.send(click(user="ada", item="item-0"), click(user="ada", item="item-1"))
    node.send({"type": "purchase", "user": "ada", "item": "item-2", "price": 1.0})
    node.learn()
    seen, bought = {"item-0", "item-1", "item-2"}, {"item-2"}
    assert set(node.items("/recommend/ada", k=500)) == set(ITEMS)
    assert set(node.items("/recommend/ada", k=500, exclude="seen")) == set(ITEMS) - seen
    assert set(node.items("/recommend/ada", k=500, exclude="bought")) == set(ITEMS) - bought
    assert set(node.items("/recommend/ada", k=500, exclude="seen,bought")) == set(ITEMS) - seen
    assert node.items("/recommend/ada", k=1, exclude="seen") == ["item-3"]


def test_an_unknown_user_is_answered_from_popularity_alone(node: Node) -> None:
    answer = node.client.get("/recommend/nobody").json()["items"]
    assert len(answer) == 10
    assert all(entry["sources"].keys() == {"popularity"} for entry in answer)
    assert node.items("/recommend/somebody-else") == [entry["item"] for entry in answer]


def test_what_was_shown_is_published_as_an_impression(node: Node) -> None:
    answer = node.client.get("/recommend/ada?k=2").json()
    topic, key, value = node.publisher.shown[0]
    event = msgspec.json.decode(value)
    assert (topic, key) == ("everlearn.impressions", b"ada")
    assert event["type"] == "impression"
    assert event["impression_id"] == answer["impression_id"]
    assert event["items"] == [entry["item"] for entry in answer["items"]]


def test_what_was_explored_is_in_the_impression_with_its_propensity_and_is_learnt(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(explore_share=0.2)
    new = [{"type": "item", "item": f"new-{n}", "category": "teas"} for n in range(12)]
    node.send(*shopping(), *new)
    node.learn()
    answer = node.client.get("/recommend/ada").json()
    explored = {
        entry["item"]: entry["sources"]["explore"]
        for entry in answer["items"]
        if "explore" in entry["sources"]
    }
    assert len(explored) == 2
    shown = msgspec.json.decode(node.publisher.shown[0][2])
    assert shown["explored"] == explored
    assert shown["items"] == [entry["item"] for entry in answer["items"]]
    item = next(iter(explored))
    node.send(click(user="ada", item=item))
    learn(node.engine, [*node.publisher.shown, *node.publisher.sent], node.settings)
    counts = node.engine.explorer.books.counts
    assert counts == {name: [1, int(name == item)] for name in explored}


def test_nothing_is_explored_where_the_settings_do_not_say_so(node: Node) -> None:
    node.send({"type": "item", "item": "new"})
    node.learn()
    for user in range(20):
        assert "new" not in node.items(f"/recommend/{user}")
    assert not any(b"explored" in value for _, _, value in node.publisher.shown)


def test_no_two_answers_have_the_same_impression(node: Node) -> None:
    answers = [node.client.get("/recommend/ada").json() for _ in range(3)]
    answers += [node.client.get("/trending").json()]
    assert len({answer["impression_id"] for answer in answers}) == 4


def test_a_full_queue_drops_impressions_not_answers(node: Node) -> None:
    node.publisher.full = True
    assert node.client.get("/recommend/ada").status_code == 200
    assert 'everlearn_impressions_total{outcome="dropped"} 1.0' in node.client.get("/metrics").text


@pytest.mark.parametrize(
    "user", ["a/b", "日本", "a b", "?", "a%2Fb", "a\nb", "\n", "x" * 128, "recommend"]
)
def test_any_id_of_128_bytes_is_a_user(node: Node, user: str) -> None:
    node.send(click(user=user, item="item-7"))
    node.learn()
    assert node.client.get("/users/" + percent(user)).json()["user"] == user
    assert "item-7" not in node.items("/recommend/" + percent(user), k=500, exclude="seen")


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
    events = [{"item": "item-3"}, {"item": "item-4", "type": "purchase", "timestamp": START}]
    answer = node.client.post("/recommend?k=4&exclude=seen,bought", json=events).json()
    shown = [entry["item"] for entry in answer["items"]]
    assert shown[0] == "item-5"
    assert len(shown) == 4
    assert not {"item-3", "item-4"} & set(shown)
    only_bought = node.client.post("/recommend?k=500&exclude=bought", json=events).json()["items"]
    assert {entry["item"] for entry in only_bought} == set(ITEMS) - {"item-4"}
    assert node.client.get("/users/anonymous").status_code == 404, "nothing is kept"


def test_a_visitor_may_send_k_with_the_events(node: Node) -> None:
    body = {"events": [{"item": "item-3"}], "k": 2, "exclude": ["seen"]}
    shown = node.client.post("/recommend?k=7", json=body).json()["items"]
    assert shown[0]["item"] == "item-4"
    assert len(shown) == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"3", b'{"events": 3}', b'[{"item": ""}]', b'[{"item": "a", "type": "sold"}]',
     b"\xff", b"[" * 60_000, b'{"events": [], "k": 0}', b'[{"item": "' + b"x" * 129 + b'"}]',
     b"[" + b'{"item":"a"},' * 500 + b'{"item":"a"}]'],
)  # fmt: skip
def test_a_bad_list_of_events_is_refused(node: Node, body: bytes) -> None:
    error_of(node.client.post("/recommend", content=body), 422)


def test_similar_items_go_with_an_item(node: Node) -> None:
    similar = node.client.get("/items/item-6/similar?k=5").json()
    items = [entry["item"] for entry in similar["items"]]
    assert items[0] == "item-7"
    assert "item-6" not in items
    assert len(items) == 5
    assert {"as_of", "impression_id", "items"} <= set(similar)


def test_trending_is_what_most_have_looked_at_lately(node: Node) -> None:
    assert set(node.items("/trending", k=5)) == set(ITEMS[:5])
    node.send(*(click(user=f"fan-{n}", item="item-19", timestamp=START + 9000) for n in range(20)))
    node.learn()
    assert node.items("/trending", k=1) == ["item-19"]
    assert len(node.items("/trending")) == 10


def test_an_unknown_item_has_no_similar_ones(node: Node) -> None:
    assert error_of(node.client.get("/items/zebra/similar"), 404)["code"] == "unknown_item"


def test_what_is_held_of_a_user(node: Node) -> None:
    node.send(click(user="ada", item="item-4", timestamp=START + 9000))
    node.send({"type": "purchase", "user": "ada", "item": "item-4", "timestamp": START + 9001})
    node.learn()
    assert node.client.get("/users/ada").json() == {
        "user": "ada",
        "events": [
            {"item": "item-4", "type": "click", "timestamp": START + 9000},
            {"item": "item-4", "type": "purchase", "timestamp": START + 9001},
        ],
        "total_events": 2,
        "session_length": 2,
        "as_of": START + 9001,
    }
    assert error_of(node.client.get("/users/bob"), 404)["code"] == "unknown_user"
    node.client.delete("/users/ada")
    node.learn()
    assert error_of(node.client.get("/users/ada"), 404)["code"] == "unknown_user"


def test_unknown_paths_and_methods_answer_in_the_envelope(node: Node) -> None:
    assert "/docs" in error_of(node.client.get("/nothing/here"), 404)["message"]
    wrong = node.client.put("/users/ada")
    assert error_of(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "DELETE, GET"
    error_of(node.client.get("/events"), 405)
    error_of(node.client.post("/recommend/ada"), 405)


def test_a_bug_answers_in_the_envelope(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def broken(*_: object, **__: object) -> None:
        asked.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(node.engine, "recommend", broken)
    assert error_of(node.client.get("/recommend/ada"), 500)["code"] == "internal"
    assert len(asked) == 1


def test_health_of_a_node_that_has_learnt_everything(node: Node) -> None:
    assert node.client.get("/health/live").json() == {"status": "live"}
    assert node.client.get("/health/ready").json() == {
        "ready": True,
        "reasons": [],
        "lag": 0,
        "positions": {"everlearn.clicks/0": 75},
        "last_checkpoint": 999.0,
        "checkpoint_problems": [],
        "snapshot": "",
        "snapshot_problem": "",
        "missing_topics": [],
        "fingerprint": node.engine.fingerprint(),
        "fingerprint_positions": {"everlearn.clicks/0": 75},
        "error": None,
    }


def test_a_node_that_is_not_ready_says_why_and_answers_all_the_same(node: Node) -> None:
    node.live.health |= {"ready": False, "reasons": ["the broker is away"], "lag": 7}
    refusal = node.client.get("/health/ready")
    assert refusal.status_code == 503
    assert refusal.json()["reasons"] == ["the broker is away"]
    assert refusal.json()["error"]["code"] == "not_ready"
    assert node.client.get("/recommend/ada").status_code == 200


@pytest.fixture
def slow_fingerprints(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let each fingerprint of the node take a second, by a clock that the test may turn."""
    now = [1000.0]
    compute = node.engine.fingerprint

    def slow() -> str:
        now[0] += 1.0
        return compute()

    monkeypatch.setattr(node.engine, "fingerprint", slow)
    monkeypatch.setattr("serving.web.routes_health.monotonic", lambda: now[0])
    return now


def test_the_fingerprint_costs_nothing_while_nothing_moves(
    node: Node, slow_fingerprints: list[float]
) -> None:
    for path in ("/health/ready", "/health/ready?fingerprint=1") * 3:
        assert node.client.get(path).json()["fingerprint"]
    assert slow_fingerprints == [1001.0]


def test_an_idle_node_is_asked_for_a_fingerprint_and_tells_that_of_now(node: Node) -> None:
    for _ in range(3):
        node.send(click())
        node.learn()
        health = node.client.get("/health/ready?fingerprint=1").json()
        assert health["fingerprint"] == node.engine.fingerprint()
        assert health["fingerprint_positions"] == health["positions"]


def test_asking_for_fingerprints_takes_a_fiftieth_of_the_time(
    node: Node, slow_fingerprints: list[float]
) -> None:
    first = node.client.get("/health/ready?fingerprint=1").json()
    asked = 10
    for _ in range(asked):
        node.send(click())
        node.learn()
        slow_fingerprints[0] += 1.0
        last = node.client.get("/health/ready?fingerprint=1").json()
        assert node.client.get("/health/ready").json()["fingerprint"] is None
    assert slow_fingerprints == [1001.0 + asked], "no other was made"
    assert last["fingerprint"] == first["fingerprint"]
    assert last["fingerprint_positions"] == first["positions"] != last["positions"]
    slow_fingerprints[0] += 39.0
    again = node.client.get("/health/ready?fingerprint=1").json()
    assert again["fingerprint_positions"] == again["positions"] == last["positions"]
    assert again["fingerprint"] != first["fingerprint"]

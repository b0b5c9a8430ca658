"""What the routes take and answer: one definition for encoding and for the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.responses import Response

from learners.base import Recommendation
from streams.events import Id, Seconds

__all__ = [
    "Accepted",
    "Alive",
    "AnonymousEvent",
    "AnonymousEvents",
    "AnonymousQuery",
    "Answer",
    "ErasureAnswer",
    "Failure",
    "Health",
    "HistoryEvent",
    "Moved",
    "Problem",
    "RejectedEvent",
    "SnapshotAnswer",
    "SnapshotsAnswer",
    "UserAnswer",
    "json",
]

AsOf = Annotated[
    float | None,
    msgspec.Meta(description="time of the latest click or purchase learnt, seconds UTC"),
]
Token = Annotated[
    str, msgspec.Meta(description="pass it as ?after= to a read that must know these events")
]


class Answer(msgspec.Struct, kw_only=True):
    """A list of items, best first."""

    as_of: AsOf
    impression_id: Annotated[
        str, msgspec.Meta(description="name it in the clicks and purchases that follow")
    ]
    snapshot: Annotated[
        str, msgspec.Meta(description="the deep model that has answered; empty without one")
    ]
    items: list[Recommendation]


class AnonymousEvent(msgspec.Struct, kw_only=True):
    """What somebody without an id did; without a timestamp, it happened just now."""

    item: Id
    type: Literal["click", "purchase"] = "click"
    timestamp: Seconds | None = None


AnonymousEvents = Annotated[list[AnonymousEvent], msgspec.Meta(max_length=500)]


class AnonymousQuery(msgspec.Struct, kw_only=True):
    """Events, oldest first, and how to answer them."""

    events: AnonymousEvents
    k: Annotated[int, msgspec.Meta(ge=1, le=500)] | None = None
    exclude: list[Literal["seen", "bought"]] | None = None


class RejectedEvent(msgspec.Struct):
    """An event that was not published, and why; `index` is its place in the request."""

    index: int
    reason: str
    detail: str


class Accepted(msgspec.Struct):
    """How many events Kafka has acknowledged, and which were refused; no token where none has."""

    accepted: int
    rejected: list[RejectedEvent]
    token: Token | None


class ErasureAnswer(msgspec.Struct):
    """The erasure has been published; it is carried out when its position is learnt."""

    user: str
    token: Token


class HistoryEvent(msgspec.Struct):
    """An event the node holds of a user."""

    item: str
    type: str
    timestamp: float


class UserAnswer(msgspec.Struct, kw_only=True):
    """Everything the node holds of a user, oldest first."""

    user: str
    events: list[HistoryEvent]
    total_events: int
    session_length: int
    as_of: AsOf


class SnapshotAnswer(msgspec.Struct, kw_only=True):
    """A snapshot: a version of the deep model."""

    id: str
    state: Annotated[
        str,
        msgspec.Meta(
            description="champion, challenger, retired, discarded, rolled_back, damaged, foreign, "
            "unreadable"
        ),
    ]
    parent: Annotated[str | None, msgspec.Meta(description="what it was fine-tuned from")]
    manifest: Annotated[
        dict[str, Any], msgspec.Meta(description="what it was trained on, and its figures")
    ]


class SnapshotsAnswer(msgspec.Struct, kw_only=True):
    """All snapshots, oldest first, and which of them serves."""

    champion: str | None
    previous: str | None
    challenger: str | None
    snapshots: list[SnapshotAnswer]


class Moved(msgspec.Struct, kw_only=True):
    """Who serves now."""

    champion: str | None
    previous: str | None
    announced: Annotated[bool, msgspec.Meta(description="whether the broker has taken it")]


class Problem(msgspec.Struct):
    """What was wrong."""

    code: Annotated[str, msgspec.Meta(description="a stable word for programs")]
    message: Annotated[str, msgspec.Meta(description="what was wrong, the value, the cure")]
    detail: Any = None


class Failure(msgspec.Struct):
    """The answer of every request that failed."""

    error: Problem


class Alive(msgspec.Struct):
    """The process answers."""

    status: Literal["live"] = "live"


class Health(msgspec.Struct, kw_only=True):
    """Whether the node answers from everything there is to know; `reasons` says why not."""

    ready: bool
    reasons: list[str]
    lag: Annotated[int | None, msgspec.Meta(description="events published but not yet learnt")]
    positions: Annotated[dict[str, int], msgspec.Meta(description="next offset per partition")]
    last_checkpoint: Annotated[float | None, msgspec.Meta(description="seconds UTC")]
    checkpoint_problems: Annotated[
        list[str], msgspec.Meta(description="checkpoints refused at the start, and why")
    ]
    snapshot: Annotated[
        str, msgspec.Meta(description="the deep model that answers; empty without one")
    ]
    snapshot_problem: Annotated[
        str, msgspec.Meta(description="why the champion cannot answer; empty when it does")
    ]
    missing_topics: Annotated[
        list[str], msgspec.Meta(description="event topics that the broker does not have yet")
    ]
    fingerprint: Annotated[
        str | None,
        msgspec.Meta(description="hash of the learnt state, once nothing is left to learn"),
    ]
    fingerprint_positions: Annotated[
        dict[str, int] | None,
        msgspec.Meta(description="what the fingerprint belongs to: next offset per partition"),
    ]
    error: Problem | None = None


_encoder = msgspec.json.Encoder()


def json(answer: msgspec.Struct, status: int = 200) -> Response:
    """The answer as a JSON response."""
    return Response(_encoder.encode(answer), status, media_type="application/json")

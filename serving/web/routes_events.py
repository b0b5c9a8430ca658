"""`POST /events`: publish one event or many, answer when the broker has acknowledged them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from learners.errors import DeliveryError
from serving.live import Serving, position_token
from serving.web.answers import Accepted, RejectedEvent, json
from serving.web.errors import Refusal, invalid
from serving.web.limits import EVENTS_MAX, read_json, writer
from serving.web.openapi import accepts_events, answers, needs_token
from serving.web.publish import Message, Shaper
from streams.decode import Rejected

__all__ = ["acknowledged", "add_routes"]

NOT_ACKNOWLEDGED = (
    "not acknowledged by the broker: {failed} of {asked} ({why}); "
    "send what failed again, with the same event_id"
)


def add_routes(app: FastAPI, serving: Serving) -> None:
    """Add the route that publishes events."""
    shaper = Shaper(serving.settings)
    check = Depends(writer(serving.settings))

    @app.post(
        "/events",
        tags=["events"],
        summary="Publish events",
        dependencies=[check],
        responses=answers(Accepted, 401, 403, 413, 415, 422, 503),
        openapi_extra=accepts_events() | needs_token(serving.settings.token is not None),
    )
    async def publish_events(request: Request) -> Response:
        """One event or a list of at most 1,000, each with its `type`.

        An event without `event_id` or `timestamp` gets one here. Each event stands for itself:
        one that is refused is named in `rejected` and the others are published; where all are
        refused, the answer is 422. Send your own `event_id` to be able to repeat a request: a
        repeated event is learnt once.
        """
        events = await read_json(request, dict[str, Any] | list[Any])
        events = events if isinstance(events, list) else [events]
        if len(events) > EVENTS_MAX:
            raise Refusal(
                413,
                f"{len(events):,} events are too many for one request; "
                f"send at most {EVENTS_MAX:,} at once",
            )
        messages, rejected = _sort_out(events, shaper)
        for refusal in rejected:
            serving.metrics.refuse(refusal.reason)
        if rejected and not messages:
            raise _all_refused(rejected)
        positions = await acknowledged(serving, messages)
        return json(Accepted(len(messages), rejected, _token(positions)))


async def acknowledged(
    serving: Serving, messages: Sequence[Message], told: str = NOT_ACKNOWLEDGED
) -> dict[str, int]:
    """Publish, wait for the broker, and answer the newest offset per partition.

    `told` is said when it fails: `failed` of `asked` messages, and `why`.
    """
    outcomes = await asyncio.gather(
        *(serving.publisher.publish(*message, patient=False) for message in messages),
        return_exceptions=True,
    )
    positions: dict[str, int] = {}
    for message, outcome in zip(messages, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            continue
        partition, offset = outcome
        label = f"{message.topic}/{partition}"
        positions[label] = max(offset, positions.get(label, -1))
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failures:
        raise _undelivered(told, failures, len(messages), positions)
    return positions


def _token(positions: Mapping[str, int]) -> str | None:
    return position_token(positions) if positions else None


def _sort_out(events: Iterable[Any], shaper: Shaper) -> tuple[list[Message], list[RejectedEvent]]:
    messages: list[Message] = []
    rejected: list[RejectedEvent] = []
    for index, event in enumerate(events):
        made = shaper.message(event)
        if isinstance(made, Rejected):
            rejected.append(RejectedEvent(index, made.reason, made.detail))
        else:
            messages.append(made)
    return messages, rejected


def _all_refused(rejected: Sequence[RejectedEvent]) -> Refusal:
    first = rejected[0]
    return invalid(
        f"no event was accepted; event {first.index}: {first.detail}",
        more={"accepted": 0, "rejected": rejected},
    )


def _undelivered(
    told: str, failures: Sequence[BaseException], asked: int, positions: dict[str, int]
) -> BaseException:
    first = failures[0]
    if not isinstance(first, DeliveryError):
        return first
    return Refusal(
        503,
        told.format(failed=len(failures), asked=asked, why=first),
        code="not_acknowledged",
        more={"acknowledged": asked - len(failures), "token": _token(positions)},
    )

"""What the node holds of a user, and forgetting it."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from starlette.responses import Response

from serving.live import Serving, position_token
from serving.recommend import as_of
from serving.web.answers import ErasureAnswer, HistoryEvent, UserAnswer, json
from serving.web.errors import Refusal, invalid
from serving.web.limits import id_in_bounds, writer
from serving.web.openapi import After, UserPath, answers, needs_token
from serving.web.publish import Shaper
from serving.web.routes_events import acknowledged
from streams.decode import Rejected

__all__ = ["add_routes"]

NOT_ACKNOWLEDGED = "the erasure was not acknowledged by the broker ({why}); ask for it again"


def add_routes(app: FastAPI, serving: Serving) -> None:
    """Add the routes about one user."""
    shaper = Shaper(serving.settings)
    check = Depends(writer(serving.settings))

    @app.get(
        "/users/{user:id}",
        tags=["users"],
        summary="Everything the node holds of a user",
        responses=answers(UserAnswer, 404, 422, 503, 504),
    )
    async def user(user: UserPath, after: After = None) -> Response:
        """The user's recent events, oldest first, and how many there have been in all."""
        id_in_bounds("user", user)
        await serving.wait(after)
        view = serving.engine.user(user)
        if view is None:
            raise Refusal(404, f"nothing is held of the user {user!r}", code="unknown_user")
        return json(
            UserAnswer(
                user=user,
                events=[HistoryEvent(*event) for event in view.events],
                total_events=view.total_events,
                session_length=view.session_length,
                as_of=as_of(serving.engine.clock),
            )
        )

    @app.delete(
        "/users/{user:id}",
        tags=["users"],
        summary="Forget a user",
        status_code=202,
        dependencies=[check],
        responses=answers(ErasureAnswer, 401, 403, 422, 503, status=202),
        openapi_extra=needs_token(serving.settings.token is not None),
    )
    async def erase(user: UserPath) -> Response:
        """Publish the erasure; every node forgets the user when it learns that position."""
        message = shaper.message({"type": "erasure", "user": id_in_bounds("user", user)})
        if isinstance(message, Rejected):
            raise invalid(f"the user cannot be named in an erasure: {message.detail}")
        positions = await acknowledged(serving, [message], NOT_ACKNOWLEDGED)
        return json(ErasureAnswer(user, position_token(positions)), 202)

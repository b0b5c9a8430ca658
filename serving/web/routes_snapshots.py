"""The deep model's snapshots: which there are, which serves, and putting another in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Path
from starlette.responses import Response

from learners.deep.registry import ALIASES, Registry
from learners.errors import DeliveryError, SnapshotError
from serving.live import Serving
from serving.web.answers import Moved, SnapshotAnswer, SnapshotsAnswer, json
from serving.web.errors import Refusal
from serving.web.limits import writer
from serving.web.openapi import answers, needs_token
from streams.announce import KEY, announcement

__all__ = ["add_routes"]

NAMES = "id of the snapshot, such as 00000007-1a2b3c4d, or champion, previous, challenger"
SnapshotPath = Annotated[str, Path(description=NAMES)]
T = TypeVar("T")


def add_routes(app: FastAPI, serving: Serving) -> None:
    """Add the routes about snapshots; all of them ask for the token."""
    settings = serving.settings
    registry = Registry(settings.snapshot_dir, settings.trainer.keep)
    guarded: dict[str, Any] = {
        "tags": ["snapshots"],
        "dependencies": [Depends(writer(settings))],
        "openapi_extra": needs_token(settings.token is not None),
    }

    @app.get(
        "/snapshots",
        summary="All snapshots of the deep model",
        responses=answers(SnapshotsAnswer, 401, 403, 409),
        **guarded,
    )
    async def snapshots() -> Response:
        """The snapshots, oldest first, and which of them serves."""
        listed = await in_a_thread(registry.manifests)
        aliases = await in_a_thread(registry.aliases)
        return json(SnapshotsAnswer(**aliases, snapshots=[entry(told) for told in listed]))

    @app.get(
        "/snapshots/{snapshot:snapshot}",
        summary="What is known of a snapshot",
        responses=answers(SnapshotAnswer, 401, 403, 404, 409),
        **guarded,
    )
    async def snapshot(snapshot: SnapshotPath) -> Response:
        """Its parent, what it was trained on, and the figures by which it was judged."""
        id = await in_a_thread(lambda: named(registry, snapshot))
        return json(entry(await in_a_thread(lambda: registry.manifest(id))))

    @app.post(
        "/snapshots/{snapshot:snapshot}/promote",
        summary="Put a snapshot into service",
        responses=answers(Moved, 401, 403, 404, 409),
        **guarded,
    )
    async def promote(snapshot: SnapshotPath) -> Response:
        """Let the alias `champion` name it, if it is whole; the nodes are told."""
        id = await in_a_thread(lambda: named(registry, snapshot))
        await in_a_thread(lambda: registry.promote(id))
        return json(await moved(serving, registry, "promoted", id))

    @app.post(
        "/snapshots/rollback",
        summary="Put the champion before this one into service again",
        responses=answers(Moved, 401, 403, 409),
        **guarded,
    )
    async def rollback() -> Response:
        """Undo the last promotion; the nodes are told."""
        back = await in_a_thread(registry.rollback)
        return json(await moved(serving, registry, "rolled_back", back))


async def in_a_thread(job: Callable[[], T]) -> T:
    """Run what reads or writes the registry; what it refuses is a conflict (409)."""
    try:
        return await asyncio.to_thread(job)
    except SnapshotError as error:
        raise Refusal(409, str(error)) from error


def named(registry: Registry, snapshot: str) -> str:
    """The id that an alias names, else the one that was given; a refusal (404) if none has it."""
    id = registry.aliases()[snapshot] if snapshot in ALIASES else snapshot
    if id is None:
        raise unknown(f"no snapshot is the {snapshot}; GET /snapshots lists them")
    if id not in registry.ids():
        raise unknown(f"there is no snapshot {id[:64]!r}; GET /snapshots lists them")
    return id


def unknown(message: str) -> Refusal:
    """A snapshot that is not there: status 404."""
    return Refusal(404, message, code="unknown_snapshot")


def entry(told: dict[str, Any]) -> SnapshotAnswer:
    """A manifest as the API tells it."""
    return SnapshotAnswer(
        id=told["id"], state=told["state"], parent=told.get("parent"), manifest=told
    )


async def moved(serving: Serving, registry: Registry, what: str, snapshot: str) -> Moved:
    """Tell the nodes who serves now; say whether the broker took it."""
    told = announcement(registry, what, snapshot, why="asked for over the API", time=time.time())
    topic = serving.settings.topics["snapshots"].name
    try:
        await serving.publisher.publish(topic, KEY, msgspec.json.encode(told), patient=False)
        announced = True
    except DeliveryError:
        announced = False
    return Moved(champion=told.champion, previous=told.previous, announced=announced)

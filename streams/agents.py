"""The Faust agents: fetched records in, learnt events out. Two small stages, so that the loop
decodes a batch while the learner's thread works on the one before, and finds the next one waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from faust import App, Channel, StreamT
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streams.announce import told_in
from streams.flow import Decoded, Flow
from streams.source import Fetch

__all__ = ["BatchChannel", "add_agents"]

log = structlog.get_logger("everlearn.agents")

LEARNT_AT_ONCE = 2  # one is learnt, one waits: to hand it over takes a turn of the busy loop


class BatchChannel(Channel[Any]):
    """A bounded channel that keeps what was put on it.

    Faust's own queues are emptied at every rebalance (there of the `snapshots` topic, which says
    nothing about ours), belong to whoever iterates, and drop what is put before somebody does.
    """

    def __init__(self, app: App, **kwargs: Any) -> None:
        maxsize = kwargs.get("maxsize") or 2
        always = FlowControlEvent(initially_suspended=False)
        kwargs["queue"] = kwargs.get("queue") or ThrowableQueue(maxsize, flow_control=always)
        super().__init__(app, **kwargs)

    def _clone_args(self) -> dict[str, Any]:
        return {**super()._clone_args(), "queue": self.queue}


def add_agents(
    app: App,
    flow: Flow,
    fetches: BatchChannel,
    snapshots: str,
    look: Callable[[], None],
    fail: Callable[[Exception], Awaitable[None]],
) -> None:
    """Add the agents of a node to its app.

    Parameters
    ----------
    app, flow
        What runs the agents, and what they drive.
    fetches
        What the batch source fills.
    snapshots
        Topic on which snapshots of the deep model are announced.
    look
        Called at an announcement.
    fail
        Told the reason when an event cannot be learnt; nothing is learnt after it.
    """
    batches = BatchChannel(app, maxsize=2)

    @app.agent(fetches, concurrency=1, name="everlearn.decode")
    async def decode(stream: StreamT[Fetch]) -> None:
        async for fetch in stream:
            try:
                async for decoded in flow.decode(fetch):
                    await batches.queue.put(decoded)
            except Exception as error:
                await fail(error)
                break

    async def learn_one(decoded: Decoded) -> None:
        try:
            await flow.learn(decoded)
        except Exception as error:
            await fail(error)
        finally:
            room.release()

    room = asyncio.Semaphore(LEARNT_AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    @app.agent(batches, concurrency=1, name="everlearn.learn")
    async def learn(stream: StreamT[Decoded]) -> None:
        async for decoded in stream:
            await room.acquire()
            task = asyncio.ensure_future(learn_one(decoded))
            running.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(running.discard)

    @app.agent(app.topic(snapshots, value_type=bytes), concurrency=1, name="everlearn.snapshots")
    async def announced(stream: StreamT[bytes]) -> None:
        async for message in stream:
            log.info("snapshot announced", **told_in(message))
            look()

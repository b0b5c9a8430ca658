"""A node with its API: what `everlearn node` runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from serving.api import make_api
from serving.metrics import Metrics
from serving.web.http import HttpServer, bind
from serving.web.limits import is_loopback
from streams.node import NodeRuntime, run_node
from streams.publisher import Publisher
from streams.warmup import warm_up

if TYPE_CHECKING:
    from mode import Service

    from streams.order import TopicPart
    from streams.settings import Settings

__all__ = ["run"]

log = structlog.get_logger("everlearn.api")

# Nobody waits for an impression: many in one request spare the node and the broker half their work.
LINGER_MILLISECONDS = 50.0
CLOSE_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Run a node and its API until SIGTERM, Ctrl-C or a failure; return the exit code.

    The kernels are there before anybody is answered: a fresh installation compiles them now.

    Raises
    ------
    EverlearnError
        The port is taken, or the node cannot start; the message says why.
    """
    listener = bind(settings.host, settings.port)
    warm_up(explores=settings.explore_share > 0)

    impressions = Publisher(
        settings.broker, settings, linger_milliseconds=LINGER_MILLISECONDS, count_delivered=False
    )

    def services(runtime: NodeRuntime) -> Sequence[Service]:
        metrics = Metrics(runtime.engine, runtime)
        runtime.learning.hooks.append(metrics.learnt)
        api = make_api(
            runtime.engine,
            runtime.publisher,
            settings,
            runtime,
            impressions=impressions,
            metrics=metrics,
            partitions=lambda: partitions_of(runtime),
            between_batches=runtime.learning.between_batches,
        )
        server = HttpServer(api, listener)
        if not settings.token and not is_loopback(settings.host):
            log.warning("anybody who reaches this address can write: set EVERLEARN_TOKEN")
        return [server]

    impressions.start()
    try:
        return run_node(settings, services)
    finally:
        impressions.close(CLOSE_SECONDS)


def partitions_of(runtime: NodeRuntime) -> Collection[TopicPart]:
    """Partitions that a node reads; none before it has found them."""
    flow = runtime.learning.flow
    return flow.source.next_offsets.keys() if flow else ()

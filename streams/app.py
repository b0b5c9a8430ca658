"""The Faust app of a node; `faust -A streams.app worker -l info` runs one that only learns."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import faust

from streams.agents import BatchChannel, add_agents
from streams.champion import Champion
from streams.learning import Learning
from streams.security import aiokafka_options
from streams.settings import load_settings
from streams.source import BatchSource

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["make_app"]

APP_OPTIONS: dict[str, Any] = {
    "web_enabled": False,
    "stream_wait_empty": False,
    "topic_allow_declare": False,
    "topic_disable_leader": True,
    "autodiscover": False,
    "loghandlers": [],
    # Faust waits 20 minutes for a broker's answer unless told otherwise.
    "broker_request_timeout": 15.0,
    "broker_session_timeout": 6.0,
    "broker_heartbeat_interval": 2.0,
    "broker_rebalance_timeout": 10.0,
    "broker_max_poll_interval": 60.0,
    "producer_request_timeout": 15.0,
}


def make_app(
    settings: Settings, learning: Learning | None = None, champion: Champion | None = None
) -> faust.App:
    """Build the app that learns what the event topics carry.

    Parameters
    ----------
    settings
        Broker, topics, name of the node. Each node reads everything, so each is an app of its own.
    learning
        What owns the engine, when it is to outlive the app; else the app starts and stops its own.
    champion
        What keeps its snapshot the champion, likewise.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)  # Faust makes no parents of its folder
    app = faust.App(
        f"everlearn-{settings.node_name}",
        broker=[f"kafka://{address.strip()}" for address in settings.broker.split(",")],
        broker_credentials=credentials(settings),
        datadir=str(settings.state_dir / "faust"),
        **APP_OPTIONS,
    )
    if learning is None:
        learning = Learning(settings)
        app.add_dependency(learning)
    if champion is None:
        champion = Champion(settings, learning)
        app.add_dependency(champion)
    fetches = BatchChannel(app, maxsize=2)
    source = BatchSource(settings, learning.engine, fetches.queue.put)
    flow = learning.begin(source)
    add_agents(app, flow, fetches, settings.topics["snapshots"].name, champion.look, learning.fail)
    app.add_dependency(source)
    return app


def credentials(settings: Settings) -> Any:
    """Return the TLS and SASL settings in Faust's words, `None` for a plain broker."""
    options = aiokafka_options(settings)
    context: ssl.SSLContext | None = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            mechanism=options["sasl_mechanism"],
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def __getattr__(name: str) -> faust.App:
    """Build `app` when it is asked for: `faust -A streams.app` does, an import must not."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = make_app(load_settings())
    return made

"""What the API needs of the running node, position tokens, and waiting for one to be learnt."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from serving.web.errors import Refusal, invalid

if TYPE_CHECKING:
    from learners.engine import Engine
    from serving.metrics import Metrics
    from streams.publisher import Publisher
    from streams.settings import Settings

__all__ = ["BetweenBatches", "Live", "Serving", "position_token", "token_positions"]


BetweenBatches = Callable[[Callable[[], str]], Awaitable[str]]


class Live(Protocol):
    """The running node, as the API sees it (`streams.node.NodeRuntime` is one)."""

    def ready(self) -> Mapping[str, Any]:
        """`ready`, `reasons`, `lag`, `positions`, `last_checkpoint` and whatever else it knows."""

    async def learnt(self, positions: Mapping[str, int]) -> None:
        """Return when the event at every given offset has been learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Everything a route works with."""

    engine: Engine
    publisher: Publisher
    settings: Settings
    live: Live
    metrics: Metrics
    after_seconds: float
    between_batches: BetweenBatches

    async def wait(self, after: str | None) -> None:
        """Wait until the position of a token is learnt; refuse (504) when that takes too long."""
        if not after:
            return
        positions = token_positions(after)
        try:
            async with asyncio.timeout(self.after_seconds):
                await self.live.learnt(positions)
        except TimeoutError:
            raise Refusal(
                504,
                f"the events of this token were not learnt within {self.after_seconds:g} s; "
                "ask again, or see GET /health/ready for the lag",
                more={"positions": positions},
            ) from None


def position_token(positions: Mapping[str, int]) -> str:
    """A token for the offset of the newest event in each partition.

    >>> token_positions(position_token({"everlearn.clicks/0": 41}))
    {'everlearn.clicks/0': 41}
    """
    return base64.urlsafe_b64encode(msgspec.json.encode(positions)).decode().rstrip("=")


def token_positions(token: str) -> dict[str, int]:
    """The offsets a token stands for; a refusal (422) if it is none."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True)
        return msgspec.json.decode(text, type=dict[str, int])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise invalid(
            f"after must be a token that POST /events or DELETE /users answered, not {token[:64]!r}"
        ) from error

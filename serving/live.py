"""What the API needs of the running node, position tokens, and waiting for one to be learnt."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec

from serving.web.errors import Refusal, invalid
from serving.web.limits import EVENTS_MAX
from streams.words import shown

if TYPE_CHECKING:
    from learners.engine import Engine
    from serving.metrics import Metrics
    from streams.order import TopicPart
    from streams.publisher import Publisher
    from streams.settings import Settings

__all__ = ["BetweenBatches", "Live", "Serving", "position_token", "token_positions"]


T = TypeVar("T")


class BetweenBatches(Protocol):
    """Runs a function where nothing is being learnt meanwhile."""

    def __call__(self, job: Callable[[], T], /) -> Awaitable[T]: ...


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
    impressions: Publisher
    settings: Settings
    live: Live
    metrics: Metrics
    after_seconds: float
    between_batches: BetweenBatches
    partitions: Callable[[], Collection[TopicPart]]  # that the node reads, none before it knows
    places: asyncio.Semaphore  # for those who wait for a position

    async def wait(self, after: str | None) -> None:
        """Wait until the position of a token is learnt; refuse (504) when that takes too long.

        Or at once (503) when too many wait already.
        """
        if after is None:
            return
        stands = self.engine.positions
        positions = {
            label: offset
            for label, offset in token_positions(after).items()
            if stands.get(label, 0) <= offset
        }
        if not positions:
            return
        self._check(positions)
        if self.places.locked():
            raise Refusal(
                503,
                "too many requests wait for a position already; ask again, or without after",
                code="busy",
            )
        try:
            async with self.places, asyncio.timeout(self.after_seconds):
                await self.live.learnt(positions)
        except TimeoutError:
            raise Refusal(
                504,
                f"the events of this token were not learnt within {self.after_seconds:g} s; "
                "ask again, or see GET /health/ready for the lag",
                more={"positions": positions},
            ) from None

    def _check(self, positions: Mapping[str, int]) -> None:
        """Refuse (422) a position that this node will never learn."""
        topics = self.settings.event_topics()
        known = self.partitions()
        for label in positions:
            topic, _, number = label.rpartition("/")
            if topic not in topics:
                wrong = f"{label[:300]!r}, which is in no topic of events that the settings name"
                raise _no_position(wrong)
            there = sorted(partition for name, partition in known if name == topic)
            if not PARTITION.fullmatch(number) or (there and int(number) not in there):
                last = f"ends with partition {there[-1]}" if there else "has no such partition"
                raise _no_position(f"{label[:300]!r}, but {topic!r} {last}")


PARTITION = re.compile(r"0|[1-9][0-9]{0,8}")
OFFSETS = 2**63
# No answer gives a token for more: an event stands in one partition.
Offsets = Annotated[dict[str, int], msgspec.Meta(max_length=EVENTS_MAX)]


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
        positions = msgspec.json.decode(text, type=Offsets)
        if not positions:
            raise ValueError("a position in no partition")
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise invalid(
            f"after must be a token that POST /events or DELETE /users answered, not {token[:64]!r}"
        ) from error
    for label, offset in positions.items():
        if not 0 <= offset < OFFSETS:
            raise _no_position(f"the offset {shown(offset)} of {label[:300]!r}, which no event has")
    return positions


def _no_position(wrong: str) -> Refusal:
    return invalid(f"after names {wrong}; pass a token as POST /events answered it")

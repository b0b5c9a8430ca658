"""What every part of the learner agrees on: kinds of events, batches, queries, configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLICK",
    "ERASURE",
    "IMPRESSION",
    "ITEM",
    "KINDS",
    "PURCHASE",
    "Batch",
    "CatalogueEntry",
    "EngineConfig",
    "Interactions",
    "Query",
    "Recommendation",
    "Source",
    "UserView",
    "no_pause",
]

CLICK, PURCHASE, IMPRESSION, ITEM, ERASURE = range(5)
KINDS = ("click", "purchase", "impression", "item", "erasure")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the engine learns; everything that shapes its state, so it is part of the checkpoint.

    Half-lives and gaps are in seconds of event time. Capacities bound memory: arrays are reserved
    at these sizes and the system backs them with memory only as they fill.
    """

    seed: int = 1
    users: int = 1_000_000
    items: int = 200_000
    sessions: int = 262_144
    history_length: int = 24
    session_gap_seconds: float = 1800.0
    admit_items_after: int = 1  # clicks and purchases, before an item gets a row
    dedupe_events: int = 262_144
    evaluate_one_in: int = 32
    blend_warmup_events: int = 32_768
    candidates: int = 100
    hidden_units: int = 16
    blend_rate: float = 0.05
    neighbours: int = 150
    neighbour_sessions: int = 300
    neighbour_half_life_seconds: float = 30 * 86400.0
    neighbour_query_scale: float = 3.0
    neighbour_idf_power: float = 1.5
    neighbour_length_power: float = 0.2
    neighbour_vote_scale: float = 5.0
    neighbour_vote_idf_power: float = 1.0
    neighbour_after_scale: float = 5.0
    neighbour_before_scale: float = 5.0
    transition_half_lives_seconds: tuple[float, float] = (30 * 86400.0, 3 * 86400.0)
    transition_slots: int = 64
    factor_rate: float = 0.1
    factor_correction: float = 0.0
    factor_recent: int = 50_000
    content_candidates: int = 30
    popularity_half_lives_seconds: tuple[float, float, float, float] = (
        3600.0,
        6 * 3600.0,
        2 * 86400.0,
        14 * 86400.0,
    )
    drift_action: bool = False
    drift_half_lives: float = 1.0
    drift_confidence: float = 1e-3
    drift_tolerance: float = 0.05
    drift_threshold: float = 30.0
    objective_click: float = 1.0
    objective_purchase: float = 0.0
    objective_value: float = 0.0
    outcome_window_seconds: float = 86400.0

    def of_clicks_alone(self) -> EngineConfig:
        """Return the same with clicks as the whole objective, where only the blend is of interest.

        >>> EngineConfig(objective_click=0.0, objective_value=1.0).of_clicks_alone().objective_value
        0.0
        """
        return replace(self, objective_click=1.0, objective_purchase=0.0, objective_value=0.0)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What the last `item` event says of an item; `None` where it says nothing."""

    category: str | None = None
    price: float | None = None
    title: str | None = None
    created: float | None = None
    available: bool | None = None
    deleted: bool = False

    @property
    def hidden(self) -> bool:
        """Whether the item cannot be had, so that no answer may name it."""
        return self.deleted or self.available is False


@dataclass(frozen=True, slots=True)
class Batch:
    """Valid events in the order in which they are learnt, as columns of the same length n.

    Strings that do not apply are empty. `log` numbers the partition (an index into `logs`) that
    each event came from; `positions` and `watermarks` say, per log, the next offset and the
    running maximum of record times *after* this batch, rejected records included.
    """

    kind: NDArray[np.uint8]
    user: Sequence[str]
    item: Sequence[str]
    session: Sequence[str]
    timestamp: NDArray[np.float64]  # event time, seconds UTC
    event_hash: NDArray[np.uint64]  # xxh3_64 of event_id
    log: NDArray[np.int32]
    logs: Sequence[str]  # e.g. "everlearn.clicks/0"
    catalogue: Mapping[int, CatalogueEntry] = field(default_factory=dict)  # by place in the batch
    positions: Mapping[str, int] = field(default_factory=dict)
    watermarks: Mapping[str, float] = field(default_factory=dict)  # seconds UTC
    rejected: Mapping[str, int] = field(default_factory=dict)  # reason -> count
    # Items shown in exploration slots, by the place of the impression in the batch.
    explored: Mapping[int, Sequence[str]] = field(default_factory=dict)
    # price x quantity of a purchase, NaN where it tells no price; 0 of others; may be left out
    value: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.kind)


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """One item of an answer; `sources` tells each source's part (0 to 1 of its best score)."""

    item: str
    score: float
    sources: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class UserView:
    """What the engine holds of a user; `events` are (item, kind, seconds UTC), oldest first."""

    user: str
    events: Sequence[tuple[str, str, float]]
    total_events: int
    session_length: int


class Interactions(NamedTuple):
    """Clicks and purchases in learning order, as rows: what a source learns from.

    `context[i]` holds the rows of the items before event i in its session, most recent first,
    padded with -1; `session[i]` is the number of the session, counted as they began.
    """

    item: NDArray[np.int32]  # (n,)
    kind: NDArray[np.uint8]  # (n,)
    time: NDArray[np.float64]  # (n,) seconds
    session: NDArray[np.int64]  # (n,)
    context: NDArray[np.int32]  # (n, W)


class Query(NamedTuple):
    """A question to a source: recent item rows, most recent first, and the time of asking."""

    items: NDArray[np.int32]  # (q,) may hold -1 for an unknown item
    now: float  # seconds
    session: int = -1  # row of the asking session, left out of the neighbours


def no_pause() -> None:
    """Let nobody through between two steps."""


class Source(ABC):
    """A source of candidates: it learns interactions and scores every item for a query.

    Reading never changes state, unknown ids are legal, memory is bounded, and the state alone
    decides every later answer; `learners.checks.check_source` holds a source to that.
    """

    name: str

    @abstractmethod
    def learn(self, interactions: Interactions) -> None:
        """Learn interactions in their order."""

    def list_items(  # noqa: B027 - most sources have no use for it
        self,
        rows: NDArray[np.int32],
        entries: Sequence[CatalogueEntry],
        times: NDArray[np.float64],
    ) -> None:
        """Learn what item events say of some item rows, in their order."""

    @abstractmethod
    def score(self, query: Query, n_items: int) -> NDArray[np.float64]:
        """Score items 0..n_items-1 for a query; (n_items,), larger is better, 0 says nothing."""

    @abstractmethod
    def state(self) -> dict[str, NDArray[np.generic]]:
        """Everything the next update reads, as named arrays (copies or views, do not write)."""

    @abstractmethod
    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the source that gave this state."""

    @abstractmethod
    def forget_items(self, rows: NDArray[np.int64], pause: Callable[[], None] = no_pause) -> None:
        """Drop every trace of some item rows, so that they can be given to other items.

        Where that takes long, `pause` is called between steps after which every answer is sound.
        """

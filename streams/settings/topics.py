"""Settings of one topic: its name in Kafka, what it carries, and how to read its messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from streams.events import EVENT_TYPES

__all__ = ["Number", "TopicSettings", "WholeNumber", "nearest"]

LEGAL_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

EventType = Literal["click", "purchase", "impression", "item", "erasure", "mixed"]


def nearest(wrong: str, known: Iterable[str]) -> str:
    """A question that names the known word nearest to a wrong one, or the empty string."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is meant, not true or false")
    return value


def _finite(value: object) -> object:
    if str(value).strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise ValueError("a finite number is meant")
    return value


WholeNumber = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), BeforeValidator(_finite)]


class TopicSettings(BaseModel):
    """A topic: its name in Kafka, what it carries, and how to read it when it is someone else's.

    A topic with `fields`, `types` or a `timestamp_unit` is *mapped*: its messages keep the shape
    their producer gave them. Only there may a message lack `event_id` (its place in Kafka stands
    in) or `timestamp` (Kafka's time of the record stands in), and may ids be whole numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="name in Kafka")
    type: EventType | None = Field(
        default=None, description="event type it carries; mixed when each message names its own"
    )
    partitions: WholeNumber = Field(
        default=4, ge=1, le=10_000, description="partitions to create it with"
    )
    retention_days: Number = Field(
        default=-1.0,
        ge=-1,
        le=36_525,
        description="days Kafka keeps a message; -1 keeps it for ever",
    )
    compacted: bool = Field(
        default=False, description="whether Kafka keeps only the last message of a key"
    )
    fields: dict[str, str] = Field(
        default={}, description="our field = their field (a.b: b inside a; @key: the message's key)"
    )
    types: dict[str, str] = Field(
        default={}, description="their type = our type, or ignore, where each message names its own"
    )
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"] | None = Field(
        default=None,
        description="s, ms, us or ns since 1970 (s when not set), or iso (UTC where no zone is "
        "given)",
    )

    @property
    def mapped(self) -> bool:
        """Whether messages have a shape of their producer's own."""
        return bool(self.fields or self.types or self.timestamp_unit)

    @field_validator("name")
    @classmethod
    def _legal_name(cls, name: str) -> str:
        if not LEGAL_NAME.fullmatch(name) or name in {".", ".."}:
            raise ValueError("use 1 to 249 letters, digits, dots, dashes and underscores, as Kafka")
        return name

    @field_validator("retention_days")
    @classmethod
    def _legal_retention(cls, days: float) -> float:
        if days <= 0 and days != -1:
            raise ValueError("give a number of days above 0, or -1 to keep messages for ever")
        return days

    @model_validator(mode="after")
    def _legal_mapping(self) -> TopicSettings:
        if self.mapped and self.type is None:
            raise ValueError("a mapping needs the event type of the topic: set type as well")
        if self.types and self.type != "mixed":
            raise ValueError("types is read where type = 'mixed' only: set that, or remove types")
        for ours, theirs in self.fields.items():
            self._check_field(ours, theirs)
        for theirs, ours in self.types.items():
            if ours not in (*EVENT_TYPES, "ignore"):
                raise ValueError(
                    f"types.{theirs} = {ours!r} is no event type{nearest(ours, EVENT_TYPES)}"
                )
        return self

    def _check_field(self, ours: str, theirs: str) -> None:
        known = self.field_names()
        if ours not in known:
            raise ValueError(
                f"fields.{ours}: no event of this topic has such a field{nearest(ours, known)}"
            )
        if not all(theirs.split(".")) or theirs.count(".") > 7:
            raise ValueError(
                f"fields.{ours} = {theirs!r} is no path: give 1 to 8 names joined by dots"
            )

    def field_names(self) -> list[str]:
        """Our fields that a message of this topic can give."""
        if self.type != "mixed":
            return list(EVENT_TYPES[self.type].__struct_fields__) if self.type else []
        names = {name for kind in EVENT_TYPES.values() for name in kind.__struct_fields__}
        return [*sorted(names), "type"]

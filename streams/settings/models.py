"""Everything a node or a tool can be told, with its bounds, defaults and meanings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from learners.base import EngineConfig
from streams.events import EVENT_TYPES
from streams.settings.texts import ENGINE_BOUNDS, ROLES
from streams.settings.topics import Number, TopicSettings, WholeNumber, nearest
from streams.settings.trainer import TrainerSettings

__all__ = ["PREFIX", "WHOLE", "SecuritySettings", "Settings", "leaves", "merged"]

PREFIX = "EVERLEARN_"
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
# Tables whose keys are the user's: one value each, not a setting for every key.
WHOLE = ("fields", "types")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; where both name a value, the one above wins."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping) and name not in WHOLE
        result[name] = merged(old, value) if nested else value  # type: ignore[arg-type]
    return result


def leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested table with its dotted name."""
    for name, value in table.items():
        if isinstance(value, Mapping) and name not in WHOLE:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class SecuritySettings(BaseModel):
    """How to reach a broker that asks for TLS or a password."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, with a SASL protocol"
    )
    sasl_username: str | None = Field(default=None, description="user name, with a SASL protocol")
    sasl_password: SecretStr | None = Field(
        default=None, description="password, with a SASL protocol"
    )
    ca_file: Path | None = Field(
        default=None,
        description="certificates (PEM) that vouch for the broker's, else the system's",
    )

    @model_validator(mode="after")
    def _complete(self) -> SecuritySettings:
        needed = ("sasl_mechanism", "sasl_username", "sasl_password")
        missing = [name for name in needed if getattr(self, name) is None]
        if self.protocol.startswith("SASL") and missing:
            raise ValueError(f"protocol {self.protocol} lacks {', '.join(missing)}: set them")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ValueError(f"ca_file {str(self.ca_file)!r} is not a file: name a PEM file")
        return self


def _engine_numbers(given: object) -> object:
    flags = {name for name, value in asdict(EngineConfig()).items() if isinstance(value, bool)}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name not in flags and any(
            isinstance(one, bool) for one in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"{name} = {json.dumps(value)}: a number is meant, not true or false")
    return given


class Settings(BaseSettings):
    """Everything a node or a tool can be told.

    The constructor reads no file and no environment (`load_settings` does), so that a test or a
    notebook gets what it asks for.

    Examples
    --------
    >>> settings = Settings(port=8081, topics={"clicks": {"name": "shop.views"}})
    >>> settings.topics["clicks"].type, settings.topics["items"].name
    ('click', 'everlearn.items')
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    broker: str = Field(
        default="127.0.0.1:9092", description="Kafka: host:port, several joined by commas"
    )
    node_name: str = Field(default="node-1", description="name in logs and metrics")
    state_dir: Path = Field(default=Path("state"), description="folder of the checkpoints")
    snapshot_dir: Path = Field(
        default=Path("snapshots"),
        description="folder of the deep model's snapshots, shared by trainer and nodes",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="address the API listens on")
    port: WholeNumber = Field(
        default=8080, ge=0, le=65535, description="port of the API; 0 takes a free one"
    )
    token: SecretStr | None = Field(
        default=None,
        description="bearer token that writes to the API must show; when not set, none is",
    )
    checkpoint_seconds: Number = Field(
        default=5.0, gt=0, le=86400, description="seconds between two checkpoints"
    )
    checkpoint_keep: WholeNumber = Field(
        default=3, ge=1, le=1000, description="newest checkpoints kept"
    )
    accept_loss: bool = Field(
        default=False,
        description="go on, and count, when Kafka dropped events that were not learnt yet",
    )
    watchdog_seconds: Number = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="seconds with a lag and no progress until the node exits",
    )
    fetch_records: WholeNumber = Field(
        default=2000, ge=1, le=100_000, description="records in a fetch, a batch"
    )
    explore_share: Number = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of an answer's places that show new and uncertain items",
    )
    security: SecuritySettings = Field(default=SecuritySettings(), description="TLS and SASL")
    engine: Annotated[EngineConfig, BeforeValidator(_engine_numbers)] = Field(
        default=EngineConfig(), description="how the engine learns; part of every checkpoint"
    )
    trainer: TrainerSettings = Field(
        default=TrainerSettings(), description="how the deep model is trained, judged and kept"
    )
    topics: dict[str, TopicSettings] = Field(default={}, description="topics by role, and your own")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments only: `load_settings` reads the rest, and knows each origin."""
        return (init_settings,)

    @field_validator("broker")
    @classmethod
    def _addresses(cls, broker: str) -> str:
        for address in broker.split(","):
            found = ADDRESS.fullmatch(address.strip())
            if found is None or not 0 < int(found[2]) < 65536:
                raise ValueError(f"{address.strip()!r} is no host:port, such as 127.0.0.1:9092")
        return broker

    @field_validator("host")
    @classmethod
    def _host(cls, host: str) -> str:
        if ":" in host or not host.strip("0123456789."):
            try:
                ip_address(host)
            except ValueError:
                cure = "give one such as 127.0.0.1, or 0.0.0.0 for all of this machine"
                raise ValueError(f"{host!r} is no address: {cure}") from None
        return host

    @field_validator("node_name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
            raise ValueError("use 1 to 100 letters, digits, dots, dashes and underscores")
        return name

    @field_validator("token")
    @classmethod
    def _sendable_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not re.fullmatch(r"[!-~]{8,512}", token.get_secret_value()):
            raise ValueError("a token is 8 to 512 visible ASCII characters, without spaces")
        return token

    @field_validator("engine")
    @classmethod
    def _engine_bounds(cls, engine: EngineConfig) -> EngineConfig:
        for name, value in asdict(engine).items():
            low, high = ENGINE_BOUNDS.get(name, (0, float("inf")))
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(low <= number <= high for number in numbers):
                raise ValueError(f"{name} = {value!r} is out of bounds: give {low} to {high}")
        if not (engine.objective_click or engine.objective_purchase or engine.objective_value):
            raise ValueError("objective_click, _purchase and _value are all 0: give one a weight")
        return engine

    @field_validator("topics", mode="before")
    @classmethod
    def _with_roles(cls, topics: object) -> object:
        if not isinstance(topics, Mapping):
            return topics
        given = {
            role: topic.model_dump(exclude_unset=True) if isinstance(topic, BaseModel) else topic
            for role, topic in topics.items()
        }
        return merged(ROLES, given)

    @field_validator("topics")
    @classmethod
    def _coherent_topics(cls, topics: dict[str, TopicSettings]) -> dict[str, TopicSettings]:
        roles: dict[str, str] = {}
        for role, topic in topics.items():
            other = roles.setdefault(topic.name, role)
            if other != role:
                raise ValueError(f"{other} and {role} are both {topic.name!r}: name two topics")
            silent = role in ROLES and "type" not in ROLES[role]
            if silent and topic.type:
                raise ValueError(f"{role} carries no events: remove type = {topic.type!r} from it")
            if not silent and topic.type is None:
                guess = nearest(role, ROLES) or f"; types are {', '.join(EVENT_TYPES)} and mixed"
                raise ValueError(f"{role} says not what it carries: set its type{guess}")
        return topics

    def event_topics(self) -> dict[str, TopicSettings]:
        """Topics that carry events, by their name in Kafka."""
        return {topic.name: topic for topic in self.topics.values() if topic.type is not None}

    def origins(self) -> dict[str, str]:
        """Where each value came from (a flag, a variable, a file or default), by dotted name."""
        return {name: self._origins.get(name, "default") for name, _ in leaves(self.model_dump())}

"""What `everlearn settings` prints: every value, its origin and meaning; an example file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel

from streams.settings.models import SecuritySettings, Settings, leaves
from streams.settings.texts import ENGINE_MEANINGS, ROLE_MEANINGS, ROLES
from streams.settings.topics import TopicSettings
from streams.settings.trainer import TrainerSettings

__all__ = ["Described", "describe", "example_toml"]

HIDDEN = "********"

HEAD = """\
# Settings of everlearn. Every line that is commented out shows the default.
# A variable of the environment wins over this file, a flag over both:
# EVERLEARN_PORT=8081, EVERLEARN_ENGINE__SEED=7, EVERLEARN_TOPICS__CLICKS__NAME=shop.views
"""

FOREIGN = """\
# A topic that is there already, as its producer writes it; no producer has to change.
# Its messages here: {"uid": 17, "product": {"sku": "A-1"}, "kind": "view", "at": 1750000000000}
#[topics.shop]
#name = "shop.tracking"
#type = "mixed"
#timestamp_unit = "ms"
#fields = { user = "uid", item = "product.sku", type = "kind", timestamp = "at" }
#types = { view = "click", order = "purchase", scroll = "ignore" }
"""

# What an optional setting may look like, as its default is nothing.
SAMPLES = {
    "token": "a-long-random-text",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "everlearn",
    "sasl_password": "secret",
    "ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "timestamp_unit": "s",
}


class Described(NamedTuple):
    """A setting: its dotted name, its value (JSON; secrets masked), its origin, its meaning."""

    name: str
    value: object
    origin: str
    meaning: str


def describe(settings: Settings) -> list[Described]:
    """Every setting with its value, origin and meaning, as `everlearn settings` prints them."""
    origins = settings.origins()
    return [
        Described(name, value, origins[name], _meaning(name))
        for name, value in leaves(settings.model_dump(mode="json"))
    ]


def _meaning(name: str) -> str:
    table, _, last = name.rpartition(".")
    if table == "engine":
        return ENGINE_MEANINGS.get(last, "")
    models: dict[str, type[BaseModel]] = {
        "": Settings,
        "security": SecuritySettings,
        "trainer": TrainerSettings,
    }
    model = models.get(table, TopicSettings)
    return model.model_fields[last].description or ""


def example_toml() -> str:
    """A complete settings file: every setting, its meaning, and its default commented out."""
    tables: dict[str, list[str]] = {}
    for name, value, _, meaning in describe(Settings()):
        table, _, last = name.rpartition(".")
        tables.setdefault(table, []).extend(_lines(table, last, value, meaning))
    return HEAD + "".join(_table(name, lines) for name, lines in tables.items()) + "\n" + FOREIGN


def _table(name: str, lines: list[str]) -> str:
    title = ""
    if name:
        role = name.removeprefix("topics.")
        meaning = ROLE_MEANINGS.get(role) or Settings.model_fields[name].description
        title = f"\n# {meaning}\n[{name}]\n"
    return title + "\n".join(lines) + "\n"


def _lines(table: str, name: str, value: object, meaning: str) -> Iterator[str]:
    if not table.startswith("topics.") or table == "topics.clicks":
        yield f"# {meaning}"
    elif name not in ROLES[table.removeprefix("topics.")]:
        return
    shown = SAMPLES.get(name) if value is None else value
    if shown is not None:
        yield f"#{name} = {json.dumps(shown)}"

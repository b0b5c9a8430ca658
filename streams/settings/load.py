"""Reading settings: flags, then environment, then file, then defaults; every error in words."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learners.errors import SettingsError
from streams.settings.mistakes import fields_of, near, refuse_unknown, told, variable_of
from streams.settings.models import PREFIX, WHOLE, Settings, leaves, merged
from streams.settings.texts import OTHER_VARIABLES
from streams.words import shown

__all__ = ["DEFAULT_FILE", "load_settings"]

DEFAULT_FILE = "everlearn.toml"
# Kubernetes sets these in every container beside a service called "everlearn".
KUBERNETES = re.compile(PREFIX + r"(SERVICE_.*|PORT_\d+_.*)")

Layer = tuple[dict[str, Any], dict[str, str]]  # values, and the origin of each by dotted name


def load_settings(file: str | Path | None = None, **flags: Any) -> Settings:
    """Settings from flags, environment, file and defaults; the first that names a value wins.

    Parameters
    ----------
    file
        A TOML file; else the one that `EVERLEARN_SETTINGS` names, else `everlearn.toml` if there.
    **flags
        Values by name; `None` says that a flag was not given.

    Raises
    ------
    SettingsError
        A setting is unknown, malformed or out of bounds, or the file cannot be read.
    """
    path = _path(file)
    given = {name: value for name, value in flags.items() if value is not None}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, named in (
        _from(str(path), _file(path) if path else {}),
        _environment(),
        _from("flag", given),
    ):
        refuse_unknown(named)
        origins |= named
        values = merged(values, layer)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(told(error.errors(), values, origins)) from None
    settings._origins.update(origins)
    return settings


def _from(origin: str, table: dict[str, Any]) -> Layer:
    return table, {name: origin for name, _ in leaves(table)}


def _path(file: str | Path | None) -> Path | None:
    named = file or os.environ.get("EVERLEARN_SETTINGS")
    if named:
        return Path(named)
    return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"the settings file {str(path)!r} cannot be read: {error.strerror}. Name another with "
            "--settings or EVERLEARN_SETTINGS; `everlearn settings --example` writes one"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}. Mend it there") from None


def _environment() -> Layer:
    table: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable, text in sorted(os.environ.items()):
        foreign = variable in OTHER_VARIABLES or KUBERNETES.fullmatch(variable)
        if not variable.startswith(PREFIX) or foreign:
            continue
        if not text:
            raise SettingsError(f"{variable} is empty: give it a value, or unset it")
        path = variable.removeprefix(PREFIX).lower().split("__")
        layer: Any = _from_json(variable, text) if _holds_more(path) else text
        for name in reversed(path):
            layer = {name: layer}
        table = merged(table, layer)
        origins |= {name: variable for name, _ in leaves(layer)}
    return table, origins


def _holds_more(path: list[str]) -> bool:
    """Whether a setting is a table or a list, which a variable gives as JSON."""
    in_list = path[-1] in WHOLE or path[-1].endswith("half_lives_seconds")
    return in_list or path == ["topics"] or bool(fields_of(path))


def _from_json(variable: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    held = "" if "SECURITY" in variable else f" = {shown(text)}"
    meant = variable_of(near(variable.removeprefix(PREFIX).lower().replace("__", "."), cutoff=0.9))
    cure = 'write a table as {"name": "value"}, a list as [1, 2]'
    if meant not in (PREFIX, variable):
        cure = f"did you mean {meant}?"
    raise SettingsError(f"{variable}{held} is not JSON: {cure}")

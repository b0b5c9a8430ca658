"""Reading settings: flags, then environment, then file, then defaults; every error in words."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as UnreadableError

from learners.base import EngineConfig
from learners.errors import SettingsError
from streams.settings.models import PREFIX, SecuritySettings, Settings, leaves, merged
from streams.settings.texts import OTHER_VARIABLES
from streams.settings.topics import TopicSettings, nearest

__all__ = ["DEFAULT_FILE", "load_settings"]

DEFAULT_FILE = "everlearn.toml"
# Kubernetes sets these in every container beside a service called "everlearn".
KUBERNETES = re.compile(PREFIX + r"(SERVICE_.*|PORT_\d+_.*)")
SECRET = re.compile(r"token|password")


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
    layers = (
        (str(path), _file(path) if path else {}),
        ("", _environment()),
        ("flag", {name: value for name, value in flags.items() if value is not None}),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        named = {name: origin or _variable(name) for name, _ in leaves(layer)}
        _refuse_unknown(named)
        origins |= named
        values = merged(values, layer)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_told(e, origins) for e in error.errors())) from None
    settings._origins.update(origins)
    return settings


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


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def _environment() -> dict[str, Any]:
    known = {_variable(name) for name in Settings.model_fields}
    for variable, text in os.environ.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        if text and variable.split("__")[0] not in known and not KUBERNETES.fullmatch(variable):
            raise SettingsError(
                f"{variable} is no setting{nearest(variable, known) or ': unset it'}"
            )
    try:
        return EnvSettingsSource(Settings)()
    except UnreadableError as error:
        raise SettingsError(
            f"the environment cannot be read: {error}. Write a table as JSON"
        ) from None


def _refuse_unknown(origins: Mapping[str, str]) -> None:
    for name, origin in origins.items():
        parts = name.split(".")
        for depth, part in enumerate(parts):
            known = _known(parts[:depth])
            if known and part not in known:
                guess = nearest(part, known) or "; `everlearn settings` lists them all"
                raise SettingsError(f"{name} ({origin}) is no setting{guess}")


def _known(table: list[str]) -> list[str]:
    """Names that a table of settings may hold; none where any will do."""
    match table:
        case []:
            return list(Settings.model_fields)
        case ["engine"]:
            return [field.name for field in fields(EngineConfig)]
        case ["security"]:
            return list(SecuritySettings.model_fields)
        case ["topics", _]:
            return list(TopicSettings.model_fields)
    return []


def _told(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One line: which setting, its value (never a secret), what is wrong, and where to mend it."""
    name = ".".join(str(part) for part in error["loc"]) or "settings"
    value, what = error["input"], error["msg"].removeprefix("Value error, ")
    # A check of a whole table names the setting in its first word.
    where = origins.get(f"{name}.{what.split()[0]}") or origins.get(name) or ""
    secret = SECRET.search(name) or isinstance(value, SecretStr)
    shown = f" = {value!r}" if isinstance(value, str | int | float | list) and not secret else ""
    cure = "" if "value error" in error["msg"].lower() else "; mend it, or leave it out"
    return f"{name}{shown}{where and f' ({where})'}: {what}{cure}"

"""What is wrong with settings, in words: the name, the value, where it was set, and the cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import SecretStr
from pydantic_core import ErrorDetails

from learners.base import EngineConfig
from learners.errors import SettingsError
from streams.settings.models import PREFIX, SecuritySettings, Settings, leaves
from streams.settings.topics import TopicSettings
from streams.settings.trainer import TrainerSettings
from streams.words import of_bad_value, shown

__all__ = ["fields_of", "near", "refuse_unknown", "told", "variable_of"]

SECRET = re.compile(r"token|password")


def variable_of(name: str) -> str:
    """The environment's name of a setting.

    >>> variable_of("engine.seed")
    'EVERLEARN_ENGINE__SEED'
    """
    return PREFIX + name.upper().replace(".", "__")


def fields_of(table: list[str]) -> list[str]:
    """Names that a table of settings may hold; none where any will do, or it is no table."""
    match table:
        case []:
            return list(Settings.model_fields)
        case ["engine"]:
            return [field.name for field in fields(EngineConfig)]
        case ["security"]:
            return list(SecuritySettings.model_fields)
        case ["trainer"]:
            return list(TrainerSettings.model_fields)
        case ["topics", _]:
            return list(TopicSettings.model_fields)
    return []


def near(name: str, cutoff: float = 0.6) -> str:
    """The known setting that a wrong name is nearest to, or the empty string.

    >>> near("engine_seed"), near("seed"), near("zzz")
    ('engine.seed', 'engine.seed', '')
    """
    known = [setting for setting, _ in leaves(Settings().model_dump())]
    path = name.split(".")
    if path[0] == "topics" and len(path) > 1:
        known += [f"topics.{path[1]}.{field}" for field in TopicSettings.model_fields]
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return (close or [one for one in known if one.endswith(f".{name}")] or [""])[0]


def refuse_unknown(origins: Mapping[str, str]) -> None:
    """Raise a `SettingsError` if a dotted name is no setting, and name the nearest."""
    for name, origin in origins.items():
        path = name.split(".")
        for depth, part in enumerate(path):
            known = fields_of(path[:depth])
            if part in known or not (known or path[:depth] == path[:1] != ["topics"]):
                continue
            meant = near(name)
            if origin.startswith(PREFIX):
                wrong, meant = origin, meant and variable_of(meant)
            else:
                wrong = f"{name} ({origin})"
            guess = f"did you mean {meant}?" if meant else "`everlearn settings` lists them all"
            raise SettingsError(f"{wrong} is no setting; {guess}")


def told(
    errors: Iterable[ErrorDetails], values: Mapping[str, Any], origins: Mapping[str, str]
) -> str:
    """A line for each setting that is wrong.

    Parameters
    ----------
    errors
        What was found wrong.
    values
        All that was set.
    origins
        Where, by dotted name.
    """
    given = dict(leaves(values))
    lines: dict[str, str] = {}
    for error in errors:
        path = [str(part) for part in error["loc"]]
        name = ".".join(path) or "settings"
        while path and ".".join(path) not in given:
            path.pop()
        if isinstance(given.get(".".join(path)), list):
            name = ".".join(path)  # what is wrong with an entry is told of the whole list
        # A check of a whole table names the setting in its first word.
        checked = f"{name}.{of_bad_value(error).split()[0]}"
        where = origins.get(checked) or origins.get(".".join(path)) or _beside(name, origins)
        lines.setdefault(name, _line(name, error, given.get(name, error["input"]), where))
    return "\n".join(lines.values())


def _line(name: str, error: ErrorDetails, value: object, where: str) -> str:
    what = of_bad_value(error)
    secret = SECRET.search(name) or isinstance(value, SecretStr)
    plain = isinstance(value, str | int | float | list) and not secret
    subject = f"{name}{f' = {shown(value)}' if plain else ''}{where and f' ({where})'}"
    if error["type"] == "value_error":
        return f"{subject}: {what}"
    if wanted := _wanted_list(name):
        return f"{subject} {wanted}; mend it, or leave it out"
    return f"{subject} {what}{': set it' if what == 'is missing' else '; mend it, or leave it out'}"


def _beside(name: str, origins: Mapping[str, str]) -> str:
    """Where another setting of the same table was set."""
    table = name.rpartition(".")[0]
    return next((origin for other, origin in origins.items() if other.startswith(f"{table}.")), "")


def _wanted_list(name: str) -> str:
    default = dict(leaves(Settings().model_dump())).get(name)
    if not isinstance(default, tuple):
        return ""
    return f"must be a list of {len(default)} numbers, such as {shown(default)}"

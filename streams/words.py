"""What is wrong with a value, in words: what the decoding libraries say is made for programmers."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

__all__ = ["counted", "of_bad_json", "of_bad_value", "shown"]

LONGEST = 60
ABSENT = object()
BAD_VALUES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dataclass_type": "must be a table of settings",
    "dict_type": "must be a table of settings",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:,.15g}",
    "greater_than_equal": "must be {ge:,.15g} or more",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number with fewer digits",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:,.15g}",
    "less_than_equal": "must be {le:,.15g} or less",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a table of settings",
    "path_type": "must be a path, as text",
    "string_too_short": "must have {min_length} or more characters",
    "string_type": "must be text",
}
TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "an object",
    "str": "text",
}
PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$?\.?(?P<path>.*)`)?", re.DOTALL)
LACKS = re.compile(r"Object missing required field `(\w+)`")
WRONG_TYPE = re.compile(r"Expected `([\w| ]+)`(?:, got .*)?")
WRONG_SIZE = re.compile(r"Expected `(\w+)` of length (<=|>=) (\d+)")
WRONG_BOUND = re.compile(r"Expected `\w+` (<=|>=) (\S+)")
STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def of_bad_value(problem: Mapping[str, Any]) -> str:
    """What pydantic says of a value, as the end of a sentence that begins with its name.

    >>> of_bad_value({"type": "less_than_equal", "ctx": {"le": 65535}, "msg": ""})
    'must be 65,535 or less'
    """
    words = BAD_VALUES.get(problem["type"])
    if words is None:
        return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return words.format(**problem.get("ctx", {}))


def of_bad_json(said: str, body: object, whole: str = "a message") -> str:
    """What msgspec says of JSON, as a sentence that names the place and what stands there.

    Parameters
    ----------
    said
        The message of its error.
    body
        The JSON, or what was decoded of it.
    whole
        A name for all of it, where no place in it is to blame.

    Examples
    --------
    >>> of_bad_json("Expected `str`, got `int` - at `$.user`", b'{"user": 17}')
    'user must be text, not 17'
    >>> of_bad_json("Object missing required field `item`", b'{"user": "u"}')
    'item is missing'
    """
    if isinstance(body, bytes) and (unread := _unread(said, body, whole)):
        return unread
    found = PLACE.fullmatch(said)
    what, path = (found["what"], found["path"] or "") if found else (said, "")
    name, held = path or whole, _at(body, path)
    if lack := LACKS.fullmatch(what):
        return f"{path}.{lack[1]} is missing" if path else f"{lack[1]} is missing"
    if wrong := WRONG_SIZE.fullmatch(what):
        unit = "characters" if wrong[1] == "str" else "entries"
        size = f", this has {len(held)}" if isinstance(held, str | list | dict) else ""
        bound = f"{wrong[3]} or {'more' if wrong[2] == '>=' else 'fewer'}"
        return f"{name} must have {bound} {unit}{size}"
    if must := _must(what):
        return f"{name} must be {must}" + ("" if held is ABSENT else f", not {shown(held)}")
    if path and held is not ABSENT:
        return f"{path} cannot be {shown(held)}"
    return said.replace("Input data was truncated", "the JSON ends too early")


def shown(value: object) -> str:
    """A value as JSON, shortened, for a message.

    >>> shown("x" * 99)
    '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'
    """
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _unread(said: str, body: bytes, whole: str) -> str:
    """What no decoder reads, whatever is meant: the empty string where it is something else."""
    if "recursion" in said:
        return f"{whole} nests lists or objects too deeply: an event needs no more than a few"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start:,} is 0x{body[error.start]:02x}"
        return f"{whole} must be UTF-8, its {wrong}: encode it as UTF-8"
    if not said.startswith("Number out of range"):
        return ""
    try:
        name, text = next(_huge(json.loads(body, parse_float=_number)), (whole, ""))
    except (ValueError, RecursionError):
        return ""
    bound = f"{sys.float_info.max:.2g}".replace("+", "")
    return f"{name or whole} must be a number between -{bound} and {bound}, not {text[:LONGEST]}"


class _Huge(str):
    """The text of a number that is too large for any."""

    __slots__ = ()


def _number(text: str) -> object:
    number = float(text)
    return number if math.isfinite(number) else _Huge(text)


def _huge(held: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(held, _Huge):
        yield path, held
    elif isinstance(held, dict):
        for name, value in held.items():
            yield from _huge(value, f"{path}.{name}" if path else name)
    elif isinstance(held, list):
        for number, value in enumerate(held):
            yield from _huge(value, f"{path}[{number}]")


def _must(what: str) -> str:
    if wrong := WRONG_BOUND.fullmatch(what):
        return f"{float(wrong[2]):,.0f} or {'more' if wrong[1] == '>=' else 'less'}"
    if wrong := WRONG_TYPE.fullmatch(what):
        return " or ".join(TYPES[kind] for kind in wrong[1].split(" | ") if kind in TYPES)
    return ""


def _at(body: object, path: str) -> Any:
    """What stands at a place of a JSON value, such as `events[0].item`."""
    try:
        held = msgspec.json.decode(body) if isinstance(body, bytes) else body
        for number, name in STEP.findall(path):
            held = held[int(number)] if number else held[name]  # type: ignore[index]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return ABSENT
    return held


def counted(number: int, what: str) -> str:
    """Say how many there are.

    >>> counted(1, "event"), counted(1200, "event")
    ('1 event', '1,200 events')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""A status as the API server takes it: every text clean and as long as its schema allows.

What stands in a status comes from engines, schedulers and users in the end. One string that is
too long has the whole write refused, and with it what safety needs (that a worker has left the
rotation), for as long as the string stays. The bounds are those of the generated schema itself,
so that none of them can be forgotten here.
"""

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from isthmus.api.base import StatusModel
from isthmus.api.crd import Schema, structural
from isthmus.api.texts import cut, printable

PROSE: Final = frozenset({"message", "summary", "why"})
"""Fields that people read and nothing is decided by; a status is complete without them."""

_TIME: Final = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?"
    r"(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)


@functools.cache
def status_schema(kind: type[StatusModel]) -> Schema:
    """Return the structural schema of one kind's status, as its CRD has it."""
    raw = kind.model_json_schema(by_alias=True, mode="validation")
    definitions = raw.get("$defs", {})
    return structural(raw, definitions=definitions)


def written(status: StatusModel) -> dict[str, object]:
    """Return a status as it may be written: JSON, without what is None, within its bounds.

    A text is cut, a list that is too long loses its end, and what is no time, or not of its field's
    pattern, is left out.
    """
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    bind = _binding(type(status))
    if bind is not None:
        bind(document)
    return document


def without_prose(value: object) -> object:
    """Return a written status without its sentences."""
    if isinstance(value, Mapping):
        return {key: without_prose(item) for key, item in value.items() if key not in PROSE}
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    return value


_Bind: TypeAlias = Callable[[object], object]
"""Brings one value within its bounds: returns it, changed in place where it is a container, or
another one; None for a string that cannot be mended."""


@functools.cache
def _binding(kind: type[StatusModel]) -> _Bind | None:
    return _bind(status_schema(kind))


def _bind(schema: object) -> _Bind | None:
    """Made once for each part of the schema: a status is looked through in every pass.

    None for what needs no look: numbers, and words of which the models know all.
    """
    if not isinstance(schema, Mapping) or "enum" in schema:
        return None
    if schema.get("type") == "string":
        if isinstance(pattern := schema.get("pattern"), str):
            return _word(re.compile(pattern.removesuffix("$") + r"\Z" * pattern.endswith("$")))
        return _time if schema.get("format") == "date-time" else _text(schema.get("maxLength"))
    if schema.get("type") == "object":
        return _object(schema)
    return _array(schema) if schema.get("type") == "array" else None


def _time(value: object) -> object:
    return value if isinstance(value, str) and _TIME.fullmatch(value) else None


def _word(pattern: re.Pattern[str]) -> _Bind:
    return lambda value: value if isinstance(value, str) and pattern.search(value) else None


def _text(most: object) -> _Bind:
    limit = most if isinstance(most, int) else sys.maxsize

    def bind(value: object) -> object:
        if not isinstance(value, str) or (len(value) <= limit and value.isprintable()):
            return value
        return cut(printable(value), limit=limit)

    return bind


def _object(schema: Mapping[str, object]) -> _Bind | None:
    properties = schema.get("properties")
    parts = properties if isinstance(properties, Mapping) else {}
    binds = [(key, bind) for key, part in parts.items() if (bind := _bind(part)) is not None]

    def bind_all(value: object) -> object:
        if not isinstance(value, dict):
            return value
        for key, bind in binds:
            old = value.get(key)
            if old is None:
                continue
            new = bind(old)
            if new is None:
                del value[key]
            elif new is not old:
                value[key] = new
        return value

    return bind_all if binds else None


def _array(schema: Mapping[str, object]) -> _Bind:
    most, keys = schema.get("maxItems"), schema.get("x-kubernetes-list-map-keys")
    bind = _bind(schema.get("items"))

    def bind_each(value: object) -> object:
        if not isinstance(value, list):
            return value
        kept = value[:most] if isinstance(most, int) and len(value) > most else value
        made = kept if bind is None else [bind(item) for item in kept]
        return _distinct(made, keys) if isinstance(keys, list) else made

    return bind_each


def _distinct(items: list[object], keys: list[str]) -> list[object]:
    """Of entries whose keys have become the same only the first: two are refused."""
    found: dict[tuple[object, ...], object] = {}
    for item in items:
        identity = tuple(item.get(key) for key in keys) if isinstance(item, dict) else (item,)
        found.setdefault(identity, item)
    return list(found.values())

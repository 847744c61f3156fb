"""A status as the API server takes it: every text clean and as long as its schema allows.

What stands in a status comes from engines, schedulers and users in the end. One string that is
too long has the whole write refused, and with it what safety needs (that a worker has left the
rotation), for as long as the string stays. The bounds are those of the generated schema itself,
so that none of them can be forgotten here.
"""

import functools
import re
from collections.abc import Mapping
from typing import Final

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

    A text is cut, a list that is too long loses its end, and what is no time is left out.
    """
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    bounded = _bounded(document, status_schema(type(status)))
    assert isinstance(bounded, dict)
    return bounded


def without_prose(value: object) -> object:
    """Return a written status without its sentences."""
    if isinstance(value, Mapping):
        return {key: without_prose(item) for key, item in value.items() if key not in PROSE}
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    return value


def _bounded(value: object, schema: Mapping[str, object]) -> object:
    """Return the value within its bounds; None for a string that cannot be mended."""
    if isinstance(value, str):
        return _text(value, schema)
    if isinstance(value, dict):
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        made = {key: _bounded(item, _part(known.get(key))) for key, item in value.items()}
        return {key: item for key, item in made.items() if item is not None}
    if isinstance(value, list):
        most = schema.get("maxItems")
        kept = value[:most] if isinstance(most, int) else value
        items = _part(schema.get("items"))
        return _distinct([_bounded(item, items) for item in kept], schema)
    return value


def _text(text: str, schema: Mapping[str, object]) -> str | None:
    if schema.get("format") == "date-time":
        return text if _TIME.fullmatch(text) else None
    clean, most = printable(text), schema.get("maxLength")
    return cut(clean, limit=most) if isinstance(most, int) else clean


def _distinct(items: list[object], schema: Mapping[str, object]) -> list[object]:
    """Of entries whose keys have become the same only the first: two are refused."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not isinstance(keys, list):
        return items
    found: dict[tuple[object, ...], object] = {}
    for item in items:
        identity = tuple(item.get(key) for key in keys) if isinstance(item, dict) else (item,)
        found.setdefault(identity, item)
    return list(found.values())


def _part(schema: object) -> Mapping[str, object]:
    return schema if isinstance(schema, Mapping) else {}

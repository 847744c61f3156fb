"""What the API server refuses in a status of ours: the bounds of strings, lists and words.

From the generated CRDs, a small part of `cli/schema_check`, which is too slow for each write of a
run.
"""

import functools
from collections.abc import Iterator
from typing import Any

from isthmus.api.crd import KINDS, custom_resource_definition


@functools.cache
def _schema(kind: str) -> Any:
    for known in KINDS:
        if known.name == kind:
            crd: Any = custom_resource_definition(known)
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return schema["properties"]["status"]
    return None


def refusal(kind: str, status: Any) -> str:
    """Why a status is refused, "" if it is taken; kinds that are not ours are taken as they are."""
    schema = _schema(kind)
    return "" if schema is None else next(_problems(status, schema, "status"), "")


def _problems(value: Any, schema: Any, path: str) -> Iterator[str]:
    if type(value) is str:
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{path}: Too long: may not be more than {schema['maxLength']} bytes"
        if "enum" in schema and value not in schema["enum"]:
            yield f"{path}: Unsupported value: {value!r}"
    elif type(value) is dict:
        parts = schema.get("properties", {})
        for key, item in value.items():
            if key in parts:
                yield from _problems(item, parts[key], f"{path}.{key}")
    elif type(value) is list:
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: Too many: {len(value)}: must have at most {schema['maxItems']} items"
        for number, item in enumerate(value):
            yield from _problems(item, schema["items"], f"{path}[{number}]")

"""What the API server does with an object of a CRD, done offline with the same CRD.

In its order: nulls are dropped, defaults filled in, unknown fields refused (as `kubectl apply`
has it), structure checked, and then every CEL rule of the schema is run. The rules are not
written a second time: this module interprets the generated schema.
"""

import difflib
import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Final, cast

import celpy
import jsonschema
from celpy import celtypes
from celpy.adapter import JSON, json_to_cel
from celpy.evaluation import CELFunction

from isthmus.cli.manifests import FieldPath

Schema = Mapping[str, object]

_VALIDATIONS: Final = "x-kubernetes-validations"
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field."""

    path: FieldPath
    message: str


def check(value: object, schema: Schema) -> list[Problem]:
    """Return everything that the API server would refuse in a new object, empty if nothing."""
    if not isinstance(value, dict):
        return [Problem((), "an object must be a mapping with apiVersion, kind, metadata, spec")]
    problems = list(_metadata(value))
    filled = defaulted(without_nulls(value, schema), schema)
    problems += _unknown_fields(filled, schema, ())
    problems += _structure(filled, schema)
    problems += _repeated_items(filled, schema, ())
    broken = [problem.path for problem in problems]
    problems += _rules(_named(filled), schema, (), broken)
    return problems


def _metadata(value: Mapping[str, object]) -> Iterator[Problem]:
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        yield Problem((), "metadata is missing: write metadata: {name: …}")
        return
    name = metadata.get("name")
    if name is None and metadata.get("generateName"):
        return
    if not isinstance(name, str) or not name:
        yield Problem(("metadata",), "metadata.name is missing: write metadata: {name: …}")
    elif len(name) > 253 or _OBJECT_NAME.fullmatch(name) is None:
        yield Problem(
            ("metadata", "name"),
            "an object's name must be lower-case letters, digits, '-' and '.', beginning and "
            "ending with a letter or digit",
        )


def _named(value: object) -> object:
    """Return the object with the name that the API server would generate, for its rules."""
    if isinstance(value, dict) and isinstance(metadata := value.get("metadata"), dict):
        prefix = metadata.get("generateName")
        if isinstance(prefix, str) and "name" not in metadata:
            return {**value, "metadata": {**metadata, "name": prefix + "xxxxx"}}
    return value


def _properties(schema: Schema) -> Mapping[str, Schema]:
    return cast(Mapping[str, Schema], schema.get("properties", {}))


def _child(schema: Schema, key: str) -> Schema | None:
    """Return the schema of one field or map value, None where anything may stand."""
    properties = _properties(schema)
    if key in properties:
        return properties[key]
    return cast(Schema | None, schema.get("additionalProperties"))


def without_nulls(value: object, schema: Schema) -> object:
    """Return the value without null fields: to the API server they are not there."""
    if isinstance(value, dict):
        return {
            key: without_nulls(item, _child(schema, key) or {})
            for key, item in value.items()
            if item is not None or _child(schema, key) is None
        }
    if isinstance(value, list):
        items = cast(Schema, schema.get("items", {}))
        return [without_nulls(item, items) for item in value]
    return value


def defaulted(value: object, schema: Schema) -> object:
    """Return the value with the schema's defaults filled in, at every depth."""
    if isinstance(value, dict):
        filled = dict(value)
        for key, property_ in _properties(schema).items():
            if key not in filled and "default" in property_:
                filled[key] = property_["default"]
        return {key: defaulted(item, _child(schema, key) or {}) for key, item in filled.items()}
    if isinstance(value, list):
        items = cast(Schema, schema.get("items", {}))
        return [defaulted(item, items) for item in value]
    return value


def _children(
    value: object, schema: Schema, path: FieldPath
) -> Iterator[tuple[object, Schema, FieldPath]]:
    """Yield each part of a value that the schema describes, with its schema and path.

    Of more than the schema allows only so many: that there are more is a problem of its own, and
    the rules of a hundred thousand entries would take minutes.
    """
    if isinstance(value, dict):
        for key, item in islice(value.items(), _bound(schema, "maxProperties")):
            child = _child(schema, key)
            if child is not None:
                yield item, child, (*path, key)
    elif isinstance(value, list) and "items" in schema:
        items = cast(Schema, schema["items"])
        for index, item in enumerate(islice(value, _bound(schema, "maxItems"))):
            yield item, items, (*path, index)


def _bound(schema: Schema, word: str) -> int | None:
    most = schema.get(word)
    return most if isinstance(most, int) else None


def _unknown_fields(value: object, schema: Schema, path: FieldPath) -> Iterator[Problem]:
    properties = _properties(schema)
    if isinstance(value, dict) and properties and "additionalProperties" not in schema:
        for key in value:
            if key not in properties:
                close = difflib.get_close_matches(key, properties, n=1)
                hint = (
                    f": did you mean {close[0]}?" if close else f", known: {', '.join(properties)}"
                )
                yield Problem((*path, key), f"unknown field{hint}")
    for item, child, where in _children(value, schema, path):
        yield from _unknown_fields(item, child, where)


def _structure(value: object, schema: Schema) -> Iterator[Problem]:
    validator = jsonschema.Draft202012Validator(_json_schema(schema))
    for error in validator.iter_errors(value):
        yield Problem(tuple(error.absolute_path), _sentence(error))


def _sentence(error: jsonschema.ValidationError) -> str:
    if error.validator == "required" and isinstance(error.instance, dict):
        wanted = cast(Sequence[str], error.validator_value)
        missing = [name for name in wanted if name not in error.instance]
        return f"required field missing: {', '.join(missing)}"
    if error.validator == "enum":
        choices = cast(Sequence[object], error.validator_value)
        return f"{error.instance!r} is not one of {', '.join(map(str, choices))}"
    if isinstance(error.instance, float) and error.validator_value == ["integer", "string"]:
        # Pods take such a number as it is; in a schema of our own it can be a text only.
        return f'a number with a fraction must stand in quotes: write "{error.instance}"'
    if error.validator in _BOUNDS and isinstance(error.instance, Sized):
        return _BOUNDS[error.validator].format(error.validator_value, len(error.instance))
    return str(error.message)


_BOUNDS: Final[Mapping[object, str]] = {
    "maxItems": "at most {} entries, this has {}",
    "minItems": "at least {} entries, this has {}",
    "maxLength": "at most {} characters, this has {}",
    "minLength": "at least {} characters, this has {}",
    "maxProperties": "at most {} fields, this has {}",
    "minProperties": "at least {} fields, this has {}",
}
"""What is told of a bound: which it is, and how far off the value is."""


def _json_schema(schema: Schema) -> dict[str, object]:
    """Return a structural schema as plain JSON Schema."""
    made: dict[str, object] = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-") and key not in ("default", "description", "format")
    }
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "pattern" in made:
        # Python's `$` also matches before a final line feed, the API server's does not.
        made["pattern"] = re.sub(r"\$$", r"\\Z", str(made["pattern"]))
    if "properties" in made:
        made["properties"] = {k: _json_schema(v) for k, v in _properties(schema).items()}
    for key in ("items", "additionalProperties"):
        if key in made:
            made[key] = _json_schema(cast(Schema, made[key]))
    return made


def _repeated_items(value: object, schema: Schema, path: FieldPath) -> Iterator[Problem]:
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(value, list) and kind in ("set", "map"):
        keys = cast(Sequence[str], schema.get("x-kubernetes-list-map-keys", ()))
        seen: set[str] = set()
        for index, item in enumerate(value):
            identity: object = item
            if kind == "map":
                identity = [item.get(key) for key in keys] if isinstance(item, dict) else None
            text = json.dumps(identity, sort_keys=True)
            if identity is not None and text in seen:
                name = ", ".join(map(str, identity)) if isinstance(identity, list) else identity
                what = f"{' and '.join(keys)} {name}" if kind == "map" else f"{name}"
                yield Problem((*path, index), f"duplicate value: {what} stands here twice")
            seen.add(text)
    for item, child, where in _children(value, schema, path):
        yield from _repeated_items(item, child, where)


# --- CEL --------------------------------------------------------------------------------------


def _rules(
    value: object, schema: Schema, path: FieldPath, broken: Sequence[FieldPath]
) -> Iterator[Problem]:
    """Yield the problems that CEL rules find, except in parts whose structure is wrong."""
    rules = cast(Sequence[Mapping[str, str]], schema.get(_VALIDATIONS, ()))
    if rules and not any(one[: len(path)] == path for one in broken):
        for rule in rules:
            # A rule with `oldSelf` speaks of changes: it does not apply to a new object.
            if not re.search(r"\boldSelf\b", rule["rule"]):
                yield from _rule(value, rule, path)
    for item, child, where in _children(value, schema, path):
        yield from _rules(item, child, where, broken)


def _rule(value: object, rule: Mapping[str, str], path: FieldPath) -> Iterator[Problem]:
    try:
        result = _program(rule["rule"]).evaluate({"self": json_to_cel(cast(JSON, value))})
    except Exception as error:
        # Never pass in silence: a rule that cannot be run here may be the one that refuses.
        yield Problem(
            path,
            f"this rule could not be checked offline ({type(error).__name__}: {error}): "
            f"{rule['rule']} Try `kubectl apply --dry-run=server` instead",
        )
        return
    if not isinstance(result, celtypes.BoolType):
        yield Problem(path, f"this rule gave no yes or no: {rule['rule']}")
    elif not result:
        yield Problem(path, rule["message"])


@functools.cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule), functions=_FUNCTIONS)


def _split(text: celtypes.StringType, separator: celtypes.StringType) -> celtypes.ListType:
    return celtypes.ListType([celtypes.StringType(part) for part in text.split(separator)])


def _replace(
    text: celtypes.StringType, old: celtypes.StringType, new: celtypes.StringType
) -> celtypes.StringType:
    return celtypes.StringType(text.replace(old, new))


def _sum(values: celtypes.ListType) -> celtypes.IntType:
    return celtypes.IntType(sum(cast(Iterable[int], values)))


def _is_cidr(text: celtypes.StringType) -> celtypes.BoolType:
    try:
        network = ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return celtypes.BoolType(False)
    # Go wants the length of the prefix in digits; Python takes a netmask, too, or none.
    prefix = str(text).partition("/")[2]
    return celtypes.BoolType(prefix == str(network.prefixlen))


_FUNCTIONS: Final[dict[str, CELFunction]] = {
    "split": _split,
    "replace": _replace,
    "sum": _sum,
    "isCIDR": _is_cidr,
}
"""Functions that Kubernetes adds to CEL, as far as our rules use them."""

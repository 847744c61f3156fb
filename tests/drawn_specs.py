"""Valid specs drawn from the CRDs' own schemas, small, and the same for the same `Random`.

Numbers, words of an enumeration and sizes of lists are drawn from the schema; a text is drawn from
`TEXTS` and kept if the schema's pattern and rules take it, so a field of a new form needs one more
text there. Rules over several fields are respected by rejection: what the schema refuses of a whole
object is drawn again.
"""

import ast
import copy
import functools
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, TypeAlias

from isthmus.api.crd import KINDS, custom_resource_definition
from isthmus.cli.schema_check import check

Json: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]
"""Names of fields; ITEM for an entry of a list, VALUE for the values of a map with free keys."""

ITEM, VALUE = "[]", "{}"
RULES = "x-kubernetes-validations"

TEXTS = (
    "alpha",
    "beta-2",
    "hf://org/alpha",
    "/models/beta",
    "45s",
    "90s",
    "20m",
    "2h",
    "3",
    "7500m",
    "12Gi",
    "40Gi",
    "--max-num-seqs=8",
    "--seed=4",
    "HF_HOME",
    "TZ",
    "HF_TOKEN",
    "X-Tenant",
    "X-Team",
    "registry.example/engine:1",
    "registry.example/engine:2",
    "amd.com/gpu",
    "example.org/gpu",
    "--constraint=a100",
    "--nice=10",
    "10.20.0.0/16",
    "10.30.0.0/16",
    "http://router.alpha:30000",
    "http://router.beta:30000",
    "https://router.alpha:30000",
    "https://router.beta:30000",
    "/plugin/alpha",
    "/plugin/beta",
    "ssh-ed25519 AAAAalpha",
    "ssh-ed25519 AAAAbeta",
    "abc123",
    "def456",
    "module load alpha",
)
"""For every form of a text that a field of ours may have, two at least."""

TRIES_OF_A_PART = 5


@functools.cache
def schema(kind: str) -> Json:
    """The openAPIV3Schema of one of our kinds."""
    found = next(known for known in KINDS if known.name == kind)
    crd: Any = custom_resource_definition(found)
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def leaves(node: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every field below that has none below itself, with its schema."""
    below = list(_below(node))
    if not below:
        yield path, dict(node)
    for step, child in below:
        yield from leaves(child, (*path, step))


def _below(node: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    yield from node.get("properties", {}).items()
    if "items" in node:
        yield ITEM, node["items"]
    if isinstance(node.get("additionalProperties"), Mapping):
        yield VALUE, node["additionalProperties"]


def problems(obj: Json, *, along: Path | None = None) -> list[str]:
    """What the API server would refuse of an object of ours.

    Args:
        obj: the object.
        along: run only the rules of the fields on this way, where all others are known to hold.
    """
    node = schema(str(obj["kind"])) if along is None else _along(str(obj["kind"]), along)
    return [f"{one.path}: {one.message}" for one in check(obj, node)]


@functools.cache
def _along(kind: str, path: Path) -> Json:
    return _ruled_along(schema(kind), path)


def _ruled_along(node: Mapping[str, Any], path: Path | None) -> Json:
    """The schema with rules on the way alone; None: off the way."""
    found = {key: value for key, value in node.items() if key != RULES or path is not None}
    for key, step in (("items", ITEM), ("additionalProperties", VALUE)):
        if isinstance(node.get(key), Mapping):
            found[key] = _ruled_along(node[key], _on(path, step))
    if "properties" in node:
        found["properties"] = {
            name: _ruled_along(child, _on(path, name)) for name, child in node["properties"].items()
        }
    return found


def _on(path: Path | None, step: str) -> Path | None:
    if not path:
        return path  # below the field that is meant, all rules count
    return path[1:] if path[0] == step else None


def values(node: Mapping[str, Any], random: Random) -> list[Any]:
    """Valid values of a leaf, in drawn order; empty where `TEXTS` has none of its form."""
    kind = node.get("type")
    if "enum" in node:
        found = list(node["enum"])
    elif kind == "boolean":
        found = [False, True]
    elif kind == "integer":
        low, high = int(node.get("minimum", 0)), int(node.get("maximum", 10**6))
        some = {low + 1, low + 2, (low + high) // 2, high, low}
        found = sorted(one for one in some if low <= one <= high)
    elif kind == "object":
        found = [{}]
    else:
        found = list(_texts(_form(node)))
    return random.sample(found, len(found))


def _form(node: Mapping[str, Any]) -> str:
    """What decides about a text; descriptions do not."""
    parts = {key: value for key, value in node.items() if key not in ("description", "default")}
    return repr(parts)


@functools.cache
def _texts(form: str) -> tuple[str, ...]:
    node = ast.literal_eval(form)
    around = {"type": "object", "properties": {"metadata": {"type": "object"}, "one": node}}
    around["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    pattern = re.compile(node.get("pattern", ""))
    return tuple(
        text
        for text in TEXTS
        if pattern.search(text) and not check({"metadata": {"name": "x"}, "one": text}, around)
    )


# ---- changes of one leaf


def changes(obj: Json, path: Path, node: Mapping[str, Any], random: Random) -> Iterator[Json]:
    """Valid objects that differ from `obj` in this one leaf: other values, then none at all.

    Where the leaf does not stand in the object, the fields around it are made; where there are
    several entries of a list on its way, each is changed in its turn.
    """
    for value in (*values(node, random), None):
        for changed in _with(obj, path, value):
            if changed != obj and not problems(changed, along=path):
                yield changed


def _with(here: Any, path: Path, value: Any) -> Iterator[Any]:
    """Copies of `here` with the value at the path, None for nothing there."""
    if not path:
        yield value
        return
    if value is None and not here:
        return  # there is nothing to be taken away
    step, rest = path[0], path[1:]
    if step == ITEM:
        items = here if isinstance(here, list) and here else [None]
        for number, item in enumerate(items):
            for new in _with(item, rest, value):
                kept = [] if new is None else [new]
                yield [*items[:number], *kept, *items[number + 1 :]]
        return
    fields = dict(here) if isinstance(here, dict) else {}
    for key in sorted(fields) or ["alpha"] if step == VALUE else [step]:
        for new in _with(fields.get(key), rest, value):
            without = {name: old for name, old in fields.items() if name != key}
            yield without if new is None else {**without, key: new}


# ---- whole specs


def drawn(
    node: Mapping[str, Any],
    random: Random,
    *,
    given: Any = None,
    chance: float,
    absent: frozenset[str] = frozenset(),
) -> Any:
    """A value of a schema; optional fields are there by `chance`, required ones always.

    `given` is kept as it is, with what is drawn around it; fields of the names `absent` are not
    drawn, wherever they stand.
    """
    if given is not None and not isinstance(given, dict):
        return copy.deepcopy(given)
    below = dict(_below(node))
    if not below:
        found = values(node, random)
        return found[0] if found else None
    if ITEM in below:
        many = range(random.choice([1, 1, 2]))
        return [drawn(below[ITEM], random, chance=chance, absent=absent) for _ in many]
    if VALUE in below:
        value = drawn(below[VALUE], random, chance=chance, absent=absent)
        return {random.choice(["alpha", "beta"]): value}
    required = set(node.get("required", ()))
    fields = {}
    for name, child in below.items():
        mine = (given or {}).get(name)
        wanted = name not in absent and random.random() < chance
        if name in required or mine is not None or wanted:
            fields[name] = drawn(child, random, given=mine, chance=chance, absent=absent)
    return fields


def enriched(
    obj: Json, random: Random, *, count: int, absent: frozenset[str] = frozenset()
) -> Json:
    """A valid object with so many parts of its spec drawn, each kept if the schema takes it.

    Args:
        obj: valid.
        random: decides.
        count: parts that are tried; some of them cannot stand beside what is there.
        absent: names of fields that stay as they are, wherever they stand.
    """
    nodes = [
        (path, node)
        for path, node in _nodes(schema(str(obj["kind"]))["properties"]["spec"], ("spec",))
        if not absent & {step for below, _ in leaves(node, path) for step in below}
    ]
    for path, node in random.choices(nodes, k=count):
        for _ in range(TRIES_OF_A_PART):
            value = drawn(node, random, chance=0.4, absent=absent)
            new = random.choice(list(_with(obj, path, value)) or [obj])
            if not problems(new, along=path):
                obj = new
                break
    return obj


def _nodes(node: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Json]]:
    for step, child in _below(node):
        yield (*path, step), child
        yield from _nodes(child, (*path, step))

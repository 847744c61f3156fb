"""Which paths an engine answers, and for whom each is: clients, or who runs the engine. Pure.

Whoever stands before workers and gives requests their API key (the front) has to know that: a key
opens the engine's administration as well as its inference.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

SEGMENT = "[A-Za-z0-9._~:@+=,-]+"
"""What a placeholder stands for: no slash, and no percent sign, behind which anything may hide."""


class PathClass(StrEnum):
    """For whom a path is. What no table has is for nobody."""

    INFERENCE = "inference"
    """Clients: answers of the model."""
    INFORMATION = "information"
    """Clients: reads what is no secret and changes nothing."""
    ADMINISTRATION = "administration"
    """Who runs the engine: changes it for all, or shows its settings, its key among them."""


@dataclass(frozen=True, slots=True)
class EnginePath:
    """One path.

    Attributes:
        path: exact; `{name}` stands for one segment, `{name:path}` for one or more.
        methods: that the engine answers.
        kind: for whom it is.
        websocket: whether it is opened as a websocket.
        lists_models: whether its answer names each served model, ours for identity among them.
    """

    path: str
    methods: tuple[str, ...]
    kind: PathClass
    websocket: bool = False
    lists_models: bool = False

    @property
    def exact(self) -> bool:
        """Whether it has no placeholder."""
        return "{" not in self.path

    @property
    def pattern(self) -> str:
        """A regular expression (RE2) that the whole of a path has to match."""
        return path_pattern(self.path)


def inference(*methods: str, paths: str) -> tuple[EnginePath, ...]:
    """Paths of clients, parted by white space."""
    return tuple(EnginePath(path, methods, PathClass.INFERENCE) for path in paths.split())


def information(*methods: str, paths: str) -> tuple[EnginePath, ...]:
    """Paths that tell clients something."""
    return tuple(EnginePath(path, methods, PathClass.INFORMATION) for path in paths.split())


def administration(*methods: str, paths: str) -> tuple[EnginePath, ...]:
    """Paths of who runs the engine."""
    return tuple(EnginePath(path, methods, PathClass.ADMINISTRATION) for path in paths.split())


def websocket(path: str) -> EnginePath:
    """A path of clients that is opened as a websocket."""
    return EnginePath(path, ("GET",), PathClass.INFERENCE, websocket=True)


def models_list(path: str) -> EnginePath:
    """The path that lists the served models."""
    return EnginePath(path, ("GET",), PathClass.INFORMATION, lists_models=True)


def union(tables: Iterable[Iterable[EnginePath]]) -> tuple[EnginePath, ...]:
    """All paths of several engines, each once, in order.

    A path that one of them calls administration is administration: a request may reach each.
    """
    found: dict[str, EnginePath] = {}
    for entry in (entry for table in tables for entry in table):
        before = found.get(entry.path)
        found[entry.path] = entry if before is None else _both(before, entry)
    return tuple(found[path] for path in sorted(found))


def path_pattern(path: str) -> str:
    """The regular expression (RE2) of a path with placeholders, for the whole of a path."""
    out, rest = "", path
    while rest:
        plain, brace, rest = rest.partition("{")
        out += plain.replace(".", "[.]")
        if brace:
            name, _, rest = rest.partition("}")
            out += f"{SEGMENT}(/{SEGMENT})*" if name.endswith(":path") else SEGMENT
    return out


def _both(one: EnginePath, other: EnginePath) -> EnginePath:
    kinds = {one.kind, other.kind}
    if PathClass.ADMINISTRATION in kinds:
        kind = PathClass.ADMINISTRATION
    else:
        kind = PathClass.INFERENCE if PathClass.INFERENCE in kinds else PathClass.INFORMATION
    return replace(
        one,
        methods=tuple(sorted({*one.methods, *other.methods})),
        kind=kind,
        websocket=one.websocket or other.websocket,
        lists_models=one.lists_models or other.lists_models,
    )

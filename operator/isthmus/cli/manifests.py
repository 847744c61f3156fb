"""Manifests as people write them: YAML documents whose every value knows its line.

Apart from the checks, which work on plain values: this is the only place that knows YAML.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

FieldPath: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file.

    Attributes:
        value: the object, with strings as keys.
        line: where it begins, from 1.
        lines: line of each field (of its name where it has one), by path.
        repeated: fields that are written twice in one mapping, with the line of the second.
    """

    value: object
    line: int
    lines: Mapping[FieldPath, int]
    repeated: Mapping[FieldPath, int]

    def line_of(self, path: FieldPath) -> int:
        """Return the line of a field, or of the nearest one above it that is written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return self.line


class ManifestError(Exception):
    """A file is not YAML; `line` says where."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class _Positions:
    lines: dict[FieldPath, int] = field(default_factory=dict)
    repeated: dict[FieldPath, int] = field(default_factory=dict)

    def walk(self, node: Node, path: FieldPath) -> None:
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
                self.walk(item, (*path, index))
        elif isinstance(node, MappingNode):
            for key, value in node.value:
                here = (*path, str(key.value))
                line = key.start_mark.line + 1
                if here in self.lines:
                    self.repeated[here] = line
                self.lines[here] = line
                self.walk(value, here)


def documents(text: str) -> Iterator[Document]:
    """Yield the objects of a file; empty documents are skipped, a List yields its items.

    Raises:
        ManifestError: the text is not YAML.
    """
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            positions = _Positions()
            positions.walk(node, ())
            value = _plain(loader.construct_document(node))
            if value is not None:
                whole = Document(
                    value, node.start_mark.line + 1, positions.lines, positions.repeated
                )
                yield from _items(whole)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise ManifestError(
            f"not YAML: {problem}", line=1 if mark is None else mark.line + 1
        ) from None
    finally:
        loader.dispose()


def _items(document: Document) -> Iterator[Document]:
    value = document.value
    if not (isinstance(value, dict) and value.get("kind") == "List"):
        yield document
        return
    items = value.get("items")
    for index, item in enumerate(items if isinstance(items, list) else []):
        start: FieldPath = ("items", index)
        yield Document(
            item,
            document.line_of(start),
            _below(document.lines, start),
            _below(document.repeated, start),
        )


def _below(lines: Mapping[FieldPath, int], start: FieldPath) -> Mapping[FieldPath, int]:
    cut = len(start)
    return {path[cut:]: line for path, line in lines.items() if path[:cut] == start and path[cut:]}


def _plain(value: object) -> object:
    """Return the value with strings as keys, as JSON has them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def path_text(path: FieldPath) -> str:
    """Return a path as the API server writes it: `spec.pools[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text

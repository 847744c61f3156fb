"""Manifests as people write them: YAML documents whose every value knows its line.

Apart from the checks, which work on plain values: this and bounded_yaml.py alone know YAML.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from isthmus.api.texts import one_line
from isthmus.cli.bounded_yaml import BoundedLoader

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
    try:
        loader = BoundedLoader(text)
        try:
            yield from _documents(loader)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:  # before the first line is read
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError("not YAML: a control character", line=line) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = one_line(getattr(error, "problem", None) or str(error))
        raise ManifestError(
            f"not YAML: {problem}", line=1 if mark is None else mark.line + 1
        ) from None


def _documents(loader: BoundedLoader) -> Iterator[Document]:
    while loader.check_node():
        node = loader.get_node()
        assert node is not None
        positions = _Positions()
        positions.walk(node, ())
        value = _plain(loader.construct_document(node))
        if value is not None:
            line = node.start_mark.line + 1
            yield from _items(Document(value, line, positions.lines, positions.repeated))


def _items(document: Document) -> Iterator[Document]:
    value = document.value
    if not (isinstance(value, dict) and value.get("kind") == "List"):
        yield document
        return
    items = value.get("items")
    if not isinstance(items, list):
        raise ManifestError("a List needs items, a list of objects", line=document.line)
    lines, repeated = _by_item(document.lines), _by_item(document.repeated)
    for index, item in enumerate(items):
        line = document.line_of(("items", index))
        yield from _items(Document(item, line, lines.get(index, {}), repeated.get(index, {})))


def _by_item(lines: Mapping[FieldPath, int]) -> Mapping[str | int, Mapping[FieldPath, int]]:
    """The lines of each item of a List: looked through once, not once for each item."""
    found: dict[str | int, dict[FieldPath, int]] = {}
    for path, line in lines.items():
        if len(path) > 2 and path[0] == "items":
            found.setdefault(path[1], {})[path[2:]] = line
    return found


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

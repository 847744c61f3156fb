"""YAML of anybody, read as JSON would have it, within bounds: an error with a line, or a value.

Apart from manifests.py, which knows objects. YAML can say more than an object of Kubernetes: a
few lines whose aliases expand to millions, a value that contains itself, values that no JSON has.
Each of them is refused where it stands, before anything is made of it.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import yaml
from yaml.constructor import ConstructorError
from yaml.events import Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_DEPTH: Final = 100
"""Levels of lists and mappings; the deepest field of a kind is at the tenth."""

MAX_REPEATED: Final = 100_000
"""Values that aliases of one document may add: beyond this they multiply each other."""

_N = TypeVar("_N", SequenceNode, MappingNode)

_PREFIX: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    _PREFIX + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)
_NOT_RESOLVED: Final = frozenset(_PREFIX + name for name in ("timestamp", "value"))
_WRONG_VALUE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What the constructors of the library raise for a text that is not of its tag."""


class BoundedLoader(yaml.SafeLoader):
    """YAML as kubectl reads it: a date is a string.

    Raises `yaml.YAMLError` for everything that is not to be read, and nothing else.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._repeated = 0
        self._sizes: dict[int, int] = {}

    def compose_document(self) -> Node | None:
        """Compose the next document; each has its own anchors and its own bounds."""
        self._depth = 0
        self._sizes.clear()
        self._repeated = 0
        return super().compose_document()

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose one value, or find the one that an alias stands for."""
        event: Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth >= MAX_DEPTH:
            raise _error(event, f"lists and mappings are nested more than {MAX_DEPTH} levels deep")
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if alias:
            self._count_alias(node, event)
        elif node.tag not in _TAGS:
            raise _error(node, f"{node.tag} is no type of JSON: remove the tag")
        return node

    def compose_sequence_node(self, anchor: Any) -> SequenceNode:
        """Compose a list."""
        # The library registers an anchor before what it holds, so an alias may name its parent.
        return self._composed(super().compose_sequence_node, anchor)

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping."""
        return self._composed(super().compose_mapping_node, anchor)

    def _composed(self, compose: Callable[[Any], _N], anchor: Any) -> _N:
        self._depth += 1
        node = compose(anchor)
        self._depth -= 1
        parts: list[Node] = node.value
        if isinstance(node, MappingNode):
            for name, _ in node.value:
                if not isinstance(name, ScalarNode):
                    raise _error(name, "the name of a field must be a text, not a list")
            parts = [part for pair in node.value for part in pair]
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
        return node

    def _count_alias(self, node: Node, event: Event) -> None:
        if not isinstance(node, ScalarNode) and id(node) not in self._sizes:
            raise _error(event, "an alias stands inside of what it repeats")
        self._repeated += self._sizes.get(id(node), 1)
        if self._repeated > MAX_REPEATED:
            raise _error(event, f"aliases repeat more than {MAX_REPEATED} values: write them out")

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Make the value of a node."""
        try:
            value = super().construct_object(node, deep=deep)
        except _WRONG_VALUE:
            raise _error(node, f"a value cannot be read as {_name(node.tag)}") from None
        if isinstance(value, float) and not -sys.float_info.max <= value <= sys.float_info.max:
            raise _error(node, "a number must be finite")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _error(node, "a whole number must fit into 64 bits")
        return value


BoundedLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _name(tag: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(
        tag.removeprefix(_PREFIX), tag.removeprefix(_PREFIX)
    )


def _error(place: Any, problem: str) -> yaml.YAMLError:
    return ConstructorError(None, None, problem, place.start_mark)

"""Nothing grows past what a reader holds in his head: collaborators of a class, lines of a module.

What is larger stands here by name and with the size that it may have, which only ever shrinks:
whoever makes it smaller writes the smaller number, or takes the line out.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "operator" / "isthmus"

MOST_COLLABORATORS = 7
MOST_LINES = 400

LARGER_CONSTRUCTORS: dict[str, int] = {}
LONGER_MODULES: dict[str, int] = {}


def _modules() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def collaborators(source: str) -> dict[str, int]:
    """How many arguments the constructor of each class takes; of a record, its fields, none."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for each in node.body:
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                given = each.args
                number = len(given.posonlyargs) + len(given.args) - 1 + len(given.kwonlyargs)
                found[node.name] = number
    return found


def grown(found: dict[str, int], *, most: int, larger: dict[str, int]) -> list[str]:
    """What is larger than it may be."""
    return [
        f"{name}: {size}, at most {larger.get(name, most)}"
        for name, size in found.items()
        if size > larger.get(name, most)
    ]


def test_a_constructor_has_few_collaborators() -> None:
    found = {
        f"{path}: {name}": number
        for path, source in _modules()
        for name, number in collaborators(source).items()
    }
    assert len(found) > 50
    assert not grown(found, most=MOST_COLLABORATORS, larger=LARGER_CONSTRUCTORS)


def test_a_module_is_read_in_one_sitting() -> None:
    found = {path: len(source.splitlines()) for path, source in _modules()}
    assert not grown(found, most=MOST_LINES, larger=LONGER_MODULES)


def test_what_is_listed_may_not_grow() -> None:
    assert grown({"a": 8}, most=7, larger={}) == ["a: 8, at most 7"]
    assert grown({"a": 9}, most=7, larger={"a": 8}) == ["a: 9, at most 8"]
    assert not grown({"a": 7, "b": 9}, most=7, larger={"b": 9})
    source = "class A:\n    def __init__(self, a, *, b, c=1): ...\nclass B:\n    x: int\n"
    assert collaborators(source) == {"A": 3}

"""The tables of findings: every one that was found has a row, and its tests are where it says.

A test that is renamed or moved would leave a row that proves nothing, and nobody would notice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.before.findings import FOUND

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests"

_ID = re.compile(r"\b[CHMLBF][0-9]{1,2}\b")
_TOKEN = re.compile(r"`([^`]+)`")


def rows() -> Iterator[tuple[str, str, str]]:
    """Page, finding and the cell of tests, of each row below a heading that says Findings."""
    for page in ("security", "reliability"):
        inside = False
        for line in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                inside = line.strip("# ").startswith("Findings")
            elif inside and line.startswith("| ") and not line.startswith(("| finding", "| ---")):
                cells = line.strip("| ").split(" | ")
                yield page, cells[0], cells[-1]


ROWS = tuple(rows())


@cache
def defined(path: Path) -> frozenset[str]:
    """What a module calls its functions, classes and constants, also those inside of others."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for one in targets if isinstance(one, ast.Name)}
    return frozenset(found)


@cache
def modules() -> tuple[Path, ...]:
    return tuple(sorted(TESTS.rglob("*.py")))


def named(token: str) -> tuple[Path, ...]:
    """The modules that a row means: a path, a file's name, or a module's."""
    text = token if token.endswith(".py") else f"{token}.py"
    return tuple(p for p in modules() if f"/{p.relative_to(ROOT)}".endswith(f"/{text}"))


def holds(path: Path, word: str) -> bool:
    """Whether a module defines it; `…` and `*` stand for any end."""
    begin = word.rstrip("…*")
    names = defined(path)
    return begin in names if begin == word else any(name.startswith(begin) for name in names)


def problems(cell: str) -> Iterator[str]:
    """What of a cell of tests does not exist.

    A word belongs to the modules named before it, if there are any and it is a test.
    """
    near: list[Path] = []
    words_since = False
    for token in _TOKEN.findall(cell):
        if " " in token:
            continue  # a command
        found = named(token)
        if found:
            near = [*([] if words_since else near), *found]
            words_since = False
            continue
        words_since = True
        word = token.rpartition(".")[2]
        places = near if near and word.lower().startswith("test") else modules()
        if not any(holds(path, word) for path in places):
            yield token


@pytest.mark.parametrize("finding", FOUND)
def test_each_finding_has_a_row_with_a_test(finding: str) -> None:
    cells = [tests for _, told, tests in ROWS if finding in _ID.findall(told)]
    assert any(_TOKEN.search(cell) for cell in cells)


@pytest.mark.parametrize(("page", "told", "tests"), ROWS, ids=lambda cell: cell[:40])
def test_the_tests_of_a_row_exist(page: str, told: str, tests: str) -> None:
    assert list(problems(tests)) == [], f"docs/{page}.md: {told}"


@pytest.mark.parametrize(
    ("cell", "missing"),
    [
        ("`test_findings.py`: `test_each_finding_…`", []),
        ("`test_findings`: `test_each_finding_has_a_row_with_a_test`", []),
        ("`test_findings.py`: `test_of_nobody_…`", ["test_of_nobody_…"]),
        ("`test_gone.py`", ["test_gone.py"]),
        ("`tests/contract/test_findings.py`", ["tests/contract/test_findings.py"]),
        ("`test_lanes.py`: `test_each_finding_…`", ["test_each_finding_…"]),
        ("`Oracle.submits`, `make engines`", []),
        ("`Oracle.does_nothing`", ["Oracle.does_nothing"]),
    ],
)
def test_what_does_not_exist_is_noticed(cell: str, missing: list[str]) -> None:
    assert list(problems(cell)) == missing

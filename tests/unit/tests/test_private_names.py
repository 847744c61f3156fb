"""Tests reach no further into a module than its readers do: private names are counted.

A test that patches or calls one breaks with each move, and says nothing about what others rely on.
Where one is needed, a parameter or a public name of its own serves; the rest stand here.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests"

ALLOWED = {
    "contract/test_apiserver_client.py: _configuration": 1,  # a token that ends on its own
    "simulation/memory.py: _holders": 1,  # memory that has a bound of its own
    "simulation/memory.py: _released": 1,
    "simulation/memory.py: _tombstones": 1,
    "simulation/mutants.py: _complain": 2,  # what the loop says of an error, a mutant's too
    "unit/cli/test_validate.py: _rule": 1,  # how often it runs is what is tested
    "unit/playground/test_slurm_releases.py: _prefix": 2,
    "unit/playground/test_slurm_releases.py: _unpack": 1,
}
"""File and name, to how often."""

APART = ("simulation/mutations", "unit/tests/test_private_names.py")
"""Beginnings of paths: what breaks rules on purpose, and this."""

_DEFINED = re.compile(r"(?:def|class|self\.|cls\.|^)\s*(_[a-zA-Z]\w*)(?=\s*[(:=])", re.MULTILINE)
_IMPORTED = re.compile(r"from (?:isthmus|playground)[\w.]* import (\([^)]*\)|[^\n]*)")
_INSIDE = re.compile(r"(\w+)(?:\([^()\n]*\))?\.(_[a-zA-Z]\w*)")
_DOTTED = re.compile(r"\"(?:isthmus|playground)(?:\.\w+)*\.(_[a-zA-Z]\w*)\"")
_SET = re.compile(r"(?:setattr|object)\(\s*[\w.]+,\s*\"(_[a-zA-Z]\w*)\"")


def defined(*folders: Path) -> frozenset[str]:
    """Private names that modules below folders define: functions, classes, attributes."""
    texts = (path.read_text(encoding="utf-8") for each in folders for path in each.rglob("*.py"))
    return frozenset(name for text in texts for name in _DEFINED.findall(text))


def uses(text: str, *, ours: frozenset[str], theirs: frozenset[str]) -> Iterator[str]:
    """Private names of the package in a module of tests.

    Args:
        text: of the module.
        ours: private names of the package.
        theirs: private names that tests define themselves.
    """
    imported = {
        one.strip() for found in _IMPORTED.findall(text) for one in found.strip("()").split(",")
    }
    yield from (name for name in imported if re.fullmatch(r"_[a-zA-Z]\w*", name))
    modules = {name.rpartition(" as ")[2] for name in imported}
    for base, name in _INSIDE.findall(text):
        if base in modules or (base not in ("self", "cls") and name in ours - theirs):
            yield name
    yield from _DOTTED.findall(text)
    yield from _SET.findall(text)


def counted() -> Counter[str]:
    ours, theirs = defined(ROOT / "operator" / "isthmus", ROOT / "playground"), defined(TESTS)
    found: Counter[str] = Counter()
    for path in TESTS.rglob("*.py"):
        place = str(path.relative_to(TESTS))
        if not place.startswith(APART):
            text = path.read_text(encoding="utf-8")
            found.update(f"{place}: {name}" for name in uses(text, ours=ours, theirs=theirs))
    return found


def test_no_more_private_names_are_used_than_stand_here() -> None:
    """One that is gone is taken out of the table, so that it does not come back."""
    assert dict(sorted(counted().items())) == ALLOWED


def test_what_is_used_is_noticed() -> None:
    text = """
from isthmus.front import drain, _hidden
from isthmus.api import (
    names as words,
    _listed,
)
drain._call()
words._word
thing.part._inside
thing._of_a_test
thing.__dict__
self._inside
monkeypatch.setattr(thing, "_set", 1)
monkeypatch.setattr("isthmus.front.drain._dotted", 1)
"""
    found = uses(text, ours=frozenset({"_inside"}), theirs=frozenset({"_of_a_test"}))
    wanted = ["_call", "_dotted", "_hidden", "_inside", "_listed", "_set", "_word"]
    assert sorted(set(found)) == wanted

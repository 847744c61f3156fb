"""Sentences that users read: words that mean something else to them are not used.

Read are all texts of the program but its docstrings, and the pages for users. A word that is right
in one place is allowed there by its phrase.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus.api.reason_texts import PARTS

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "operator" / "isthmus").rglob("*.py"))
PAGES = [ROOT / "docs" / "reasons.md", ROOT / "docs" / "glossary.md"]

WORDS = {
    r"\bthe way to\b|\bway works\b|\bon (its|the) way\b": "path, forward or connection",
    r"\b(say|says|said)\b": "report, answer, print, list, show",
    r"\b(tell|tells|told|telling)\b": "report, log, send",
    r"\b(go|goes|going|went) on\b": "continue",
    r"\blets? go\b": "release",
    r"\bby itself\b": "leave it out, or automatically",
    r"\bany ?more\b": "no longer",
    r"\bless (GPUs|CPUs|nodes|workers|jobs|requests)\b": "fewer",
    r"\b([Ll]eave|[Ll]eft) (it|the \w+) away\b": "remove",
    r"\bmade anew\b": "created again",
    r"\bknown to be good\b": "healthy",
    r"\b(acknowledged job|submission line)\b": "returned job ID, submission queue",
}
"""A pattern and what to write instead."""

ALLOWED = (
    r"the (message|operator's log) says",  # of what somebody reads
    r"`slurm\.timeLimit` says",
    r"no record says",
)
NOT_FOR_USERS = {
    "backends/kubernetes/firstprocess.py",  # the text of a program
    "cli/run.py",  # a help text about jobs of before
}


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Texts with more than a word in them, and their lines; of an f-string its fixed parts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in comments:
            continue
        if isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def wrong(text: str) -> list[str]:
    """What is found, with what to write instead."""
    for allowed in ALLOWED:
        text = re.sub(allowed, "", text, flags=re.IGNORECASE)
    return [
        f"{found[0]!r} (write: {instead})"
        for pattern, instead in WORDS.items()
        if (found := re.search(pattern, text)) is not None
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_use_the_words_of_the_field(path: Path) -> None:
    if str(path.relative_to(ROOT / "operator" / "isthmus")) in NOT_FOR_USERS:
        return
    problems = [f"{line}: {each}" for line, text in sentences(path) for each in wrong(text)]
    assert problems == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_the_words_of_the_field(path: Path) -> None:
    assert wrong(path.read_text(encoding="utf-8")) == []


def test_remedies_are_sentences_that_begin_with_what_to_do() -> None:
    for part in PARTS.values():
        for reason, text in part.items():
            assert text.remedy == "" or text.remedy.endswith("."), reason


@pytest.mark.parametrize(
    "text",
    [
        "the way works again: 1 forwards work",
        "SLURM says that the job waits",
        "no other worker is known to be good",
        "the old one goes on",
        "Ask for less GPUs",
        "Leave the value away",
    ],
)
def test_what_is_found(text: str) -> None:
    assert wrong(text)

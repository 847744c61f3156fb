"""The reasons: a closed set of words, each with its meaning, and no producer that says another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isthmus.api.reason_texts import PARTS, Text
from isthmus.api.reasons import Reason
from isthmus.cli.main import app
from isthmus.cli.reasons import page

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "operator" / "isthmus").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
OWN = {"reasons.py", "reason_texts.py"}

FOREIGN_CALLS = {
    "Refused": "sbatch's and the site's refusals: the word stands before the message",
    "Pending": "why a pool waits, in the scheduler's word",
    "JobRecord": "what squeue shows",
    "ProbeResult": "what an engine answered; its message is shown",
}
"""Calls that take a word of somebody else as `reason`, and whose word that is."""

FOREIGN_TYPES = {
    "errors.py": "of the Kubernetes Status object",
    "apiserver/answers.py": "of the Kubernetes Status object",
    "api/base.py": "a condition as it is stored",
    "api/modeldeployment_status.py": "the scheduler's word, a sentence of a drain, or as stored",
    "api/slurmcluster.py": "an orphan as it is stored",
    "api/slurmjob.py": "a status as it is stored",
    "api/conditions.py": "a condition as Kubernetes writes it",
    "backends/base.py": "the scheduler's word",
    "backends/slurm/records.py": "what squeue, sinfo and sbatch say",
    "backends/slurm/reasons.py": "what squeue says",
    "backends/slurm/sbatch_answers.py": "what sbatch says",
    "backends/kubernetes/pending.py": "Kubernetes' word",
    "slurmjob/policy/blame.py": "an attempt as it is stored",
    "slurmjob/record.py": "a status as it is stored",
    "engines/questions.py": "what a probe says",
    "probing/verdict.py": "what a probe says",
}
"""Files in which something called `reason` is declared as a text, and whose it is there."""


def texts() -> dict[Reason, Text]:
    return {reason: text for part in PARTS.values() for reason, text in part.items()}


def test_each_reason_has_one_meaning():
    listed = [reason for part in PARTS.values() for reason in part]
    assert sorted(listed) == sorted(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_a_word_with_sentences(reason):
    assert re.fullmatch(r"([A-Z][a-z]+)+", reason)
    text = texts()[reason]
    assert re.fullmatch(r"[A-Zsm`].*[.]", text.meaning), text.meaning
    assert text.remedy == "" or re.fullmatch(r"[A-Z`].*[.;]?", text.remedy), text.remedy


def test_no_reason_is_unused():
    said = {
        node.attr
        for path, tree in TREES.items()
        if path.name not in OWN or path.parent.name == "slurm"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Reason"
    }
    assert set(Reason.__members__) - said == set()


def given(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What is handed over as a reason: (name of the call or "a mapping", value)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            for keyword in node.keywords:
                if keyword.arg == "reason":
                    yield called, keyword.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "reason":
                    yield "a mapping", value


def test_every_producer_says_a_member():
    """No text is handed over as a reason: types see to the rest, see below."""
    wrong = [
        f"{path.relative_to(ROOT)}:{value.lineno}: {called}"
        for path, tree in TREES.items()
        for called, value in given(tree)
        if called not in FOREIGN_CALLS
        and any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value
            for part in ast.walk(value)
        )
        and not any(isinstance(part, ast.Call) for part in ast.walk(value))
    ]
    assert wrong == []


def test_what_is_declared_as_a_reason_is_one():
    """mypy proves it, where it is asked: so each `reason` is a Reason, or known to be another's."""
    found = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            name, kind = "", None
            if isinstance(node, ast.arg):
                name, kind = node.arg, node.annotation
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, kind = node.target.id, node.annotation
            if name == "reason" and kind is not None and ast.unparse(kind) != "Reason":
                found.add(str(path.relative_to(ROOT / "operator" / "isthmus")))
    assert found - FOREIGN_TYPES.keys() == set(), "declare it as Reason, or add whose word it is"
    assert FOREIGN_TYPES.keys() - found == set(), "no longer needed here"


def test_the_page_is_made_from_the_table():
    stored = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert stored == page(), "run `isthmus reasons > docs/reasons.md`"
    for reason in Reason:
        assert f"| `{reason}` |" in stored


def test_one_reason_is_explained():
    result = CliRunner().invoke(app, ["reasons", "pendingnever"])
    assert result.exit_code == 0
    assert result.output.startswith("The worker can never start")
    wrong = CliRunner().invoke(app, ["reasons", "Pending"])
    assert wrong.exit_code == 2
    assert "PendingQuota" in wrong.output

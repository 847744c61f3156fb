"""The faults that were found are faults of the commit they were found in, and none of this tree."""

from collections.abc import Callable

import pytest

from bench.against import worktree
from tests.before.answers import FOUND_IN, NOT_THERE, THERE, Answers, answers, problems
from tests.before.findings import FOUND, Finding
from tests.before.questions import QUESTIONS

LATER = ("B6",)
"""No fault of that commit: the end of a walltime came with what was built after it."""


@pytest.mark.soak
@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_each_finding_is_there_before_and_not_here(
    record_property: Callable[[str, object], None],
) -> None:
    with worktree(FOUND_IN) as other:
        found = answers(other)
    record_property("questions", len(found))
    assert problems(found) == []


@pytest.mark.parametrize(
    ("before", "here", "wrong"),
    [
        (THERE, NOT_THERE, []),
        (THERE, THERE, ["X1, a fault: here: there"]),
        (NOT_THERE, NOT_THERE, ["X1, a fault: before: not there"]),
        ("TypeError", NOT_THERE, ["X1, a fault: before: TypeError"]),
        (THERE, "no answer within 60 s", ["X1, a fault: here: no answer within 60 s"]),
    ],
)
def test_only_one_pair_of_answers_is_right(before: str, here: str, wrong: list[str]) -> None:
    finding = Finding("X1", "a fault", "tests.before.findings", lambda: True)
    assert problems([Answers(finding, before, here)]) == wrong


@pytest.mark.parametrize("finding", [one for one in FOUND if one not in LATER])
def test_each_finding_is_asked_for(finding: str) -> None:
    assert finding in {one.id for one in QUESTIONS}

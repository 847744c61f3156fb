"""Conditions, reasons and phases."""

import ast
import inspect
import re

import pytest

from isthmus.api import conditions
from isthmus.api.conditions import (
    MAX_MESSAGE,
    ConditionType,
    PendingClass,
    Phase,
    Reason,
    find_condition,
    set_condition,
)

NOW = 1_795_232_020.25


def ready(before, *, status, now, reason=Reason.WORKERS_NOT_READY, message="1 of 2"):
    return set_condition(
        before,
        type=ConditionType.READY,
        status=status,
        reason=reason,
        message=message,
        now=now,
        observed_generation=2,
    )


def test_a_new_condition_is_added():
    (made,) = ready((), status=False, now=NOW)
    assert made == {
        "type": "Ready",
        "status": "False",
        "reason": "WorkersNotReady",
        "message": "1 of 2",
        "lastTransitionTime": "2026-11-21T03:33:40Z",
        "observedGeneration": 2,
    }
    assert all(type(value) in (str, int) for value in made.values())


def test_an_unchanged_condition_comes_out_equal():
    before = ready((), status=False, now=NOW)
    assert ready(before, status=False, now=NOW + 100) == before


def test_the_time_moves_with_the_status_only():
    before = ready((), status=False, now=NOW)
    (other,) = ready(before, status=False, now=NOW + 100, message="0 of 2")
    assert other["lastTransitionTime"] == before[0]["lastTransitionTime"]
    assert other["message"] == "0 of 2"
    (changed,) = ready(before, status=True, now=NOW + 100, reason=Reason.ALL_WORKERS_READY)
    assert changed["lastTransitionTime"] > before[0]["lastTransitionTime"]


def test_others_keep_their_place():
    before = ready((), status=None, now=NOW)
    both = set_condition(
        before,
        type=ConditionType.AVAILABLE,
        status="True",
        reason=Reason.WORKERS_AVAILABLE,
        message="",
        now=NOW,
    )
    after = ready(both, status=True, now=NOW + 1)
    assert [one["type"] for one in after] == ["Ready", "Available"]
    assert find_condition(after, type="Ready")["status"] == "True"
    assert find_condition(before, type="Ready")["status"] == "Unknown"
    assert "observedGeneration" not in after[1]
    assert find_condition(after, type="Progressing") is None


def test_a_message_never_exceeds_what_the_schema_takes():
    (made,) = ready((), status=False, now=NOW, message="x" * 5000)
    assert len(made["message"]) == MAX_MESSAGE


@pytest.mark.parametrize("enum", [Phase, PendingClass, ConditionType])
def test_every_word_is_documented_and_camel_case(enum):
    (node,) = ast.parse(inspect.getsource(enum)).body
    documented = [
        isinstance(after, ast.Expr)
        for one, after in zip(node.body, [*node.body[1:], None], strict=True)
        if isinstance(one, ast.Assign)
    ]
    assert documented == [True] * len(enum)
    for word in enum:
        assert re.fullmatch(r"[A-Z][A-Za-z]{1,40}", word), word


def test_terminal_phases():
    assert {phase.value for phase in Phase if phase.terminal} == {
        "Finished",
        "Failed",
        "Expired",
        "Preempted",
        "NodeFault",
    }
    assert conditions.Phase("Waiting").terminal is False

"""Conditions that stand only while something is wrong, and go when it is not any more.

`Readable` and `ActionsSucceed` are such: on each of ten thousand healthy objects they would say
nothing. What is told keeps its time for as long as it lasts.
"""

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import ConditionType, Reason, set_condition
from isthmus.rules.conditions import models, typed


def with_problem(
    conditions: tuple[ConditionModel, ...],
    kind: ConditionType,
    *,
    reason: Reason,
    problem: str,
    now: float,
) -> tuple[ConditionModel, ...]:
    """Return the conditions with the one of this kind False, or without it.

    Args:
        conditions: as they stand.
        kind: which one.
        reason: in a word.
        problem: in a sentence; "" for nothing wrong.
        now: epoch seconds.
    """
    if not problem:
        kept = tuple(condition for condition in conditions if condition.type != kind)
        return conditions if len(kept) == len(conditions) else kept
    return models(
        set_condition(
            map(typed, conditions),
            type=kind,
            status=False,
            reason=reason,
            message=problem,
            now=now,
        )
    )


def problem_of(conditions: tuple[ConditionModel, ...], kind: ConditionType) -> str:
    """What a condition of this kind says is wrong; "" where there is none."""
    return next((one.message for one in conditions if one.type == kind), "")

"""Conditions between their two forms: what `set_condition` takes, and what a status holds."""

from isthmus.api.base import ConditionModel
from isthmus.api.conditions import Condition


def typed(condition: ConditionModel) -> Condition:
    """A condition as `set_condition` takes it."""
    typed: Condition = {
        "type": condition.type,
        "status": "True"
        if condition.status == "True"
        else "False"
        if condition.status == "False"
        else "Unknown",
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.last_transition_time or "",
    }
    if condition.observed_generation is not None:
        typed["observedGeneration"] = condition.observed_generation
    return typed


def models(conditions: tuple[Condition, ...]) -> tuple[ConditionModel, ...]:
    """Conditions as the status takes them."""
    return tuple(ConditionModel.model_validate(condition) for condition in conditions)

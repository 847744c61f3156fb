"""What is told: of changes, and of actions that fail."""

from typing import Any
from unittest.mock import patch

from isthmus.errors import SlurmError
from isthmus.slurmjob import action_failures
from isthmus.slurmjob.action_failures import ActionFailures
from isthmus.slurmjob.actions import Terminate
from isthmus.slurmjob.execute import SlurmJobActions
from isthmus.telemetry import report, transitions
from tests.simulation.mutations.register import Patches, mutation


@mutation("commands_fail")
def a_failed_action_is_not_told() -> Patches:
    """Finding B8."""

    def told(self: Any, key: Any, status: Any, error: Exception, *, now: float) -> Any:
        return status

    return [patch.object(ActionFailures, "told", told)]


@mutation("commands_fail")
def a_failed_action_hides_what_was_seen() -> Patches:
    """Seed 406."""

    def stored_alone(action: Any, *, stored: Any, planned: Any) -> Any:
        return stored

    return [patch.object(action_failures, "seen_beside", stored_alone)]


@mutation("commands_fail")
def a_term_that_failed_counts_as_sent() -> Patches:
    original = SlurmJobActions.execute

    async def execute(self: Any, parts: Any, action: Any) -> None:
        try:
            await original(self, parts, action)
        except SlurmError:
            if not isinstance(action, Terminate):
                raise

    return [patch.object(SlurmJobActions, "execute", execute)]


@mutation()
def what_was_reported_before_is_reported_again() -> Patches:
    def again(before: Any, after: Any) -> Any:
        return transitions.transitions(None, after)

    return [patch.object(report, "transitions", again)]

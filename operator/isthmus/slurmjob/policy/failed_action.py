"""What is told of an attempt whose action failed: what was seen of it, not what was not done.

A plan's status says both. Not told at all, a worker would stay Ready for as long as scancel fails,
though it was given up and is out of the membership; told whole, it would be cancelled.
"""

from dataclasses import replace
from typing import Final

from isthmus.api.conditions import TERMINAL
from isthmus.slurmjob.actions import Cancel, ConfirmGone, ReadPort, SlurmJobAction
from isthmus.slurmjob.record import AttemptStatus

_CHANGES_ONLY_ITS_STAMPS: Final = (Cancel, ConfirmGone, ReadPort)
"""What stands beside these in a plan is observed; the others move the phase by what they do."""


def seen_beside(
    action: SlurmJobAction, *, stored: AttemptStatus, planned: AttemptStatus
) -> AttemptStatus:
    """Return the status to be told.

    Args:
        action: the one that failed.
        stored: the status before this pass.
        planned: the status after it, had all been done.
    """
    if not isinstance(action, _CHANGES_ONLY_ITS_STAMPS) or planned.phase in TERMINAL:
        return stored
    since = planned.ending.draining_since
    return replace(
        planned,
        submission=stored.submission,
        gate=stored.gate,
        ending=replace(stored.ending, draining_since=since),
    )

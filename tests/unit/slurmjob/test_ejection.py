"""Whether a worker that fails our probes leaves the rotation."""

from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.slurmjob.actions import Cancel, DeleteSlice
from isthmus.slurmjob.observation import SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from tests.unit.builders import MEMBER, NOW, PUBLISHED, job, record, status


def plan(*, reason: str = "Timeout", phase: Phase = Phase.READY, **changes: Any) -> SlurmJobPlan:
    values: dict[str, Any] = {"slice_target": MEMBER, "others_good": False, **changes}
    observed = job(
        record(comment=PUBLISHED),
        status=status(phase),
        probe_healthy=False,
        probe_reason=reason,
        probe_message="no answer within 20 s",
        **values,
    )
    return plan_slurm_job(observed, now=NOW)


def test_it_leaves_while_another_member_is_good() -> None:
    found = plan(others_good=True)
    assert found.actions == (DeleteSlice(),)
    assert found.status.reason == Reason.PROBE_FAILED


@pytest.mark.parametrize("reason", ["Timeout", "Refused", "HttpError"])
def test_the_last_one_stays_and_says_so(reason: str) -> None:
    found = plan(reason=reason)
    assert found.actions == ()
    assert found.status.phase == Phase.DEGRADED
    assert found.status.healthy is False
    assert found.status.reason == Reason.LAST_IN_ROTATION
    assert "no answer within 20 s" in (found.status.message or "")


def test_one_that_has_answered_itself_always_leaves() -> None:
    assert plan(reason="NotReady").actions == (DeleteSlice(),)


@pytest.mark.parametrize("reason", ["WrongModel", "WrongAttempt"])
def test_h1_somebody_else_at_its_address_has_it_replaced_at_once(reason: str) -> None:
    first, *then = plan(reason=reason).actions
    assert first == DeleteSlice()
    assert [type(action) for action in then] == [Cancel]


def test_one_that_had_left_does_not_come_back_by_this() -> None:
    found = plan(phase=Phase.DEGRADED, slice_target=None)
    assert found.actions == ()
    assert found.status.reason == Reason.PROBE_FAILED


def test_two_that_fail_together_both_stay_and_a_good_one_lets_the_other_go() -> None:
    """Each is judged by what the probes say of the other at the same moment."""
    assert plan(others_good=False).actions == ()
    assert plan(others_good=True).actions == (DeleteSlice(),)

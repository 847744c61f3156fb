"""What is told where an action fails: all that was seen, nothing that was not done."""

from dataclasses import replace

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.apiserver.key import Key
from isthmus.errors import NameTakenError, SlurmError
from isthmus.slurmjob.action_failures import ActionFailures
from isthmus.slurmjob.actions import (
    Cancel,
    CloseGate,
    ConfirmGone,
    EnsureSlice,
    ReadPort,
    SlurmJobAction,
    Submit,
    Terminate,
)
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.failed_action import seen_beside
from tests.unit.builders import NOW, job, record, status

KEY = Key("slurmjobs", "ns", "attempt")


def told(action: SlurmJobAction, *, stored: Phase, planned: Phase) -> Phase | None:
    return seen_beside(action, stored=status(stored), planned=status(planned)).phase


def test_seed_406_a_worker_that_was_given_up_is_not_ready_though_scancel_fails() -> None:
    """It said Ready for as long as scancel failed, out of the membership all the while."""
    stored = status(Phase.READY)
    plan = plan_slurm_job(job(record("REQUEUED"), status=stored), now=NOW)
    (cancel,) = (action for action in plan.actions if isinstance(action, Cancel))
    failures = ActionFailures()
    failures.begin(KEY, cancel, planned=plan.status)
    found = failures.told(KEY, stored, SlurmError("scancel: error"), now=NOW)
    assert (found.phase, found.reason) == (Phase.TERMINATING, Reason.JOB_REQUEUED)
    assert found.healthy is False
    assert found.ending.cancelled_at is None, "or it would not be tried again"
    assert [one.message for one in found.conditions if one.type == "ActionsSucceed"] == [
        "cancelling its job fails; it is tried again: scancel: error"
    ]


def test_a_worker_whose_slice_has_a_taken_name_is_not_ready_and_says_why() -> None:
    stored = status(Phase.STARTING)
    failures = ActionFailures()
    failures.begin(KEY, EnsureSlice(address="10.0.0.1", port=41000), planned=status(Phase.READY))
    found = failures.told(KEY, stored, NameTakenError("EndpointSlice a/b is not ours"), now=NOW)
    assert found.phase is Phase.STARTING
    assert [(one.reason, one.message) for one in found.conditions] == [
        (
            Reason.NAME_CONFLICT,
            "putting its worker into the Service fails; it is tried again: "
            "EndpointSlice a/b is not ours",
        )
    ]


def test_an_unread_port_does_not_hide_that_the_job_runs() -> None:
    assert told(ReadPort(job_id=1), stored=Phase.PENDING, planned=Phase.STARTING) is Phase.STARTING


@pytest.mark.parametrize("action", [Cancel(job_id=1), ConfirmGone(job_id=1)])
@pytest.mark.parametrize("over", [phase for phase in Phase if phase.terminal])
def test_nothing_is_over_before_it_was_done(action: SlurmJobAction, over: Phase) -> None:
    assert told(action, stored=Phase.READY, planned=over) is Phase.READY


@pytest.mark.parametrize(
    ("action", "stored", "planned"),
    [
        (Submit(before=status(Phase.SUBMITTING)), Phase.WAITING, Phase.SUBMITTING),
        (Terminate(job_id=1), Phase.DRAINING, Phase.TERMINATING),
        (CloseGate(), Phase.DRAINING, Phase.FINISHED),
    ],
)
def test_a_phase_that_an_action_makes_needs_the_action(
    action: SlurmJobAction, stored: Phase, planned: Phase
) -> None:
    assert told(action, stored=stored, planned=planned) is stored


def test_stamps_stay_as_they_were_and_the_start_of_a_drain_is_a_fact() -> None:
    stored = status(Phase.READY)
    ending = replace(stored.ending, draining_since=NOW, cancelled_at=NOW, terminated_at=NOW, cut=3)
    planned = replace(stored, phase=Phase.DRAINING, ending=ending)
    found = seen_beside(Cancel(job_id=1), stored=stored, planned=planned)
    assert found.ending == replace(stored.ending, draining_since=NOW)
    assert found.submission == stored.submission

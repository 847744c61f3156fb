"""What is said of a job that is over."""

from __future__ import annotations

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.modeldeployment.policy.backoff import PENALISED
from isthmus.slurmjob.policy.ending import ended
from tests.unit.builders import NOW, record, status

LOG = "/scratch/isthmus (job 101 on gpu01)"


@pytest.mark.parametrize(
    ("changes", "phase", "reason", "part"),
    [
        ({"state": "COMPLETED"}, Phase.FINISHED, Reason.JOB_COMPLETED, "exit code 0"),
        ({"state": "CANCELLED"}, Phase.FINISHED, Reason.JOB_CANCELLED, "somebody else"),
        ({"state": "TIMEOUT"}, Phase.EXPIRED, Reason.JOB_TIME_LIMIT, "time limit"),
        ({"state": "NODE_FAIL"}, Phase.NODE_FAULT, Reason.JOB_NODE_FAILED, "node"),
        ({"state": "PREEMPTED"}, Phase.PREEMPTED, Reason.JOB_PREEMPTED, "priority"),
        ({"state": "OUT_OF_MEMORY"}, Phase.FAILED, Reason.JOB_OUT_OF_MEMORY, "worker.memory"),
        (
            {"state": "FAILED", "reason": "BadConstraints"},
            Phase.FAILED,
            Reason.SUBMIT_REFUSED,
            "partitions",
        ),
        ({"state": "FAILED", "exit_code": 75 << 8}, Phase.FAILED, Reason.JOB_REQUEUED, "gate"),
        (
            {"state": "FAILED", "exit_code": 74 << 8},
            Phase.FAILED,
            Reason.WORK_DIRECTORY_UNUSABLE,
            "files.workDirectory",
        ),
        ({"state": "FAILED", "exit_code": 2 << 8}, Phase.FAILED, Reason.JOB_FAILED, "engine.args"),
        ({"state": "FAILED", "exit_code": 1 << 8}, Phase.FAILED, Reason.JOB_FAILED, LOG),
        ({"state": "FAILED", "exit_code": 9}, Phase.FAILED, Reason.JOB_FAILED, "exit code 137"),
    ],
)
def test_phase_and_sentence(
    changes: dict[str, object], phase: Phase, reason: Reason, part: str
) -> None:
    found = ended(status=status(Phase.READY), record=record(**changes), log=LOG)
    assert (found.phase, found.reason) == (phase, reason)
    assert phase.terminal
    assert part in (found.message or "")
    assert found.healthy is False


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETED", "FAILED", "TIMEOUT"])
def test_what_we_ended_keeps_our_reason(state: str) -> None:
    before = status(
        Phase.TERMINATING,
        reason=Reason.STARTUP_TIMEOUT,
        message="too slow",
        cancelled_at=rfc3339(NOW),
    )
    found = ended(status=before, record=record(state), log=LOG)
    assert (found.phase, found.reason, found.message) == (
        Phase.FAILED,
        Reason.STARTUP_TIMEOUT,
        "too slow",
    )


MINUTES = 60


@pytest.mark.parametrize(
    ("limit", "ran", "expired"),
    [
        # The batch script sends TERM 330 s before the end, or in the middle of a short job.
        (480, 480 * MINUTES - 325, True),
        (480, 480 * MINUTES - 335, False),
        (2, 61, True),
        (2, 58, False),
        (None, 480 * MINUTES, False),
    ],
)
@pytest.mark.parametrize(("state", "exit_code"), [("COMPLETED", 0), ("FAILED", 143 << 8)])
def test_engine_ended_by_the_timer_of_its_job_is_expired_and_not_at_fault(
    state: str, exit_code: int, limit: int | None, ran: int, expired: bool
) -> None:
    job = record(
        state,
        time_limit_minutes=limit,
        start_time=int(NOW) - ran,
        end_time=int(NOW),
        exit_code=exit_code,
    )
    found = ended(status=status(Phase.READY), record=job, log=LOG)
    assert (found.phase is Phase.EXPIRED) == expired
    assert (found.phase in PENALISED) != expired

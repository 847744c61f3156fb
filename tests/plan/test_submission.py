"""At most one job per attempt: when sbatch may run, and what an unclear answer leads to."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.backends.slurm.records import Refused, Submitted, Unclear
from isthmus.plan.actions import Cancel, Submit
from isthmus.plan.policy.submission import held_back_by
from isthmus.plan.slurmjob import after_submission, plan_slurm_job
from isthmus.plan.slurmjob_observation import SlurmJobPlan
from tests.plan.builders import DENIED, NOW, PUBLISHED, STALE, job, record, status

SINCE = NOW - 200
DEADLINE = SINCE + 120
UNKNOWN = status(
    Phase.SUBMIT_UNKNOWN,
    submit_started_at=rfc3339(SINCE - 60),
    unknown_since=rfc3339(SINCE),
)


def submits(plan: SlurmJobPlan) -> list[Submit]:
    return [action for action in plan.actions if isinstance(action, Submit)]


@pytest.mark.parametrize("before", [None, Phase.WAITING])
def test_a_new_attempt_is_submitted_once_the_cluster_was_seen(before: Phase | None) -> None:
    plan = plan_slurm_job(job(status=status(before)), now=NOW)
    assert len(submits(plan)) == 1
    written = submits(plan)[0].before
    assert written.phase == Phase.SUBMITTING
    assert written.submit_started_at == rfc3339(NOW)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cluster_changes": STALE}, id="stale"),
        pytest.param({"cluster_changes": DENIED}, id="not allowed"),
        pytest.param(
            {"cluster_changes": {**STALE, "snapshot": None}, "starts": ()}, id="never seen"
        ),
        pytest.param({"renderable": False}, id="its revision is not known"),
        pytest.param({"cluster_changes": {"unresolved": 16}}, id="too many unclear ones"),
    ],
)
def test_it_waits(changes: dict[str, Any]) -> None:
    plan = plan_slurm_job(job(status=status(Phase.WAITING), **changes), now=NOW)
    assert plan.actions == ()
    assert plan.status.phase == Phase.WAITING
    assert plan.status.message, "F5: it says what it waits for"


def test_f5_unclear_submissions_of_others_are_what_an_attempt_waits_for() -> None:
    waiting = plan_slurm_job(job(cluster_changes={"unresolved": 17}), now=NOW).status
    assert waiting.reason == Reason.WAITING_TO_SUBMIT
    assert "16 or more submissions" in (waiting.message or "")
    assert "SubmitUnknown" in (waiting.message or "")


def test_f5_one_that_stands_in_line_says_so_until_it_is_submitted() -> None:
    plan = plan_slurm_job(job(status=status(None)), now=NOW)
    assert "its turn" in (plan.status.message or "")
    assert submits(plan)[0].before.message == ""


@pytest.mark.parametrize("how", [STALE, DENIED, {"unresolved": 16}])
def test_the_rule_itself_asks_for_a_cluster_in_sight(how: dict[str, Any]) -> None:
    assert not held_back_by(job())
    assert held_back_by(job(cluster_changes=how))


def test_unclear_ones_below_the_bound_stop_nothing() -> None:
    assert submits(plan_slurm_job(job(cluster_changes={"unresolved": 15}), now=NOW))


class TestAnswers:
    BEFORE = status(Phase.SUBMITTING)

    def test_a_job_id_is_pending_and_not_seen_yet(self) -> None:
        found = after_submission(self.BEFORE, outcome=Submitted(7), now=NOW)
        assert (found.phase, found.job_id, found.state) == (Phase.PENDING, 7, None)

    def test_a_refusal_ends_the_attempt_with_slurms_words(self) -> None:
        refused = Refused(reason="InvalidPartition", message="no such partition")
        found = after_submission(self.BEFORE, outcome=refused, now=NOW)
        assert (found.phase, found.reason) == (Phase.FAILED, Reason.SUBMIT_REFUSED)
        assert found.message == "InvalidPartition: no such partition"
        assert found.finished_at == rfc3339(NOW)

    def test_anything_else_is_unknown(self) -> None:
        found = after_submission(self.BEFORE, outcome=Unclear("timed out"), now=NOW)
        assert found.phase == Phase.SUBMIT_UNKNOWN
        assert found.unknown_since == rfc3339(NOW)
        assert "timed out" in (found.message or "")


class TestInterrupted:
    """`Submitting` at the begin of a pass: the pass before ended around sbatch."""

    def test_it_is_unknown_and_not_repeated(self) -> None:
        plan = plan_slurm_job(job(status=status(Phase.SUBMITTING)), now=NOW)
        assert plan.actions == ()
        assert plan.status.phase == Phase.SUBMIT_UNKNOWN
        assert plan.status.unknown_since == rfc3339(NOW)
        assert plan.requeue_after == pytest.approx(120)

    def test_also_when_the_cluster_cannot_be_seen_then(self) -> None:
        plan = plan_slurm_job(job(status=status(Phase.SUBMITTING), cluster_changes=STALE), now=NOW)
        assert (plan.status.phase, plan.actions) == (Phase.SUBMIT_UNKNOWN, ())
        later = plan_slurm_job(job(status=plan.status), now=NOW + 60)
        assert later.actions == ()
        assert later.status.unknown_since == rfc3339(NOW + 60)

    def test_what_was_accepted_is_found(self) -> None:
        plan = plan_slurm_job(job(record("PENDING"), status=status(Phase.SUBMITTING)), now=NOW)
        assert (plan.status.phase, plan.status.job_id) == (Phase.PENDING, 101)
        assert plan.actions == ()


class TestUnknown:
    @pytest.mark.parametrize(
        ("starts", "now", "again"),
        [
            pytest.param((SINCE + 10, SINCE + 40), SINCE + 60, False, id="before the deadline"),
            pytest.param((SINCE + 10, SINCE + 110), DEADLINE + 5, False, id="none after it"),
            pytest.param((SINCE + 110, DEADLINE + 10), DEADLINE + 15, False, id="one after it"),
            pytest.param((DEADLINE, DEADLINE + 30), DEADLINE + 40, False, id="begun at it"),
            pytest.param((DEADLINE + 1, DEADLINE + 30), DEADLINE + 40, True, id="two after it"),
        ],
    )
    def test_two_snapshots_begun_after_the_deadline(
        self, starts: tuple[float, ...], now: float, again: bool
    ) -> None:
        plan = plan_slurm_job(job(status=UNKNOWN, starts=starts), now=now)
        assert bool(submits(plan)) is again
        if again:
            written = submits(plan)[0].before
            assert (written.phase, written.unknown_since) == (Phase.SUBMITTING, None)
            assert written.submit_started_at == rfc3339(now)
        else:
            assert plan.status == UNKNOWN
            assert plan.requeue_after is not None
            assert 1 <= plan.requeue_after <= 120

    def test_proved_absent_it_still_obeys_the_bound_and_keeps_its_proof(self) -> None:
        starts = (DEADLINE + 1, DEADLINE + 30)
        held = plan_slurm_job(
            job(status=UNKNOWN, starts=starts, cluster_changes={"unresolved": 16}),
            now=DEADLINE + 40,
        )
        assert held.actions == ()
        assert held.status.unknown_since is not None
        freed = plan_slurm_job(job(status=held.status, starts=starts), now=DEADLINE + 50)
        assert len(submits(freed)) == 1

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED"])
    def test_found_by_name_is_adopted(self, state: str) -> None:
        plan = plan_slurm_job(job(record(state, job_id=55), status=UNKNOWN), now=NOW)
        assert plan.actions == ()
        assert plan.status.job_id == 55
        assert plan.status.unknown_since is None

    def test_the_trace_of_a_refusal_is_an_answer_and_no_job(self) -> None:
        trace = record("FAILED", reason="BadConstraints", start_time=None)
        plan = plan_slurm_job(job(trace, status=UNKNOWN), now=NOW)
        assert (plan.status.phase, plan.status.reason) == (Phase.FAILED, Reason.SUBMIT_REFUSED)
        assert plan.actions == ()

    def test_it_is_not_preferred_to_a_job(self) -> None:
        trace = record("FAILED", reason="BadConstraints", job_id=5)
        plan = plan_slurm_job(job(trace, record(job_id=6), status=UNKNOWN), now=NOW)
        assert plan.status.job_id == 6
        assert plan.actions == ()

    def test_one_turned_away_at_the_gate_is_not_preferred_to_a_job(self) -> None:
        ghost = record("FAILED", exit_code=75 << 8, job_id=5)
        plan = plan_slurm_job(job(ghost, record(job_id=6), status=UNKNOWN), now=NOW)
        assert plan.status.job_id == 6


class TestWipedStatus:
    """A restored backup or a deleted status: identity is in the job."""

    def test_it_adopts_and_does_not_submit(self) -> None:
        plan = plan_slurm_job(job(record(comment=PUBLISHED), status=SlurmJobStatus()), now=NOW)
        assert plan.actions == ()
        assert (plan.status.job_id, plan.status.port) == (101, 41000)
        assert plan.status.phase == Phase.STARTING

    def test_not_before_the_cluster_was_seen(self) -> None:
        plan = plan_slurm_job(job(cluster_changes=STALE), now=NOW)
        assert plan.actions == ()


class TestDuplicates:
    def test_the_one_behind_the_gate_stays(self) -> None:
        first, second = record(job_id=101), record(job_id=102, comment=PUBLISHED)
        plan = plan_slurm_job(job(first, second, status=status(Phase.PENDING)), now=NOW)
        assert plan.status.job_id == 102
        assert plan.actions == (Cancel(job_id=101),)

    def test_a_pending_ghost_is_cancelled(self) -> None:
        plan = plan_slurm_job(
            job(record("PENDING", job_id=102), record(), status=status(Phase.STARTING)), now=NOW
        )
        assert plan.status.job_id == 101
        assert plan.actions == (Cancel(job_id=102),)

    def test_of_two_running_ones_none_is_cancelled_before_the_gate_has_decided(self) -> None:
        plan = plan_slurm_job(job(record(job_id=102), record(job_id=101), status=UNKNOWN), now=NOW)
        assert plan.status.job_id == 101
        assert plan.actions == ()

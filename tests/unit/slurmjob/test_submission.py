"""At most one job per attempt: when sbatch may run, and what an unclear answer leads to."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.backends.slurm.records import NotSent, Refused, Submitted, Unclear
from isthmus.rules.actions import RemoveFinalizer
from isthmus.slurmjob.actions import Cancel, CloseGate, ReadPort, SlurmJobAction, Submit
from isthmus.slurmjob.observation import SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy import submission
from isthmus.slurmjob.policy.submission import held_back_by
from isthmus.slurmjob.record import AttemptStatus
from isthmus.slurmjob.submitting import after_submission
from tests.unit.builders import DENIED, LIMITS, NOW, PUBLISHED, STALE, job, record, status

SINCE = NOW - 200
DEADLINE = SINCE + 120
UNKNOWN = status(
    Phase.SUBMIT_UNKNOWN,
    submit_started_at=rfc3339(SINCE - 60),
    unknown_since=rfc3339(SINCE),
)


def changing(plan: SlurmJobPlan) -> list[SlurmJobAction]:
    """What a plan does to the job; that its port is looked for changes nothing."""
    return [action for action in plan.actions if not isinstance(action, ReadPort)]


def submits(plan: SlurmJobPlan) -> list[Submit]:
    return [action for action in plan.actions if isinstance(action, Submit)]


@pytest.mark.parametrize("before", [None, Phase.WAITING])
def test_a_new_attempt_is_submitted_once_the_cluster_was_seen(before: Phase | None) -> None:
    plan = plan_slurm_job(job(status=status(before)), now=NOW)
    assert len(submits(plan)) == 1
    written = submits(plan)[0].before
    assert written.phase == Phase.SUBMITTING
    assert written.submission.started_at == NOW


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"cluster_changes": STALE}, id="stale"),
        pytest.param({"cluster_changes": DENIED}, id="not allowed"),
        pytest.param(
            {"cluster_changes": {**STALE, "snapshot": None}, "starts": ()}, id="never seen"
        ),
        pytest.param({"renderable": False}, id="its revision is not known"),
        pytest.param({"cluster_changes": {"unresolved": 16}}, id="too many unanswered ones"),
        pytest.param({"cluster_changes": {"unresolved_here": 16}}, id="too many of its namespace"),
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
    assert "of several namespaces" in (waiting.message or "")
    here = plan_slurm_job(job(cluster_changes={"unresolved_here": 17}), now=NOW).status
    assert "of this namespace" in (here.message or "")
    assert "SubmitUnknown" in (here.message or "")


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
    BEFORE = status(Phase.SUBMITTING, submissions=1)

    def test_a_job_id_is_pending_and_not_seen_yet(self) -> None:
        found = after_submission(self.BEFORE, outcome=Submitted(7), limits=LIMITS, now=NOW)
        assert (found.phase, found.job.job_id, found.job.state) == (Phase.PENDING, 7, None)

    def test_a_refusal_ends_the_attempt_with_slurms_words(self) -> None:
        refused = Refused(reason="InvalidPartition", message="no such partition")
        found = after_submission(self.BEFORE, outcome=refused, limits=LIMITS, now=NOW)
        assert (found.phase, found.reason) == (Phase.FAILED, Reason.SUBMIT_REFUSED)
        assert found.message == "InvalidPartition: no such partition"
        assert found.ending.finished_at == NOW

    def test_anything_else_is_unknown(self) -> None:
        unclear = Unclear("timed out")
        found = after_submission(self.BEFORE, outcome=unclear, limits=LIMITS, now=NOW)
        assert found.phase == Phase.SUBMIT_UNKNOWN
        assert found.submission.unknown_since == NOW
        assert "timed out" in (found.message or "")
        assert f"not submitted again before {rfc3339(NOW + 120)}" in (found.message or "")

    def test_b9_where_nothing_was_sent_it_is_neither_unclear_nor_refused(self) -> None:
        nothing = NotSent("login1: Connection refused")
        found = after_submission(self.BEFORE, outcome=nothing, limits=LIMITS, now=NOW)
        assert (found.phase, found.reason) == (Phase.WAITING, Reason.NOT_SUBMITTED)
        assert "login1: Connection refused" in (found.message or "")
        assert (
            found.submission.count,
            found.submission.unknown_since,
            found.submission.unsent,
        ) == (None, None, 1)
        waits = plan_slurm_job(job(status=found), now=NOW + 9)
        assert (waits.actions, waits.status) == ((), found)
        assert waits.requeue_after == pytest.approx(1)
        again = submits(plan_slurm_job(job(status=found), now=NOW + 10))[0].before
        assert again.submission.count == 1
        second = after_submission(again, outcome=nothing, limits=LIMITS, now=NOW + 10)
        assert not submits(plan_slurm_job(job(status=second), now=NOW + 29))
        assert submits(plan_slurm_job(job(status=second), now=NOW + 31))
        sent = after_submission(second, outcome=Unclear("-"), limits=LIMITS, now=NOW + 40)
        assert (sent.submission.unsent, sent.submission.unsent_at) == (None, None)

    def test_b9_what_an_outage_wrote_meanwhile_is_followed_by_the_pause_again(self) -> None:
        nothing = NotSent("login1: Connection refused")
        found = after_submission(self.BEFORE, outcome=nothing, limits=LIMITS, now=NOW)
        away = plan_slurm_job(job(status=found, cluster_changes=STALE), now=NOW + 5).status
        back = plan_slurm_job(job(status=away), now=NOW + 6)
        assert back.actions == ()
        assert rfc3339(NOW + 10) in (back.status.message or "")


class TestTheSameAnswer:
    """F4: an attempt whose answers are never clear comes to an end, at growing intervals."""

    WORDS = "sbatch: error: the portal timed out (request %d)"

    def answered(self, times: int, *, words: str = WORDS) -> AttemptStatus:
        """After so many submissions that were answered alike, each proved to have made no job."""
        now, found = NOW, AttemptStatus()
        for number in range(times):
            plan = plan_slurm_job(job(status=found, starts=(now - 20, now - 10)), now=now)
            (action,) = submits(plan)
            said = words % number if "%d" in words else words
            found = after_submission(
                action.before, outcome=Unclear(said, words=said), limits=LIMITS, now=now
            )
            now += 3600
        return found

    def test_three_times_with_proved_absence_is_a_refusal_with_these_words(self) -> None:
        found = self.answered(3)
        since = found.submission.unknown_since or 0.0
        absent = (since + 121, since + 130)
        refused = plan_slurm_job(job(status=found, starts=absent), now=since + 140)
        assert refused.actions == ()
        assert (refused.status.phase, refused.status.reason) == (
            Phase.FAILED,
            Reason.SUBMIT_REFUSED,
        )
        assert "the portal timed out (request 2)" in (refused.status.message or "")
        assert "3 submissions" in (refused.status.message or "")

    @pytest.mark.parametrize("starts", [(), (121,), (10, 130), (50, 110)])
    def test_not_before_its_absence_is_proved(self, starts: tuple[float, ...]) -> None:
        found = self.answered(3)
        since = found.submission.unknown_since or 0.0
        seen = tuple(since + start for start in starts)
        waits = plan_slurm_job(job(status=found, starts=seen), now=since + 140)
        assert (waits.status.phase, waits.actions) == (Phase.SUBMIT_UNKNOWN, ())

    def test_twice_is_not_enough(self) -> None:
        found = self.answered(2)
        since = found.submission.unknown_since or 0.0
        absent = (since + 350, since + 360)
        assert submits(plan_slurm_job(job(status=found, starts=absent), now=since + 370))

    def test_no_words_are_no_answer(self) -> None:
        assert self.answered(5, words="").submission.same_answers is None

    def test_a_job_that_was_seen_begins_the_count_anew(self) -> None:
        found = self.answered(2)
        seen = plan_slurm_job(job(record("PENDING"), status=found), now=NOW).status
        assert (seen.submission.same_answers, seen.submission.last_answer) == (None, None)

    def test_other_words_begin_it_anew(self) -> None:
        found = self.answered(2)
        other = submission.answered(found, words="Socket timed out")
        assert other.submission.same_answers == 1
        interrupted = plan_slurm_job(job(status=status(Phase.SUBMITTING, same_answers=2)), now=NOW)
        assert interrupted.status.submission.same_answers is None

    def test_each_further_submission_waits_twice_as_long(self) -> None:
        pauses = [submission.unclear_pause(n, limits=LIMITS) for n in (None, 1, 2, 3, 4, 400)]
        assert pauses == [120, 120, 240, 480, 600, 600]
        found = self.answered(2)
        since = found.submission.unknown_since or 0.0
        absent = (since + 121, since + 130)
        waits = plan_slurm_job(job(status=found, starts=absent), now=since + 140)
        assert (waits.status, waits.actions, waits.requeue_after) == (found, (), 100)
        assert f"not submitted again before {rfc3339(since + 240)}" in (found.message or "")
        assert submits(plan_slurm_job(job(status=found, starts=absent), now=since + 241))

    def test_a_deletion_does_not_wait_for_the_pause(self) -> None:
        found = self.answered(2)
        since = found.submission.unknown_since or 0.0
        absent = (since + 121, since + 130)
        gone = plan_slurm_job(job(status=found, starts=absent, deleting=True), now=since + 140)
        assert CloseGate() in gone.actions or RemoveFinalizer() in gone.actions


class TestInterrupted:
    """`Submitting` at the begin of a pass: the pass before ended around sbatch."""

    def test_it_is_unknown_and_not_repeated(self) -> None:
        plan = plan_slurm_job(job(status=status(Phase.SUBMITTING)), now=NOW)
        assert plan.actions == ()
        assert plan.status.phase == Phase.SUBMIT_UNKNOWN
        assert plan.status.submission.unknown_since == NOW
        assert plan.requeue_after == pytest.approx(120)

    def test_also_when_the_cluster_cannot_be_seen_then(self) -> None:
        plan = plan_slurm_job(job(status=status(Phase.SUBMITTING), cluster_changes=STALE), now=NOW)
        assert (plan.status.phase, plan.actions) == (Phase.SUBMIT_UNKNOWN, ())
        later = plan_slurm_job(job(status=plan.status), now=NOW + 60)
        assert later.actions == ()
        assert later.status.submission.unknown_since == NOW + 60

    def test_what_was_accepted_is_found(self) -> None:
        plan = plan_slurm_job(job(record("PENDING"), status=status(Phase.SUBMITTING)), now=NOW)
        assert (plan.status.phase, plan.status.job.job_id) == (Phase.PENDING, 101)
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
            assert (written.phase, written.submission.unknown_since) == (Phase.SUBMITTING, None)
            assert written.submission.started_at == now
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
        assert held.status.submission.unknown_since is not None
        freed = plan_slurm_job(job(status=held.status, starts=starts), now=DEADLINE + 50)
        assert len(submits(freed)) == 1

    @pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED"])
    def test_found_by_name_is_adopted(self, state: str) -> None:
        plan = plan_slurm_job(job(record(state, job_id=55), status=UNKNOWN), now=NOW)
        assert changing(plan) == []
        assert plan.status.job.job_id == 55
        assert plan.status.submission.unknown_since is None

    def test_the_trace_of_a_refusal_is_an_answer_and_no_job(self) -> None:
        trace = record("FAILED", reason="BadConstraints", start_time=None)
        plan = plan_slurm_job(job(trace, status=UNKNOWN), now=NOW)
        assert (plan.status.phase, plan.status.reason) == (Phase.FAILED, Reason.SUBMIT_REFUSED)
        assert plan.actions == ()

    def test_it_is_not_preferred_to_a_job(self) -> None:
        trace = record("FAILED", reason="BadConstraints", job_id=5)
        plan = plan_slurm_job(job(trace, record(job_id=6), status=UNKNOWN), now=NOW)
        assert plan.status.job.job_id == 6
        assert changing(plan) == []

    def test_one_turned_away_at_the_gate_is_not_preferred_to_a_job(self) -> None:
        ghost = record("FAILED", exit_code=75 << 8, job_id=5)
        plan = plan_slurm_job(job(ghost, record(job_id=6), status=UNKNOWN), now=NOW)
        assert plan.status.job.job_id == 6


class TestWipedStatus:
    """A restored backup or a deleted status: identity is in the job."""

    def test_it_adopts_and_does_not_submit(self) -> None:
        plan = plan_slurm_job(job(record(comment=PUBLISHED), status=AttemptStatus()), now=NOW)
        assert plan.actions == ()
        assert (plan.status.job.job_id, plan.status.port) == (101, 41000)
        assert plan.status.phase == Phase.STARTING

    def test_not_before_the_cluster_was_seen(self) -> None:
        plan = plan_slurm_job(job(cluster_changes=STALE), now=NOW)
        assert plan.actions == ()


class TestDuplicates:
    def test_the_one_behind_the_gate_stays(self) -> None:
        first, second = record(job_id=101), record(job_id=102, comment=PUBLISHED)
        plan = plan_slurm_job(job(first, second, status=status(Phase.PENDING)), now=NOW)
        assert plan.status.job.job_id == 102
        assert plan.actions == (Cancel(job_id=101),)

    def test_a_pending_ghost_is_cancelled(self) -> None:
        plan = plan_slurm_job(
            job(record("PENDING", job_id=102), record(), status=status(Phase.STARTING)), now=NOW
        )
        assert plan.status.job.job_id == 101
        assert plan.actions == (Cancel(job_id=102),)

    def test_of_two_running_ones_none_is_cancelled_before_the_gate_has_decided(self) -> None:
        plan = plan_slurm_job(job(record(job_id=102), record(job_id=101), status=UNKNOWN), now=NOW)
        assert plan.status.job.job_id == 101
        assert changing(plan) == []

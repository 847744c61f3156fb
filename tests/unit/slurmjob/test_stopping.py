"""How an attempt whose object is being deleted comes to its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.backends.base import Load
from isthmus.backends.slurm.records import JobRecord
from isthmus.rules.actions import RemoveFinalizer
from isthmus.rules.drain import UNREADABLE
from isthmus.slurmjob.actions import Cancel, CloseGate, ConfirmGone, DeleteSlice, Submit, Terminate
from isthmus.slurmjob.observation import SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.stopping import GHOST_SECONDS
from isthmus.slurmjob.record import AttemptStatus, Gate
from tests.unit.builders import DENIED, MEMBER, NOW, PUBLISHED, STALE, job, record, status

TWO = (NOW - 35, NOW - 5)
SUBMITTED = status(Phase.SUBMITTING)


def plan(
    *records: JobRecord, status: AttemptStatus | None = None, now: float = NOW, **changes: Any
) -> SlurmJobPlan:
    observed = job(*records, status=status, deleting=True, **changes)
    return plan_slurm_job(observed, now=now)


def test_without_our_finalizer_nothing_is_done() -> None:
    assert plan(record(), status=status(Phase.READY), has_finalizer=False).actions == ()


class TestServingWorker:
    """Leave the membership, wait, TERM, wait, scancel."""

    def test_status_that_was_lost_does_not_cut_its_requests(self) -> None:
        running = record(comment=PUBLISHED)
        unseen = plan(running, status=AttemptStatus(), cluster_changes=STALE)
        first = plan(running, status=unseen.status)
        assert first.actions == ()
        assert first.status.phase == Phase.DRAINING

        term = plan(running, status=first.status, now=NOW + 400)
        assert term.actions == (Terminate(job_id=101),)

    def test_the_chain(self) -> None:
        running = record(comment=PUBLISHED)
        first = plan(running, status=status(Phase.READY), slice_target=MEMBER)
        assert first.actions == (DeleteSlice(),)
        assert first.status.phase == Phase.DRAINING
        assert first.status.healthy is False

        out = plan(running, status=first.status)
        assert out.actions == ()
        assert out.requeue_after == pytest.approx(5)

        waits = plan(running, status=out.status, now=NOW + 4)
        assert waits.actions == ()
        assert waits.requeue_after == pytest.approx(1)

        term = plan(running, status=out.status, now=NOW + 5)
        assert term.actions == (Terminate(job_id=101),)
        assert term.requeue_after == pytest.approx(300)

        drains = plan(running, status=term.status, now=NOW + 200)
        assert drains.actions == ()
        assert drains.requeue_after == pytest.approx(105)

        over = plan(running, status=term.status, now=NOW + 305)
        assert over.actions == (Cancel(job_id=101),)
        assert plan(running, status=over.status, now=NOW + 310).actions == ()
        assert plan(running, status=over.status, now=NOW + 315).actions == (Cancel(job_id=101),)

        ending = plan(record("COMPLETING"), status=over.status, now=NOW + 316)
        assert ending.actions == ()
        gone = plan(record("CANCELLED"), status=ending.status, now=NOW + 320)
        assert gone.actions == (RemoveFinalizer(),)

    def test_running_requests_keep_the_engine_until_the_budget_ends(self) -> None:
        busy = {"load": Load(requests=3), "drain_timeout": 60.0}
        first = plan(record(), status=status(Phase.READY), **busy).status
        waits = plan(record(), status=first, now=NOW + 64, **busy)
        assert waits.actions == ()
        assert waits.requeue_after == pytest.approx(1)
        idle = plan(record(), status=first, now=NOW + 64, drain_timeout=60.0)
        assert idle.actions == (Terminate(job_id=101),)
        assert idle.status.ending.drained == "Idle"

        cut = plan(record(), status=first, now=NOW + 65, **busy)
        assert cut.actions == (Terminate(job_id=101),)
        assert (cut.status.ending.drained, cut.status.ending.cut) == ("Timeout", 3)
        later = plan(record(), status=cut.status, now=NOW + 70).status
        assert later.reason == Reason.DRAIN_TIMEOUT
        assert later.message == "3 requests interrupted after drain.timeout 1m"

    def test_silent_metrics_leave_the_engine_its_whole_budget_after_term(self) -> None:
        silent = {"load": UNREADABLE, "drain_timeout": 600.0}
        first = plan(record(), status=status(Phase.READY), **silent).status
        term = plan(record(), status=first, now=NOW + 5, **silent)
        assert term.actions == (Terminate(job_id=101),)
        assert term.status.ending.drained == "Unknown"
        assert plan(record(), status=term.status, now=NOW + 900, **silent).actions == ()
        over = plan(record(), status=term.status, now=NOW + 905, **silent)
        assert over.actions == (Cancel(job_id=101),)

    def test_a_restart_goes_on_with_the_same_drain(self) -> None:
        """All it needs stands in the status; before the first reading nothing is concluded."""
        first = plan(record(), status=status(Phase.READY)).status
        unread = plan(record(), status=first, now=NOW + 60, load=Load(requests=None))
        assert unread.actions == ()
        assert unread.status.ending.draining_since == first.ending.draining_since

    def test_the_wait_begins_when_the_slice_is_gone(self) -> None:
        """A deletion that took long, or failed: no TERM before every node could hear of it."""
        first = plan(record(), status=status(Phase.READY)).status
        still = plan(record(), status=first, now=NOW + 60, slice_target=MEMBER)
        assert still.actions == (DeleteSlice(),)
        out = plan(record(), status=still.status, now=NOW + 61)
        assert out.actions == ()
        assert out.requeue_after == pytest.approx(5)

    @pytest.mark.parametrize("word", ["SIGNALING", "RESIZING", "NEVER_HEARD_OF"])
    def test_a_passing_word_does_not_cut_the_drain_short(self, word: str) -> None:
        """SLURM itself shows SIGNALING while it delivers our TERM."""
        first = plan(record(), status=status(Phase.READY)).status
        assert plan(record(word), status=first, now=NOW + 1).actions == ()
        term = plan(record(word), status=first, now=NOW + 5)
        assert term.actions == (Terminate(job_id=101),)
        assert plan(record(word), status=term.status, now=NOW + 6).actions == ()

    def test_an_engine_that_ends_early_is_not_cancelled(self) -> None:
        first = plan(record(), status=status(Phase.READY)).status
        assert plan(record("COMPLETED"), status=first).actions == (RemoveFinalizer(),)

    def test_a_degraded_worker_may_still_have_requests(self) -> None:
        assert plan(record(), status=status(Phase.DEGRADED)).actions == ()


@pytest.mark.parametrize(
    ("state", "before"),
    [
        ("PENDING", Phase.PENDING),
        ("PENDING", Phase.SUBMIT_UNKNOWN),
        ("RUNNING", Phase.STARTING),
        ("CONFIGURING", Phase.STARTING),
        ("SUSPENDED", Phase.STARTING),
    ],
)
def test_what_serves_nobody_is_cancelled_at_once(state: str, before: Phase) -> None:
    found = plan(record(state), status=status(before))
    assert found.actions == (Cancel(job_id=101),)
    assert found.status.phase == Phase.DRAINING


def test_a_job_that_is_suspended_after_its_term_keeps_its_grace() -> None:
    """It goes on when it wakes: seed 589."""
    running = record(comment=PUBLISHED)
    out = plan(running, status=status(Phase.READY))
    term = plan(running, status=out.status, now=NOW + 5)
    assert term.actions == (Terminate(job_id=101),)

    suspended = record(comment=PUBLISHED, state="SUSPENDED")
    waits = plan(suspended, status=term.status, now=NOW + 200)
    assert waits.actions == ()
    assert waits.requeue_after == pytest.approx(105)
    late = plan(suspended, status=waits.status, now=NOW + 305)
    assert late.actions == (Cancel(job_id=101),)


@pytest.mark.parametrize("before", [status(Phase.DEGRADED), AttemptStatus()])
def test_a_suspended_job_may_wake_with_its_requests(before: AttemptStatus) -> None:
    """Also where the status was lost, and nobody knows whether it was told to end: seed 1895."""
    suspended = record(comment=PUBLISHED, state="SUSPENDED")
    first = plan(suspended, status=before)
    assert first.actions == ()
    told = plan(suspended, status=first.status, now=NOW + 20, load=UNREADABLE)
    assert told.actions == (Terminate(job_id=101),)
    waits = plan(suspended, status=told.status, now=NOW + 50, load=UNREADABLE)
    assert waits.actions == ()
    late = plan(suspended, status=waits.status, now=NOW + 1000, load=UNREADABLE)
    assert late.actions == (Cancel(job_id=101),)


def test_a_job_whose_start_slurm_has_forgotten_drains_as_one_that_runs() -> None:
    """The answer may be an old one: seed 948."""
    out = plan(record(comment=PUBLISHED), status=status(Phase.READY))
    waits = plan(record("PENDING"), status=out.status, now=NOW + 6, load=Load(requests=1))
    assert waits.actions == ()
    told = plan(record("PENDING"), status=waits.status, now=NOW + 400, load=Load(requests=1))
    assert told.actions == (Terminate(job_id=101),)


def test_surplus_jobs_are_cancelled_too() -> None:
    found = plan(record("PENDING"), record("PENDING", job_id=102), status=status(Phase.PENDING))
    assert set(found.actions) == {Cancel(job_id=101), Cancel(job_id=102)}


class TestNothingLeft:
    @pytest.mark.parametrize("over", [phase for phase in Phase if phase.terminal])
    def test_an_ended_attempt_goes_even_where_the_cluster_cannot_be_seen(self, over: Phase) -> None:
        found = plan(status=status(over), cluster_changes=STALE, slice_target=MEMBER)
        assert found.actions == (DeleteSlice(), RemoveFinalizer())

    def test_a_never_submitted_one_goes(self) -> None:
        assert plan(status=status(Phase.WAITING)).actions == (RemoveFinalizer(),)

    def test_not_before_the_cluster_was_seen(self) -> None:
        """The status may be a restored one: its job is then still in the queue."""
        for how in (STALE, DENIED):
            found = plan(status=AttemptStatus(), cluster_changes=how)
            assert found.actions == ()

    def test_one_with_a_lost_status_is_found_and_cancelled(self) -> None:
        assert plan(record("PENDING")).actions == (Cancel(job_id=101),)

    def test_seen_and_missing_needs_two_snapshots_and_the_second_source(self) -> None:
        before = status(Phase.READY)
        assert plan(status=before, last_seen=NOW - 35).actions == ()
        twice = plan(status=before, starts=TWO, last_seen=NOW - 65)
        assert twice.actions == (ConfirmGone(job_id=101),)
        gone = plan(status=twice.status, starts=TWO, confirmed_gone=True)
        assert gone.actions == (RemoveFinalizer(),)


class TestUnclear:
    """A submission whose outcome is not known is resolved before anything is let go."""

    def test_it_is_looked_for_then_its_gate_is_closed(self) -> None:
        since = NOW + 0.0
        first = plan(status=SUBMITTED)
        assert first.actions == ()
        assert first.status.submission.unknown_since == since
        assert first.requeue_after == pytest.approx(120)
        early = plan(status=first.status, starts=(since + 10, since + 90), now=since + 121)
        assert early.actions == ()
        one = plan(status=first.status, starts=(since + 90, since + 121), now=since + 125)
        assert one.actions == ()
        assert one.requeue_after is not None
        assert one.requeue_after >= 1
        both = plan(status=first.status, starts=(since + 121, since + 151), now=since + 155)
        assert both.actions == (CloseGate(), RemoveFinalizer())

    def test_acknowledged_and_never_seen_too(self) -> None:
        acknowledged = status(Phase.PENDING, state=None)
        found = plan(status=acknowledged, starts=TWO)
        assert found.actions == ()
        assert found.status.submission.unknown_since == NOW

    def test_what_turns_up_is_ended(self) -> None:
        first = plan(status=SUBMITTED).status
        assert plan(record("PENDING"), status=first).actions == (Cancel(job_id=101),)
        over = plan(record("CANCELLED"), status=status(Phase.SUBMIT_UNKNOWN))
        assert over.actions == (CloseGate(sure=True), RemoveFinalizer())
        never_ran = record("CANCELLED", nodes="", batch_host="")
        never = plan(never_ran, status=status(Phase.SUBMIT_UNKNOWN))
        assert never.actions == (CloseGate(), RemoveFinalizer())


@pytest.mark.parametrize("how", [STALE, DENIED])
@pytest.mark.parametrize(
    "before",
    [Phase.SUBMITTING, Phase.SUBMIT_UNKNOWN, Phase.PENDING, Phase.STARTING, Phase.READY],
)
def test_an_unseen_cluster_holds_the_object_and_says_why(
    how: dict[str, Any], before: Phase
) -> None:
    found = plan(status=status(before), cluster_changes=how)
    assert found.actions == ()
    assert found.status.phase == Phase.DRAINING
    assert found.status.reason == how["reason"]
    assert how["message"] in (found.status.message or "")
    again = plan(status=found.status, cluster_changes=how, now=NOW + 900)
    assert again.status == found.status


def test_after_the_outage_the_chain_goes_on() -> None:
    held = plan(status=status(Phase.READY), cluster_changes=STALE, slice_target=MEMBER)
    assert held.actions == (DeleteSlice(),)
    out = plan(record(), status=held.status, now=NOW + 890)
    assert out.actions == ()
    back = plan(record(), status=out.status, now=NOW + 900)
    assert back.actions == (Terminate(job_id=101),)


def test_nothing_is_submitted_for_an_object_that_is_being_deleted() -> None:
    observed = job(status=status(Phase.SUBMIT_UNKNOWN), starts=(NOW + 200, NOW + 230))
    wanted = plan_slurm_job(observed, now=NOW + 240)
    assert any(isinstance(action, Submit) for action in wanted.actions)
    unwanted = plan_slurm_job(replace(observed, deleting=True), now=NOW + 240)
    assert not any(isinstance(action, Submit) for action in unwanted.actions)


def test_a_ghost_is_cancelled_before_an_ended_attempt_is_let_go() -> None:
    """The attempt is over, and a second submission of it still waits in the queue."""
    over, ghost = record("CANCELLED", job_id=101), record("PENDING", job_id=105)
    ended = status(Phase.FINISHED, job_id=101, state="CANCELLED")
    plan = plan_slurm_job(job(over, ghost, status=ended, deleting=True), now=NOW)
    assert plan.actions == (Cancel(job_id=105),)
    gone = record("CANCELLED", job_id=105)
    plan = plan_slurm_job(job(over, gone, status=ended, deleting=True), now=NOW)
    assert plan.actions == (RemoveFinalizer(),)


class TestGhosts:
    """A job of an earlier, unclear submission may turn up after the attempt has ended."""

    REFUSED = status(Phase.FAILED, reason="SubmitRefused", submissions=2)

    def test_the_gate_is_closed_where_no_job_of_the_attempt_started(self) -> None:
        assert plan(status=self.REFUSED).actions == (CloseGate(), RemoveFinalizer())
        never_ran = status(Phase.PENDING, submissions=2)
        queued = record("CANCELLED", nodes="", batch_host="")
        cancelled = plan(queued, status=never_ran)
        assert cancelled.actions == (CloseGate(), RemoveFinalizer())

    def test_a_claimed_gate_is_trusted_once_the_claimant_had_the_time_to_show(self) -> None:
        claimed = replace(self.REFUSED, gate=Gate(claimed_at=NOW - 60))
        assert plan(status=claimed).actions == (CloseGate(), RemoveFinalizer())
        waited = plan(status=claimed, starts=TWO)
        assert waited.actions == (CloseGate(sure=True), RemoveFinalizer())

    def test_nobody_can_come_after_one_clear_submission(self) -> None:
        once = replace(self.REFUSED, submission=replace(self.REFUSED.submission, count=1))
        assert plan(status=once).actions == (RemoveFinalizer(),)

    def test_nobody_can_come_once_the_gate_was_claimed(self) -> None:
        ran = replace(self.REFUSED, job=replace(self.REFUSED.job, start_time=NOW - 100))
        assert plan(status=ran).actions == (RemoveFinalizer(),)


class TestGateThatCannotBeClosed:
    """Its folder is gone or cannot be written: an attempt is not held for ever."""

    GHOSTLY = status(Phase.PENDING, state=None, job_id=None, submissions=2)

    def closing(self, *, failed_for: float | None) -> CloseGate:
        failed = None if failed_for is None else NOW - failed_for
        over = replace(self.GHOSTLY, phase=Phase.FAILED, gate=Gate(failed_at=failed))
        gate = plan(status=over).actions[0]
        assert isinstance(gate, CloseGate)
        return gate

    def test_it_is_needed_while_a_ghost_may_come(self) -> None:
        assert not self.closing(failed_for=None).may_fail
        assert not self.closing(failed_for=GHOST_SECONDS - 1).may_fail

    def test_it_is_not_when_none_can_come_any_more(self) -> None:
        assert self.closing(failed_for=GHOST_SECONDS).may_fail


def test_a_job_that_was_cancelled_in_the_queue_has_not_claimed_the_gate() -> None:
    """SLURM gives it a start time all the same (recorded): a ghost may still come."""
    cancelled = record("CANCELLED", nodes="", batch_host="")
    twice = status(Phase.PENDING, submissions=2)
    followed = plan_slurm_job(job(cancelled, status=twice), now=NOW).status
    assert followed.job.start_time is None
    gate, *_ = plan(cancelled, status=followed).actions
    assert gate == CloseGate(sure=False)
    assert plan(record("CANCELLED"), status=twice).actions == (
        CloseGate(sure=True),
        RemoveFinalizer(),
    )

"""One attempt and one job: what is done for each observation of a job that is wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import Phase, Reason
from isthmus.api.times import rfc3339
from isthmus.rules.actions import AddFinalizer
from isthmus.slurmjob.actions import Cancel, ConfirmGone, DeleteSlice, EnsureSlice, Submit
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from tests.unit.builders import (
    ATTEMPT,
    DENIED,
    MEMBER,
    NOW,
    PUBLISHED,
    STALE,
    job,
    node,
    record,
    snapshot,
    status,
)

TWO = (NOW - 35, NOW - 5)
"""Two complete snapshots, both younger than anything the statuses here speak of."""


def plan(observed: SlurmJobObservation, *, now: float = NOW) -> SlurmJobPlan:
    return plan_slurm_job(observed, now=now)


def test_the_finalizer_comes_first() -> None:
    found = plan(job(has_finalizer=False))
    assert found.actions == (AddFinalizer(),)
    assert found.requeue_after == 0


class TestFollowing:
    """A record with the attempt's name is in the snapshot."""

    @pytest.mark.parametrize(
        ("state", "before", "phase", "reason"),
        [
            ("PENDING", Phase.WAITING, Phase.PENDING, Reason.PENDING_RESOURCES),
            ("PENDING", None, Phase.PENDING, Reason.PENDING_RESOURCES),
            ("CONFIGURING", Phase.PENDING, Phase.STARTING, Reason.JOB_STARTING),
            ("RUNNING", Phase.PENDING, Phase.STARTING, Reason.JOB_STARTING),
            ("RUNNING", Phase.SUBMIT_UNKNOWN, Phase.STARTING, Reason.JOB_STARTING),
            ("RUNNING", Phase.SUBMITTING, Phase.STARTING, Reason.JOB_STARTING),
            ("RUNNING", None, Phase.STARTING, Reason.JOB_STARTING),
            ("SUSPENDED", Phase.READY, Phase.DEGRADED, Reason.JOB_SUSPENDED),
            ("STOPPED", Phase.READY, Phase.DEGRADED, Reason.JOB_SUSPENDED),
            ("COMPLETING", Phase.READY, Phase.TERMINATING, Reason.JOB_TERMINATING),
            ("COMPLETED", Phase.READY, Phase.FINISHED, Reason.JOB_COMPLETED),
            ("CANCELLED", Phase.READY, Phase.FINISHED, Reason.JOB_CANCELLED),
            ("FAILED", Phase.STARTING, Phase.FAILED, Reason.JOB_FAILED),
            ("TIMEOUT", Phase.READY, Phase.EXPIRED, Reason.JOB_TIME_LIMIT),
            ("NODE_FAIL", Phase.READY, Phase.NODE_FAULT, Reason.JOB_NODE_FAILED),
            ("BOOT_FAIL", Phase.STARTING, Phase.NODE_FAULT, Reason.JOB_NODE_FAILED),
            ("PREEMPTED", Phase.READY, Phase.PREEMPTED, Reason.JOB_PREEMPTED),
            ("OUT_OF_MEMORY", Phase.STARTING, Phase.FAILED, Reason.JOB_OUT_OF_MEMORY),
            ("DEADLINE", Phase.PENDING, Phase.FAILED, Reason.JOB_FAILED),
        ],
    )
    def test_phase(self, state: str, before: Phase | None, phase: Phase, reason: Reason) -> None:
        found = plan(job(record(state), status=status(before)))
        assert (found.status.phase, found.status.reason) == (phase, reason)
        assert found.status.job.job_id == 101
        assert found.status.job.state == state
        assert not any(isinstance(action, Submit | Cancel) for action in found.actions)
        assert (found.status.ending.finished_at is not None) == phase.terminal

    @pytest.mark.parametrize("state", ["RESIZING", "SIGNALING", "UPDATE_DB", "NEVER_HEARD_OF"])
    @pytest.mark.parametrize("before", [Phase.STARTING, Phase.READY, Phase.DEGRADED])
    def test_passing_and_unknown_words_keep_the_phase(self, state: str, before: Phase) -> None:
        found = plan(job(record(state), status=status(before), slice_target=None))
        assert found.status.phase == before

    @pytest.mark.parametrize("state", ["SIGNALING", "NEVER_HEARD_OF"])
    @pytest.mark.parametrize("before", [None, Phase.WAITING, Phase.SUBMIT_UNKNOWN, Phase.PENDING])
    def test_passing_and_unknown_words_are_a_job_all_the_same(
        self, state: str, before: Phase | None
    ) -> None:
        found = plan(job(record(state), status=status(before)))
        assert found.status.phase == Phase.STARTING
        assert found.status.job.job_id == 101
        assert found.status.submission.unknown_since is None

    @pytest.mark.parametrize("state", ["RUNNING", "SIGNALING", "NEVER_HEARD_OF"])
    def test_failing_probes_count_whatever_the_word(self, state: str) -> None:
        found = plan(
            job(
                record(state),
                status=status(Phase.READY),
                probe_healthy=False,
                probe_reason="Timeout",
                slice_target=MEMBER,
            )
        )
        assert found.status.phase == Phase.DEGRADED
        assert found.actions == (DeleteSlice(),)

    def test_what_slurm_says_is_taken_over(self) -> None:
        found = plan(job(record(comment=PUBLISHED), status=status(Phase.PENDING))).status
        assert (found.job.nodes, found.host, found.port) == ("gpu01", *MEMBER)
        assert found.url == "http://10.10.0.1:41000"
        assert found.job.start_time == int(NOW) - 100
        assert found.job.end_time == int(NOW) + 3600

    def test_a_granted_end_that_moves_is_followed(self) -> None:
        for end in (int(NOW) + 60, int(NOW) + 7200):
            found = plan(job(record(end_time=end), status=status(Phase.READY))).status
            assert found.job.end_time == end

    @pytest.mark.parametrize("state", ["COMPLETING", "REQUEUED", "REQUEUE_HOLD"])
    def test_the_moment_of_a_cancellation_is_no_time_limit(self, state: str) -> None:
        """Found in a run of all releases: a job that was cancelled was told as TimeLimitNear."""
        granted = status(Phase.READY)
        granted = replace(granted, job=replace(granted.job, end_time=NOW + 3600))
        ending = plan(job(record(state, end_time=int(NOW)), status=granted)).status
        assert ending.job.end_time == NOW + 3600
        over = plan(job(record("CANCELLED", end_time=int(NOW)), status=ending)).status
        assert over.job.end_time == NOW

    def test_an_attempt_that_is_over_stays_over(self) -> None:
        over = status(Phase.FAILED, job_id=101, reason="JobFailed")
        found = plan(job(record("COMPLETED", comment=PUBLISHED), status=over, probe_healthy=True))
        assert found.status == over
        assert found.actions == ()
        assert plan(job(status=over, slice_target=MEMBER)).actions == (DeleteSlice(),)

    def test_a_job_that_turns_up_after_the_end_of_its_attempt_is_cancelled(self) -> None:
        over = status(Phase.FAILED, job_id=101, reason="JobFailed")
        for state in ("PENDING", "RUNNING"):
            found = plan(job(record(state, job_id=102), status=over, probe_healthy=True))
            assert found.status.phase == Phase.FAILED
            assert found.actions == (Cancel(job_id=102),)
            again = plan(job(record(state, job_id=102), status=found.status))
            assert again.actions == ()

    @pytest.mark.parametrize("state", ["REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "PENDING"])
    def test_a_requeued_job_leaves_the_membership_and_is_given_up(self, state: str) -> None:
        again = record(state, restart_count=1, reason="BeginTime")
        found = plan(job(again, status=status(Phase.READY), slice_target=MEMBER))
        assert found.actions == (DeleteSlice(), Cancel(job_id=101))
        assert found.status.phase not in {Phase.READY, Phase.DEGRADED}
        assert found.status.reason == Reason.JOB_REQUEUED
        assert found.status.healthy is False
        # The reason stays when the job has ended by our cancel.
        ended = plan(job(record("CANCELLED", restart_count=1), status=found.status)).status
        assert (ended.phase, ended.reason) == (Phase.FAILED, Reason.JOB_REQUEUED)

    def test_a_ready_worker_whose_start_slurm_has_forgotten_stays_while_it_answers(self) -> None:
        """An old copy of the queue took a whole membership away: seed 948."""
        told = {"status": status(Phase.READY), "slice_target": MEMBER}
        stays = plan(job(record("PENDING"), probe_healthy=True, **told))
        assert stays.actions == ()
        assert stays.status.phase == Phase.READY
        dead = plan(job(record("PENDING"), probe_healthy=False, **told))
        assert dead.actions == (DeleteSlice(),)
        assert dead.status.phase == Phase.PENDING

    def test_a_suspended_job_comes_back(self) -> None:
        away = plan(job(record("SUSPENDED"), status=status(Phase.READY), slice_target=MEMBER))
        assert away.actions == (DeleteSlice(),)
        back = plan(job(record(comment=PUBLISHED), status=away.status, probe_healthy=True))
        assert back.status.phase == Phase.READY
        assert back.actions == (EnsureSlice(*MEMBER),)

    def test_a_job_suspended_while_it_starts_is_starting_when_it_comes_back(self) -> None:
        """And so falls under startupTimeout again."""
        away = plan(job(record("SUSPENDED"), status=status(Phase.STARTING))).status
        assert away.phase == Phase.DEGRADED
        assert plan(job(record(), status=away)).status.phase == Phase.STARTING
        late = record(start_time=int(NOW) - 1900)
        gone = plan(job(late, status=away, probe_healthy=False))
        assert gone.actions == (Cancel(job_id=101),)


class TestPending:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("None", Reason.PENDING_RESOURCES),
            ("Priority", Reason.PENDING_RESOURCES),
            ("ReqNodeNotAvail, UnavailableNodes:gpu04", Reason.PENDING_RESOURCES),
            ("QOSMaxGRESPerUser", Reason.PENDING_QUOTA),
            ("AssocGrpGRES", Reason.PENDING_QUOTA),
            ("JobHeldAdmin", Reason.PENDING_HELD),
        ],
    )
    def test_waiting_is_told_and_nothing_done(self, word: str, reason: Reason) -> None:
        found = plan(job(record("PENDING", reason=word), status=status(Phase.PENDING)))
        assert found.status.phase == Phase.PENDING
        assert found.status.reason == reason
        assert word.split(",")[0] in (found.status.message or "")
        assert found.actions == ()

    @pytest.mark.parametrize(
        ("word", "delay"), [("PartitionTimeLimit", 10), ("PartitionConfig", 60)]
    )
    def test_never_is_believed_after_a_while(self, word: str, delay: int) -> None:
        young = record("PENDING", reason=word, submit_time=int(NOW) - 5 - delay + 3)
        found = plan(job(young, status=status(Phase.PENDING)))
        assert found.actions == ()
        assert found.status.reason == Reason.PENDING_NEVER
        assert found.requeue_after is not None
        assert 0 < found.requeue_after <= delay
        old = replace(young, submit_time=int(NOW) - 5 - delay)
        found = plan(job(old, status=found.status))
        assert found.actions == (Cancel(job_id=101),)
        gone = plan(job(replace(old, state="CANCELLED"), status=found.status)).status
        assert (gone.phase, gone.reason) == (Phase.FAILED, Reason.PENDING_NEVER)
        assert word in (gone.message or "")

    def test_a_cancel_without_effect_is_sent_again_but_not_at_once(self) -> None:
        never = record("PENDING", reason="InvalidQOS", submit_time=int(NOW) - 100)
        given_up = plan(job(never, status=status(Phase.PENDING))).status
        soon = plan(job(never, status=given_up), now=NOW + 4)
        assert soon.actions == ()
        assert soon.requeue_after == pytest.approx(6)
        assert plan(job(never, status=given_up), now=NOW + 10).actions == (Cancel(job_id=101),)

    def test_a_job_given_up_and_forgotten_by_slurm_keeps_the_reason(self) -> None:
        never = record("PENDING", reason="InvalidQOS", submit_time=int(NOW) - 100)
        given_up = plan(job(never, status=status(Phase.PENDING))).status
        found = plan(job(status=given_up, starts=TWO, confirmed_gone=True)).status
        assert (found.phase, found.reason) == (Phase.FAILED, Reason.PENDING_NEVER)


class TestMissing:
    """The job has an id and no snapshot shows it."""

    def test_once_is_nothing(self) -> None:
        before = status(Phase.READY)
        found = plan(job(status=before, slice_target=MEMBER, last_seen=NOW - 35))
        assert found.status == before
        assert found.actions == ()
        assert found.requeue_after is not None

    def test_twice_asks_the_second_source(self) -> None:
        before = status(Phase.READY)
        found = plan(job(status=before, starts=TWO, last_seen=NOW - 65, slice_target=MEMBER))
        assert found.actions == (ConfirmGone(job_id=101),)
        assert found.status == before

    def test_twice_and_confirmed_is_gone(self) -> None:
        found = plan(
            job(status=status(Phase.READY), starts=TWO, confirmed_gone=True, slice_target=MEMBER)
        )
        assert (found.status.phase, found.status.reason) == (Phase.FINISHED, Reason.JOB_VANISHED)
        assert found.status.ending.finished_at == NOW
        assert found.actions == (DeleteSlice(),)

    def test_an_engine_that_answers_with_our_attempt_is_kept(self) -> None:
        found = plan(
            job(
                status=status(Phase.READY),
                starts=TWO,
                probe_healthy=True,
                confirmed_gone=True,
                slice_target=MEMBER,
            )
        )
        assert found.status.phase == Phase.READY
        assert "does not list" in (found.status.message or "")
        assert found.actions == ()

    @pytest.mark.parametrize("starts", [TWO[1:], TWO])
    def test_failing_probes_take_it_out_of_rotation_meanwhile(self, starts: Any) -> None:
        found = plan(
            job(
                status=status(Phase.READY),
                starts=starts,
                last_seen=NOW - 65,
                probe_healthy=False,
                probe_reason="Refused",
                slice_target=MEMBER,
            )
        )
        assert found.status.phase == Phase.DEGRADED
        assert DeleteSlice() in found.actions

    def test_acknowledged_but_never_seen_is_doubt_and_no_failure(self) -> None:
        acknowledged = status(Phase.PENDING, state=None)
        assert plan(job(status=acknowledged)).status == acknowledged
        found = plan(job(status=acknowledged, starts=TWO))
        assert found.status.phase == Phase.SUBMIT_UNKNOWN
        assert found.status.submission.unknown_since == NOW
        assert found.actions == ()

    def test_a_snapshot_begun_before_the_submission_proves_nothing(self) -> None:
        acknowledged = status(Phase.PENDING, state=None, submit_started_at=rfc3339(NOW - 20))
        assert plan(job(status=acknowledged, starts=TWO)).status == acknowledged


class TestUnseenCluster:
    """Rule 2: a failed look is no absence, and nothing is done on what cannot be seen."""

    @pytest.mark.parametrize("how", [STALE, DENIED])
    @pytest.mark.parametrize("before", [None, *Phase])
    def test_no_action(self, how: dict[str, Any], before: Phase | None) -> None:
        member = MEMBER if before is Phase.READY else None
        for records in ((), (record("COMPLETED"),), (record("PENDING", restart_count=1),)):
            found = plan(
                job(*records, status=status(before), cluster_changes=how, slice_target=member)
            )
            assert found.actions == ()
            if before not in {None, Phase.WAITING, Phase.SUBMITTING}:
                assert found.status.phase == before

    def test_the_cause_is_told_to_who_waits(self) -> None:
        found = plan(job(cluster_changes=STALE)).status
        assert (found.phase, found.reason) == (Phase.WAITING, "ControllerUnreachable")

    def test_before_the_first_look_nothing_is_told(self) -> None:
        """After a restore a thousand attempts may have no status, and are about to be adopted."""
        first = {**STALE, "reason": Reason.NOT_OBSERVED_YET}
        observed = job(status=status(None), cluster_changes=first)
        assert plan(observed).status == observed.status
        member = plan(job(status=status(None), cluster_changes=first, slice_target=MEMBER))
        assert member.actions == (), "a member that lost its status stays one"

    @pytest.mark.parametrize("before", [Phase.STARTING, Phase.DEGRADED])
    def test_a_healthy_worker_joins(self, before: Phase) -> None:
        found = plan(job(status=status(before), cluster_changes=STALE, probe_healthy=True))
        assert found.status.phase == Phase.READY
        assert found.actions == (EnsureSlice(*MEMBER),)

    def test_a_failing_worker_leaves(self) -> None:
        found = plan(
            job(
                status=status(Phase.READY),
                cluster_changes=STALE,
                probe_healthy=False,
                probe_reason="Refused",
                probe_message="refused",
                slice_target=MEMBER,
            )
        )
        assert (found.status.phase, found.status.reason) == (Phase.DEGRADED, Reason.PROBE_FAILED)
        assert found.actions == (DeleteSlice(),)

    def test_a_worker_that_was_given_up_does_not_join(self) -> None:
        late = record(start_time=int(NOW) - 1900)
        given_up = plan(job(late, status=status(Phase.STARTING), probe_healthy=False))
        assert Cancel(job_id=101) in given_up.actions
        found = plan(job(status=given_up.status, cluster_changes=STALE, probe_healthy=True))
        assert found.actions == ()


class TestMembership:
    def test_it_joins_once_and_stays(self) -> None:
        healthy = {"status": status(Phase.STARTING), "probe_healthy": True}
        assert plan(job(record(comment=PUBLISHED), **healthy)).actions == (EnsureSlice(*MEMBER),)
        again = plan(job(record(comment=PUBLISHED), **healthy, slice_target=MEMBER))
        assert again.actions == ()

    def test_a_wrong_slice_is_put_right(self) -> None:
        found = plan(job(record(), status=status(Phase.READY), slice_target=("10.10.0.9", 41000)))
        assert found.actions == (EnsureSlice(*MEMBER),)

    def test_a_restart_of_the_operator_takes_nobody_out(self) -> None:
        before = status(Phase.READY, reason=Reason.HEALTHY, submit_time=rfc3339(int(NOW) - 120))
        found = plan(job(record(comment=PUBLISHED), status=before, slice_target=MEMBER))
        assert found.status.phase == Phase.READY
        assert found.actions == ()

    def test_another_address_is_not_trusted_before_it_was_probed(self) -> None:
        """Any job of the same user may rewrite the comment."""
        before = status(Phase.STARTING)
        moved = record(comment=PUBLISHED.replace("41000", "41666"))
        found = plan(job(moved, status=before, probe_healthy=True))
        assert found.status.phase == Phase.STARTING
        assert found.status.port == 41666
        assert found.actions == ()
        answered = plan(job(moved, status=found.status, probe_healthy=True))
        assert answered.actions == (EnsureSlice("10.10.0.1", 41666),)

    def test_without_an_address_nothing_is_ready(self) -> None:
        """The status was wiped and the comment rewritten; the probes still speak of the address."""
        found = plan(job(record(comment="account=proj"), probe_healthy=True))
        assert found.status.phase == Phase.STARTING
        late = record(comment="account=proj", start_time=int(NOW) - 7200)
        assert plan(job(late, probe_healthy=True)).actions == (Cancel(job_id=101),)

    def test_a_member_whose_status_was_wiped_stays_a_member(self) -> None:
        """Our own slice says where it is and that it was ready; the comment may be lost too."""
        for comment in (PUBLISHED, "account=proj"):
            found = plan(job(record(comment=comment), slice_target=MEMBER))
            assert found.status.phase == Phase.READY
            assert found.status.ever_ready is True
            assert found.status.url == "http://10.10.0.1:41000"
            assert found.actions == ()
        unseen = plan(job(slice_target=MEMBER, cluster_changes=STALE))
        assert unseen.actions == ()
        elsewhere = plan(job(record(comment=PUBLISHED), slice_target=("10.10.0.9", 41000)))
        assert elsewhere.status.phase == Phase.STARTING
        assert elsewhere.actions == (DeleteSlice(),)

    @pytest.mark.parametrize("port", ["22", "41666"])
    def test_a_forged_comment_does_not_move_a_worker_that_serves(self, port: str) -> None:
        forged = record(comment=PUBLISHED.replace("41000", port))
        for phase in (Phase.READY, Phase.DEGRADED):
            found = plan(job(forged, status=status(phase), probe_healthy=True, slice_target=MEMBER))
            assert found.status.phase == Phase.READY
            assert found.status.url == "http://10.10.0.1:41000"
            assert found.actions == ()

    def test_a_late_look_cancels_nothing_before_the_probes_have_spoken(self) -> None:
        """A status that was wiped, or an operator that was away for longer than a start takes."""
        old = record(comment=PUBLISHED, start_time=int(NOW) - 7200)
        found = plan(job(old))
        assert found.status.phase == Phase.STARTING
        assert found.actions == ()
        assert plan(job(old, status=found.status, probe_healthy=True)).status.phase == Phase.READY
        never = plan(job(old, status=found.status, probe_healthy=False))
        assert never.actions == (Cancel(job_id=101),)

    def test_a_rewritten_comment_changes_nothing(self) -> None:
        for comment in ("", "site policy", PUBLISHED.replace(ATTEMPT, "abcdef")):
            found = plan(
                job(record(comment=comment), status=status(Phase.READY), slice_target=MEMBER)
            )
            assert found.actions == ()
            assert found.status.url == "http://10.10.0.1:41000"

    def test_an_ipv6_address_makes_a_valid_url(self) -> None:
        observed = job(record(comment=PUBLISHED), status=status(Phase.PENDING))
        six = snapshot(record(), nodes=(node(address="fd00::7"),))
        cluster = replace(observed.cluster, snapshot=six)
        found = plan(replace(observed, cluster=cluster))
        assert found.status.url == "http://[fd00::7]:41000"
        assert plan(
            replace(observed, cluster=cluster, status=found.status, probe_healthy=True)
        ).actions == (EnsureSlice("fd00::7", 41000),)

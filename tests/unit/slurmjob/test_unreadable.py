"""Records of SLURM that cannot be read: they are there, and nothing more is concluded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.api.conditions import ConditionType, Phase, Reason
from isthmus.api.slurmcluster import SlurmClusterStatus
from isthmus.backends.base import Load
from isthmus.backends.slurm.records import Snapshot, UnreadableJob
from isthmus.rules.actions import RemoveFinalizer
from isthmus.slurmcluster.plan import SlurmClusterObservation, slurm_cluster_status
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob.actions import Cancel, CloseGate, ConfirmGone, DeleteSlice, Submit, Terminate
from isthmus.slurmjob.observation import SlurmJobObservation, SlurmJobPlan
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.record import AttemptStatus
from isthmus.telemetry.transitions import transitions
from tests.unit.builders import (
    JOB_NAME,
    MEMBER,
    NOW,
    PUBLISHED,
    job,
    record,
    snapshot,
    status,
)

PROBLEM = "exit_code is '0:0:0'"
STRANGE = UnreadableJob(job_id=101, name=JOB_NAME, problem=PROBLEM)
NAMELESS = ("JobID is '1+0'",)
TWO = (NOW - 35, NOW - 5)
LIVING = [Phase.PENDING, Phase.STARTING, Phase.READY, Phase.DEGRADED]
ALL = [None, Phase.WAITING, Phase.SUBMIT_UNKNOWN, *LIVING]


def plan(observed: SlurmJobObservation, *, now: float = NOW) -> SlurmJobPlan:
    return plan_slurm_job(observed, now=now)


def unreadable(**changes: Any) -> SlurmJobObservation:
    """The last snapshot shows the attempt's job, and nothing more of it."""
    cluster = {"snapshot": snapshot(unreadable=(STRANGE,))}
    return job(unreadable=(STRANGE,), cluster_changes=cluster, last_seen=NOW - 5, **changes)


def beside_a_nameless(*records: Any, **changes: Any) -> SlurmJobObservation:
    """A snapshot in which one record has no readable id or name; the ones before were complete."""
    cluster = {"snapshot": snapshot(*records, nameless=NAMELESS), "snapshot_starts": TWO}
    return job(*records, cluster_changes=cluster, **changes)


class TestUnreadableJob:
    @pytest.mark.parametrize("before", ALL)
    @pytest.mark.parametrize("healthy", [True, None])
    def test_its_attempt_stays_as_it_was(self, before: Phase | None, healthy: bool | None) -> None:
        if before is Phase.DEGRADED and healthy:
            return  # it answers again, which needs no SLURM
        found = plan(unreadable(status=status(before), probe_healthy=healthy))
        expected = before or Phase.WAITING
        if before is Phase.STARTING and healthy:
            expected = Phase.READY
        assert found.status.phase == expected
        assert not [a for a in found.actions if isinstance(a, Submit | Cancel | DeleteSlice)]

    def test_its_worker_stays_in_rotation_and_people_are_told(self) -> None:
        found = plan(
            unreadable(status=status(Phase.READY), probe_healthy=True, slice_target=MEMBER)
        )
        assert (found.status.phase, found.actions) == (Phase.READY, ())
        assert PROBLEM in found.status.message
        assert "what was known is kept" in found.status.message

    def test_its_probes_still_take_it_out(self) -> None:
        found = plan(
            unreadable(status=status(Phase.READY), probe_healthy=False, slice_target=MEMBER)
        )
        assert found.status.phase == Phase.DEGRADED
        assert found.actions == (DeleteSlice(),)

    def test_a_member_whose_status_was_wiped_stays_a_member_and_is_not_submitted(self) -> None:
        found = plan(unreadable(status=AttemptStatus(), slice_target=MEMBER))
        assert found.status.phase == Phase.WAITING
        assert found.status.reason == Reason.RECORDS_UNREADABLE
        assert found.actions == ()

    def test_neither_its_start_nor_an_unclear_submission_runs_out_of_time(self) -> None:
        late = NOW + 10_000
        for before in (Phase.STARTING, Phase.SUBMIT_UNKNOWN, Phase.PENDING):
            found = plan(unreadable(status=status(before)), now=late)
            assert (found.status.phase, found.actions) == (before, ())

    def test_a_readable_record_beside_it_ends_nothing(self) -> None:
        """Of two submissions one was turned away; the other may be the engine."""
        away = record("FAILED", job_id=102, exit_code=75 << 8)
        found = plan(
            job(away, unreadable=(STRANGE,), status=status(Phase.SUBMIT_UNKNOWN), last_seen=NOW)
        )
        assert (found.status.phase, found.actions) == (Phase.SUBMIT_UNKNOWN, ())

    def test_once_it_can_be_read_all_goes_on(self) -> None:
        kept = plan(unreadable(status=status(Phase.READY), probe_healthy=True)).status
        found = plan(job(record(comment=PUBLISHED), status=kept, probe_healthy=True))
        assert (found.status.phase, found.status.message) == (Phase.READY, "")
        over = plan(job(record("FAILED", exit_code=256), status=kept))
        assert over.status.phase == Phase.FAILED


class TestNamelessRecord:
    @pytest.mark.parametrize("before", ALL)
    def test_no_absence_is_concluded(self, before: Phase | None) -> None:
        found = plan(
            beside_a_nameless(status=status(before), last_seen=NOW - 1000, confirmed_gone=True),
            now=NOW + 1000,
        )
        assert found.status.phase == (before or Phase.WAITING)
        concluding = Submit | Cancel | ConfirmGone | CloseGate | RemoveFinalizer
        assert not [a for a in found.actions if isinstance(a, concluding)]
        if before in LIVING and before is not Phase.DEGRADED:
            assert NAMELESS[0] in found.status.message

    def test_what_was_never_submitted_waits(self) -> None:
        found = plan(beside_a_nameless(status=status(Phase.WAITING)))
        assert (found.status.phase, found.status.reason, found.actions) == (
            Phase.WAITING,
            Reason.RECORDS_UNREADABLE,
            (),
        )

    def test_a_readable_job_is_followed(self) -> None:
        found = plan(beside_a_nameless(record("RUNNING"), status=status(Phase.PENDING)))
        assert found.status.phase == Phase.STARTING
        over = plan(beside_a_nameless(record("TIMEOUT"), status=status(Phase.READY)))
        assert over.status.phase == Phase.EXPIRED

    def test_one_that_was_turned_away_does_not_end_the_attempt(self) -> None:
        away = record("FAILED", exit_code=75 << 8)
        found = plan(beside_a_nameless(away, status=status(Phase.SUBMIT_UNKNOWN)))
        assert found.status.phase == Phase.SUBMIT_UNKNOWN
        alone = plan(job(away, status=status(Phase.SUBMIT_UNKNOWN)))
        assert alone.status.phase == Phase.FAILED

    def test_one_that_never_passed_the_gate_does_not_either(self) -> None:
        """Cancelled in the queue, or could not write its claim: another may be let through."""
        away = replace(record("CANCELLED"), batch_host="", nodes="")
        for over in (away, record("FAILED", exit_code=74 << 8)):
            found = plan(beside_a_nameless(over, status=status(Phase.READY), slice_target=MEMBER))
            assert (found.status.phase, found.actions) == (Phase.READY, ())

    def test_what_sbatch_said_is_not_lost(self) -> None:
        said = status(
            Phase.SUBMIT_UNKNOWN, message="sbatch gave no clear answer (Socket timed out)"
        )
        assert plan(beside_a_nameless(status=said)).status.message == said.message

    def test_one_of_another_id_does_not_speak_for_the_attempt(self) -> None:
        second = record("PENDING", job_id=102)
        serving = status(Phase.READY)
        found = plan(beside_a_nameless(second, status=serving, slice_target=MEMBER))
        assert (found.status.phase, found.actions) == (Phase.READY, ())
        assert plan(job(second, status=serving)).status.phase == Phase.PENDING

    def test_nothing_is_let_go(self) -> None:
        for before in (Phase.WAITING, Phase.PENDING, Phase.READY):
            found = plan(
                beside_a_nameless(
                    status=status(before), deleting=True, confirmed_gone=True, last_seen=NOW - 1000
                ),
                now=NOW + 10_000,
            )
            assert found.actions == ()
            assert found.status.reason == Reason.RECORDS_UNREADABLE
        over = record("TIMEOUT")
        found = plan(beside_a_nameless(over, status=status(Phase.READY), deleting=True))
        assert found.actions == (RemoveFinalizer(),)


class TestDeletion:
    """Id and name are known, so what its owner wants can be done; not that it is done."""

    def test_it_is_drained_ended_and_held(self) -> None:
        begin = plan(unreadable(status=status(Phase.READY), deleting=True, slice_target=MEMBER))
        assert begin.actions == (DeleteSlice(),)
        out = replace(begin.status, ending=replace(begin.status.ending, draining_since=None))
        drained = plan(unreadable(status=out, deleting=True, load=Load(requests=2)))
        assert drained.actions == ()
        later = NOW + 10
        idle = plan(unreadable(status=drained.status, deleting=True), now=later)
        assert idle.actions == (Terminate(job_id=101),)
        assert idle.status.job.state == "RUNNING"  # as it was last read
        grace = plan(unreadable(status=idle.status, deleting=True), now=later + 10)
        assert grace.actions == ()
        ends = later + 301
        last = plan(unreadable(status=idle.status, deleting=True), now=ends)
        assert last.actions == (Cancel(job_id=101),)
        again = plan(unreadable(status=last.status, deleting=True), now=ends + 30)
        assert again.actions == ()
        assert "cannot be released yet" in again.status.message
        assert PROBLEM in again.status.message

    def test_it_is_let_go_when_it_is_read_to_be_over(self) -> None:
        held = plan(unreadable(status=status(Phase.PENDING), deleting=True))
        assert held.actions == (Cancel(job_id=101),)
        over = job(record("CANCELLED"), status=held.status, deleting=True)
        assert RemoveFinalizer() in plan(over).actions

    def test_one_that_is_over_is_held_while_a_job_of_its_name_cannot_be_read(self) -> None:
        found = plan(unreadable(status=status(Phase.FAILED), deleting=True))
        assert RemoveFinalizer() not in found.actions


class TestClusterState:
    def test_it_is_present(self) -> None:
        state = ClusterState(stale_after=90.0)
        state.take(snapshot(record(), at=NOW))
        assert state.take(snapshot(unreadable=(STRANGE,), at=NOW + 30)).jobs == {JOB_NAME}
        assert state.records(JOB_NAME) == ()
        assert state.unreadable(JOB_NAME) == (STRANGE,)
        assert state.last_seen(JOB_NAME) == NOW + 30
        assert state.snapshot_starts == (NOW, NOW + 30)
        assert state.take(snapshot(unreadable=(STRANGE,), at=NOW + 60)).jobs == frozenset()
        state.confirmed_gone.add((101, JOB_NAME))
        state.take(snapshot(unreadable=(STRANGE,), at=NOW + 90))
        assert not state.confirmed_gone

    def test_a_snapshot_with_a_nameless_record_counts_as_none_for_an_absence(self) -> None:
        state = ClusterState(stale_after=90.0)
        state.take(snapshot(nameless=NAMELESS, at=NOW))
        assert state.snapshot_starts == ()
        assert state.fresh(now=NOW + 1)
        state.take(snapshot(record(), at=NOW + 30))
        state.take(snapshot(nameless=NAMELESS, at=NOW + 60))
        assert state.snapshot_starts == (NOW + 30,)
        assert state.last_seen(JOB_NAME) == NOW + 30


def test_a_submission_seen_unreadable_is_absent_only_after_two_later_looks() -> None:
    now = NOW + 300
    starts = (NOW + 200, NOW + 230, NOW + 260)
    unclear = status(Phase.SUBMIT_UNKNOWN)
    seen = job(status=unclear, starts=starts, last_seen=NOW + 230)
    assert plan(seen, now=now).actions == ()
    gone = job(status=unclear, starts=starts, last_seen=NOW + 200)
    assert [type(action) for action in plan(gone, now=now).actions] == [Submit]


class TestSlurmCluster:
    """What an administrator is told."""

    def status(
        self, found: Snapshot, before: SlurmClusterStatus | None = None, **changes: Any
    ) -> SlurmClusterStatus:
        values: dict[str, Any] = {
            "generation": 1,
            "fresh": True,
            "reason": "",
            "message": "",
            "warning": "",
            "snapshot": found,
            "version": "27.11.1",
            "our_jobs": frozenset({JOB_NAME}),
            "status": before or SlurmClusterStatus(),
            **changes,
        }
        return slurm_cluster_status(SlurmClusterObservation(**values), now=NOW)

    def said(self, status: SlurmClusterStatus, kind: ConditionType) -> tuple[str, str, str]:
        (one,) = (c for c in status.conditions if c.type == kind)
        return one.status, one.reason, one.message

    def test_good(self) -> None:
        found = self.status(snapshot(record()))
        assert self.said(found, ConditionType.SLURM_REACHABLE)[:2] == ("True", "SnapshotComplete")
        assert self.said(found, ConditionType.NODES_VISIBLE)[:2] == ("True", "NodesListed")
        assert (found.nodes, found.jobs, found.summary) == ("1/1", 1, "Reachable")

    def test_unreadable_records_are_named(self) -> None:
        found = self.status(snapshot(unreadable=(STRANGE,)))
        state, reason, message = self.said(found, ConditionType.SLURM_REACHABLE)
        assert (state, reason) == ("True", "RecordsUnreadable")
        assert f"101 {JOB_NAME} ({PROBLEM})" in message
        assert found.jobs == 1
        nameless = self.status(snapshot(nameless=NAMELESS))
        message = self.said(nameless, ConditionType.SLURM_REACHABLE)[2]
        assert NAMELESS[0] in message
        assert "nothing is submitted" in message

    def test_many_are_told_in_one_message_that_fits(self) -> None:
        many = tuple(UnreadableJob(n, "x" * 255, "y" * 60) for n in range(1, 100))
        message = self.said(self.status(snapshot(unreadable=many)), ConditionType.SLURM_REACHABLE)[
            2
        ]
        assert len(message) <= 1024
        assert "and 96 more" in message

    def test_hidden_nodes_are_a_state_that_says_what_is_off(self) -> None:
        found = self.status(snapshot(record(), nodes=()))
        assert self.said(found, ConditionType.SLURM_REACHABLE)[0] == "True"
        state, reason, message = self.said(found, ConditionType.NODES_VISIBLE)
        assert (state, reason) == ("False", "NodesHidden")
        for off in ("states of nodes", "maintenance", "how many can be used"):
            assert off in message
        assert (found.nodes, found.jobs, found.summary) == ("hidden", 1, "Reachable")

    def test_an_event_once(self) -> None:
        good = self.status(snapshot(record()))
        bad = self.status(snapshot(unreadable=(STRANGE,)), good)
        pairs = ((good, good), (good, bad), (bad, bad), (bad, good))
        (told,) = (one for before, after in pairs for one in transitions(before, after))
        assert (told.warning, told.reason) == (True, Reason.RECORDS_UNREADABLE)
        assert PROBLEM in told.message


def test_a_worker_on_hidden_nodes_is_where_its_nodes_name_leads() -> None:
    hidden = {"snapshot": snapshot(nodes=(), hosts={"gpu01": "10.10.0.9"})}
    running = record(comment=PUBLISHED)
    found = plan(job(running, status=status(Phase.PENDING), cluster_changes=hidden))
    assert (found.status.host, found.status.port) == ("10.10.0.9", 41000)
    nowhere = {"snapshot": snapshot(nodes=(), hosts={"gpu01": "gpu01"})}
    found = plan(job(running, status=status(Phase.PENDING), cluster_changes=nowhere))
    assert found.status.reason == Reason.ADDRESS_REFUSED
    assert "gpu01 is a name that cannot be looked up" in found.status.message

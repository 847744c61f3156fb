"""An operator whose clock is set back must neither wait for ever nor act too early."""

from __future__ import annotations

from isthmus.api.conditions import Phase
from isthmus.api.times import epoch, rfc3339
from isthmus.rules.clocks import not_in_the_future
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.plan import plan_slurm_job
from tests.unit.builders import JOB_NAME, LIMITS, NOW, job, record, snapshot, status

HOUR = 3600.0


def test_what_we_wrote_in_the_future_was_written_now() -> None:
    ahead = status(Phase.DRAINING, draining_since=rfc3339(NOW + HOUR), end_time=rfc3339(NOW + HOUR))
    found = not_in_the_future(ahead, now=NOW)
    assert epoch(found.draining_since) == NOW
    assert found.end_time == ahead.end_time  # SLURM's
    assert not_in_the_future(found, now=NOW) is found


def test_an_unclear_submission_is_resolved_after_its_wait() -> None:
    unclear = status(
        Phase.SUBMIT_UNKNOWN,
        submit_started_at=rfc3339(NOW + HOUR),
        unknown_since=rfc3339(NOW + HOUR),
    )
    waits = plan_slurm_job(job(status=unclear, starts=(NOW - 5,)), now=NOW)
    assert waits.actions == ()
    assert waits.requeue_after is not None
    assert waits.requeue_after <= LIMITS.submit_unknown_wait
    later = NOW + LIMITS.submit_unknown_wait + 60
    looked = (later - 30, later - 5)
    again = plan_slurm_job(job(status=waits.status, starts=looked), now=later)
    assert isinstance(again.actions[0], Submit)


class TestSnapshots:
    def test_looks_of_before_do_not_count_as_later(self) -> None:
        state = ClusterState(stale_after=90.0)
        for moment in (NOW, NOW + 30):
            state.take(snapshot(record(), at=moment))
        state.take(snapshot(at=NOW - HOUR))
        assert state.snapshot_starts == (NOW - HOUR,)
        # The job was seen, and is not any more.
        seen = state.last_seen(JOB_NAME)
        assert seen is None or seen <= NOW - HOUR

    def test_one_of_the_future_is_not_fresh(self) -> None:
        state = ClusterState(stale_after=90.0)
        state.take(snapshot(at=NOW))
        assert state.fresh(now=NOW + 1)
        assert not state.fresh(now=NOW - HOUR)

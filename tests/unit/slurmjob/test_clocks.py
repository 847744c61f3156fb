"""An operator whose clock is set back must neither wait for ever nor act too early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.slurmcluster.state import ClusterState
from isthmus.slurmjob.actions import Submit
from isthmus.slurmjob.plan import plan_slurm_job
from isthmus.slurmjob.policy.clocks import not_in_the_future
from isthmus.slurmjob.record import AttemptStatus
from tests.unit.builders import JOB_NAME, LIMITS, NOW, job, record, snapshot, status

HOUR = 3600.0


def test_what_we_wrote_in_the_future_was_written_now() -> None:
    ahead = status(Phase.DRAINING, draining_since=rfc3339(NOW + HOUR), end_time=rfc3339(NOW + HOUR))
    found = not_in_the_future(ahead, now=NOW)
    assert found.ending.draining_since == NOW
    assert found.job.end_time == ahead.job.end_time  # SLURM's
    assert not_in_the_future(found, now=NOW) == found


def _moments(record: object) -> Iterator[tuple[str, str, float | None]]:
    """Each time that a status has, in whatever part of it."""
    for one in fields(record):  # type: ignore[arg-type]
        value = getattr(record, one.name)
        if is_dataclass(value):
            yield from _moments(value)
        elif one.type == float | None:
            yield type(record).__name__, one.name, value


def test_every_time_that_is_not_of_slurm_s_job_is_ours() -> None:
    """A new one that is forgotten would be waited for as long as the clock was set back by."""
    late = {name: rfc3339(NOW + HOUR) for name in SlurmJobStatus.model_fields if _is_time(name)}
    found = not_in_the_future(AttemptStatus.read(SlurmJobStatus(**late)), now=NOW)
    moments = list(_moments(found))
    assert len(moments) == len(late)
    for part, name, moment in moments:
        assert (name, moment) == (name, NOW + HOUR if part == "Job" else NOW)


def _is_time(name: str) -> bool:
    extra = SlurmJobStatus.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and extra.get("format") == "date-time"


@pytest.mark.parametrize("field", sorted(filter(_is_time, SlurmJobStatus.model_fields)))
def test_one_moment_of_ours_in_the_future_is_enough(field: str) -> None:
    late = AttemptStatus.read(SlurmJobStatus.model_validate({field: rfc3339(NOW + HOUR)}))
    found = not_in_the_future(late, now=NOW)
    ((part, moment),) = [(part, moment) for part, _, moment in _moments(found) if moment]
    assert moment == (NOW + HOUR if part == "Job" else NOW)


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

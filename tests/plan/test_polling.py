"""When a job has its cluster looked at sooner than the poll interval."""

from dataclasses import replace

import pytest

from isthmus.api.conditions import Phase
from isthmus.api.slurmjob import SlurmJobStatus
from isthmus.api.times import rfc3339
from isthmus.plan.policy.polling import LOOK_EVERY, YOUNG, look_in
from tests.plan.builders import NOW
from tests.plan.builders import job as job_observation

STARTED = rfc3339(NOW - 5)


@pytest.mark.parametrize(
    ("status", "sooner"),
    [
        (SlurmJobStatus(phase=Phase.PENDING, submit_started_at=STARTED), True),
        (SlurmJobStatus(phase=Phase.STARTING, submit_started_at=STARTED), True),
        (SlurmJobStatus(phase=Phase.SUBMIT_UNKNOWN, submit_started_at=STARTED), True),
        (SlurmJobStatus(phase=Phase.STARTING, submit_started_at=STARTED, port=1), False),
        (SlurmJobStatus(phase=Phase.READY, submit_started_at=STARTED), False),
        (SlurmJobStatus(phase=Phase.WAITING), False),
        (SlurmJobStatus(phase=Phase.PENDING, submit_started_at=rfc3339(NOW - YOUNG - 1)), False),
    ],
)
def test_only_awaited_starts_ask_for_more(status: SlurmJobStatus, sooner: bool) -> None:
    observed = job_observation(status=status)
    assert (look_in(observed, status=status, now=NOW) is not None) is sooner


def test_never_more_often_than_every_ten_seconds() -> None:
    status = SlurmJobStatus(phase=Phase.PENDING, submit_started_at=STARTED)
    observed = job_observation(status=status)
    snapshot = observed.cluster.snapshot
    assert snapshot is not None
    old = replace(snapshot, started_at=NOW - LOOK_EVERY - 1)
    young = replace(snapshot, started_at=NOW - 4)
    for taken, seconds in ((old, 0.0), (young, LOOK_EVERY - 4)):
        cluster = replace(observed.cluster, snapshot=taken)
        assert look_in(replace(observed, cluster=cluster), status=status, now=NOW) == seconds


def test_a_cluster_that_cannot_be_seen_is_left_to_its_poller() -> None:
    status = SlurmJobStatus(phase=Phase.PENDING, submit_started_at=STARTED)
    observed = job_observation(status=status)
    stale = replace(observed, cluster=replace(observed.cluster, fresh=False))
    assert look_in(stale, status=status, now=NOW) is None
